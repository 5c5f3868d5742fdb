"""A cue that was planted is found and taken out; and what is said in a session is what follows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from edited_networks import BLUE, GREEN, LAYER, NAMES, RED, RED_CUE, colour_network, squares

from cnn_interp.diagnosis.linear_head import fit_head
from cnn_interp.images.batches import network_inputs
from cnn_interp.images.planted_cue import CUES, cue_goes_with, plant_cue
from cnn_interp.middle_to_end.editing import EditingSession, refitted, trained_head
from cnn_interp.middle_to_end.editing_dialogue import converse
from cnn_interp.middle_to_end.network_edit import Base
from cnn_interp.middle_to_end.spurious_cue import (
    CUELESS,
    DROPPED,
    METHODS,
    RANDOM,
    REFIT,
    CuePool,
    CueSettings,
    CueTrial,
    SimulatedPerson,
    cue_trial,
)
from interpretkit.errors import InputError

SETTINGS = CueSettings(train=160, user=80, test=160, patterns="filters", answers=2)


@pytest.fixture(scope="module")
def trials() -> list[CueTrial]:
    network, images = colour_network(), squares(400)
    pool = CuePool(network, images, images.categories, NAMES, "mark", LAYER, seed=RED_CUE)
    return [cue_trial(pool, SETTINGS, Base.of(network), category=0, seed=seed) for seed in range(3)]


def mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))


def test_the_planted_cue_is_among_the_first_asked_about_and_is_dropped(trials: list[CueTrial]) -> None:
    for trial in trials:
        assert RED in trial.session.edit.dropped
        assert trial.found_at <= 2
        # What shows the object is kept.
        assert not {GREEN, BLUE}.intersection(trial.session.edit.dropped)


def test_accuracy_under_shift_comes_back_and_nothing_is_lost_elsewhere(trials: list[CueTrial]) -> None:
    assert mean(trial.lost for trial in trials) > 0.4
    for method in (DROPPED, REFIT):
        assert mean(trial.recovered(method) for trial in trials) > 0.5
        assert mean(trial.lost_elsewhere(method) for trial in trials) < 0.02
    after = mean(trial.accuracy[REFIT].shifted for trial in trials)
    assert after > mean(trial.accuracy[RANDOM].shifted for trial in trials) + 0.1
    # It cannot be much better than what never saw the cue.
    assert after < mean(trial.accuracy[CUELESS].shifted for trial in trials) + 0.05
    assert set(trials[0].accuracy) == set(METHODS)


def test_a_person_who_always_errs_keeps_the_cue(trials: list[CueTrial]) -> None:
    session = trials[0].session
    images = session.images
    for errs, verdict in ((0.0, "drop"), (1.0, "keep")):
        person = SimulatedPerson(images, (16, 16), errs)  # type: ignore[arg-type]
        assert person.judge(session.patches(RED)) == verdict


# --------------------------------------------------------------------------------------------------------- a session


@pytest.fixture
def session() -> EditingSession:
    network, images = colour_network(), squares(40)
    shown = plant_cue(images, images.categories, images.categories == 0, category_names=NAMES, seed=RED_CUE)
    return EditingSession.begin(network, Base.of(network), shown, [0, 1], LAYER, "filters")


def test_effect_is_that_of_the_edited_network(session: EditingSession) -> None:
    effect = session.say(f"drop {RED}", f"rename {GREEN} leaf")
    edited = session.edit.apply(session.network)
    inputs = network_inputs(edited, session.images, range(40))
    assert np.array_equal(effect.after, edited.module(inputs).argmax(dim=1).numpy())
    assert np.array_equal(effect.before, session.network.module(inputs).argmax(dim=1).numpy())
    rows = effect.rows()
    assert sum(row["images"] for row in rows) == 40
    assert sum(row["mended"] - row["spoiled"] for row in rows) == round(
        40 * (effect.accuracy[1] - effect.accuracy[0])
    )
    assert {one.number for one in session.candidates()} == {GREEN, BLUE, 3}
    assert len(session.undo().changed) == len(effect.changed)
    assert len(session.undo().changed) == 0
    with pytest.raises(InputError, match="no pattern '9'"):
        session.say("drop 1", "drop 9")
    assert session.edit.answers == ()


def test_a_merged_pattern_shows_its_members_patches(session: EditingSession) -> None:
    session.say(f"merge {RED} {BLUE} as odd")
    images = [patch.image for patch in session.patches(RED, 6)]
    assert len(set(images)) == 6
    own = next(one for one in session.candidates() if one.number == RED)
    assert session.edit.standing.called(own.number) == "odd"
    assert BLUE not in {one.number for one in session.candidates()}


def test_a_layer_trained_anew_is_not_measured_on_what_it_learned_from() -> None:
    """Labels drawn at random cannot be told: what seems to be learned would be the images by heart."""
    network, images = colour_network(seed=2), squares(30)
    labels = np.random.default_rng(5).integers(0, 2, 30)
    shown = plant_cue(images, labels, np.zeros(30, dtype=bool), category_names=NAMES)
    session = EditingSession.begin(network, Base.of(network), shown, [0, 1], LAYER, "filters")
    assert session.refit(1e-6).accuracy[1] < 0.7
    assert not session.measured_on_learned
    by_heart = session.outputs().argmax(axis=1) == labels
    assert by_heart.mean() >= session.effect().accuracy[1]
    session.say("keep 1")
    assert session.edit.refit is None


def test_refit_learns_a_correction_of_the_named_outputs_only() -> None:
    draws = np.random.default_rng(0)
    features, labels = draws.normal(size=(60, 4)), draws.integers(0, 2, 60)
    head = trained_head("linear", features, labels, 2)
    larger = replace(head, weight=torch.randn(5, 4), bias=torch.zeros(5))
    after = refitted(larger, features, labels, np.array([3, 1]), 0.1)
    assert torch.equal(after.weight[[0, 2, 4]], larger.weight[[0, 2, 4]])
    assert not torch.equal(after.weight[[1, 3]], larger.weight[[1, 3]])
    # A penalty that allows nothing changes nothing.
    torch.testing.assert_close(
        refitted(larger, features, labels, np.array([3, 1]), 1e9).weight, larger.weight
    )


def test_an_offset_alike_for_all_classes_changes_nothing_and_one_that_fits_leaves_little() -> None:
    draws = np.random.default_rng(1)
    features, labels = draws.normal(size=(50, 3)), draws.integers(0, 2, 50)
    plain = fit_head(features, labels, l2=0.1)
    alike = fit_head(features, labels, l2=0.1, offset=np.full((50, 2), 7.0))
    np.testing.assert_allclose(alike.weights, plain.weights, atol=1e-7)
    told = np.where(np.eye(2, dtype=bool)[labels], 20.0, -20.0)
    assert float(np.abs(fit_head(features, labels, l2=0.1, offset=told).weights).max()) < 1e-6
    with pytest.raises(InputError, match="offset"):
        fit_head(features, labels, offset=np.zeros((50, 3)))


def test_a_dialogue_in_lines(session: EditingSession, tmp_path: Path) -> None:
    first = session.question()
    assert first is not None
    lines = iter(
        ["", "what", "show 9", f"show {GREEN}", "drop", "rename 1 leaf", "undo", "keep leaf", "done"]
    )
    told: list[str] = []
    kept: list[int] = []
    converse(
        session, lambda _: next(lines, None), told.append, lambda number: tmp_path / f"{number}.png",
        said=lambda: kept.append(len(session.edit.answers)),
    )  # fmt: skip
    assert session.edit.answers[0].line() == f"drop {first}"
    assert session.edit.dropped == (first,)
    assert kept == [1, 2, 1]
    assert any("no pattern '9'" in line for line in told)
    assert any("expected `keep 3`" in line for line in told)
    assert any("no pattern 'leaf'" in line for line in told)
    assert sum("accuracy" in line for line in told) == 3


# ------------------------------------------------------------------------------------------------------- planted cues


@pytest.mark.parametrize("kind", CUES)
def test_a_cue_changes_its_own_pixels_only_and_is_drawn_alike(kind: str) -> None:
    images = squares(6)
    shown = np.array([True, False] * 3)
    cued = plant_cue(images, images.categories, shown, kind=kind, seed=2)  # type: ignore[arg-type]
    for number in range(6):
        changed = (cued.image(number) != images.image(number)).any(axis=2)
        assert not (changed & ~cued.cue_mask(number)).any()
        assert changed.any() == shown[number]
        assert not (cued.object_mask(number) & cued.cue_mask(number)).any()
    some = cued.subset([4, 0])
    assert np.array_equal(some.image(0), cued.image(4))
    assert np.array_equal(some.cue_mask(1), cued.cue_mask(0))
    other = plant_cue(images.subset([4]), [0], [True], kind=kind, seed=2)  # type: ignore[arg-type]
    assert np.array_equal(other.image(0), cued.image(4))


def test_a_larger_cue_covers_more_in_square() -> None:
    images = squares(8)
    # Within what whole pixels and the image's edge leave.
    for kind in ("mark", "sticker"):
        area = [
            np.mean([plant_cue(images, [0] * 8, [True] * 8, kind=kind, size=size).cue_mask(n).mean() for n in range(8)])  # type: ignore[arg-type]
            for size in (1.0, 2.0)
        ]  # fmt: skip
        assert area[1] / area[0] == pytest.approx(4, rel=0.35)
    for kind, size in (("mark", 0.0), ("sticker", 3.0), ("texture", 2.0)):
        with pytest.raises(InputError, match="size"):
            plant_cue(images, [0] * 8, [True] * 8, kind=kind, size=size)  # type: ignore[arg-type]


def test_the_cue_goes_with_one_category_in_exact_shares() -> None:
    labels = np.repeat([0, 1, 2], 20)
    shown = cue_goes_with(labels, 1, within=0.9, elsewhere=0.1, seed=3)
    assert [int(shown[labels == number].sum()) for number in range(3)] == [2, 18, 2]
    assert not np.array_equal(shown, cue_goes_with(labels, 1, within=0.9, elsewhere=0.1, seed=4))
    with pytest.raises(InputError, match="within"):
        cue_goes_with(labels, 1, within=1.5)
