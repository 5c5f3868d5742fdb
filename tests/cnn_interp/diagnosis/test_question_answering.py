"""Questions against the scenes that they are about, and maps against masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cnn_interp.diagnosis.question_answering.answerer import (
    Answerer,
    answer,
    answers,
    load_answerer,
    save_answerer,
    train_answerer,
)
from cnn_interp.diagnosis.question_answering.evidence import (
    WithQuestion,
    attended_regions,
    attributed_regions,
    localization,
    word_importance,
)
from cnn_interp.diagnosis.question_answering.exam import (
    ANSWERS,
    COVERED,
    KINDS,
    LONGEST,
    VOCABULARY,
    Exam,
    as_pixels,
    ask,
    encode,
    make_exam,
    prior_answers,
)
from cnn_interp.images.scenes import Thing, draw_scene
from interpretkit.errors import InputError


@pytest.fixture(scope="module")
def exam() -> Exam:
    return make_exam(12, per_scene=4, seed=5)


@pytest.fixture(scope="module")
def model() -> Answerer:
    torch.manual_seed(0)
    return Answerer(width=16).eval()


def test_answers_are_true() -> None:
    """Answers the questions again from their words, by another way."""
    exam = make_exam(40, seed=1)
    yes = []
    for row, question in enumerate(exam.questions):
        things = exam.scenes[exam.scene_of[row]].things
        words = question.text.split()
        asked = set(question.asked)
        if question.kind == "colour":
            found = [i for i, thing in enumerate(things) if thing.shape == words[-1]]
            assert asked == set(found)
            assert [things[i].colour for i in found] == [question.answer]
        elif question.kind == "shape":
            found = [i for i, thing in enumerate(things) if thing.colour == words[-2]]
            assert [things[i].shape for i in found] == [question.answer]
        elif question.kind == "count":
            wanted = words[2]
            found = [
                i for i, t in enumerate(things) if t.colour == wanted or t.shape in (wanted[:-1], wanted[:-2])
            ]
            assert asked == set(found)
            assert question.answer == str(len(found))
        else:
            shape, reference = words[3], next(t for t in things if t.shape == words[-1])
            side = words[4]
            key = {"left": -1, "right": 1, "above": -1, "below": 1}[side]
            found = [
                t
                for t in things
                if t.shape == shape
                and key
                * (t.column - reference.column if side in ("left", "right") else t.row - reference.row)
                > 0
            ]
            assert (question.answer == "yes") == bool(found)
            yes.append(bool(found))
    assert {question.kind for question in exam.questions} == set(KINDS)
    assert 0.3 < np.mean(yes) < 0.7


def test_exams_are_reproducible() -> None:
    assert make_exam(5, seed=2).questions == make_exam(5, seed=2).questions
    assert make_exam(5, seed=2).questions != make_exam(5, seed=3).questions


def test_no_question_where_none_can_be_asked() -> None:
    twins = draw_scene([Thing("circle", "red", 10, 10, 5), Thing("circle", "red", 30, 30, 5)], "plain")
    generator = np.random.default_rng(0)
    assert ask(twins, "colour", generator) is None
    assert ask(twins, "relation", generator) is None
    with pytest.raises(InputError, match="kind of question 'why'"):
        ask(twins, "why", generator)


def test_words_are_encoded() -> None:
    codes = encode("What color is the circle?")
    assert [VOCABULARY[code] for code in codes if code] == ["what", "colour", "is", "the", "circle"]
    with pytest.raises(InputError, match="'dog' is not known"):
        encode("is there a dog")
    with pytest.raises(InputError, match="0 words"):
        encode("")


def test_attention_is_a_distribution_and_the_network_is_left_alone(model: Answerer, exam: Exam) -> None:
    model.train()
    running = model.encoder[1].running_mean.clone()  # type: ignore[union-attr]
    maps = attended_regions(model, exam, range(6))
    assert maps.shape == (6, 2, 48, 48)
    np.testing.assert_allclose(maps.sum((1, 2, 3)), 1)
    answers(model, exam)
    word_importance(model, exam, [0, 1], method="gradient")
    assert model.training
    assert torch.equal(running, model.encoder[1].running_mean)  # type: ignore[arg-type]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    model.eval()


def test_many_questions_at_once_are_answered_as_one_by_one(model: Answerer, exam: Exam) -> None:
    images, words = exam.images()[:3], exam.words()
    embedded = model.embedding(words[:12].reshape(3, 4, LONGEST))
    together, attention = model.look(model.encoder(images), embedded)
    for scene in range(3):
        for place in range(4):
            alone, looked = model.attend(images[scene : scene + 1], words[4 * scene + place][None])
            torch.testing.assert_close(together[scene, place], alone[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(attention[scene, place], looked[0], rtol=1e-4, atol=1e-5)


def test_words_matter_by_what_covering_them_does(model: Answerer, exam: Exam) -> None:
    found = word_importance(model, exam, [3])[0]
    words = exam.words()[3:4]
    count = int((words != 0).sum())
    assert np.isnan(found[count:]).all()
    image = exam.images()[exam.scene_of[3:4]]
    with torch.no_grad():
        whole = model(image, words).log_softmax(1)[0]
        covered = words.clone()
        covered[0, 2] = VOCABULARY.index(COVERED)
        drop = whole.max() - model(image, covered).log_softmax(1)[0, whole.argmax()]
    assert found[2] == pytest.approx(float(drop), abs=1e-5)


def test_word_gradients_are_derivatives(model: Answerer, exam: Exam) -> None:
    found = word_importance(model, exam, [0], method="gradient")[0]
    words, image = exam.words()[:1], exam.images()[exam.scene_of[:1]]
    with torch.no_grad():
        embedded, features = model.embedding(words), model.encoder(image)

        def score(scale: float) -> torch.Tensor:
            moved = embedded.clone()
            moved[0, 1] *= scale
            return model.look(features, moved[:, None])[0][0, 0].log_softmax(0)

        target = score(1.0).argmax()
        slope = (score(1.01)[target] - score(0.99)[target]) / 0.02
    assert found[1] == pytest.approx(float(slope), abs=2e-3)


def test_regions_by_attribution_are_those_of_each_question(model: Answerer, exam: Exam) -> None:
    maps = attributed_regions(model, exam, [0, 5, 9], method="saliency")
    assert maps.shape == (3, 48, 48)
    alone = attributed_regions(model, exam, [5], method="saliency")
    np.testing.assert_allclose(maps[1], alone[0], rtol=1e-4, atol=1e-7)
    assert attributed_regions(model, exam, [0], method="gradcam").min() >= 0
    asked = WithQuestion(model, exam.words()[0])
    torch.testing.assert_close(asked(exam.images()[:1]), model(exam.images()[:1], exam.words()[:1]))


def test_a_perfect_map_scores_fully_and_a_flat_one_by_its_area(exam: Exam) -> None:
    rows = [row for row, question in enumerate(exam.questions) if question.asked]
    masks = np.stack([exam.mask(row) for row in rows]).astype(float)
    from scipy.ndimage import gaussian_filter

    perfect = localization(exam, rows, masks * (0.5 + np.stack([gaussian_filter(m, 3) for m in masks])))
    assert perfect.pointing == 1
    assert perfect.mass == pytest.approx(1)
    flat = localization(exam, rows, np.ones_like(masks))
    assert flat.pointing == 0
    assert flat.mass == pytest.approx(flat.area)
    assert flat.area < flat.by_chance < flat.by_any_thing < 1
    noise = localization(exam, rows, np.random.default_rng(0).random(masks.shape))
    assert abs(noise.pointing - noise.by_chance) < 0.15
    nothing = [row for row, question in enumerate(exam.questions) if not question.asked]
    with pytest.raises(InputError, match="none asks"):
        localization(exam, nothing, np.ones((len(nothing), 48, 48)))


def test_the_prior_answers_by_words_alone() -> None:
    learned, asked = make_exam(60, seed=7), make_exam(20, seed=8)
    prior = prior_answers(learned, asked)
    truth = asked.answers().numpy()
    # Better than any single answer, far from right.
    single = max((truth == place).mean() for place in range(len(ANSWERS)))
    assert single < (prior == truth).mean() < 0.6
    same = [q.text for q in asked.questions]
    assert all(prior[i] == prior[same.index(text)] for i, text in enumerate(same))


def test_training_learns_repeats_itself_and_can_be_kept(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    options = {"scenes": 48, "per_scene": 4, "epochs": 3, "seed": 1, "device": "cpu", "quiet": True}
    model, history = train_answerer(**options)
    again, _ = train_answerer(**options)
    assert torch.equal(state, torch.random.get_rng_state())
    losses = history.column("train_loss")
    assert losses[-1] < 0.8 * losses[0]
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    path = tmp_path / "answerer.safetensors"
    save_answerer(path, model)
    loaded = load_answerer(path, "cpu")
    scene = make_exam(1, seed=3).scenes[0]
    assert answer(loaded, scene.image, "how many red things are there") == answer(
        model, scene.image, "how many red things are there"
    )
    assert as_pixels(scene.image[None]).shape == (1, 3, 48, 48)
    with pytest.raises(InputError, match="no such file"):
        load_answerer(tmp_path / "absent.safetensors", "cpu")
