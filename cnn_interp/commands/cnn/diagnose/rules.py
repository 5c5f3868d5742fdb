"""A network taught by logic rules where labels are few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import check_folders, read_labelled
from cnn_interp.commands._options import Model
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError
from interpretkit.runs.files import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from torch import Tensor

    from cnn_interp.diagnosis.logic_rules import Examples

# Of the examples, to test on; units of the networks' hidden layer; epochs of their training.
_HELD_OUT, _HIDDEN, _EPOCHS = 0.3, 64, 40
_RULE_COLUMNS = {
    "rule": Column("the rule"),
    "applies to": Column("share of unseen images of which it says anything", format=".1%"),
    "holds": Column("how often it is right then", format=".1%"),
}
_CATEGORY_COLUMNS = {
    "category": Column("the category"),
    "images": Column("unseen images of it"),
    "labels alone": Column("share right of the network that saw the labels alone", format=".1%"),
    "student": Column("share right of the student", format=".1%"),
}


@command(
    out="rules",
    example=[
        "interpretkit cnn diagnose rules --out rules",
        "interpretkit cnn diagnose rules --images my-images/ --attributes attributes.csv "
        '--rule "wheels -> car, truck"',
    ],
)
def rules(
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", metavar="FOLDER", help="Images, a subfolder for each label.", show_default=False
        ),
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(
            "--attributes",
            metavar="CSV",
            help="Column image (its path in the folder), and attributes from 0 to 1.",
            show_default=False,
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="RULE",
            help='Such as "wheels -> car, truck @ 0.8"; may be repeated.',
            show_default=False,
        ),
    ] = None,
    labels_per_class: Annotated[
        int, typer.Option("--labels-per-class", metavar="N", min=1, help="Labels that may be used.")
    ] = 3,
    strength: Annotated[float, typer.Option("--strength", help="C: how strict the teacher is.")] = 6.0,
    network: Model = "mobilenet_v2",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Teach a network logic rules when labels are few.

    A teacher corrects a network by the rules, and a student imitates the teacher on images without labels. Without
    images, handwritten digits with three labels each, and rules about the holes in figures.
    """
    if not (strength > 0 and math.isfinite(strength)):
        raise InputError(f"strength {strength}: expected a finite number above 0")
    if images is not None and (attributes is None or not rule):
        raise InputError("images: needs --attributes CSV and at least one --rule")
    if images is None and attributes is not None:
        raise InputError(f"attributes {attributes}: needs --images FOLDER")
    check_folders(images)
    if attributes is not None:
        read_table(attributes, "image")
    import torch

    from cnn_interp.diagnosis import logic_rules as logic
    from interpretkit.training import numpy_generator, resolve_device

    resolve_device(device)
    if images is None:
        every, categories = _digits_with_holes()
        known, described = logic.DIGIT_ATTRIBUTES, "the pixels of handwritten digits"
        texts: Sequence[str] = rule or logic.DIGIT_RULES
    else:
        assert attributes is not None
        every, categories, known = _images_with_attributes(images, attributes, network, device, quiet)
        described, texts = f"{network}'s features of {images.name}", rule or ()
    chosen = [logic.parse_rule(text, known, categories) for text in texts]
    order = numpy_generator(seed, "split").permutation(len(every))
    held_out = max(1, int(_HELD_OUT * len(every)))
    unseen = every.rows(torch.from_numpy(order[:held_out]))
    rest = every.rows(torch.from_numpy(order[held_out:]))
    labels = _few_labels(rest.labels, len(categories), labels_per_class)
    examples = logic.Examples(rest.inputs, rest.attributes, labels)
    width = every.inputs.shape[1]

    def build() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(width, _HIDDEN), torch.nn.ReLU(), torch.nn.Linear(_HIDDEN, len(categories))
        )

    verdict, plain, student = logic.compare(
        build, examples, unseen, chosen, strength=strength, epochs=_EPOCHS, seed=seed, quiet=quiet
    )
    told = int((labels >= 0).sum())
    untold = len(examples) - told

    found = Finding(
        f"{len(verdict.rules)} rules, {told} labels",
        f"A network on {described} saw {told} labels and {untold} images without any. Labels alone "
        f"bring it to {verdict.plain:.1%} on {len(unseen)} unseen images; with the rules the student reaches "
        f"{verdict.student:.1%} ({100 * (verdict.student - verdict.plain):+.1f} points) without being shown the "
        f"attributes any more, and its teacher {verdict.teacher:.1%}.",
    ).reads(*(path for path in (images, attributes) if path is not None))
    accuracies = {
        "plain": (verdict.plain, "labels alone"),
        "plain_with_rules": (verdict.plain_with_rules, "labels alone, corrected by the rules"),
        "student": (verdict.student, "student: imitated the teacher"),
        "teacher": (verdict.teacher, "teacher: student, corrected by the rules"),
    }
    for name, (accuracy, label) in accuracies.items():
        found.number(name, accuracy, label, format=".1%", note=f"right of {len(unseen)} unseen images")
    found.values.update(n_labelled=told, n_unlabelled=untold, n_test=len(unseen))
    found.warn(
        *no_better("the student", verdict.student, "labels alone", verdict.plain, form=".1%"),
        *no_better("the teacher", verdict.teacher, "labels alone", verdict.plain, form=".1%"),
    )
    found.section("What the rules bring").figure(
        "accuracy.png",
        _accuracy_figure({label: accuracy for accuracy, label in accuracies.values()}),
        "Accuracy on unseen images.",
    )
    found.section(
        "The rules",
        "How many unseen images a rule says anything about, and how often it is right then. A rule that seldom "
        "holds does harm; lower its confidence after the `@`.",
    ).table("rules.csv", verdict.rules, _RULE_COLUMNS)
    found.section("By category").table(
        "categories.csv", _by_category(unseen, categories, plain, student), _CATEGORY_COLUMNS
    )
    found.next_step(
        "Teach rules about images of your own:",
        "interpretkit cnn diagnose rules --images my-images/ --attributes attributes.csv --rule",
        "wheels -> car, truck @ 0.8",
    )
    return found.tensors("student.safetensors", student.state_dict(), {"categories": list(categories)})


def _few_labels(labels: Tensor, categories: int, each: int) -> Tensor:
    """Return labels of which only the first few of each category are told, -1 for the others."""
    import torch

    told = torch.full_like(labels, -1)
    for category in range(categories):
        told[(labels == category).nonzero()[:each]] = category
    return told


def _by_category(
    unseen: Examples, categories: Sequence[str], plain: Any, student: Any
) -> list[dict[str, Any]]:
    """Return a row for each category that unseen images show."""
    import torch

    with torch.no_grad():
        before, after = (model(unseen.inputs).argmax(1).numpy() for model in (plain, student))
    truth = unseen.labels.numpy()
    return [
        {
            "category": name,
            "images": int((truth == place).sum()),
            "labels alone": float((before[truth == place] == place).mean()),
            "student": float((after[truth == place] == place).mean()),
        }
        for place, name in enumerate(categories)
        if (truth == place).any()
    ]


def _digits_with_holes() -> tuple[Examples, tuple[str, ...]]:
    """Return handwritten digits with the holes in their figures, and what the labels are called."""
    import torch
    from sklearn.datasets import load_digits

    from cnn_interp.diagnosis.logic_rules import Examples, digit_attributes

    digits: Any = load_digits()
    examples = Examples(
        torch.from_numpy(digits.data / 16).float(),
        torch.from_numpy(digit_attributes(digits.images)).float(),
        torch.from_numpy(digits.target).long(),
    )
    return examples, tuple(str(n) for n in range(10))


def _images_with_attributes(
    folder: Path, table: Path, network: str, device: str, quiet: bool
) -> tuple[Examples, tuple[str, ...], tuple[str, ...]]:
    """Return examples, the categories' names and the attributes' names."""
    import numpy as np
    import torch

    from cnn_interp.diagnosis.linear_head import Scaling
    from cnn_interp.diagnosis.logic_rules import Examples

    rows = {row["image"]: row for row in read_table(table, "image")}
    names = tuple(name for name in next(iter(rows.values())) if name != "image")
    if not names:
        raise InputError(f"{table}: has no column but image; expected attributes beside it")
    found, categories = read_labelled(folder, network, device, quiet)
    values = np.zeros((len(found), len(names)))
    for place, identity in enumerate(found.names):
        if identity not in rows:
            raise InputError(f"{table}: has no row for image {identity!r}; expected one for each in {folder}")
        for column, name in enumerate(names):
            try:
                values[place, column] = float(rows[identity][name])
            except ValueError as error:
                raise InputError(
                    f"{table}: {name} of {identity} is {rows[identity][name]!r}; expected 0 to 1"
                ) from error
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"{table}: holds attributes out of range; expected values from 0 to 1")
    examples = Examples(
        torch.from_numpy(Scaling.of(found.features)(found.features)).float(),
        torch.from_numpy(values).float(),
        torch.from_numpy(np.asarray(found.labels, dtype=np.int64)),
    )
    return examples, categories, names


def _accuracy_figure(accuracies: Mapping[str, float]) -> Figure:
    """Draw accuracies, each with its distance from the first; the last but one is the student, the last the teacher."""
    import numpy as np

    from interpretkit.visualization import colour_of, new_figure, style
    from interpretkit.visualization.style import MUTED

    with style():
        figure = new_figure(5.6, 0.9 + 0.5 * len(accuracies))
        axes = figure.subplots()
        places = np.arange(len(accuracies))[::-1]
        values = np.array(list(accuracies.values()))
        colours = [MUTED] * (len(values) - 2) + [colour_of(0), colour_of(4)]
        axes.hlines(places, values[0], values, colors=colours, linewidth=3)
        axes.scatter(values, places, s=90, color=colours, zorder=3)
        for place, value in zip(places, values, strict=True):
            axes.annotate(f"{value:.1%}", (value, place), (0, 9), textcoords="offset points", ha="center")
        axes.set_yticks(places, list(accuracies))
        margin = 0.25 * max(float(np.ptp(values)), 0.02)
        axes.set(xlim=(values.min() - margin, values.max() + margin), ylim=(-0.5, len(values) - 0.3))
        axes.set(xlabel="accuracy on unseen examples")
        axes.grid(visible=False, axis="y")
    return figure
