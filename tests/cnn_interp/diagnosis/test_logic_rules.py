"""The teacher against constrained optimisation, and rules that carry knowledge where labels are few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from torch import nn

from cnn_interp.diagnosis.logic_rules import (
    DIGIT_ATTRIBUTES,
    Examples,
    Imitation,
    Rule,
    compare,
    digit_attributes,
    implication,
    parse_rule,
    rule_table,
    teacher,
    train_with_rules,
)
from interpretkit.errors import InputError


def test_the_teacher_minimises_the_divergence_with_the_rules() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(3, 4, generator=generator, dtype=torch.float64) + 0.1
    probabilities /= probabilities.sum(1, keepdim=True)
    truths = [torch.rand(3, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    rules = [
        Rule("one", lambda a, p: truths[0], 0.7),
        Rule("other", lambda a, p: truths[1], 1.3),
    ]
    strength = 2.5
    found = teacher(probabilities, torch.zeros(3, 0), rules, strength=strength).numpy()
    np.testing.assert_allclose(found.sum(1), 1)
    for row in range(3):
        p = probabilities[row].numpy()
        r = [truth[row].numpy() for truth in truths]

        def objective(x: np.ndarray, p: np.ndarray = p, r: list[np.ndarray] = r) -> float:
            # q and the slacks xi of Hu's equation 3.
            q, slack = x[:4], x[4:]
            return float((q * np.log(q / p)).sum() + strength * slack.sum())

        constraints = [{"type": "eq", "fun": lambda x: x[:4].sum() - 1}]
        constraints += [
            {"type": "ineq", "fun": lambda x, k=k, w=w, r=r: x[4 + k] - w * (1 - x[:4] @ r[k])}
            for k, w in ((0, 0.7), (1, 1.3))
        ]
        best = minimize(
            objective,
            np.array([0.25] * 4 + [2.0, 2.0]),
            constraints=constraints,
            bounds=[(1e-9, 1)] * 4 + [(0, 10)] * 2,
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(found[row], best.x[:4], atol=2e-5)


def test_the_teacher_without_rules_is_the_network() -> None:
    probabilities = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    torch.testing.assert_close(teacher(probabilities, torch.zeros(2, 1), []), probabilities)


def test_an_implication_follows_lukasiewicz() -> None:
    attributes = torch.tensor([[1.0], [0.0], [0.3]])
    truth = implication(0, [1, 2])(attributes, torch.full((3, 3), 1 / 3))
    torch.testing.assert_close(truth, torch.tensor([[0.0, 1, 1], [1, 1, 1], [0.7, 1, 1]]))
    against = implication(0, [1], negated=True)(attributes, torch.full((3, 3), 1 / 3))
    torch.testing.assert_close(against, torch.tensor([[1.0, 1, 1], [0, 1, 0], [0.3, 1, 0.3]]))


def test_rules_are_read_from_text() -> None:
    rule = parse_rule("not two wheels -> car, dog @ 0.5", ["fur", "two wheels"], ["cat", "car", "dog"])
    assert rule.confidence == 0.5
    truth = rule.truth(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 3))
    torch.testing.assert_close(truth, torch.tensor([[0.0, 1, 1], [1, 1, 1]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wheels", "expected ATTRIBUTE -> CATEGORY"),
        ("legs -> car", "no attribute 'legs'; expected one of wheels"),
        ("wheels -> bus", "no category 'bus'; expected some of cat, car"),
        ("wheels -> car @ 1.2.3", "confidence '1.2.3'"),
        ("wheels -> car @ 7", "confidence 7; expected above 0 up to 1"),
        ("wheels -> car @ 0", "confidence 0; expected above 0 up to 1"),
    ],
)
def test_rules_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_rule(text, ["wheels"], ["cat", "car"])


def test_rules_that_give_the_wrong_thing() -> None:
    probabilities = torch.full((2, 3), 1 / 3)
    for truth, message in (
        (lambda a, p: torch.ones(2), "gave shape"),
        (lambda a, p: 2 * torch.ones(2, 3), "out of range"),
    ):
        with pytest.raises(InputError, match=message):
            teacher(probabilities, torch.zeros(2, 1), [Rule("bad", truth)])
    with pytest.raises(InputError, match="at least 0"):
        teacher(probabilities, torch.zeros(2, 1), [Rule("bad", lambda a, p: torch.ones(2, 3), -1)])
    with pytest.raises(InputError, match="none is known"):
        train_with_rules(
            nn.Linear(2, 3), Examples(torch.zeros(2, 2), torch.zeros(2, 1), torch.full((2,), -1)), []
        )


def test_imitation_grows() -> None:
    shares = [Imitation(0.8, 0.9)(epoch) for epoch in range(40)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == 0.8
    with pytest.raises(InputError, match="imitation 2"):
        Imitation(2.0)


def ring(dots: int) -> np.ndarray:
    """Return a 12 × 12 figure with so many holes, one above the other."""
    figure = np.zeros((12, 12))
    figure[1:11, 3:9] = 1
    for number in range(dots):
        figure[2 + 5 * number : 5 + 5 * number, 5:7] = 0
    return figure


def test_holes_are_counted() -> None:
    upside_down = ring(1)[::-1]
    found = digit_attributes(np.stack([ring(0), ring(1), ring(2), upside_down]))
    expected = ("no hole", "one hole above", "two holes", "one hole below")
    np.testing.assert_allclose(found, [[float(n == e) for n in DIGIT_ATTRIBUTES] for e in expected])


def test_holes_of_real_digits_tell_what_they_should() -> None:
    digits: Any = load_digits()
    images, labels = digits.images[:400], digits.target[:400]
    found = digit_attributes(images)
    np.testing.assert_allclose(found.sum(1), 1)
    assert found[labels == 1][:, 0].mean() > 0.95
    assert found[labels == 0][:, 4].mean() > 0.6
    assert labels[found[:, 1] > 0.6].tolist().count(8) >= 0.9 * (found[:, 1] > 0.6).sum()


def test_a_rule_that_halves_the_classes_teaches_what_labels_do_not() -> None:
    """Two labels a class; of all others it is known only whether the figure is below five."""
    digits: Any = load_digits()
    inputs = torch.from_numpy(digits.data / 16).float()
    labels = torch.from_numpy(digits.target).long()
    attributes = (labels < 5).float()[:, None]
    rules = [
        parse_rule("small -> 0, 1, 2, 3, 4", ["small"], list("0123456789")),
        parse_rule("not small -> 5, 6, 7, 8, 9", ["small"], list("0123456789")),
    ]
    known = torch.full((500,), -1)
    for digit in range(10):
        known[(labels[:500] == digit).nonzero()[:2, 0]] = digit
    examples = Examples(inputs[:500], attributes[:500], known)
    unseen = Examples(inputs[900:], attributes[900:], labels[900:])

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    state = torch.random.get_rng_state()
    verdict, _, student = compare(build, examples, unseen, rules, epochs=40, quiet=True)
    assert torch.equal(state, torch.random.get_rng_state())
    assert verdict.plain_with_rules > verdict.plain + 0.05
    # The student knows better although it is not shown the attribute.
    assert verdict.student > verdict.plain + 0.02
    assert verdict.teacher > verdict.student
    assert verdict.rules[0]["holds"] == 1
    again, *_ = compare(build, examples, unseen, rules, epochs=40, quiet=True)
    assert again == verdict
    # A rule that is never right does harm, so the gain above is no matter of course.
    wrong = [parse_rule("not small -> 0, 1, 2, 3, 4", ["small"], list("0123456789"))]
    misled, *_ = compare(build, examples, unseen, wrong, epochs=40, quiet=True)
    assert misled.student < verdict.plain - 0.1
    assert rule_table(wrong, unseen, student(unseen.inputs).softmax(1))[0]["holds"] == 0
