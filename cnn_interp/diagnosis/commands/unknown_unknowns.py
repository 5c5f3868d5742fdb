"""The command ``unknown-unknowns``: where a network is wrong and sure of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import read_table
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cnn_interp.diagnosis.unknown_unknowns import Partition
    from interpretkit.results import Run
    from interpretkit.visualization import Report

# Of the errors found, so many are drawn.
_MOST_DRAWN = 16


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "unknown-unknowns",
        example=[
            "interpretkit cnn diagnose unknown-unknowns --out unknown-unknowns",
            "interpretkit cnn diagnose unknown-unknowns --table predictions.csv --budget 100",
        ],
    )(unknown_unknowns)


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


def unknown_unknowns(
    out: Out = Path("unknown-unknowns"),
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
) -> dict[str, Any]:
    """Find where a network is wrong and sure of it.

    Sure predictions are parted by patterns of attributes, and a bandit decides which part to ask about next. Without a
    table, a network is trained that met nothing blue but squares. With a table without labels, the images to label
    first are listed.
    """
    if not 0 <= threshold < 1:
        raise InputError(f"--threshold {threshold}: expected 0 to below 1")
    if not 0 < support <= 1:
        raise InputError(f"--support {support}: expected above 0 up to 1")
    if table is not None:
        _read(table)

    import numpy as np

    from cnn_interp.diagnosis import unknown_unknowns as search
    from cnn_interp.diagnosis.reports.page import save_page
    from cnn_interp.diagnosis.reports.unknown_unknowns import labelling_report
    from interpretkit.results import run_folder

    arguments = {
        "table": table, "budget": budget, "threshold": threshold, "support": support, "longest": longest,
    }  # fmt: skip
    files = [] if table is None else [table]
    with run_folder(out, "cnn diagnose unknown-unknowns", arguments, seed, files) as run:
        every = _planted(run, seed, device, quiet) if table is None else _read(table)
        sure = every.rows(np.flatnonzero(every.confidence >= threshold))
        if not len(sure.names):
            raise InputError(
                f"--threshold {threshold}: no prediction is so sure, the surest is {every.confidence.max():.3g}; "
                "expected less"
            )
        attributes, attribute_names = search.binary_attributes(sure.attributes)
        patterns = search.frequent_patterns(attributes, support=support, longest=longest)
        parts = search.partition(attributes, sure.confidence, patterns)
        run.save_table(
            "parts.csv",
            [
                {"image": name, "part": _part(parts, row, attribute_names)}
                for row, name in enumerate(sure.names)
            ],
        )
        run.summary.update(n_sure=len(sure.names), n_parts=len(parts.patterns))
        known = np.flatnonzero([label != "" for label in sure.labels])
        if len(known):
            # Where only some are labelled, those alone can be asked about.
            patterns = [search.Pattern(p.attributes, p.rows[known]) for p in parts.patterns]
            parts = search.Partition(tuple(patterns), parts.part[known])
            report = _explore(run, sure.rows(known), parts, attribute_names, budget, threshold, seed)
            if table is None:
                report.add_next_step(
                    "Search predictions of your own network:",
                    "interpretkit cnn diagnose unknown-unknowns --table predictions.csv",
                )
        else:
            to_label = _to_label(parts, sure.names, budget, attribute_names, seed)
            run.save_table("to-label.csv", to_label)
            run.summary["n_to_label"] = len(to_label)
            report = labelling_report(to_label, sure=len(sure.names), parts=len(parts.patterns))
        save_page(report, run, seed=seed, files=files)
    return {**run.summary, "out": out}


def _explore(
    run: Run,
    sure: _Predictions,
    parts: Partition,
    attribute_names: Sequence[str],
    budget: int,
    threshold: float,
    seed: int,
) -> Report:
    """Ask for labels as each explorer would, write down what they found, and return the page."""
    import numpy as np

    from cnn_interp.diagnosis import unknown_unknowns as search
    from cnn_interp.diagnosis.reports import unknown_unknowns as shown
    from cnn_interp.diagnosis.reports.pictures import BAD, picture_grid
    from interpretkit.caution import no_better, warn_loudly

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
    found = explored["bandit"]
    rows = search.part_table(parts, attribute_names, found, sure.confidence)
    run.save_table("found.csv", rows)
    run.save_table(
        "queries.csv",
        [
            {
                "image": sure.names[row],
                "predicted": sure.said[row],
                "label": sure.labels[row],
                "confidence": float(sure.confidence[row]),
                "part": _part(parts, row, attribute_names),
            }
            for row in found.queries
        ],
    )
    errors = {name: int(each.wrong.sum()) for name, each in explored.items()}
    parts_picture = shown.parts_figure(rows)
    regret = shown.regret_figure(
        {name: each.regret(best) for name, each in explored.items()}, highlighted="bandit"
    )
    run.save_figure("parts.png", parts_picture)
    run.save_figure("regret.png", regret)
    report = shown.unknown_unknowns_report(
        rows, errors, parts_picture, regret, threshold=threshold, asked=asked, wrong=wrong
    )
    mistaken = [row for row in found.queries if wrong[row]][:_MOST_DRAWN] if len(sure.pictures) else []
    if mistaken:
        sheet = picture_grid(
            [sure.pictures[row] for row in mistaken],
            [f"{sure.labels[row]}, said:\n{sure.said[row]} ({sure.confidence[row]:.0%})" for row in mistaken],
            [BAD] * len(mistaken),
        )
        run.save_figure("errors.png", sheet)
        report.add_section(
            "Errors found",
            "The network was trained on images in which whatever is blue is a square. On images like "
            f"those it is right in {run.summary['accuracy_like_training']:.1%}.",
            figures=[(sheet, "The first errors that the bandit found.")],
        )
    warnings = [
        line
        for simple, name in (("random", "asking at random"), ("uncertainty", "asking the least sure first"))
        for line in no_better("the bandit", errors["bandit"], name, errors[simple])
    ]
    warn_loudly(warnings, report, run.summary)
    run.summary.update(
        n_asked=asked, errors_found=errors["bandit"], errors_at_random=errors["random"],
        errors_in_all=int(wrong.sum()), worst_part=rows[0]["pattern"],
    )  # fmt: skip
    return report


def _planted(run: Run, seed: int, device: str, quiet: bool) -> _Predictions:
    """Return predictions of a network with a blind spot; how good it is otherwise goes into the run's summary."""
    from cnn_interp.datasets.scenes import SHAPES
    from cnn_interp.diagnosis.blind_spot import plant_blind_spot

    deployed = plant_blind_spot(seed=seed, device=device, quiet=quiet)
    run.summary["accuracy_like_training"] = deployed.accuracy
    return _Predictions(
        [f"image {number}" for number in range(len(deployed.predictions))],
        [SHAPES[place] for place in deployed.predictions],
        deployed.probabilities.max(1),
        [SHAPES[place] for place in deployed.labels],
        deployed.columns(),
        [scene.image for scene in deployed.scenes],
    )


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
