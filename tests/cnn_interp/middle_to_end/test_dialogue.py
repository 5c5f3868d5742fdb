import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "disentangling"))
from part_planted import IMAGE, planted_cells  # pyright: ignore[reportMissingImports]

from cnn_interp.disentangling.part_graph import Annotation, Answer, PartSettings, grow
from cnn_interp.middle_to_end.annotators import ErringAnnotator, TrueAnnotator, Truth
from cnn_interp.middle_to_end.dialogue import Dialogue, StaleAnswer
from cnn_interp.middle_to_end.journal import (
    Memory,
    open_journal,
    read_journal,
    standing_entries,
    write_journal,
)
from cnn_interp.middle_to_end.selection import (
    SELECTIONS,
    Likeness,
    Standing,
    chances_shown,
    largest_drop,
    largest_gain,
)
from cnn_interp.middle_to_end.simulation import answers_to_reach, falling, taught
from cnn_interp.middle_to_end.terminal import converse
from interpretkit.errors import InputError
from interpretkit.visualization import new_figure

SETTINGS = PartSettings(near=1, reach=1, rounds=1)
ABOUT = {"part": "nose", "shown": "abc"}


@pytest.fixture(scope="module")
def planted():
    return planted_cells(n=40, seed=1, absent=20)


def dialogue(planted, order="active", log=None, seed=0, **more) -> Any:
    cells, part, _ = planted
    # Images that show the part are like each other, all others like nothing.
    features = np.random.default_rng(seed).normal(size=(len(cells), 64)) / 8
    features[~np.isnan(part[:, 0]), 0] += 1.2
    count = len(more.get("candidates", cells))
    settings = more.pop("settings", SETTINGS)
    select = SELECTIONS[order](count, seed)
    return Dialogue(
        cells, features, part="nose", selection=select, log=log, settings=settings, seed=seed, learned_from=15, **more
    )  # fmt: skip


def said(talk, part, answers):
    annotator = TrueAnnotator(talk, Truth(part))
    for _ in range(answers):
        talk.answer(annotator(talk.question))


def same(one, other):
    assert [t.weights.tolist() for t in one.graph.templates] == [
        t.weights.tolist() for t in other.graph.templates
    ]
    assert (one.question.image, one.question.number) == (other.question.image, other.question.number)
    assert one.annotations == other.annotations
    np.testing.assert_array_equal(one.worth, other.worth)


# -------------------------------------------------------------------------------------------------- what to ask


def standing(likeness, shown, absent, scores=None, spread=None):
    n = len(likeness.distances)
    zero = np.zeros(n)
    return Standing(
        zero if scores is None else scores, chances_shown(likeness, shown, absent),
        zero if spread is None else spread, shown, absent, shown | absent, likeness,
    )  # fmt: skip


def clusters(sizes, d=12, noise=0.25, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.eye(d)[: len(sizes)]
    which = np.repeat(np.arange(len(sizes)), sizes)
    return Likeness.of(centres[which] + noise * rng.normal(size=(len(which), d)) / d**0.5), which


def marked(n, *rows):
    found = np.zeros(n, dtype=bool)
    found[list(rows)] = True
    return found


def test_images_like_those_that_show_the_part_are_likely_to_show_it():
    likeness, which = clusters([20, 20])
    chances = chances_shown(likeness, marked(40, 0, 1), marked(40, 20))
    assert chances[which == 0].min() > chances[which == 1].max() + 0.3
    # Nothing known: neither yes nor no. What is known of the two sides changes places with them.
    assert chances_shown(likeness, marked(40), marked(40)) == pytest.approx(0.5)
    swapped = chances_shown(likeness, marked(40, 20), marked(40, 0, 1))
    assert swapped[which == 1].min() > swapped[which == 0].max() + 0.3


def test_an_image_is_as_like_a_mirror_image_as_the_image_itself():
    features = np.random.default_rng(0).normal(size=(6, 2, 5))
    turned = features.copy()
    turned[3] = turned[3, ::-1]
    turned[4] = turned[3]
    found = Likeness.of(turned)
    assert found.distances[3, 4] == pytest.approx(0)
    np.testing.assert_allclose(Likeness.of(features).distances[0, 3], Likeness.of(turned).distances[0, 3])
    with pytest.raises(InputError, match="finite"):
        Likeness.of(np.full((3, 2), np.nan))


def test_asked_next_is_what_no_image_shown_so_far_is_like():
    likeness, which = clusters([20, 14, 6])
    first = largest_gain(standing(likeness, marked(40), marked(40)))
    # At first one of the largest group, whatever else there is.
    assert which[first.argmax()] == 0
    shown, absent = marked(40, 0, 1, 2, 20), marked(40, 34, 35)
    then = largest_gain(standing(likeness, shown, absent))
    then[shown | absent] = -np.inf
    assert which[then.argmax()] == 1
    # Where the graph is unsure there is more to be gained.
    unsure = np.where(which == 0, 40.0, 1.0)
    again = largest_gain(standing(likeness, shown, absent, spread=unsure))
    again[shown | absent] = -np.inf
    assert which[again.argmax()] == 0


def test_the_published_worth_is_the_drop_of_the_divergence():
    likeness, _ = clusters([6, 5])
    shown, absent = marked(11, 0, 7), marked(11, 3)
    scores = np.random.default_rng(1).normal(10, 4, 11)
    now = standing(likeness, shown, absent, scores=scores)
    alpha, beta = 3.0, 0.1
    apart = likeness.distances / np.median(likeness.distances[~np.eye(11, dtype=bool)])
    wanted = now.chances / now.chances.sum()

    def divergence(values):
        share = np.exp(beta * values) / np.exp(beta * values).sum()
        return float((wanted * np.log(wanted / share)).sum())

    drops = []
    for image in range(11):
        gained = np.maximum(scores[shown].mean() - scores, 0) * np.exp(-alpha * apart[:, image])
        drops.append(divergence(scores) - divergence(scores + gained))
    drops = np.array(drops)
    found = largest_drop(now, decline=alpha, sharpness=beta) / now.chances
    np.testing.assert_allclose(found[~now.closed], drops[~now.closed] - drops[~now.closed].min(), atol=1e-9)


# ------------------------------------------------------------------------------------------------- the dialogue


def test_the_graph_is_the_one_that_grows_from_all_that_was_said(planted):
    cells, part, _ = planted
    talk = dialogue(planted)
    assert [talk.graph, talk.expected_error] == [None, None]
    said(talk, part, 6)
    graph = grow(cells, talk.annotations, pool=talk.pool, settings=SETTINGS)
    assert [t.weights.tolist() for t in talk.graph.templates] == [t.weights.tolist() for t in graph.templates]
    assert talk.question.image not in {entry.image for entry in talk.entries}
    assert 0 < talk.expected_error < 0.5


def test_the_graph_learns_from_images_that_are_likely_to_show_the_part(planted):
    """Half of all images do not show it: among those that are learned from there are few."""
    _, part, _ = planted
    without = []
    for seed in range(5):
        talk = dialogue(planted, order="random", seed=seed)
        said(talk, part, 8)
        assert 0 < len(talk.pool) <= 15
        assert (talk.standing.chances[talk.pool] >= 0.5).all()
        without.append(np.isnan(part[talk.pool, 0]).mean())
    assert np.mean(without) < 0.25


def test_as_long_as_nobody_showed_the_part_nothing_is_surer_than_anything_else(planted):
    _, part, _ = planted
    unsure, chance = (dialogue(planted, order=order, seed=3) for order in ("unsure", "random"))
    for talk in (unsure, chance):
        talk.answer(Answer(talk.question.image, "absent"))
    assert unsure.question.image == chance.question.image
    said(unsure, part, 4)
    left = ~unsure.standing.closed
    assert unsure.question.image == np.flatnonzero(left)[unsure.standing.spread[left].argmax()]


def test_undo_brings_back_what_was_and_a_log_goes_on(planted):
    _, part, _ = planted
    talk, log = dialogue(planted), Memory()
    said(talk, part, 4)
    other = dialogue(planted, log=log)
    said(other, part, 5)
    asked = other.question.image
    other.undo()
    # The same question is asked again, by a number of its own.
    assert other.question.image == talk.question.image
    assert other.question.number == 6
    assert other.annotations == talk.annotations
    same(other, dialogue(planted, log=Memory(log.entries)))
    said(other, part, 1)
    assert other.question.image == asked
    same(other, dialogue(planted, log=Memory(log.entries)))
    assert len(other.entries) == 5
    assert len(other.log) == 7
    for _ in range(5):
        other.undo()
    assert other.graph is None
    assert other.entries == []
    with pytest.raises(InputError, match="nothing was said"):
        other.undo()
    other.skip()
    assert other.entries[0].annotation is None
    assert other.graph is None


def test_an_answer_that_does_not_fit_changes_nothing(planted):
    _, part, _ = planted
    talk = dialogue(planted)
    image = talk.question.image
    for answer in (
        Answer(image, "right"),
        Answer(image, "new template", (500.0, 3.0)),
        Answer(image, "new template", (float("nan"), 3.0)),
        Answer(image, "new template", (5.0, 3.0), (0.0, 3.0)),
    ):
        with pytest.raises(InputError):
            talk.answer(answer)
    said(talk, part, 3)
    image = talk.question.image
    before = talk.log
    with pytest.raises(InputError, match="template 7"):
        talk.answer(Answer(image, "wrong template", (50.0, 50.0), None, 7))
    with pytest.raises(InputError, match="both ways"):
        talk.answer(Answer(image, "flipped", (50.0, 50.0)))
    for stale in (2, 4):
        with pytest.raises(StaleAnswer):
            talk.answer(Answer(image, "absent"), stale)
    with pytest.raises(StaleAnswer):
        talk.answer(Answer(image + 1, "absent"))
    with pytest.raises(StaleAnswer):
        talk.undo(1)
    assert talk.log == before
    assert talk.question.image == image


def test_templates_are_counted_anew_when_one_is_taken_back(planted):
    talk = dialogue(planted)
    for place in (40.0, 60.0, 90.0):
        talk.answer(Answer(talk.question.image, "new template", (place, 100.0)))
    assert len(talk.graph.templates) == 3
    talk.answer(Answer(talk.question.image, "wrong template", (50.0, 50.0), None, 1))
    assert [len(one.annotated) for one in talk.graph.templates] == [1, 2, 1]
    talk.undo()
    talk.undo()
    assert len(talk.graph.templates) == 2
    assert sorted(note.template for note in talk.annotations) == [0, 1]


def test_nothing_is_asked_when_all_was_answered_for(planted):
    _, part, _ = planted
    talk = dialogue(planted, candidates=np.array([0, 1, 30]))
    said(talk, part, 3)
    assert talk.question is None
    with pytest.raises(InputError, match="nothing is asked"):
        talk.skip()
    talk.undo()
    assert talk.question is not None


# -------------------------------------------------------------------------------------------------- the journal


def test_a_journal_keeps_every_answer(planted, tmp_path):
    _, part, _ = planted
    path = tmp_path / "nose.jsonl"
    with open_journal(path, ABOUT) as journal:
        talk = dialogue(planted, log=journal)
        said(talk, part, 3)
        talk.undo()
        with pytest.raises(InputError, match="another process"), open_journal(path, ABOUT):
            pass
    # A kill in the middle of a line: that answer was never taken.
    with path.open("ab") as file:
        file.write(b'{"number": 4, "act": "answ')
    with open_journal(path, ABOUT) as journal:
        again = dialogue(planted, log=journal)
        same(talk, again)
        said(again, part, 1)
    assert standing_entries(read_journal(path, ABOUT)) == again.entries
    write_journal(tmp_path / "copy.jsonl", ABOUT, again.log)
    assert read_journal(tmp_path / "copy.jsonl", ABOUT) == list(again.log)
    with (
        pytest.raises(InputError, match="part 'nose', not 'ear'"),
        open_journal(path, ABOUT | {"part": "ear"}),
    ):
        pass
    with (
        pytest.raises(InputError, match="not that of the dialogue"),
        open_journal(path, ABOUT, [replace(again.log[0], image=39)]),
    ):
        pass


@pytest.mark.parametrize(
    "line",
    ["not json", "{}", '{"number": 7, "act": "skip", "image": 1, "answer": null, "annotation": null}',
     '{"number": 1, "act": "jump", "image": 1, "answer": null, "annotation": null}',
     '{"number": 1, "act": "answer", "image": 1, "answer": {"verdict": "right"}, "annotation": null}'],
)  # fmt: skip
def test_a_damaged_journal_is_refused_in_a_line(line, planted, tmp_path):
    path = tmp_path / "nose.jsonl"
    with open_journal(path, ABOUT) as journal:
        dialogue(planted, log=journal).skip()
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=str(path)), open_journal(path, ABOUT):
        pass
    assert json.loads(path.read_text().splitlines()[0])["about"]["part"] == "nose"


# ------------------------------------------------------------------------------------------------- who answers


def test_the_true_annotator_gives_each_of_the_answers():
    cells, part, turned = planted_cells(n=24, seed=3, absent=5, flip=0.5)
    settings = replace(SETTINGS, facing="either")
    looks = (np.arange(24) % 2).astype(np.int64)
    talk = dialogue((cells, part, turned), "random", settings=settings, seed=2)
    annotator = TrueAnnotator(talk, Truth(part, np.full((24, 2), 30.0), looks, turned), near_enough=0.02)
    verdicts = []
    for _ in range(len(cells)):
        question, answer = talk.question, annotator(talk.question)
        verdicts.append(answer.verdict)
        if answer.verdict not in ("right", "absent"):
            assert answer.position == tuple(part[question.image])
        talk.answer(answer)
    assert verdicts.count("new template") == 2
    assert verdicts.count("absent") == 5
    assert {"right", "wrong box", "wrong template"} <= set(verdicts)
    for note in talk.annotations:
        if note.position is not None:
            assert np.hypot(*(np.array(note.position) - part[note.image])) <= 0.02 * np.hypot(*IMAGE) + 1e-9
    # Of a part that is the other way round, that is said.
    flipped = Truth(part, None, None, ~turned)
    swapped = TrueAnnotator(talk, flipped)
    assert len(talk.graph.templates) == 2
    talk.undo()
    assert swapped(talk.question).verdict in ("flipped", "right", "wrong box", "absent")


def test_an_annotator_errs_at_the_rate_that_is_said(planted):
    _, part, _ = planted
    talk = dialogue(planted)
    true = TrueAnnotator(talk, Truth(part))
    said(talk, part, 3)
    question = talk.question
    wrong = ErringAnnotator(true, talk, 0.3, seed=0)
    answers = [wrong(replace(question, number=number)) for number in range(400)]
    share = np.mean([answer != true(question) for answer in answers])
    assert 0.2 < share < 0.4
    assert ErringAnnotator(true, talk, 0.0)(question) == true(question)
    with pytest.raises(InputError, match="rate"):
        ErringAnnotator(true, talk, 1.5)


def test_chosen_questions_teach_sooner_than_random_ones():
    """Where a quarter of the images shows the part."""
    active, chance, shown = [], [], ([], [])
    for seed in range(6):
        cells, part, _ = planted_cells(n=60, seed=seed, absent=36, noise=0.25)
        candidates = np.r_[0:12, 24:60]
        for order, errors, found in (("active", active, shown[0]), ("random", chance, shown[1])):
            talk = dialogue((cells, part, None), order, seed=seed, candidates=candidates)
            steps = taught(talk, TrueAnnotator(talk, Truth(part)), 6, np.arange(12, 24), part)
            assert [step.answers for step in steps] == list(range(1, 7))
            errors.append(np.mean([step.error for step in steps]))
            found.append(steps[-1].shown)
    # Now and then a graph of few answers takes another part for this one; so the median.
    assert np.median(active) < 0.8 * np.median(chance), (active, chance)
    assert np.mean(shown[0]) > 1.5 * np.mean(shown[1]), shown


def test_answers_to_reach_an_error():
    assert answers_to_reach([0.4, 0.3, 0.1], 0.2) == pytest.approx(2.5)
    assert answers_to_reach([0.4, 0.3, 0.1], 0.4) == 1
    assert answers_to_reach([0.4, 0.3], 0.2) == np.inf
    # A dip by chance is no error reached.
    assert answers_to_reach([0.4, 0.1, 0.4, 0.3], 0.25) == np.inf
    np.testing.assert_allclose(falling([0.4, 0.1, 0.4, 0.3]), [0.4, 0.8 / 3, 0.8 / 3, 0.8 / 3])


def test_images_that_are_measured_on_are_never_asked_about(planted):
    _, part, _ = planted
    talk = dialogue(planted)
    with pytest.raises(InputError, match="none of which may be asked about"):
        taught(talk, TrueAnnotator(talk, Truth(part)), 3, [0, 1], part)


def test_a_dialogue_in_the_terminal(planted, tmp_path):
    lines = iter(
        [
            "r\n",
            "n\n",
            "100 90\n",
            "b\n",
            "oops\n",
            "80 70 30 40\n",
            "u\n",
            "zz\n",
            "a\n",
            "s\n",
            "n\n",
            "500 1\n",
            "q\n",
        ]
    )
    told = []
    talk = dialogue(planted)
    converse(
        talk, lambda question: new_figure(1, 1), str, tmp_path / "asked.png", lambda: next(lines, ""), told.append
    )  # fmt: skip
    verdicts = [entry.answer and entry.answer.verdict for entry in talk.entries]
    assert verdicts == ["new template", "absent", None]
    assert talk.entries[0].annotation == Annotation(talk.entries[0].image, (100.0, 90.0), None, 0, None)
    assert (tmp_path / "asked.png").read_bytes()[:4] == b"\x89PNG"
    assert any("'oops'" in line for line in told)
    assert any("position (500.0, 1.0)" in line for line in told)
