from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cnn_interp.diagnosis import transferability
from cnn_interp.diagnosis.small_network import (
    Pictures,
    SmallNetwork,
    accuracy,
    binomial_interval,
    digits,
    train_network,
)
from cnn_interp.diagnosis.transferability import TREATMENTS, linear_probes, transfer
from interpretkit.errors import InputError


@pytest.fixture(scope="module")
def few() -> Pictures:
    return digits().limited(20, 15)


def test_transfer_has_every_row_and_repeats(few: Pictures) -> None:
    random = torch.get_rng_state()
    first = transfer(few, widths=(4, 8), epochs=2)
    assert torch.equal(random, torch.get_rng_state())
    assert first.rows == transfer(few, widths=(4, 8), epochs=2).rows
    runs = {(row["treatment"], row["depth"]) for row in first.rows}
    assert runs == {("base", 0)} | {(t, n) for t in TREATMENTS for n in (1, 2)}
    assert not set(first.categories_a[0]) & set(first.categories_b[0])
    assert len(first.categories_a[0]) == len(first.categories_b[0]) == 5
    assert first.test_images == 75
    assert all(0 <= row["accuracy"] <= 1 for row in first.rows)
    assert first.rows != transfer(few, widths=(4, 8), epochs=2, seed=1).rows


def test_features_of_noise_are_worse_than_those_of_digits() -> None:
    """Layers learned on categories that have nothing to do with B transfer worse than B's own, and tuning mends it."""
    pictures = digits().limited(60, 30)
    # Where B's first layers are the better ones by far, BnB must be above AnB: A's images are blank.
    a = transfer(pictures.limited(4, 4), widths=(2, 2), epochs=1).categories_a[0]
    blank = np.isin(pictures.train_labels.numpy(), [int(name) for name in a])
    train = pictures.train.clone()
    train[torch.from_numpy(blank)] = 0
    spoilt = Pictures(
        "spoilt", train, pictures.train_labels, pictures.test, pictures.test_labels, pictures.categories
    )
    found = transfer(spoilt, widths=(8, 8), epochs=8)
    assert found.categories_a[0] == a
    assert found.base > 0.7
    assert found.curve("BnB")[1] > found.curve("AnB")[1] + 0.04
    assert found.curve("AnB+")[1] > found.curve("AnB")[1] + 0.04


def test_an_interrupted_transfer_goes_on_and_ends_the_same(
    few: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = transfer(few, widths=(4, 8), epochs=2)
    trained = []
    real = transferability.train_network

    def counted(*arguments: object, **options: object):
        trained.append(options.get("checkpoint"))
        if len(trained) == 6:
            raise KeyboardInterrupt
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(transferability, "train_network", counted)
    with pytest.raises(KeyboardInterrupt):
        transfer(few, widths=(4, 8), epochs=2, state=tmp_path / "state")
    assert transfer(few, widths=(4, 8), epochs=2, state=tmp_path / "state").rows == expected.rows
    # Two bases and three treatments were done; the second run looks at the bases again and trains the other five.
    assert len(trained) == 6 + 2 + 5
    with pytest.raises(InputError, match="other arguments"):
        transfer(few, widths=(4, 8), epochs=3, state=tmp_path / "state")


def test_frozen_layers_stay_as_they_were(few: Pictures) -> None:
    model = SmallNetwork(1, 10, (4, 8))
    before = {key: value.clone() for key, value in model.blocks[0].state_dict().items()}
    with torch.no_grad():
        maps = model.eval().below(few.train, 1)
    train_network(model, maps, few.train_labels, epochs=1, trained_from=1)
    assert all(torch.equal(value, before[key]) for key, value in model.blocks[0].state_dict().items())
    assert not torch.equal(model.head.weight, SmallNetwork(1, 10, (4, 8)).head.weight)


def test_a_network_in_two_halves_is_the_whole() -> None:
    model = SmallNetwork(3, 5, (4, 8, 8)).eval()
    x = torch.rand(2, 3, 16, 16)
    for depth in range(4):
        torch.testing.assert_close(model.above(model.below(x, depth), depth), model(x))


def test_the_small_network_learns_digits() -> None:
    pictures = digits()
    model = SmallNetwork(1, 10, (8, 16))
    train_network(model, pictures.train, pictures.train_labels, epochs=4, learning_rate=0.01)
    assert accuracy(model, pictures.test, pictures.test_labels) > 0.85


def test_probes_read_what_is_linear_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    layers = {
        "linear": np.column_stack([labels + 0.1 * rng.standard_normal(400), rng.standard_normal((400, 5))]),
        "noise": rng.standard_normal((400, 6)),
    }
    sign = rng.choice([-1, 1], 400)
    layers["exclusive or"] = np.column_stack([sign, sign * (2 * labels - 1)]) + 0.1 * rng.standard_normal(
        (400, 2)
    )
    probes = {probe.layer: probe for probe in linear_probes(layers, labels)}
    assert probes["linear"].accuracy > 0.98
    for name in ("noise", "exclusive or"):
        assert abs(probes[name].accuracy - 0.5) < 0.1
    assert list(probes) == list(layers)
    assert probes["noise"].interval[0] < probes["noise"].accuracy < probes["noise"].interval[1]


def test_relatives_stay_together() -> None:
    # Twins share a random mark that tells the label of one from the other's; apart from that there is nothing.
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 4)
    labels = np.repeat(rng.integers(2, size=60), 4)
    marks = np.repeat(rng.standard_normal((60, 80)), 4, axis=0)
    apart = linear_probes({"marks": marks}, labels)[0].accuracy
    together = linear_probes({"marks": marks}, labels, groups=groups)[0].accuracy
    assert apart > 0.95
    assert together < 0.75


def test_wilsons_interval() -> None:
    # Outside values: Newcombe 1998, 81 of 263 and 0 of 20.
    assert binomial_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert binomial_interval(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    # The formula itself (Wilson 1927).
    z = 1.959963984540054
    for hits, count in ((3, 10), (50, 50), (217, 1000)):
        share, scale = hits / count, 1 + z**2 / count
        half = z / scale * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
        middle = (share + z**2 / (2 * count)) / scale
        assert binomial_interval(share, count) == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_bad_input_is_refused(few: Pictures) -> None:
    three = Pictures("three", few.train, few.train_labels, few.test, few.test_labels, ("a", "b", "c"))
    with pytest.raises(InputError, match="3 categories"):
        transfer(three)
    with pytest.raises(InputError, match="epochs 0"):
        transfer(few, epochs=0)
    x = np.zeros((8, 2))
    with pytest.raises(InputError, match="labels"):
        linear_probes({"a": x}, np.zeros(8, dtype=int))
    with pytest.raises(InputError, match="rarest 1"):
        linear_probes({"a": x}, np.array([0] * 7 + [1]))
    with pytest.raises(InputError, match="features of a"):
        linear_probes({"a": x[:3]}, np.arange(8) % 2)
    with pytest.raises(InputError, match="groups"):
        linear_probes({"a": x}, np.arange(8) % 2, groups=np.zeros(8))


def test_probes_refuse_a_label_whose_images_are_all_relatives() -> None:
    features = {"a": np.random.default_rng(0).normal(size=(24, 3))}
    labels = np.repeat([0, 1, 2], 8)
    relatives = np.arange(24)
    relatives[:8] = 0
    with pytest.raises(InputError, match="label 0"):
        linear_probes(features, labels, groups=relatives)
    relatives[:8] = np.arange(8) // 2
    assert linear_probes(features, labels, groups=relatives)[0].layer == "a"
