"""Diagnosis by training data and questions: influence, wrong labels, blind spots, logic rules, attended regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from cnn_interp.diagnosis.blind_spot import plant_blind_spot
from cnn_interp.diagnosis.influence import Risk, influence, losses, self_influence
from cnn_interp.diagnosis.linear_head import Scaling, fit_head, leave_one_out, rank_correlations
from cnn_interp.diagnosis.logic_rules import (
    DIGIT_ATTRIBUTES,
    DIGIT_RULES,
    Examples,
    compare,
    digit_attributes,
    parse_rule,
)
from cnn_interp.diagnosis.mislabels import falsify, found_by_checking
from cnn_interp.diagnosis.question_answering.answerer import answers, train_answerer
from cnn_interp.diagnosis.question_answering.evidence import (
    attended_regions,
    attributed_regions,
    localization,
)
from cnn_interp.diagnosis.question_answering.exam import make_exam, prior_answers
from cnn_interp.diagnosis.unknown_unknowns import (
    EXPLORERS,
    binary_attributes,
    explore,
    frequent_patterns,
    partition,
    utilities,
)
from cnn_interp.images import read_mnist
from interpretkit.bench.evidence import Row
from interpretkit.errors import InputError
from interpretkit.training import numpy_generator

BAR = "docs/diagnosis-data.md, influence"
LEFT_OUT = 100
TRAIN = 600
# As many test images as scikit-learn's digits leave, about.
MOST_UNSEEN = 1500


def run(quick: bool = True, data: Mapping[str, Path] | None = None) -> Iterator[Row]:
    """Yield the rows of evidence on the checks that go back to the training data and to questions.

    Parameters
    ----------
    quick : bool
        Fewer seeds, and a network that answers questions after a quarter of its training, on fewer scenes.
    data : mapping of str to path, optional
        ``mnist``: the folder of its IDX files, for the rows on influence and wrong labels. By default these use the
        digits that come with scikit-learn, as those on rules always do; scenes are generated.
    """
    source = mnist_digits(data["mnist"]) if data and "mnist" in data else scikit_learn_digits()
    yield from convex_head(source)
    yield from small_network(source, 12 if quick else 60)
    yield from wrong_labels(source, range(2 if quick else 5))
    yield from blind_spot(range(1 if quick else 5))
    yield from rules(range(2 if quick else 10))
    yield from questions(*(800, 12) if quick else (3000, 60))


@dataclass(frozen=True)
class Digits:
    """Handwritten digits on a small grid, on which a Hessian stays small.

    Attributes
    ----------
    name : str
        What they are called.
    images : ndarray of float, (n, 8, 8)
        Values in 0 … 1.
    labels : ndarray of int, (n,)
        The digits.
    testing : ndarray of bool, (n,)
        Those published for testing; none where nothing was said.
    """

    name: str
    images: NDArray[np.float64]
    labels: NDArray[np.int64]
    testing: NDArray[np.bool_]

    def order(self, seed: int) -> NDArray[np.intp]:
        """Return the images' numbers in the seed's order, those for testing behind all others."""
        order = numpy_generator(seed, "digits").permutation(len(self.labels))
        return order[np.argsort(self.testing[order], kind="stable")]

    def divided(self, train: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the numbers of so many images to train on, and of others to test on."""
        order = self.order(seed)
        published = self.testing[order]
        # Of a set with a part for testing, only that part is unseen by custom.
        unseen = order[published] if 0 < published.sum() <= len(order) - train else order[train:]
        return order[:train], unseen[:MOST_UNSEEN]

    def scaled(self, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return scaled features and labels of the training images, and of those to test on."""
        train, test = self.divided(TRAIN, seed)
        pixels = self.images.reshape(len(self.images), -1)
        scaling = Scaling.of(pixels[train])
        return scaling(pixels[train]), self.labels[train], scaling(pixels[test]), self.labels[test]


def scikit_learn_digits() -> Digits:
    """Return the 1 797 digits that come with scikit-learn."""
    found: Any = load_digits()
    nowhere = np.zeros(len(found.target), dtype=bool)
    return Digits("scikit-learn's digits", found.images / 16, found.target.astype(np.int64), nowhere)


def mnist_digits(folder: Path, most: int = 10_000) -> Digits:
    """Return MNIST's digits, brought to the grid on which scikit-learn's are: the means of blocks of 4 × 4 px.

    Parameters
    ----------
    folder : path
        Of its IDX files, with images of 28 × 28 px.
    most : int
        So many of the images for training and of those for testing are read, the first ones.

    Raises
    ------
    InputError
        If the files are not as expected, or hold too few images.
    """
    found = read_mnist(folder)
    assert found.split is not None
    rows = np.concatenate([np.flatnonzero(found.split == part)[:most] for part in ("train", "test")])
    if len(rows) < TRAIN + 10:
        raise InputError(f"mnist={folder}: {len(rows)} images; expected at least {TRAIN + 10}")
    pixels = np.stack([found.image(int(row))[..., 0] for row in rows])
    if pixels.shape[1:] != (28, 28):
        raise InputError(
            f"mnist={folder}: images of {pixels.shape[1]} × {pixels.shape[2]} px; expected 28 × 28"
        )
    # Two pixels of margin on each side make 32, as scikit-learn's digits were before they were averaged.
    wide = np.pad(pixels, ((0, 0), (2, 2), (2, 2))) / 255
    small = wide.reshape(len(rows), 8, 4, 8, 4).mean((2, 4))
    return Digits(
        "MNIST at 8 × 8 px", small, found.labels[rows].astype(np.int64), found.split[rows] == "test"
    )


def convex_head(source: Digits, seed: int = 0) -> Iterator[Row]:
    """Compare influence with training again, for logistic regression."""
    features, labels, unseen, truth = source.scaled(seed)
    head = fit_head(features, labels)
    worst = np.argsort(-head.losses(unseen, truth))[:10]
    rows = numpy_generator(seed, "left out").permutation(TRAIN)[:LEFT_OUT]
    measured = leave_one_out(head, features, labels, rows, unseen[worst], truth[worst])
    risk = head.risk(features, labels)
    test = torch.from_numpy(unseen[worst]), torch.from_numpy(truth[worst])
    for solver, options in (("cg", {}), ("lissa", {"iterations": 1000})):
        found = influence(risk, *test, solver=solver, **options)  # type: ignore[arg-type]
        correlations = rank_correlations(found.removal[:, rows], measured)
        yield Row(
            system=f"influence by {'conjugate gradients' if solver == 'cg' else 'LiSSA'}, logistic regression",
            data=f"{source.name}, {TRAIN} for training, the 10 test images of most loss",
            name=f"rank correlation with training again, {LEFT_OUT} images left out one by one, mean",
            value=float(np.mean(correlations)),
            reference=0.9,
            source=BAR,
            seed=seed,
            notes=f"lowest of the ten {min(correlations):.3f}; relative residual {found.residual:.1e}",
        )


def small_network(source: Digits, count: int, seed: int = 0) -> Iterator[Row]:
    """Compare influence with training on from the optimum, for a small convolutional network."""
    train, test = (torch.from_numpy(rows) for rows in source.divided(300, seed))
    images, labels = torch.from_numpy(source.images)[:, None], torch.from_numpy(source.labels)
    x, y, test_x, test_y = images[train], labels[train], images[test], labels[test]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 8, 2), nn.Tanh(), nn.Flatten(),
            nn.Linear(32, 10),
        ).double()  # fmt: skip
    l2 = 0.005
    everyone = torch.ones(300, dtype=torch.float64)
    descend(module, x, y, everyone, l2, 3000)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def test_losses() -> torch.Tensor:
        with torch.no_grad():
            return nn.functional.cross_entropy(module(test_x), test_y, reduction="none")

    before = test_losses()
    worst = before.argsort(descending=True)[:10]
    risk = Risk(module, x, y, l2=l2)
    damping = 0.001
    predicted = influence(risk, test_x[worst], test_y[worst], solver="exact", damping=damping)
    rows = numpy_generator(seed, "left out").permutation(300)[:count]
    changes = []
    for row in rows:
        module.load_state_dict(start)
        without = everyone.clone()
        without[row] = 0
        descend(module, x, y, without, l2, 300)
        changes.append((test_losses() - before)[worst].numpy())
    measured = np.stack(changes, 1)
    correlations = rank_correlations(predicted.removal[:, rows], measured)
    yield Row(
        system="influence, exact Hessian, convolutional network of 506 parameters",
        data=f"{source.name}, 300 for training, the 10 test images of most loss",
        name=f"rank correlation with training on from the optimum, {count} images left out one by one, mean",
        value=float(np.mean(correlations)),
        seed=seed,
        notes=f"not convex; damping {damping}; lowest of the ten {min(correlations):.3f}",
    )


def descend(
    module: nn.Module, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, l2: float, steps: int
) -> None:
    """Train a module in place by full-batch L-BFGS with a line search; examples count by their weights ``(n,)``."""
    parameters = list(module.parameters())
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        history_size=50,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        each = nn.functional.cross_entropy(module(x), y, reduction="none")
        penalty = 0.5 * l2 * sum((p.square().sum() for p in parameters), torch.zeros(()).double())
        value = (weights * each).sum() / len(x) + penalty
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    optimizer.zero_grad(set_to_none=True)


def wrong_labels(source: Digits, seeds: range) -> Iterator[Row]:
    """Rank training images of which a tenth are wrongly labelled."""
    checked = (0.1, 0.2, 0.3)
    found: dict[str, list[list[float]]] = {"self-influence": [], "loss": []}
    for seed in seeds:
        features, labels, *_ = source.scaled(seed)
        wrong, falsified = falsify(labels, 10, 0.1, seed=seed)
        risk = fit_head(features, wrong).risk(features, wrong)
        for name, suspicion in (("self-influence", self_influence(risk)), ("loss", losses(risk))):
            curve = found_by_checking(suspicion, falsified)
            found[name].append([curve[round(share * len(labels)) - 1] for share in checked])
    ours, theirs = (np.mean(found[name], 0) for name in ("self-influence", "loss"))
    for place, share in enumerate(checked):
        yield Row(
            system="self-influence, logistic regression",
            data=f"{source.name}, {TRAIN} for training, a tenth of the labels falsified",
            name=f"share of the wrong labels found in the first {share:.0%}",
            value=float(ours[place]),
            baseline=share,
            seed=seeds[0],
            notes=f"mean of {len(seeds)} seeds; by the training loss {theirs[place]:.3f}; the baseline is chance",
        )


def blind_spot(seeds: range, budget: int = 150) -> Iterator[Row]:
    """Search for the errors that a network trained on biased scenes is sure of."""
    regrets: dict[str, list[float]] = {name: [] for name in EXPLORERS}
    errors: dict[str, list[float]] = {name: [] for name in EXPLORERS}
    for seed in seeds:
        deployed = plant_blind_spot(seed=seed, device="cpu", quiet=True)
        confidence = deployed.probabilities.max(1)
        sure = np.flatnonzero(confidence >= 0.65)
        attributes, _ = binary_attributes(
            {name: [values[row] for row in sure] for name, values in deployed.columns().items()}
        )
        parts = partition(attributes, confidence[sure], frequent_patterns(attributes))
        predictions, labels = deployed.predictions[sure], deployed.labels[sure].tolist()
        best = utilities(predictions != np.array(labels))
        for name in EXPLORERS:
            runs = [
                explore(
                    parts,
                    predictions,
                    labels.__getitem__,
                    budget=budget,
                    explorer=name,
                    confidence=confidence[sure],
                    seed=repeat,
                )
                for repeat in range(10)
            ]
            regrets[name].append(float(np.mean([one.regret(best)[-1] for one in runs])))
            errors[name].append(float(np.mean([one.wrong.sum() for one in runs])))
    for name in EXPLORERS:
        yield Row(
            system=f"unknown unknowns, {name.replace('_', '-')}",
            data="scenes of one thing; in training whatever is blue is a square",
            name=f"cumulative regret after {budget} questions",
            value=float(np.mean(regrets[name])),
            baseline=float(np.mean(regrets["random"])),
            seed=seeds[0],
            notes=f"{np.mean(errors[name]):.1f} errors found; {len(seeds)} networks, 10 searches each; the baseline "
            "asks at random",
        )


def rules(seeds: range, labels_per_class: int = 3) -> Iterator[Row]:
    """Teach rules about holes in figures to a network with few labels."""
    found: Any = load_digits()
    inputs = torch.from_numpy(found.data / 16).float()
    attributes = torch.from_numpy(digit_attributes(found.images)).float()
    labels = torch.from_numpy(found.target).long()
    known = [parse_rule(text, DIGIT_ATTRIBUTES, [str(n) for n in range(10)]) for text in DIGIT_RULES]
    # Rules and settings were chosen on the first thousand of this order, so that the rest is unseen.
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    train, test = order[:1000], order[1000:]
    results: dict[str, list[list[float]]] = {"anchored": [], "own": []}
    for seed in seeds:
        some = torch.full((1000,), -1)
        generator = numpy_generator(seed, "labels")
        for digit in range(10):
            rows = generator.choice(
                np.flatnonzero(found.target[train.numpy()] == digit), labels_per_class, replace=False
            )
            some[rows] = digit
        examples = Examples(inputs[train], attributes[train], some)
        unseen = Examples(inputs[test], attributes[test], labels[test])
        for name in results:
            verdict, *_ = compare(
                lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
                examples,
                unseen,
                known,
                anchored=name == "anchored",
                epochs=40,
                seed=seed,
                quiet=True,
            )
            results[name].append([verdict.plain, verdict.plain_with_rules, verdict.student, verdict.teacher])
    plain, corrected, student, taught = np.mean(results["anchored"], 0)
    _, _, own_student, own_teacher = np.mean(results["own"], 0)
    gains = np.array(results["anchored"])[:, 2] - np.array(results["anchored"])[:, 0]
    on = f"scikit-learn's digits, {10 * labels_per_class} labels, {1000 - 10 * labels_per_class} images without"
    common: dict[str, Any] = {"data": on, "baseline": float(plain), "seed": seeds[0]}
    note = f"mean of {len(seeds)} draws of labels; the baseline is trained on labels alone"
    yield Row(
        system="logic rules, student",
        name="accuracy on 797 unseen images",
        value=float(student),
        notes=f"{note}; gain {gains.min():+.3f} … {gains.max():+.3f}; the attributes are not shown to the student",
        **common,
    )
    yield Row(
        system="logic rules, teacher",
        name="accuracy on 797 unseen images",
        value=float(taught),
        notes=f"{note}, which corrected by the rules reaches {corrected:.3f}",
        **common,
    )
    yield Row(
        system="logic rules, student of a teacher made from itself",
        name="accuracy on 797 unseen images",
        value=float(own_student),
        notes=f"{note}; its teacher {own_teacher:.3f}: without labels nothing holds the rules' correction back",
        **common,
    )


def questions(scenes: int, unseen: int, seed: int = 0) -> Iterator[Row]:
    """Train a network to answer questions about scenes, and compare where it looks in others with what was asked."""
    model, _ = train_answerer(scenes=scenes, seed=seed, device="cpu", quiet=True)
    exam = make_exam(unseen, seed=seed + 1_000_003)
    rows = np.arange(len(exam))
    truth = exam.answers().numpy()
    prior = prior_answers(make_exam(1000, seed=seed + 2_000_003), exam)
    on = f"{len(exam)} questions about {unseen} generated scenes, after {scenes} others"
    yield Row(
        system="question answering by attention",
        data=on,
        name="accuracy",
        value=float((answers(model, exam) == truth).mean()),
        baseline=float((prior == truth).mean()),
        seed=seed,
        notes="the baseline is the most frequent answer to the same words, without the image",
    )
    maps = {"attention": attended_regions(model, exam, rows).sum(1)}
    for method in ("gradcam", "guided_backprop", "occlusion"):
        maps[method] = attributed_regions(model, exam, rows, method=method)
    for name, found in maps.items():
        result = localization(exam, rows, found)
        yield Row(
            system=f"attended regions, {name}",
            data=f"{result.count} questions about something in {unseen} generated scenes, after {scenes} others",
            name="share of maps whose maximum lies on what was asked about",
            value=result.pointing,
            baseline=result.by_chance,
            seed=seed,
            notes=f"the baseline is a random pixel; pointing at any thing {result.by_any_thing:.3f}; mass on "
            f"it {result.mass:.3f}, its area {result.area:.3f}",
        )
