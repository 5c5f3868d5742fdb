"""Layer by layer: how general features are, by transfer between halves of the categories, and by linear probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cnn_interp.diagnosis.small_network import (
    Pictures,
    SmallNetwork,
    accuracy,
    binomial_interval,
    train_network,
)
from interpretkit.errors import InputError
from interpretkit.runs.folder import ResumableTable
from interpretkit.runs.progress import progress
from interpretkit.training import derive_seed, numpy_generator

# Yosinski's treatments: whence the first n layers come, and whether they go on learning on B.
TREATMENTS = ("BnB", "BnB+", "AnB", "AnB+")


@dataclass(frozen=True)
class Transfer:
    """Accuracies on B of networks whose first layers were copied.

    Attributes
    ----------
    rows : tuple of dict
        Each with ``treatment`` (``base`` or one of ``TREATMENTS``), ``depth`` (layers copied), ``repeat`` and
        ``accuracy``.
    depths : int
        How many layers there are to copy.
    categories_a, categories_b : tuple of tuple of str
        The halves of each repeat.
    test_images : int
        Number of test images of B, in one repeat.
    """

    rows: tuple[Mapping[str, Any], ...]
    depths: int
    categories_a: tuple[tuple[str, ...], ...]
    categories_b: tuple[tuple[str, ...], ...]
    test_images: int

    def accuracies(self, treatment: str, depth: int) -> NDArray[np.float64]:
        """Return the accuracy of each repeat, ``(repeats,)``."""
        rows = [row for row in self.rows if (row["treatment"], row["depth"]) == (treatment, depth)]
        return np.array([row["accuracy"] for row in sorted(rows, key=lambda row: row["repeat"])])

    @property
    def base(self) -> float:
        """The mean accuracy of networks trained on B as a whole."""
        return float(self.accuracies("base", 0).mean())

    def curve(self, treatment: str) -> NDArray[np.float64]:
        """Return the mean accuracy for 1 … N copied layers, ``(N,)``."""
        return np.array([self.accuracies(treatment, n).mean() for n in range(1, self.depths + 1)])


def transfer(
    pictures: Pictures,
    *,
    widths: Sequence[int] = (16, 32, 64, 64),
    epochs: int = 8,
    repeats: int = 1,
    seed: int = 0,
    device: str | torch.device = "cpu",
    state: Path | None = None,
    quiet: bool = True,
) -> Transfer:
    """Copy the first n layers between networks and see what is lost (Yosinski et al. 2014, arXiv 1411.1792).

    The categories are split at random into halves A and B. A network is trained on each. For n = 1 … N, a network's
    first n layers are copied from the one of B (BnB) or of A (AnB), the others begin anew, and it is trained on B with
    the copied layers frozen or, with a plus, learning on. AnB below BnB: features were made for A. BnB below the
    network trained on B as a whole: layers had been fitted to each other.

    Parameters
    ----------
    pictures : Pictures
        Pictures of at least four categories.
    widths : sequence of int
        Channels of the N layers; see :class:`~cnn_interp.diagnosis.small_network.SmallNetwork`.
    epochs : int
        Number of epochs of every training.
    repeats : int
        Splits of the categories, each with weights of its own.
    seed : int
        Seed of splits, weights and orders.
    device : str or torch.device
        Where to train.
    state : path, optional
        A folder that keeps what has been done, so that an interrupted run goes on where it stopped.
    quiet : bool
        Show no progress.

    Returns
    -------
    Transfer

    Raises
    ------
    InputError
        If there are too few categories, an argument is below 1, or `state` is of other arguments.
    """
    count = len(pictures.categories)
    if count < 4:
        raise InputError(f"pictures: {count} categories; expected at least 4, two for each half")
    for name, value in (("epochs", epochs), ("repeats", repeats), ("widths", len(widths))):
        if value < 1:
            raise InputError(f"{name} {value}: expected at least 1")
    side = min(pictures.train.shape[-2:])
    if side >> (len(widths) - 1) < 1:
        raise InputError(
            f"widths: {len(widths)} layers, each of which but the first halves images of {side} px; expected at "
            f"most {side.bit_length()}"
        )
    work = _Work(pictures, tuple(widths), epochs, seed, torch.device(device), state)
    rows: list[Mapping[str, Any]] = []
    halves = [_halves(count, seed, repeat) for repeat in range(repeats)]
    total = repeats * (2 + len(TREATMENTS) * len(widths))
    with ExitStack() as stack:
        table = None
        if state is not None:
            table = stack.enter_context(ResumableTable(state / "rows.jsonl", key="run"))
            _check_same(table, work.description(), state)
        bar = stack.enter_context(progress("Transferring layers", total, quiet=quiet))
        for repeat, (a, b) in enumerate(halves):
            bases = {}
            for name, half in (("A", a), ("B", b)):
                bases[name] = work.base(name, half, repeat)
                bar.advance(note=f"base {name}")
            runs = [("base", 0)] + [(t, n) for n in range(1, len(widths) + 1) for t in TREATMENTS]
            for treatment, depth in runs:
                identity = f"{repeat} {treatment} {depth}"
                known = [row for row in table.rows if row["run"] == identity] if table is not None else []
                if known:
                    row = known[0]
                else:
                    found = work.treated(treatment, depth, bases, b, repeat)
                    row = {
                        "run": identity, "repeat": repeat, "treatment": treatment, "depth": depth, "accuracy": found,
                    }  # fmt: skip
                    if table is not None:
                        table.append(row)
                rows.append({key: row[key] for key in ("repeat", "treatment", "depth", "accuracy")})
                if treatment != "base":
                    bar.advance(note=f"{treatment} {depth}: {row['accuracy']:.3f}")
    named = [
        tuple(tuple(pictures.categories[category] for category in pair[side]) for pair in halves)
        for side in (0, 1)
    ]
    test = int(np.isin(pictures.test_labels.numpy(), halves[-1][1]).sum())
    return Transfer(tuple(rows), len(widths), named[0], named[1], test)


@dataclass(frozen=True)
class _Work:
    """The trainings that a transfer is made of."""

    pictures: Pictures
    widths: tuple[int, ...]
    epochs: int
    seed: int
    device: torch.device
    state: Path | None

    def description(self) -> dict[str, Any]:
        return {
            "data": self.pictures.name,
            "images": len(self.pictures.train),
            "widths": list(self.widths),
            "epochs": self.epochs,
            "seed": self.seed,
        }

    def half(self, categories: NDArray[np.intp], part: str) -> tuple[Tensor, Tensor]:
        """Return the images of some categories and their labels, counted from 0."""
        pixels, labels = (
            (self.pictures.train, self.pictures.train_labels)
            if part == "train"
            else (self.pictures.test, self.pictures.test_labels)
        )
        rows = torch.from_numpy(np.isin(labels.numpy(), categories))
        numbers = np.searchsorted(categories, labels[rows].numpy())
        return pixels[rows].to(self.device), torch.from_numpy(numbers).long().to(self.device)

    def fresh(self, outputs: int, repeat: int, name: str) -> SmallNetwork:
        channels = self.pictures.train.shape[1]
        seed = derive_seed(self.seed, "weights", repeat, name)
        return SmallNetwork(channels, outputs, self.widths, seed=seed).to(self.device)

    def base(self, name: str, categories: NDArray[np.intp], repeat: int) -> SmallNetwork:
        model = self.fresh(len(categories), repeat, name)
        train_network(
            model,
            *self.half(categories, "train"),
            epochs=self.epochs,
            seed=derive_seed(self.seed, "order", repeat, name),
            checkpoint=None if self.state is None else self.state / f"base-{name}-{repeat}",
        )
        return model

    def treated(
        self, treatment: str, depth: int, bases: Mapping[str, SmallNetwork], b: NDArray[np.intp], repeat: int
    ) -> float:
        """Return the accuracy on B of one network."""
        pixels, labels = self.half(b, "train")
        test, test_labels = self.half(b, "test")
        if treatment == "base":
            return accuracy(bases["B"], test, test_labels.cpu())
        model = self.fresh(len(b), repeat, "upper layers")
        source = bases[treatment[0]]
        model.blocks[:depth].load_state_dict(source.blocks[:depth].state_dict())
        seed = derive_seed(self.seed, "order", repeat, "upper layers")
        if treatment.endswith("+"):
            train_network(model, pixels, labels, epochs=self.epochs, seed=seed)
            return accuracy(model, test, test_labels.cpu())
        # What frozen layers give never changes, so that it is worked out once.
        model.eval()
        with torch.no_grad():
            maps = torch.cat([model.below(some, depth) for some in pixels.split(256)])
        frozen = {key: value.clone() for key, value in model.blocks[:depth].state_dict().items()}
        train_network(model, maps, labels, epochs=self.epochs, trained_from=depth, seed=seed)
        model.blocks[:depth].load_state_dict(frozen)
        return accuracy(model, test, test_labels.cpu())


@dataclass(frozen=True)
class Probe:
    """How well a linear classifier reads labels off a layer.

    Attributes
    ----------
    layer : str
        The layer.
    accuracy : float
        On images that were not fitted, over all folds.
    interval : (float, float)
        Wilson's 95 % interval.
    chance : float
        The share of the most frequent label.
    width : int
        The number of features.
    """

    layer: str
    accuracy: float
    interval: tuple[float, float]
    chance: float
    width: int


def linear_probes(
    features: Mapping[str, ArrayLike],
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    folds: int = 4,
    seed: int = 0,
    quiet: bool = True,
) -> list[Probe]:
    """Fit a linear classifier to each layer's features (Alain and Bengio 2016, arXiv 1610.01644).

    A cheap companion to :func:`transfer` for networks that are not to be trained again: what a layer tells linearly of
    categories for which the network was not made.

    Parameters
    ----------
    features : mapping of str to array_like (n, d)
        Features of each layer.
    labels : array_like of int, (n,)
        What to read off.
    groups : array_like of int, (n,), optional
        Images with the same number are relatives, which stay on one side of each split.
    folds : int
        Number of folds of the cross-validation; features are standardised, and logistic regression fitted, on the
        others.
    seed : int
        Seed of the split.
    quiet : bool
        Show no progress.

    Returns
    -------
    list of Probe
        In the order given.

    Raises
    ------
    InputError
        If there are fewer than two labels, fewer images of one than folds, or all of one in a single group.
    """
    y = np.asarray(labels)
    values, counts = np.unique(y, return_counts=True)
    if y.ndim != 1 or len(values) < 2 or folds < 2 or counts.min() < folds:
        raise InputError(
            f"labels: {len(values)} different ones, the rarest {counts.min() if len(counts) else 0} times; expected "
            f"two or more, each at least as often as there are folds ({folds}, at least 2)"
        )
    if groups is None:
        splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y))
    else:
        relatives = np.asarray(groups)
        if relatives.shape != y.shape or len(np.unique(relatives)) < folds:
            raise InputError(f"groups: expected {len(y)} numbers, of at least {folds} groups")
        splits = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, relatives))
        for fitted, _ in splits:
            absent = np.setdiff1d(values, y[fitted])
            if len(absent):
                raise InputError(
                    f"groups: all images of label {absent[0]} lie in one of {folds} folds; expected more groups of "
                    "it, or fewer folds"
                )
    found = []
    with progress("Probing layers", len(features) * folds, quiet=quiet) as bar:
        for layer, given in features.items():
            bar.stage(layer)
            x = np.asarray(given, dtype=np.float64)
            if x.ndim != 2 or len(x) != len(y) or not np.isfinite(x).all():
                raise InputError(
                    f"features of {layer}: shape {x.shape}; expected finite numbers ({len(y)}, d)"
                )
            right = 0
            for fitted, held_out in splits:
                probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
                right += int((probe.fit(x[fitted], y[fitted]).predict(x[held_out]) == y[held_out]).sum())
                bar.advance()
            share = right / len(y)
            interval = binomial_interval(share, len(y))
            found.append(Probe(layer, share, interval, float(counts.max() / len(y)), x.shape[1]))
    return found


def _halves(count: int, seed: int, repeat: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    order = numpy_generator(seed, "halves", repeat).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _check_same(table: ResumableTable, description: Mapping[str, Any], state: Path) -> None:
    known = [row for row in table.rows if row["run"] == "arguments"]
    if not known:
        table.append({"run": "arguments", **description})
    elif {key: value for key, value in known[0].items() if key != "run"} != dict(description):
        raise InputError(
            f"{state}: holds an unfinished transfer with other arguments; remove it to begin anew"
        )
