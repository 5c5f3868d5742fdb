import copy
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from interpretkit.errors import InputError
from interpretkit.training import NonFiniteLossError, TensorBatches, fit, seed_everything


def make_data(n: int = 48) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator)
    return {"x": x, "y": x @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.randn(n, generator=generator)}


def squared_error(model, batch):
    x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
    error = (model(x)[:, 0] - y).square().mean()
    return {"loss": error, "error": error.sqrt()}


def make_model() -> torch.nn.Module:
    seed_everything(3)
    # Dropout draws random numbers in every step, so that equality after a resumption tests the generators'
    # states.
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))


def train(epochs: int, loader: str, **options):
    model = make_model()
    data = make_data()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if loader == "tensors":
        batches = TensorBatches(data, 16, seed=5)
    else:
        generator = torch.Generator().manual_seed(7) if loader == "own generator" else None
        batches = DataLoader(TensorDataset(data["x"], data["y"]), 16, shuffle=True, generator=generator)
    history = fit(
        model,
        batches,
        squared_error,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
        validate=lambda m: {"error": float((m(data["x"])[:, 0] - data["y"]).square().mean())},
        monitor="error",
        epochs=epochs,
        quiet=True,
        **options,
    )
    return model, optimizer, history


def without_times(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("loader", ["tensors", "own generator", "global generator"])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path: Path, loader: str):
    straight, straight_optimizer, straight_history = train(6, loader)
    train(2, loader, checkpoint=tmp_path)
    seed_everything(999)
    resumed, resumed_optimizer, history = train(6, loader, checkpoint=tmp_path)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(
        straight_optimizer.state_dict()["state"].values(),
        resumed_optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
    assert without_times(history.epochs) == without_times(straight_history.epochs)
    assert history.best_epoch == straight_history.best_epoch


def test_training_recovers_planted_weights():
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    history = fit(
        model, TensorBatches(make_data(), 16), squared_error, optimizer=optimizer, epochs=80, quiet=True
    )
    assert model.weight.detach()[0].numpy() == pytest.approx([1.0, -2.0, 0.5], abs=0.1)
    assert history.best_epoch is None
    assert history.stopped == "epochs"


def test_every_epoch_is_reported():
    _, _, history = train(3, "tensors")
    assert history.column("learning_rate") == [0.01, 0.01, 0.005]
    assert history.column("epoch") == [1, 2, 3]
    assert set(history.epochs[0]) == {
        "epoch",
        "train_loss",
        "train_error",
        "error",
        "learning_rate",
        "seconds",
    }


def test_early_stopping_restores_the_best_weights():
    model = make_model()
    seen = []
    figures = iter([3.0, 1.0, 2.0, 2.5, 0.1])

    def validate(m):
        assert not m.training
        assert not torch.is_grad_enabled()
        seen.append(copy.deepcopy(m.state_dict()))
        return {"error": next(figures)}

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    history = fit(
        model,
        TensorBatches(make_data(), 16),
        squared_error,
        optimizer=optimizer,
        epochs=10,
        validate=validate,
        monitor="error",
        patience=2,
        quiet=True,
    )
    assert (history.stopped, history.best_epoch, history.best, len(history.epochs)) == ("patience", 2, 1.0, 4)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, seen[1][name])
        assert not torch.equal(tensor, seen[3][name])
    assert not model.training


@pytest.mark.parametrize(("direction", "best"), [("min", 3), ("max", 2)])
def test_direction_decides_which_epoch_is_best(direction, best):
    figures = iter([-1.0, 0.5, -2.0])
    model = make_model()
    history = fit(
        model,
        TensorBatches(make_data(), 48),
        squared_error,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        epochs=3,
        validate=lambda m: {"score": next(figures)},
        monitor="score",
        direction=direction,
        quiet=True,
    )
    assert history.best_epoch == best


def test_non_finite_loss_is_named_with_its_place_and_leaves_the_weights_finite():
    data = make_data()
    data["y"][20] = float("nan")
    model = make_model()
    with pytest.raises(NonFiniteLossError, match=r"loss is nan .*in epoch 1, batch"):
        fit(
            model,
            TensorBatches(data, 4),
            squared_error,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
            epochs=1,
            quiet=True,
        )
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_clipping_bounds_the_step():
    model = make_model()
    before = torch.nn.utils.parameters_to_vector(model.parameters()).clone()
    data = {name: tensor * 1000 for name, tensor in make_data().items()}
    fit(
        model,
        TensorBatches(data, 48),
        squared_error,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        epochs=1,
        clip_norm=0.25,
        quiet=True,
    )
    step = torch.nn.utils.parameters_to_vector(model.parameters()) - before
    assert float(step.detach().norm()) == pytest.approx(0.25, rel=1e-3)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path):
    train(1, "tensors", checkpoint=tmp_path)
    model = torch.nn.Linear(3, 1)
    with pytest.raises(InputError, match="another model"):
        fit(
            model,
            TensorBatches(make_data(), 16),
            squared_error,
            optimizer=torch.optim.Adam(model.parameters()),
            epochs=2,
            validate=lambda m: {"error": 0.0},
            monitor="error",
            checkpoint=tmp_path,
            quiet=True,
        )


def test_a_damaged_checkpoint_is_refused(tmp_path: Path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.pt: the checkpoint cannot be read"):
        train(1, "tensors", checkpoint=tmp_path)


def test_an_ended_training_is_not_continued(tmp_path: Path):
    first, _, _ = train(3, "tensors", checkpoint=tmp_path)
    again, _, history = train(3, "tensors", checkpoint=tmp_path)
    assert len(history.epochs) == 3
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_unknown_monitored_figure_is_named():
    model = make_model()
    with pytest.raises(ValueError, match="'auc' is not among epoch, train_loss"):
        fit(
            model,
            TensorBatches(make_data(), 16),
            squared_error,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
            epochs=1,
            monitor="auc",
            quiet=True,
        )
