"""Methods that hide parts of the input, and CLEAR, checked by plain loops."""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpretkit.attribution import attribute
from interpretkit.errors import InputError

# The tests are imported by path, so that the shared networks must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from attribution_networks import LooksAt, ReusedInPlace, images, plain


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("layer", ["3", "4", None])
def test_scorecam_is_its_loop(layer, probabilities):
    model, inputs = plain(torch.float64), images().double()
    last = 5 if layer == "4" else 4
    maps = model[:last](inputs).detach()

    def scores(given: Tensor) -> Tensor:
        outputs = model(given).detach()
        return (outputs.softmax(1) if probabilities else outputs)[:, 2]

    found = attribute(
        model, inputs, 2, method="scorecam", layer=layer, probabilities=probabilities, images_per_forward=3
    )
    for image, own, values, weights in zip(inputs, maps, found.values, found.details["weights"], strict=True):
        gains = []
        for channel in own:
            mask = F.interpolate(channel[None, None], (14, 14), mode="bilinear")[0, 0]
            if mask.max() == mask.min():
                gains.append(torch.tensor(float("-inf")).double())
                continue
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            gains.append(scores((image * mask)[None])[0])
        shares = torch.stack(gains).softmax(0)
        torch.testing.assert_close(weights, shares)
        cam = (shares[:, None, None] * own).sum(0).relu()
        expected = F.interpolate(cam[None, None], (14, 14), mode="bilinear")[0]
        torch.testing.assert_close(values, expected)


def test_scorecam_gives_dead_channels_no_weight():
    model = plain(torch.float64)
    with torch.no_grad():
        model[3].weight[2] = 0  # type: ignore[union-attr, operator, index]
        model[3].bias[2] = -1  # type: ignore[union-attr, operator, index]
    weights = attribute(model, images().double(), 0, method="scorecam", layer="4").details["weights"]
    assert (weights[:, 2] == 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(3).double())


def brute_force(value, count: int) -> np.ndarray:
    """Shapley values by their definition, over all coalitions."""
    shapley = np.zeros(count)
    for player in range(count):
        others = [p for p in range(count) if p != player]
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for coalition in itertools.combinations(others, size):
                shapley[player] += weight * (value({*coalition, player}) - value(set(coalition)))
    return shapley


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("baseline", [None, 0.3])
def test_kernel_shap_is_exact_for_few_segments(rows, baseline):
    model, inputs = ReusedInPlace().double(), images(2).double()
    segments = np.arange(14)[:, None] * rows // 14 * 2 + np.arange(14)[None] // 7
    count = 2 * rows
    found = attribute(
        model, inputs, 3, method="kernel_shap", segments=segments, baseline=baseline, samples=300
    )
    model.eval()
    assert found.details["samples"].tolist() == [2**count - 2] * 2
    for row, image in enumerate(inputs):
        fill = torch.full_like(image, baseline or 0.0)
        if baseline is None:
            for number in range(count):
                inside = torch.from_numpy(segments == number)
                fill[:, inside] = image[:, inside].mean(1, keepdim=True)

        def value(coalition: set[int], image: Tensor = image, fill: Tensor = fill) -> float:
            shown = torch.from_numpy(np.isin(segments, list(coalition)))
            with torch.no_grad():
                return float(model(torch.where(shown, image, fill)[None]).softmax(1)[0, 3])

        expected = brute_force(value, count)
        for number in range(count):
            got = found.values[row, 0][torch.from_numpy(segments == number)]
            np.testing.assert_allclose(got, expected[number], rtol=1e-8, atol=1e-12)


def test_kernel_shap_by_samples_comes_near_and_sums_up():
    model, inputs = ReusedInPlace().double(), images(2).double()
    segments = np.arange(14)[:, None] // 4 * 3 + np.arange(14)[None] // 5  # 12 segments
    sizes = np.bincount(segments.ravel())
    exact = attribute(model, inputs, 3, method="kernel_shap", segments=segments, samples=2**12)
    gaps = []
    for samples in (60, 1000):
        found = attribute(model, inputs, 3, method="kernel_shap", segments=segments, samples=samples)
        for row in range(2):
            total = sum(found.values[row, 0][torch.from_numpy(segments == n)][0] for n in range(len(sizes)))
            moved = found.details["scores"][row] - found.details["baseline_scores"][row]
            assert float(total) == pytest.approx(float(moved))
        gaps.append(float((found.values - exact.values).abs().max() / exact.values.abs().max()))
    assert gaps[1] < 0.1
    assert gaps[1] < gaps[0]


@pytest.mark.parametrize("options", [{"method": "kernel_shap"}, {"method": "lime", "ridge": 0.0}])
def test_segments_of_a_linear_model_need_few_samples(options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 4)).double()
    inputs = images(2, 6).double()
    segments = np.arange(36).reshape(6, 6)
    found = attribute(
        model,
        inputs,
        1,
        segments=segments,
        samples=100,
        baseline=0.2,
        probabilities=False,
        **options,
    )
    weights = model[1].weight[1].detach().reshape(3, 6, 6)  # type: ignore[union-attr, operator, index]
    torch.testing.assert_close(found.values[:, 0], (weights * (inputs - 0.2)).sum(1))


def evidence(probability: Tensor, classes: int, examples: int = 1_000_000) -> Tensor:
    corrected = (probability * examples + 1) / (examples + classes)
    return torch.log2(corrected / (1 - corrected))


def test_prediction_difference_of_what_cannot_vary_is_its_loop():
    """The reference's patches are all the same, so that every draw is that patch."""
    model, inputs = plain(torch.float64), images(2).double()
    flat = torch.tensor([0.1, -0.4, 0.7]).double()[None, :, None, None].expand(1, 3, 14, 14)
    found = attribute(
        model,
        inputs,
        1,
        method="prediction_difference",
        window=4,
        padding=2,
        stride=3,
        samples=2,
        reference=flat,
        images_per_forward=3,
    )
    starts = [0, 3, 6, 9, 10]
    assert found.details["windows"] == 25
    total, covered = torch.zeros(2, 14, 14).double(), torch.zeros(14, 14)
    whole = evidence(model(inputs).softmax(1)[:, 1], 5).detach()
    for top, left in itertools.product(starts, starts):
        changed = inputs.clone()
        changed[:, :, top : top + 4, left : left + 4] = flat[:, :, :4, :4]
        gone = evidence(model(changed).softmax(1)[:, 1], 5).detach()
        total[:, top : top + 4, left : left + 4] += (whole - gone)[:, None, None]
        covered[top : top + 4, left : left + 4] += 1
    torch.testing.assert_close(found.values[:, 0], total / covered, rtol=1e-6, atol=1e-9)


def test_prediction_difference_draws_what_the_surroundings_let_expect():
    """Images of waves: a window can be told from what is around it, so that replacing it changes little."""
    generator = np.random.default_rng(0)
    places = np.arange(40)
    phases = generator.uniform(0, 2 * np.pi, 30)
    waves = np.sin(0.5 * places[None, :, None] + 0.8 * places[None, None] + phases[:, None, None])[:, None]
    noise = generator.standard_normal(waves.shape)

    class Total(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, 0, 15:19, 15:19] * marks).sum((1, 2))[:, None]

    marks = torch.from_numpy(generator.standard_normal((4, 4)))
    options = {"window": 4, "padding": 4, "stride": 4, "samples": 20, "method": "prediction_difference"}
    predictable = attribute(Total(), waves[:3], 0, reference=waves, **options).values
    surprising = attribute(Total(), noise[:3], 0, reference=noise, **options).values
    assert predictable.abs().max() < 0.2
    assert surprising.abs().max() > 1
    # Without a reference an image is compared with itself.
    own = attribute(Total(), waves[:1], 0, **options).values
    assert own.abs().max() < 0.2


def test_prediction_difference_finds_what_is_seen():
    inputs = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = attribute(LooksAt(), inputs, 1, method="prediction_difference", window=6, stride=3, samples=3)
    assert found.values[:, :, :10, :10].abs().max() == 0
    assert found.values[:, :, 22:, 22:].abs().min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 12}, "window 12, padding 2: make patches of 16, larger than the inputs"),
        ({"window": 0}, "window 0: expected a whole number"),
        ({"window": 4, "stride": 5}, "stride 5: leaves gaps"),
        ({"window": 4, "reference": np.zeros((1, 2, 20, 20))}, r"reference: has shape \(1, 2, 20, 20\)"),
    ],
)
def test_prediction_difference_refuses_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        attribute(plain(), images(), method="prediction_difference", **options)


@pytest.mark.parametrize("guided", [False, True])
def test_clear_compares_the_classes_responses(guided):
    model, inputs = ReusedInPlace().double(), images().double()
    method = "guided_backprop" if guided else "deconvnet"
    responses = torch.stack(
        [attribute(model, inputs, k, method=method).values.sum(1).relu() for k in range(5)]
    )
    found = attribute(model, inputs, 3, method="clear", guided=guided)
    strength, winner = responses.max(0)
    winner[strength == 0] = -1
    torch.testing.assert_close(found.details["dominant_strength"], strength)
    assert torch.equal(found.details["dominant_class"], winner)
    assert len(winner.unique()) > 2
    torch.testing.assert_close(found.values[:, 0], torch.where(winner == 3, strength, 0))
    with torch.no_grad():
        outputs = model.eval()(inputs)
    few = attribute(model, inputs, method="clear", guided=guided, classes=1).details["dominant_class"]
    for row, numbers in enumerate(few):
        assert set(numbers.unique().tolist()) <= {-1, *outputs[row].topk(2).indices.tolist()}
