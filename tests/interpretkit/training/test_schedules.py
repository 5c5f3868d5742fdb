import pytest
import torch

from interpretkit.training.schedules import one_cycle


@pytest.mark.parametrize("rise", [0.1, 0.2, 0.25, 0.3, 0.5])
@pytest.mark.parametrize("steps", range(1, 21))
def test_any_number_of_steps_has_a_rise_and_a_fall(steps: int, rise: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = one_cycle(optimizer, 2.0, steps, rise=rise)
    rates = [schedule.get_last_lr()[0]]
    for _ in range(steps - 1):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert min(rates) > 0
    assert max(rates) <= 2.0
    if steps > 2:
        assert rates[-1] < 0.001 < 0.1 < max(rates)
