"""Where a network is wrong and sure of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError
from interpretkit.runs.files import read_table

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cnn_interp.diagnosis.unknown_unknowns import Partition

# Of the errors found, so many are drawn.
_MOST_DRAWN = 16
_PART_COLUMNS = {
    "pattern": Column("what the images of the part have in common"),
    "asked": Column("how many the bandit asked about"),
    "wrong": Column("how many of them were wrong"),
    "share wrong": Column("share of those asked about that were wrong", format=".0%"),
    "mean confidence": Column("how sure the network is of them", format=".3f"),
}
_QUERY_COLUMNS = {
    "image": Column("the image asked about"),
    "predicted": Column("what the network says"),
    "label": Column("what is right"),
    "confidence": Column("how sure the network is", format=".3f"),
    "part": Column("the part that it belongs to"),
}
_LABEL_COLUMNS = {
    "image": Column("the image to label"),
    "part": Column("what it has in common with others of its part"),
}


@dataclass(frozen=True)
class _Predictions:
    """What a network said of n images, how sure it was, and what is known of them; a blank label is not known."""

    names: Sequence[str]
    said: Sequence[str]
    confidence: NDArray[np.float64]
    labels: Sequence[str]
    attributes: Mapping[str, Sequence[object]]
    pictures: Sequence[NDArray[np.uint8]] = ()

    def rows(self, rows: NDArray[np.intp]) -> _Predictions:
        places = [int(row) for row in rows]
        return _Predictions(
            [self.names[place] for place in places],
            [self.said[place] for place in places],
            self.confidence[places],
            [self.labels[place] for place in places],
            {name: [values[place] for place in places] for name, values in self.attributes.items()},
            [self.pictures[place] for place in places] if len(self.pictures) else (),
        )


@command(
    out="unknown-unknowns",
    example=[
        "interpretkit cnn diagnose unknown-unknowns --out unknown-unknowns",
        "interpretkit cnn diagnose unknown-unknowns --table predictions.csv --budget 100",
    ],
)
def unknown_unknowns(
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            metavar="CSV",
            help="Predictions: columns predicted, confidence, label (may be blank), and attributes.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[int, typer.Option("--budget", metavar="N", min=1, help="Questions to ask.")] = 150,
    threshold: Annotated[
        float,
        typer.Option("--threshold", metavar="P", help="Predictions of at least this probability are sure."),
    ] = 0.65,
    support: Annotated[
        float, typer.Option("--support", metavar="SHARE", help="A pattern holds at least this share.")
    ] = 0.04,
    longest: Annotated[int, typer.Option("--longest", min=1, help="Attributes in a pattern, at most.")] = 3,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Find where a network is wrong and sure of it.

    Sure predictions are parted by patterns of attributes, and a bandit decides which part to ask about next. Without a
    table, a network is trained that met nothing blue but squares. With a table without labels, the images to label
    first are listed.
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold {threshold}: expected 0 to below 1")
    if not 0 < support <= 1:
        raise InputError(f"support {support}: expected above 0 up to 1")
    if table is not None:
        _read(table)
    import numpy as np

    from cnn_interp.diagnosis import unknown_unknowns as search

    every, accuracy = _planted(seed, device, quiet) if table is None else (_read(table), None)
    sure = every.rows(np.flatnonzero(every.confidence >= threshold))
    if not len(sure.names):
        raise InputError(
            f"threshold {threshold}: no prediction is so sure, the surest is {every.confidence.max():.3g}; "
            "expected less"
        )
    attributes, attribute_names = search.binary_attributes(sure.attributes)
    patterns = search.frequent_patterns(attributes, support=support, longest=longest)
    parts = search.partition(attributes, sure.confidence, patterns)
    known = np.flatnonzero([label != "" for label in sure.labels])
    if len(known):
        found = _explore(sure, known, parts, attribute_names, budget, threshold, seed, accuracy)
        if table is None:
            found.next_step(
                "Search predictions of your own network:",
                "interpretkit cnn diagnose unknown-unknowns --table predictions.csv",
            )
        else:
            found.next_step(
                "Search on, among twice as many predictions:",
                "interpretkit cnn diagnose unknown-unknowns --table",
                table,
                "--budget",
                str(2 * budget),
            )
    else:
        found = _labelling(sure, parts, attribute_names, budget, seed)
    found.values.update(n_sure=len(sure.names), n_parts=len(parts.patterns))
    found.table(
        "parts.csv",
        [{"image": name, "part": _part(parts, row, attribute_names)} for row, name in enumerate(sure.names)],
        {"image": Column("the image"), "part": Column("what it has in common with others of its part")},
    )
    return found.reads(*([] if table is None else [table]))


def _explore(
    every: _Predictions,
    known: NDArray[np.intp],
    parts: Partition,
    attribute_names: Sequence[str],
    budget: int,
    threshold: float,
    seed: int,
    accuracy: float | None,
) -> Finding:
    """Ask for labels as each explorer would, and say what they found."""
    import numpy as np

    from cnn_interp.diagnosis import unknown_unknowns as search
    from cnn_interp.diagnosis.pictures import BAD, picture_grid

    # Where only some are labelled, those alone can be asked about.
    sure = every.rows(known)
    patterns = [search.Pattern(p.attributes, p.rows[known]) for p in parts.patterns]
    parts = search.Partition(tuple(patterns), parts.part[known])
    wrong = np.array([said != label for said, label in zip(sure.said, sure.labels, strict=True)])
    asked = min(budget, len(wrong))
    best = search.utilities(wrong)
    explored = {
        explorer: search.explore(
            parts,
            sure.said,
            sure.labels.__getitem__,
            budget=asked,
            explorer=explorer,
            confidence=sure.confidence,
            seed=seed,
        )
        for explorer in search.EXPLORERS
    }
    bandit = explored["bandit"]
    rows = search.part_table(parts, attribute_names, bandit, sure.confidence)
    errors = {name: int(each.wrong.sum()) for name, each in explored.items()}

    found = Finding(
        "Where the network is wrong and sure of it",
        f"The network is at least {threshold:.0%} sure of {len(wrong)} predictions, and wrong in "
        f"{wrong.mean():.1%} of them. With {asked} questions the bandit found {errors['bandit']} errors, "
        f"asking at random {errors['random']}. Most lie where {rows[0]['pattern']}.",
    )
    found.number(
        "errors_found",
        errors["bandit"],
        "errors found",
        note=f"of {int(wrong.sum())}, with {asked} questions",
    )
    found.number("errors_at_random", errors["random"], "at random")
    found.number(
        "errors_by_uncertainty",
        errors["uncertainty"],
        "by uncertainty",
        note="the least sure of the sure first",
    )
    found.number("errors_by_epsilon_greedy", errors["epsilon_greedy"], "ε-greedy")
    found.number("worst_part", rows[0]["pattern"], "most lie where", on_card=False)
    found.values.update(n_asked=asked, errors_in_all=int(wrong.sum()))
    for simple, called in (("random", "asking at random"), ("uncertainty", "asking the least sure first")):
        found.warn(*no_better("the bandit", errors["bandit"], called, errors[simple]))
    regret = {name: each.regret(best) for name, each in explored.items()}
    found.section(
        "Where the errors lie",
        "Each part is described by attributes that its images share and that are known without their labels.",
    ).figure("parts.png", _parts_figure(rows), "The bandit's questions by part.").figure(
        "regret.png",
        _regret_figure(regret, highlighted="bandit"),
        "Errors that somebody who knows them all would have found by then, less those found.",
    ).table("found.csv", rows, _PART_COLUMNS)
    mistaken = [row for row in bandit.queries if wrong[row]][:_MOST_DRAWN] if len(sure.pictures) else []
    if mistaken:
        sheet = picture_grid(
            [sure.pictures[row] for row in mistaken],
            [f"{sure.labels[row]}, said:\n{sure.said[row]} ({sure.confidence[row]:.0%})" for row in mistaken],
            [BAD] * len(mistaken),
        )
        found.values["accuracy_like_training"] = accuracy
        found.section(
            "Errors found",
            "The network was trained on images in which whatever is blue is a square. On images like "
            f"those it is right in {accuracy:.1%}.",
        ).figure("errors.png", sheet, "The first errors that the bandit found.")
    return found.table(
        "queries.csv",
        [
            {
                "image": sure.names[row],
                "predicted": sure.said[row],
                "label": sure.labels[row],
                "confidence": float(sure.confidence[row]),
                "part": _part(parts, row, attribute_names),
            }
            for row in bandit.queries
        ],
        _QUERY_COLUMNS,
    )


def _labelling(
    sure: _Predictions, parts: Partition, attribute_names: Sequence[str], budget: int, seed: int
) -> Finding:
    """Say which images to label first, where there are no labels yet."""
    to_label = _to_label(parts, sure.names, budget, attribute_names, seed)
    found = Finding(
        "Where the network is wrong and sure of it",
        f"The table holds no labels yet. {len(sure.names)} sure predictions fall into {len(parts.patterns)} parts; "
        "label the images below, spread evenly over the parts, and run the command again.",
    )
    found.number("n_to_label", len(to_label), "images to label")
    found.section("Images to label first").table("to-label.csv", to_label, _LABEL_COLUMNS, most=40)
    return found


def _planted(seed: int, device: str, quiet: bool) -> tuple[_Predictions, float]:
    """Return predictions of a network with a blind spot, and how good it is otherwise."""
    from cnn_interp.diagnosis.blind_spot import plant_blind_spot
    from cnn_interp.images.scenes import SHAPES

    deployed = plant_blind_spot(seed=seed, device=device, quiet=quiet)
    predictions = _Predictions(
        [f"image {number}" for number in range(len(deployed.predictions))],
        [SHAPES[place] for place in deployed.predictions],
        deployed.probabilities.max(1),
        [SHAPES[place] for place in deployed.labels],
        deployed.columns(),
        [scene.image for scene in deployed.scenes],
    )
    return predictions, deployed.accuracy


def _read(path: Path) -> _Predictions:
    import numpy as np

    rows = read_table(path, "predicted", "confidence")
    confidence = []
    for number, row in enumerate(rows, start=2):
        try:
            value = float(row["confidence"])
        except ValueError as error:
            raise InputError(
                f"{path}: line {number} has the confidence {row['confidence']!r}; expected a number"
            ) from error
        if not 0 <= value <= 1:
            raise InputError(f"{path}: line {number} has the confidence {value}; expected 0 to 1")
        confidence.append(value)
    apart = {"predicted", "confidence", "label", "image"}
    said = [row["predicted"] for row in rows]
    attributes = {name: [row[name] for row in rows] for name in rows[0] if name not in apart}
    if not attributes:
        raise InputError(f"{path}: no column but {', '.join(rows[0])}; expected attributes beside them")
    return _Predictions(
        [row.get("image") or f"line {number}" for number, row in enumerate(rows, start=2)],
        said,
        np.array(confidence),
        [(row.get("label") or "").strip() for row in rows],
        {"predicted": said, **attributes},
    )


def _part(parts: Partition, row: int, attribute_names: Sequence[str]) -> str:
    return parts.patterns[parts.part[row]].describe(attribute_names)


def _to_label(
    parts: Partition, names: Sequence[str], budget: int, attribute_names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Return examples to label, as many as the budget allows, from all parts in turn."""
    from interpretkit.training import numpy_generator

    order = numpy_generator(seed, "to label").permutation(len(names))
    waiting = [[row for row in order if parts.part[row] == part] for part in range(len(parts.patterns))]
    found: list[dict[str, Any]] = []
    while len(found) < min(budget, len(names)):
        for rows in waiting:
            if rows and len(found) < budget:
                row = rows.pop()
                found.append({"image": names[row], "part": _part(parts, row, attribute_names)})
    return found


def _regret_figure(curves: Mapping[str, NDArray[np.floating]], highlighted: str) -> Figure:
    """Draw what explorers found, or the regret that they gathered, against the questions asked.

    Parameters
    ----------
    curves : mapping of str to ndarray of float, (budget,)
        By explorer.
    highlighted : str
        The one that is drawn thick.
    """
    import numpy as np

    from interpretkit.visualization import colour_of, new_figure, style

    with style():
        figure = new_figure(5.0, 4.2)
        axes = figure.subplots()
        for number, (name, curve) in enumerate(curves.items()):
            axes.plot(
                np.arange(1, len(curve) + 1),
                curve,
                color=colour_of(number),
                linewidth=2.6 if name == highlighted else 1.4,
                label=name.replace("_", "-"),
            )
        axes.set(xlabel="questions asked", ylabel="errors missed so far", title="Cumulative regret")
        axes.legend()
    return figure


def _parts_figure(table: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the parts of a partition: how often each was asked about, and how often the network was wrong."""
    import numpy as np

    from cnn_interp.diagnosis.pictures import BAD
    from interpretkit.visualization import new_figure, style

    rows = [row for row in table if row["asked"]][:12]
    with style():
        figure = new_figure(5.4, max(4.2, 0.9 + 0.34 * len(rows)))
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        asked = np.array([row["asked"] for row in rows], dtype=float)
        wrong = np.array([row["wrong"] for row in rows], dtype=float)
        axes.barh(places, asked, color="#d5dade", label="right")
        axes.barh(places, wrong, color=BAD, label="wrong and sure of it")
        axes.set_yticks(places, [str(row["pattern"]) for row in rows])
        axes.set(xlabel="questions asked", title="Where the questions went")
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower right")
    return figure
