"""The loss of interpretable filters beside its definition."""

from __future__ import annotations

import math

import pytest
import torch

from cnn_interp.learning.filter_loss import (
    FilterLoss,
    TemplateMask,
    make_templates,
    mutual_information,
    template_fits,
)
from interpretkit.errors import InputError


def spots(images: int, side: int, *, strength: float = 60.0, still: bool = False) -> torch.Tensor:
    """Return maps (images, 1, side, side) with one spot each, in all places in turn or always in one."""
    maps = torch.zeros(images, 1, side, side, dtype=torch.float64)
    for k in range(images):
        place = 0 if still else k % (side * side)
        maps[k, 0, place // side, place % side] = strength
    return maps


def test_templates_are_as_published() -> None:
    templates = make_templates(6, 6)
    assert templates.shape == (37, 6, 6)
    at = templates[2 * 6 + 3]
    assert at[2, 3] == 1
    assert at[2, 4] == pytest.approx(1 - 4 / 6)
    assert at[3, 4] == pytest.approx(1 - 8 / 6)
    assert at[5, 0] == -1
    assert bool((templates[-1] == -1).all())


def test_fits_carry_the_published_scale() -> None:
    maps = torch.zeros(1, 1, 6, 6)
    maps[0, 0, 2, 3] = 1
    fits = template_fits(maps, make_templates(6, 6))[0, 0]
    assert fits[2 * 6 + 3] == pytest.approx(0.5 / 36)
    assert fits[-1] == pytest.approx(-0.5 / 36)


def test_information_is_that_of_the_sums_by_hand() -> None:
    maps = torch.rand(3, 2, 2, 2, dtype=torch.float64) * 9
    templates = make_templates(2, 2).double()
    for f in range(2):
        fit = [[float((0.5 / 4 * maps[x, f] * t).sum()) for t in templates] for x in range(3)]
        given = [
            [math.exp(fit[x][t]) / sum(math.exp(fit[k][t]) for k in range(3)) for t in range(5)]
            for x in range(3)
        ]
        marginal = [sum(given[x]) / 5 for x in range(3)]
        by_hand = sum(
            given[x][t] / 5 * math.log(given[x][t] / marginal[x]) for x in range(3) for t in range(5)
        )
        assert float(mutual_information(maps)[f]) == pytest.approx(by_hand, rel=1e-12)


def test_information_is_most_where_each_map_has_a_template_of_its_own() -> None:
    side = 3
    # As many images as templates: a spot in each place, and one that is silent.
    each = torch.cat([spots(9, side, strength=500.0), torch.zeros(1, 1, side, side, dtype=torch.float64)])
    level = float(mutual_information(each)[0])
    assert level > 0.9 * math.log(10)
    assert level <= math.log(10)
    assert float(mutual_information(spots(10, side, still=True))[0]) == pytest.approx(0, abs=1e-12)


def test_the_gradient_is_that_of_the_definition() -> None:
    torch.manual_seed(0)
    maps = (torch.rand(7, 3, 4, 4, dtype=torch.float64) * 8).requires_grad_()
    # The definition, with Z held constant as the article does.
    templates = make_templates(4, 4).double()
    fits = template_fits(maps, templates)
    given = fits - fits.logsumexp(0).detach()
    marginal = given.logsumexp(2, keepdim=True) - math.log(len(templates))
    definition = -(given.exp() * (given - marginal)).sum() / len(templates)
    assert float(definition.detach()) == pytest.approx(-float(mutual_information(maps).sum()), rel=1e-12)
    (expected,) = torch.autograd.grad(definition, maps)

    loss = FilterLoss(3, 4, 4, all_templates=True).double()
    value = loss(maps, torch.zeros(7, dtype=torch.long))
    (found,) = torch.autograd.grad(value, maps)
    assert float(value.detach()) == pytest.approx(float(definition), rel=1e-9)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


def test_the_published_gradient_is_the_term_of_the_assigned_template() -> None:
    torch.manual_seed(1)
    maps = (torch.rand(6, 2, 3, 3, dtype=torch.float64) * 20).requires_grad_()
    labels = torch.tensor([0, 0, 0, -1, -1, 0])
    loss = FilterLoss(2, 3, 3).double()
    (found,) = torch.autograd.grad(loss(maps, labels), maps)

    templates = make_templates(3, 3).double()
    fits = template_fits(maps.detach(), templates)
    log_z = fits.logsumexp(0)
    for x in range(6):
        for f in range(2):
            number = int(maps[x, f].flatten().argmax()) if labels[x] == 0 else 9
            given = [math.exp(fits[x, f, t] - log_z[f, t]) for t in range(10)]
            marginal = sum(given) / 10
            t_hat = 0.5 / 9 * templates[number]
            by_hand = -given[number] / 10 * math.log(given[number] / marginal) * t_hat
            torch.testing.assert_close(found[x, f], by_hand, rtol=1e-9, atol=1e-15)


def test_steps_down_the_loss_make_maps_peaked_and_raise_the_information() -> None:
    torch.manual_seed(2)
    raw = (
        torch.rand(40, 1, 4, 4) * 20
        + torch.nn.functional.one_hot(torch.arange(40) % 16, 16).reshape(40, 1, 4, 4) * 12
    )
    maps = raw.clone().requires_grad_()
    loss = FilterLoss(1, 4, 4, momentum=0.0)
    optimizer = torch.optim.Adam([maps], lr=0.2)
    labels = torch.zeros(40, dtype=torch.long)
    before = float(mutual_information(maps.detach())[0])
    for _ in range(100):
        optimizer.zero_grad()
        loss(maps.clamp_min(0), labels).backward()
        optimizer.step()
    after = maps.detach().clamp_min(0)
    assert float(mutual_information(after)[0]) > before + 0.1

    def share_at_peak(values: torch.Tensor) -> float:
        flat = values.flatten(2)
        return float((flat.amax(2) / flat.sum(2)).mean())

    assert share_at_peak(after) > 1.5 * share_at_peak(raw)


def test_filters_are_of_the_category_that_excites_them() -> None:
    maps = torch.zeros(6, 2, 2, 2)
    labels = torch.tensor([0, 0, 1, 1, 2, -1])
    maps[2:4, 0] = 1.0
    maps[4, 1] = 1.0
    maps[5, 0] = 100.0  # of no category: does not count
    loss = FilterLoss(2, 2, 2, categories=3)
    loss(maps, labels)
    assert loss.category.tolist() == [1, 2]


def test_nothing_is_followed_in_evaluation() -> None:
    loss = FilterLoss(1, 2, 2).eval()
    loss(torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long))
    assert int(loss.seen.sum()) == 0


def test_running_means_of_equal_batches_are_those_of_a_batch() -> None:
    maps, labels = torch.rand(5, 2, 3, 3) * 5, torch.zeros(5, dtype=torch.long)
    once, often = FilterLoss(2, 3, 3), FilterLoss(2, 3, 3)
    once(maps, labels)
    for _ in range(30):
        often(maps, labels)
    torch.testing.assert_close(often.log_mean_fit, once.log_mean_fit, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(often.response, once.response)


def test_masks_let_through_what_is_near_the_centre() -> None:
    maps = torch.ones(1, 1, 8, 8)
    maps[0, 0, 3, 5] = 2.0
    masked = TemplateMask(1)(maps)[0, 0]
    assert masked[3, 5] == 2
    assert masked[3, 4] == pytest.approx(0.5)
    assert masked[2, 4] == 0
    assert masked[7, 0] == 0


def test_centres_by_peak_and_by_gravity() -> None:
    maps = torch.zeros(1, 2, 5, 5)
    maps[0, 0, 0, 0], maps[0, 0, 4, 2], maps[0, 0, 4, 4] = 3.0, 3.0, 3.0
    row, column = TemplateMask(2).centres(maps)
    assert (int(row[0, 0]), int(column[0, 0])) == (0, 0)  # the first of equals
    row, column = TemplateMask(2, centre="centroid").centres(maps)
    assert (int(row[0, 0]), int(column[0, 0])) == (3, 2)
    assert (int(row[0, 1]), int(column[0, 1])) == (2, 2)  # a silent map


def test_a_learned_width_has_a_gradient_and_a_fixed_one_none() -> None:
    maps = torch.rand(2, 3, 6, 6)
    mask = TemplateMask(3, learn_beta=True)
    mask(maps).sum().backward()
    assert mask.log_beta.grad is not None
    assert bool((mask.log_beta.grad != 0).all())
    assert not list(TemplateMask(3).parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_templates(0, 3), "height 0"),
        (lambda: make_templates(3, 3, beta=0), "beta 0"),
        (lambda: TemplateMask(1, centre="middle"), "centre 'middle'"),  # type: ignore[arg-type]
        (lambda: FilterLoss(1, 2, 2, momentum=1.0), "momentum 1.0"),
        (lambda: FilterLoss(0, 2, 2), "filters 0"),
        (
            lambda: FilterLoss(1, 2, 2)(torch.zeros(1, 1, 3, 2), torch.zeros(1)),
            r"maps of shape \(1, 1, 3, 2\)",
        ),
    ],
)
def test_bad_values_are_refused(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=message):
        call()
