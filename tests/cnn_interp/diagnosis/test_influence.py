"""Influence against closed forms, against training again, and against planted wrong labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import nn

from cnn_interp.diagnosis import influence as influence_functions
from cnn_interp.diagnosis.influence import (
    Risk,
    Solver,
    conjugate_gradients,
    cross_entropy,
    extreme_eigenvalues,
    hessian_vector_product,
    influence,
    losses,
    per_example_gradients,
    self_influence,
    squared_error,
)
from cnn_interp.diagnosis.linear_head import Head, Scaling, fit_head, leave_one_out, penultimate_features
from cnn_interp.diagnosis.mislabels import falsify, found_by_checking
from interpretkit.errors import InputError

RIDGE = 0.3


@pytest.fixture(scope="module")
def ridge() -> tuple[Risk, np.ndarray, np.ndarray, np.ndarray]:
    """Return a ridge regression at its minimum, with its rows, targets and weights."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(30, 4))
    targets = rows @ generator.normal(size=4) + generator.normal(size=30)
    weights = np.linalg.solve(rows.T @ rows / 30 + RIDGE * np.eye(4), rows.T @ targets / 30)
    layer = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights)[None])
    risk = Risk(
        layer,
        torch.from_numpy(rows),
        torch.from_numpy(targets)[:, None],
        squared_error,
        l2=RIDGE,
        batch_size=7,
    )
    return risk, rows, targets, weights


@pytest.mark.parametrize("solver", ["cg", "exact"])
def test_ridge_regression_agrees_with_the_closed_form(ridge, solver: Solver) -> None:
    risk, rows, targets, weights = ridge
    test_row, test_target = np.array([0.5, -1.0, 2.0, 0.1]), 0.7
    hessian = rows.T @ rows / 30 + RIDGE * np.eye(4)
    gradients = (rows @ weights - targets)[:, None] * rows
    expected = -((test_row @ weights - test_target) * test_row) @ np.linalg.solve(hessian, gradients.T)
    found = influence(
        risk,
        torch.from_numpy(test_row)[None],
        torch.tensor([[test_target]], dtype=torch.float64),
        solver=solver,
        tolerance=1e-12,
    )
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-8)
    assert found.residual < 1e-9
    # The definition: the derivative of the test loss by a training example's weight, by a central difference.
    correlation = rows.T @ targets / 30

    def loss_with(row: int, weight: float) -> float:
        moved = np.linalg.solve(
            hessian + weight * np.outer(rows[row], rows[row]), correlation + weight * rows[row] * targets[row]
        )
        return 0.5 * (test_row @ moved - test_target) ** 2

    slopes = [(loss_with(row, 1e-5) - loss_with(row, -1e-5)) / 2e-5 for row in range(30)]
    np.testing.assert_allclose(found.values[0], slopes, rtol=1e-5, atol=1e-9)


def test_lissa_reaches_the_solution_of_conjugate_gradients(ridge) -> None:
    risk = ridge[0]
    whole = Risk(risk.module, risk.inputs, risk.targets, squared_error, l2=RIDGE)
    x, y = risk.inputs[:3], risk.targets[:3]
    exact = influence(whole, x, y, solver="cg", tolerance=1e-12)
    # With batches of all examples LiSSA is Richardson's iteration, which converges to the same.
    found = influence(whole, x, y, solver="lissa", iterations=300)
    np.testing.assert_allclose(found.values, exact.values, rtol=1e-6)
    noisy = influence(
        Risk(risk.module, risk.inputs, risk.targets, squared_error, l2=RIDGE, batch_size=15),
        x, y, solver="lissa", iterations=300, samples=4,
    )  # fmt: skip
    assert np.corrcoef(noisy.values.ravel(), exact.values.ravel())[0, 1] > 0.95
    with pytest.raises(InputError, match="diverges with scale 0"):
        influence(whole, x, y, solver="lissa", iterations=300, scale=0.01)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    found: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    train, test = order[:300], order[300:700]
    scaling = Scaling.of(found.data[train])
    return scaling(found.data[train]), found.target[train], scaling(found.data[test]), found.target[test]


def test_influence_ranks_as_training_again_does(digits) -> None:
    features, labels, unseen, truth = digits
    head = fit_head(features, labels)
    assert head.gradient < 1e-7
    worst = np.argsort(-head.losses(unseen, truth))[:3]
    rows = np.random.default_rng(1).choice(300, 40, replace=False)
    measured = leave_one_out(head, features, labels, rows, unseen[worst], truth[worst])
    found = influence(
        head.risk(features, labels), torch.from_numpy(unseen[worst]), torch.from_numpy(truth[worst])
    )
    for place in range(3):
        correlation: Any = spearmanr(found.removal[place, rows], measured[place])
        assert correlation.statistic > 0.95
        # Not only the order: the size, which is underrated where an example is its only support.
        slope = np.polyfit(found.removal[place, rows], measured[place], 1)[0]
        assert 0.8 < slope < 2
    assert found.most_harmful(0, 1)[0] == found.values[0].argmax()
    assert found.most_helpful(0, 1)[0] == found.values[0].argmin()


def test_falsified_labels_are_found(digits) -> None:
    features, labels, *_ = digits
    wrong, falsified = falsify(labels, 10, 0.1, seed=3)
    assert falsified.sum() == 30
    assert (wrong != labels).sum() == 30
    head = fit_head(features, wrong)
    suspicion = self_influence(head.risk(features, wrong))
    assert (suspicion > 0).all()
    assert found_by_checking(suspicion, falsified)[59] > 0.9
    # Who ranks at random finds a fifth in the first fifth.
    random = found_by_checking(np.random.default_rng(0).random(300), falsified)
    assert random[59] < 0.5
    assert random[-1] == 1


def test_the_losses_are_those_of_the_head(digits) -> None:
    features, labels, *_ = digits
    head = fit_head(features, labels)
    np.testing.assert_allclose(losses(head.risk(features, labels)), head.losses(features, labels), rtol=1e-9)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    ).double()


def small_risk(**options) -> Risk:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 1, 6, 6, generator=generator, dtype=torch.float64)
    return Risk(small_network(), x, torch.arange(12) % 3, **options)


def test_gradients_and_products_agree_with_plain_autograd() -> None:
    risk = small_risk(l2=0.1, batch_size=5)
    module = risk.module.eval()
    parameters = list(module.parameters())
    each = per_example_gradients(risk, risk.inputs, risk.targets)
    for row in (0, 7):
        loss = cross_entropy(module(risk.inputs[row : row + 1]), risk.targets[row : row + 1]).sum()
        plain = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])
        torch.testing.assert_close(each[row], plain)
    vector = torch.randn(each.shape[1], 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = hessian_vector_product(risk, vector)
    # A central difference of the gradient along the vector.
    step = 1e-5

    def slope(direction: torch.Tensor, sign: int) -> torch.Tensor:
        moved = small_network().eval()
        start = nn.utils.parameters_to_vector(parameters).detach() + sign * step * direction
        nn.utils.vector_to_parameters(start, moved.parameters())
        loss = cross_entropy(moved(risk.inputs), risk.targets).mean() + 0.05 * start.square().sum()
        gradient = torch.autograd.grad(loss, list(moved.parameters()))
        return torch.cat([g.reshape(-1) for g in gradient]) + 0.1 * start

    for column in range(2):
        difference = (slope(vector[:, column], 1) - slope(vector[:, column], -1)) / (2 * step)
        torch.testing.assert_close(found[:, column], difference, rtol=1e-5, atol=1e-7)


def test_a_network_that_cannot_be_vectorised_gives_the_same() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) if float(x.detach().sum()) < 1e9 else x

    risk = small_risk()
    slow = Risk(Branching(), risk.inputs, risk.targets, cross_entropy)
    torch.testing.assert_close(
        per_example_gradients(slow, risk.inputs, risk.targets),
        per_example_gradients(risk, risk.inputs, risk.targets),
    )


def test_few_gradients_are_held_at_once_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    risk = small_risk(l2=0.5)

    def both() -> tuple[np.ndarray, np.ndarray]:
        one = influence(risk, risk.inputs[:3], risk.targets[:3], damping=1.0, tolerance=1e-10)
        return one.values, self_influence(risk, damping=1.0, tolerance=1e-10)

    expected = both()
    counts = []
    plain = influence_functions._Curvature.gradients

    def counted(self: Any, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        counts.append(len(inputs))
        return plain(self, inputs, targets)

    monkeypatch.setattr(influence_functions._Curvature, "gradients", counted)
    parameters = sum(p.numel() for p in risk.module.parameters())
    monkeypatch.setattr(influence_functions, "MOST_HELD", 2 * parameters)
    for found, wanted in zip(both(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert max(counts) == 2


def test_the_network_is_left_as_it_was() -> None:
    risk = small_risk(parameters=["5"], l2=0.5)
    module = risk.module
    module.train()
    module[0].weight.requires_grad_(False)  # type: ignore[index]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random = torch.random.get_rng_state()
    found = influence(risk, risk.inputs[:2], risk.targets[:2], damping=1.0)
    assert found.values.shape == (2, 12)
    with pytest.raises(InputError):
        influence(risk, risk.inputs[:2], risk.targets[:2], solver="exact", damping=-1)
    assert module.training
    assert [p.requires_grad for p in module.parameters()] == [False] + [True] * 5
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(random, torch.random.get_rng_state())


def test_a_network_that_is_not_at_a_minimum_is_told_so() -> None:
    risk = small_risk()
    low, high = extreme_eigenvalues(risk)
    assert low < 0 < high
    with pytest.raises(InputError, match="negative or no curvature"):
        influence(risk, risk.inputs[:1], risk.targets[:1], solver="exact")
    damped = influence(risk, risk.inputs[:1], risk.targets[:1], damping=-1.2 * low + 0.01)
    exact = influence(risk, risk.inputs[:1], risk.targets[:1], damping=-1.2 * low + 0.01, solver="exact")
    np.testing.assert_allclose(damped.values, exact.values, rtol=1e-4, atol=1e-8)


def test_conjugate_gradients_solve_several_systems() -> None:
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    matrix = half @ half.T + torch.eye(20, dtype=torch.float64)
    wanted = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    wanted[:, 1] = 0
    found = conjugate_gradients(lambda v: matrix @ v, wanted, tolerance=1e-12)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, wanted))
    with pytest.raises(InputError, match="damping"):
        conjugate_gradients(lambda v: -matrix @ v, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": ["classifier"]}, "none of that name"),
        ({"l2": -1.0}, "l2 -1"),
        ({"loss": lambda outputs, targets: outputs.mean()}, "expected one each"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        influence(small_risk(**change), torch.zeros(1, 1, 6, 6).double(), torch.zeros(1).long())


def test_features_of_a_network_are_what_its_head_is_given() -> None:
    from PIL import Image

    from cnn_interp.networks.loading import load_network

    network = load_network("mobilenet_v2", weights="random")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8))
    features = penultimate_features(network, [picture, picture.rotate(90)])
    assert features.shape == (2, 1280)
    with torch.no_grad():
        logits = network.module(network.prepare([picture]))[0]
    head: Any = network.module.get_submodule("classifier.1")
    torch.testing.assert_close(head(torch.from_numpy(features[:1]))[0].detach(), logits, rtol=1e-4, atol=1e-4)


def test_heads_refuse_what_has_no_minimum() -> None:
    with pytest.raises(InputError, match="l2 0"):
        fit_head(np.zeros((4, 2)), np.array([0, 1, 0, 1]), l2=0)
    with pytest.raises(InputError, match="NaN"):
        fit_head(np.full((4, 2), np.nan), np.array([0, 1, 0, 1]))
    assert isinstance(fit_head(np.eye(4), np.array([0, 1, 0, 1])), Head)
