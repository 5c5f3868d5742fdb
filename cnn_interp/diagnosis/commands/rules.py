"""The command ``rules``: a network taught by logic rules where labels are few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import check_folders, read_labelled, read_table
from cnn_interp.options import Model
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from cnn_interp.diagnosis.logic_rules import Examples

# Of the examples, to test on; units of the networks' hidden layer; epochs of their training.
_HELD_OUT, _HIDDEN, _EPOCHS = 0.3, 64, 40


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "rules",
        example=[
            "interpretkit cnn diagnose rules --out rules",
            "interpretkit cnn diagnose rules --images my-images/ --attributes attributes.csv "
            '--rule "wheels -> car, truck"',
        ],
    )(rules)


def rules(
    out: Out = Path("rules"),
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
) -> dict[str, Any]:
    """Teach a network logic rules when labels are few.

    A teacher corrects a network by the rules, and a student imitates the teacher on images without labels. Without
    images, handwritten digits with three labels each, and rules about the holes in figures.
    """
    if not (strength > 0 and math.isfinite(strength)):
        raise InputError(f"--strength {strength}: expected a finite number above 0")
    if images is not None and (attributes is None or not rule):
        raise InputError("--images: needs --attributes CSV and at least one --rule")
    if images is None and attributes is not None:
        raise InputError(f"--attributes {attributes}: needs --images FOLDER")
    check_folders(images)
    if attributes is not None:
        read_table(attributes, "image")

    import numpy as np
    import torch

    from cnn_interp.diagnosis import logic_rules as logic
    from cnn_interp.diagnosis.reports.page import save_page
    from cnn_interp.diagnosis.reports.rules import accuracy_figure, rules_report
    from interpretkit.caution import no_better
    from interpretkit.results import run_folder
    from interpretkit.training import numpy_generator, resolve_device

    resolve_device(device)
    files = [path for path in (images, attributes) if path is not None]
    arguments = {
        "images": images, "attributes": attributes, "rule": list(rule or ()), "strength": strength,
        "labels_per_class": labels_per_class, "network": network,
    }  # fmt: skip
    with run_folder(out, "cnn diagnose rules", arguments, seed, files) as run:
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
        labels = torch.full_like(rest.labels, -1)
        for category in range(len(categories)):
            of_it = np.flatnonzero(rest.labels.numpy() == category)[:labels_per_class]
            labels[of_it] = category
        examples = logic.Examples(rest.inputs, rest.attributes, labels)
        width = every.inputs.shape[1]

        def build() -> torch.nn.Module:
            return torch.nn.Sequential(
                torch.nn.Linear(width, _HIDDEN), torch.nn.ReLU(), torch.nn.Linear(_HIDDEN, len(categories))
            )

        verdict, plain, student = logic.compare(
            build, examples, unseen, chosen, strength=strength, epochs=_EPOCHS, seed=seed, quiet=quiet
        )
        with torch.no_grad():
            before, after = (model(unseen.inputs).argmax(1).numpy() for model in (plain, student))
        truth = unseen.labels.numpy()
        by_category = [
            {
                "category": name,
                "images": int((truth == place).sum()),
                "labels alone": float((before[truth == place] == place).mean()),
                "student": float((after[truth == place] == place).mean()),
            }
            for place, name in enumerate(categories)
            if (truth == place).any()
        ]
        run.save_table("rules.csv", verdict.rules)
        run.save_table("categories.csv", by_category)
        run.save_tensors("student.safetensors", student.state_dict(), {"categories": list(categories)})
        bars = accuracy_figure(
            {
                "labels alone": verdict.plain,
                "labels alone, corrected by the rules": verdict.plain_with_rules,
                "student: imitated the teacher": verdict.student,
                "teacher: student, corrected by the rules": verdict.teacher,
            }
        )
        run.save_figure("accuracy.png", bars)
        told = int((labels >= 0).sum())
        report = rules_report(
            verdict,
            bars,
            by_category,
            described=described,
            labelled=told,
            unlabelled=len(examples) - told,
            unseen=len(unseen),
        )
        warnings = no_better("the student", verdict.student, "labels alone", verdict.plain, form=".1%")
        warnings += no_better("the teacher", verdict.teacher, "labels alone", verdict.plain, form=".1%")
        save_page(report, run, seed=seed, warnings=warnings)
        run.summary.update(
            n_labelled=told, n_unlabelled=len(examples) - told, n_test=len(unseen), plain=verdict.plain,
            plain_with_rules=verdict.plain_with_rules, student=verdict.student, teacher=verdict.teacher,
        )  # fmt: skip
    return {**run.summary, "out": out}


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
