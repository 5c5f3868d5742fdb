"""The commands of `diagnose` that go back to the training data and to questions."""

# Heavy packages are imported inside the commands, so that the list of commands and their help come at once.

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.options import Model
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cnn_interp.diagnosis.logic_rules import Examples, Rule

Threshold = Annotated[
    float, typer.Option("--threshold", metavar="P", help="Predictions of at least this probability are sure.")
]
DIGITS_FOR_TRAINING = 600


def register(app: typer.Typer) -> None:
    """Add the commands to a group."""
    command(
        app,
        "influence",
        example=[
            "interpretkit cnn diagnose influence --out influence",
            "interpretkit cnn diagnose influence my-images/ --model mobilenet_v2 --out influence",
        ],
    )(influence)
    command(
        app,
        "unknown-unknowns",
        example=[
            "interpretkit cnn diagnose unknown-unknowns --out unknown-unknowns",
            "interpretkit cnn diagnose unknown-unknowns --table predictions.csv --budget 100",
        ],
    )(unknown_unknowns)
    command(
        app,
        "rules",
        example=[
            "interpretkit cnn diagnose rules --out rules",
            "interpretkit cnn diagnose rules --images my-images/ --attributes attributes.csv "
            '--rule "wheels -> car, truck"',
        ],
    )(rules)
    command(
        app,
        "vqa",
        example=[
            "interpretkit cnn diagnose vqa --out vqa",
            "interpretkit cnn diagnose vqa --answerer vqa/answerer.safetensors --image scene.png "
            '--question "what colour is the circle"',
        ],
    )(vqa)


def influence(
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="Training images, a subfolder for each label.", show_default=False
        ),
    ] = None,
    out: Out = Path("influence"),
    network: Model = "mobilenet_v2",
    test: Annotated[
        Path | None,
        typer.Option("--test", metavar="FOLDER", help="Test images; else a fifth of the training images."),
    ] = None,
    flip: Annotated[
        float | None,
        typer.Option(
            "--flip",
            metavar="SHARE",
            help="Labels to falsify, to see whether they are found; 0.1 for digits.",
        ),
    ] = None,
    l2: Annotated[float, typer.Option("--l2", help="Penalty on the head's weights.")] = 0.01,
    questions: Annotated[
        int,
        typer.Option("--questions", metavar="N", min=1, help="Test images explained: those of most loss."),
    ] = 5,
    leave_out: Annotated[
        int,
        typer.Option(
            "--leave-out", metavar="N", min=0, help="Training images left out one by one, as a check."
        ),
    ] = 40,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Find the training images that made predictions what they are, and those that are probably mislabelled.

    A linear classifier is trained on a pretrained network's features, and influence functions tell what it would say
    without each training image. Without a folder, on scikit-learn's digits, a tenth of them falsely labelled.
    """
    import numpy as np

    from cnn_interp.diagnosis import data_figures
    from cnn_interp.diagnosis.influence import influence as influences
    from cnn_interp.diagnosis.influence import self_influence
    from cnn_interp.diagnosis.linear_head import Scaling, fit_head, leave_one_out, rank_correlations
    from cnn_interp.diagnosis.mislabels import falsify, found_by_checking
    from interpretkit.results import run_folder
    from interpretkit.training import numpy_generator, resolve_device
    from interpretkit.visualization import Report

    share = (0.1 if images is None else 0.0) if flip is None else flip
    if not 0 <= share < 0.5:
        raise InputError(f"--flip {share}: expected a share of 0 to below 0.5")
    if not (l2 > 0 and math.isfinite(l2)):
        raise InputError(f"--l2 {l2}: expected a finite number above 0")
    resolve_device(device)
    if images is None and test is not None:
        raise InputError(f"--test {test}: needs a folder of training images")
    files = [path for path in (images, test) if path is not None]
    arguments = {
        "images": images, "network": network, "test": test, "flip": share, "l2": l2, "questions": questions,
        "leave_out": leave_out,
    }  # fmt: skip
    with run_folder(out, "cnn diagnose influence", arguments, seed, files) as run:
        data = _digits(seed) if images is None else _folders(images, test, network, device, seed, quiet)
        labels, flipped = falsify(data.labels, len(data.categories), share, seed=seed)
        scaling = Scaling.of(data.features)
        features, unseen = scaling(data.features), scaling(data.test_features)
        head = fit_head(features, labels, classes=len(data.categories), l2=l2)
        risk = head.risk(features, labels)
        suspicion = self_influence(risk, quiet=quiet)
        loss = head.losses(features, labels)
        said = head.logits(features).argmax(1)
        test_loss = head.losses(unseen, data.test_labels)
        test_said = head.logits(unseen).argmax(1)
        accuracy = float((test_said == data.test_labels).mean())
        worst = np.argsort(-test_loss, kind="stable")[:questions]
        wanted = head.risk(unseen[worst], data.test_labels[worst])
        found = influences(risk, wanted.inputs, wanted.targets)

        correlation = None
        predicted = measured = np.zeros((len(worst), 0))
        if leave_out:
            rows = numpy_generator(seed, "left out").permutation(len(labels))[:leave_out]
            measured = leave_one_out(
                head, features, labels, rows, unseen[worst], data.test_labels[worst], quiet=quiet
            )
            predicted = found.removal[:, rows]
            correlation = float(np.mean(rank_correlations(predicted, measured)))
        order = np.argsort(-suspicion, kind="stable")
        name = data.categories.__getitem__
        suspects = [
            {
                "image": data.names[row],
                "label": name(labels[row]),
                "predicted": name(said[row]),
                "self-influence": float(suspicion[row]),
                "loss": float(loss[row]),
                **({"falsified": bool(flipped[row])} if share else {}),
            }
            for row in order
        ]
        table = [
            {
                "test image": data.test_names[test_row],
                "effect": effect,
                "training image": data.names[row],
                "label": name(labels[row]),
                "change of the test loss without it": float(found.removal[place, row]),
            }
            for place, test_row in enumerate(worst)
            for effect, rows_of in (
                ("helps", found.most_helpful(place, 5)),
                ("harms", found.most_harmful(place, 5)),
            )
            for row in rows_of
        ]
        run.save_table("suspects.csv", suspects)
        run.save_table("influences.csv", table)
        run.save_arrays(
            "influence.npz",
            values=found.values,
            test=worst,
            self_influence=suspicion,
            loss=loss,
            labels=labels,
        )
        count = min(4, len(labels) // 2)
        sheet = data_figures.influence_sheet(
            data.pictures,
            [
                (
                    data.test_pictures[row],
                    f"{_short(name(data.test_labels[row]))}\nsaid: {_short(name(test_said[row]))}",
                )
                for row in worst
            ],
            [
                [(row, _short(name(labels[row]))) for row in found.most_helpful(p, count)]
                for p in range(len(worst))
            ],
            [
                [(row, _short(name(labels[row]))) for row in found.most_harmful(p, count)]
                for p in range(len(worst))
            ],
        )
        run.save_figure("influence.png", sheet)
        shown = order[:16]
        grid = data_figures.picture_grid(
            [data.pictures[row] for row in shown],
            [f"labelled {_short(name(labels[row]))}\nsaid: {_short(name(said[row]))}" for row in shown],
            [data_figures.BAD if said[row] != labels[row] else data_figures.MUTED for row in shown],
        )
        run.save_figure("suspects.png", grid)
        report = Report(
            "Which training images made these predictions",
            f"A linear classifier on {data.described} was trained on {len(labels)} images and is right on "
            f"{accuracy:.1%} of {len(unseen)} unseen ones. For the {len(worst)} that it gets most wrong, the training "
            "images that help and harm most are shown below; then the training images whose label nothing but "
            "themselves supports, which are the first to look at for a wrong label.",
            kicker="interpretkit cnn diagnose influence",
        )
        numbers: dict[str, Any] = {"unseen images right": f"{accuracy:.1%}"}
        if correlation is not None:
            numbers["agreement with training again"] = (
                f"{correlation:.3f}",
                f"rank correlation over {leave_out} images left out one by one; 1 is perfect",
            )
        curve = by_loss = np.zeros(0)
        if flipped.any():
            curve = found_by_checking(suspicion, flipped)
            by_loss = found_by_checking(loss, flipped)
            for checked in (0.1, 0.2, 0.3):
                numbers[f"wrong labels found in the first {checked:.0%}"] = (
                    f"{curve[int(checked * len(labels)) - 1]:.0%}",
                    f"{flipped.sum()} labels were falsified; by chance {checked:.0%}, "
                    f"by the loss {by_loss[int(checked * len(labels)) - 1]:.0%}",
                )
                run.summary[f"found_in_{checked:.0%}"] = float(curve[int(checked * len(labels)) - 1])
        report.add_numbers(numbers)
        report.add_section(
            "What helped and what harmed",
            "Green: without this training image the test image's loss would rise most. Red: it would fall most. "
            "The label of each training image stands below it.",
            figures=[(sheet, "The test images of largest loss.")],
        )
        report.add_section(
            "Labels to check first",
            "Ranked by self-influence: how much the loss of a training image would rise were it left out of the "
            "training. Red frames: the classifier itself says otherwise. `suspects.csv` holds the whole ranking.",
            figures=[(grid, "The sixteen most suspect training images.")],
            table=suspects[:16],
        )
        if flipped.any():
            random = np.arange(1, len(labels) + 1) / len(labels)
            checking = data_figures.checking_figure(
                {"self-influence": curve, "loss": by_loss, "random order": random}
            )
            run.save_figure("checking.png", checking)
            report.add_section(
                "Were the falsified labels found?",
                f"{flipped.sum()} of {len(labels)} labels had been falsified at random.",
                figures=[(checking, "Wrong labels found while checking in the order of each ranking.")],
            )
        if correlation is not None:
            check = data_figures.retraining_figure(predicted, measured, correlation)
            run.save_figure("retraining.png", check)
            report.add_section(
                "Is the prediction true?",
                "Influence is a prediction of what training again without an image would give. Here it was done, to "
                "convergence. Each colour is a test image.",
                figures=[(check, "On the line, the prediction is exact.")],
            )
        if images is None:
            report.add_next_step(
                "Look through images of your own, a subfolder for each label:",
                "interpretkit cnn diagnose influence my-images/ --out influence",
            )
        report.set_provenance(
            f"interpretkit cnn diagnose influence {'' if images is None else images}".strip(),
            seed=seed,
            data=[path for path in files if path.is_file()],
        )
        report.save(run.path("report.html"))
        run.summary.update(
            n_train=len(labels), n_test=len(unseen), accuracy=accuracy, residual=found.residual,
            rank_correlation=correlation, most_suspect=suspects[0]["image"],
        )  # fmt: skip
    return {**run.summary, "out": out}


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
    threshold: Threshold = 0.65,
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
    import numpy as np

    from cnn_interp.diagnosis import data_figures
    from cnn_interp.diagnosis import unknown_unknowns as search
    from interpretkit.results import run_folder
    from interpretkit.visualization import Report

    if not 0 <= threshold < 1:
        raise InputError(f"--threshold {threshold}: expected 0 to below 1")
    if not 0 < support <= 1:
        raise InputError(f"--support {support}: expected above 0 up to 1")
    arguments = {
        "table": table, "budget": budget, "threshold": threshold, "support": support, "longest": longest,
    }  # fmt: skip
    files = [] if table is None else [table]
    with run_folder(out, "cnn diagnose unknown-unknowns", arguments, seed, files) as run:
        pictures: Sequence[NDArray[np.uint8]] = ()
        if table is None:
            from cnn_interp.datasets.scenes import SHAPES
            from cnn_interp.diagnosis.blind_spot import plant_blind_spot

            deployed = plant_blind_spot(seed=seed, device=device, quiet=quiet)
            predicted = [SHAPES[place] for place in deployed.predictions]
            labels: list[str] = [SHAPES[place] for place in deployed.labels]
            confidence = deployed.probabilities.max(1)
            columns = deployed.columns()
            names = [f"image {number}" for number in range(len(predicted))]
            pictures = [scene.image for scene in deployed.scenes]
            run.summary["accuracy_like_training"] = deployed.accuracy
        else:
            names, predicted, confidence, labels, columns = _predictions(table)
        sure = np.flatnonzero(confidence >= threshold)
        if not len(sure):
            raise InputError(
                f"--threshold {threshold}: no prediction is so sure, the surest is {confidence.max():.3g}; expected "
                "less"
            )
        confidence = confidence[sure]
        predicted, labels, names = ([values[row] for row in sure] for values in (predicted, labels, names))
        attributes, attribute_names = search.binary_attributes(
            {key: [values[row] for row in sure] for key, values in columns.items()}
        )
        patterns = search.frequent_patterns(attributes, support=support, longest=longest)
        parts = search.partition(attributes, confidence, patterns)
        report = Report(
            "Where the network is wrong and sure of it", kicker="interpretkit cnn diagnose unknown-unknowns"
        )
        run.save_table(
            "parts.csv",
            [
                {"image": names[row], "part": parts.patterns[parts.part[row]].describe(attribute_names)}
                for row in range(len(names))
            ],
        )
        run.summary.update(n_sure=len(names), n_parts=len(parts.patterns))
        known = np.array([label != "" for label in labels])
        if not known.any():
            first = _to_label(parts, names, budget, attribute_names, seed)
            run.save_table("to-label.csv", first)
            report.lead = (
                f"The table holds no labels yet. {len(names)} sure predictions fall into {len(parts.patterns)} parts; "
                "label the images below, spread evenly over the parts, and run the command again."
            )
            report.add_section("Images to label first", table=first[:40])
            report.set_provenance(_called("unknown-unknowns", "--table", table), seed=seed, data=files)
            report.save(run.path("report.html"))
            run.summary["n_to_label"] = len(first)
        else:
            # Where only some are labelled, those alone can be asked about.
            kept = np.flatnonzero(known)
            patterns = [search.Pattern(p.attributes, p.rows[kept]) for p in parts.patterns]
            parts = search.Partition(tuple(patterns), parts.part[kept])
            confidence, predicted = confidence[kept], [predicted[row] for row in kept]
            labels, names = [labels[row] for row in kept], [names[row] for row in kept]
            wrong = np.array([a != b for a, b in zip(predicted, labels, strict=True)])
            asked = min(budget, len(names))
            best = search.utilities(wrong)
            explored = {
                explorer: search.explore(
                    parts,
                    predicted,
                    labels.__getitem__,
                    budget=asked,
                    explorer=explorer,
                    confidence=confidence,
                    seed=seed,
                )
                for explorer in search.EXPLORERS
            }
            found = explored["bandit"]
            rows = search.part_table(parts, attribute_names, found, confidence)
            run.save_table("found.csv", rows)
            run.save_table(
                "queries.csv",
                [
                    {
                        "image": names[row],
                        "predicted": predicted[row],
                        "label": labels[row],
                        "confidence": float(confidence[row]),
                        "part": parts.patterns[parts.part[row]].describe(attribute_names),
                    }
                    for row in found.queries
                ],
            )
            errors = {name: int(e.wrong.sum()) for name, e in explored.items()}
            worst = rows[0]
            report.lead = (
                f"The network is at least {threshold:.0%} sure of {len(names)} predictions, and wrong in "
                f"{wrong.mean():.1%} of them. With {asked} questions the bandit found {errors['bandit']} errors, "
                f"asking at random {errors['random']}. Most lie where {worst['pattern']}."
            )
            report.add_numbers(
                {
                    "errors found": (errors["bandit"], f"of {int(wrong.sum())}, with {asked} questions"),
                    "at random": errors["random"],
                    "by uncertainty": (errors["uncertainty"], "the least sure of the sure first"),
                    "ε-greedy": errors["epsilon_greedy"],
                }
            )
            parts_picture = data_figures.parts_figure(rows)
            regret = data_figures.regret_figure(
                {name: e.regret(best) for name, e in explored.items()}, highlighted="bandit"
            )
            run.save_figure("parts.png", parts_picture)
            run.save_figure("regret.png", regret)
            report.add_section(
                "Where the errors lie",
                "Each part is described by attributes that its images share and that are known without their labels.",
                figures=[
                    (parts_picture, "The bandit's questions by part."),
                    (
                        regret,
                        "Errors that somebody who knows them all would have found by then, less those found.",
                    ),
                ],
                table=rows,
                formats={"share wrong": ".0%", "mean confidence": ".3f"},
            )
            if len(pictures):
                mistaken = [row for row in found.queries if wrong[row]][:16]
                if mistaken:
                    sheet = data_figures.picture_grid(
                        [pictures[sure[kept[row]]] for row in mistaken],
                        [
                            f"{labels[row]}, said:\n{predicted[row]} ({confidence[row]:.0%})"
                            for row in mistaken
                        ],
                        [data_figures.BAD] * len(mistaken),
                    )
                    run.save_figure("errors.png", sheet)
                    report.add_section(
                        "Errors found",
                        "The network was trained on images in which whatever is blue is a square. On images like "
                        f"those it is right in {run.summary['accuracy_like_training']:.1%}.",
                        figures=[(sheet, "The first errors that the bandit found.")],
                    )
            if table is None:
                report.add_next_step(
                    "Search predictions of your own network:",
                    "interpretkit cnn diagnose unknown-unknowns --table predictions.csv",
                )
            report.set_provenance(_called("unknown-unknowns", "--table", table), seed=seed, data=files)
            report.save(run.path("report.html"))
            run.summary.update(
                n_asked=asked, errors_found=errors["bandit"], errors_at_random=errors["random"],
                errors_in_all=int(wrong.sum()), worst_part=worst["pattern"],
            )  # fmt: skip
    return {**run.summary, "out": out}


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
    import numpy as np
    import torch

    from cnn_interp.diagnosis import data_figures
    from cnn_interp.diagnosis import logic_rules as logic
    from interpretkit.results import run_folder
    from interpretkit.training import numpy_generator, resolve_device
    from interpretkit.visualization import Report

    if not (strength > 0 and math.isfinite(strength)):
        raise InputError(f"--strength {strength}: expected a finite number above 0")
    resolve_device(device)
    if images is not None and (attributes is None or not rule):
        raise InputError("--images: needs --attributes CSV and at least one --rule")
    if images is None and attributes is not None:
        raise InputError(f"--attributes {attributes}: needs --images FOLDER")
    files = [path for path in (images, attributes) if path is not None]
    arguments = {
        "images": images, "attributes": attributes, "rule": list(rule or ()), "strength": strength,
        "labels_per_class": labels_per_class, "network": network,
    }  # fmt: skip
    with run_folder(out, "cnn diagnose rules", arguments, seed, files) as run:
        if images is None:
            every, categories, described = _digits_with_holes()
            known = logic.DIGIT_ATTRIBUTES
            texts: Sequence[str] = rule or logic.DIGIT_RULES
        else:
            assert attributes is not None
            every, categories, known = _images_with_attributes(images, attributes, network, device, quiet)
            described, texts = f"{network}'s features of {images.name}", rule or ()
        chosen: list[Rule] = [logic.parse_rule(text, known, categories) for text in texts]
        order = numpy_generator(seed, "split").permutation(len(every))
        held_out = max(1, int(0.3 * len(every)))
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
                torch.nn.Linear(width, 64), torch.nn.ReLU(), torch.nn.Linear(64, len(categories))
            )

        verdict, plain, student = logic.compare(
            build, examples, unseen, chosen, strength=strength, epochs=40, seed=seed, quiet=quiet
        )
        with torch.no_grad():
            before, after = (model(unseen.inputs).argmax(1).numpy() for model in (plain, student))
        by_class = [
            {
                "category": name,
                "images": int((unseen.labels == place).sum()),
                "labels alone": float((before[unseen.labels.numpy() == place] == place).mean()),
                "student": float((after[unseen.labels.numpy() == place] == place).mean()),
            }
            for place, name in enumerate(categories)
            if bool((unseen.labels == place).any())
        ]
        run.save_table("rules.csv", verdict.rules)
        run.save_table("categories.csv", by_class)
        run.save_tensors("student.safetensors", student.state_dict(), {"categories": list(categories)})
        bars = data_figures.accuracy_figure(
            {
                "labels alone": verdict.plain,
                "labels alone, corrected by the rules": verdict.plain_with_rules,
                "student: imitated the teacher": verdict.student,
                "teacher: student, corrected by the rules": verdict.teacher,
            }
        )
        run.save_figure("accuracy.png", bars)
        told = int((labels >= 0).sum())
        gain = 100 * (verdict.student - verdict.plain)
        report = Report(
            f"{len(chosen)} rules, {told} labels",
            f"A network on {described} saw {told} labels and {len(examples) - told} images without any. Labels alone "
            f"bring it to {verdict.plain:.1%} on {len(unseen)} unseen images; with the rules the student reaches "
            f"{verdict.student:.1%} ({gain:+.1f} points) without being shown the attributes any more, and its teacher "
            f"{verdict.teacher:.1%}.",
            kicker="interpretkit cnn diagnose rules",
        )
        report.add_section("What the rules bring", figures=[(bars, "Accuracy on unseen images.")])
        report.add_section(
            "The rules",
            "How many unseen images a rule says anything about, and how often it is right then. A rule that seldom "
            "holds does harm; lower its confidence after the `@`.",
            table=verdict.rules,
            formats={"applies to": ".1%", "holds": ".1%"},
        )
        report.add_section("By category", table=by_class, formats={"labels alone": ".1%", "student": ".1%"})
        report.set_provenance(_called("rules", "--images", images), seed=seed)
        report.save(run.path("report.html"))
        run.summary.update(
            n_labelled=told, n_unlabelled=len(examples) - told, n_test=len(unseen), plain=verdict.plain,
            plain_with_rules=verdict.plain_with_rules, student=verdict.student, teacher=verdict.teacher,
        )  # fmt: skip
    return {**run.summary, "out": out}


def vqa(
    out: Out = Path("vqa"),
    model: Annotated[
        Path | None,
        typer.Option(
            "--answerer",
            metavar="FILE",
            help="A network that this command trained before.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", metavar="FILE", help="A picture of coloured shapes to ask about.", show_default=False
        ),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question",
            metavar="TEXT",
            help="What to ask about the image; may be repeated.",
            show_default=False,
        ),
    ] = None,
    scenes: Annotated[int, typer.Option("--scenes", min=8, help="Training scenes.")] = 3000,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of the training.")] = 8,
    questions: Annotated[
        int, typer.Option("--questions", metavar="N", min=8, help="Questions about new scenes, to measure.")
    ] = 400,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Show which regions and which words answers about images rest on.

    A small network with attention is trained on generated scenes of coloured shapes, and its attention, Grad-CAM and
    occlusion are compared with exact masks of what was asked about.
    """
    import numpy as np

    from cnn_interp.diagnosis import question_answering as qa
    from interpretkit.results import run_folder
    from interpretkit.visualization import Report

    if (image is None) != (not question):
        raise InputError("--image and --question: one is given without the other; expected both")
    for text in question or ():
        qa.encode(text)
    files = [path for path in (model, image) if path is not None]
    arguments = {
        "model": model, "image": image, "question": list(question or ()), "scenes": scenes, "epochs": epochs,
        "questions": questions,
    }  # fmt: skip
    with run_folder(out, "cnn diagnose vqa", arguments, seed, files) as run:
        picture = None if image is None else _square_picture(image, qa.SIZE)
        if model is None:
            answerer, history = qa.train_answerer(
                scenes=scenes, epochs=epochs, seed=seed, device=device, quiet=quiet
            )
            qa.save_answerer(run.path("answerer.safetensors"), answerer)
            run.save_table("training.csv", history.epochs)
        else:
            answerer = qa.load_answerer(model, device)
        exam = qa.make_exam(-(-questions // 8), seed=seed + 1_000_003)
        rows = np.arange(min(questions, len(exam)))
        truth = exam.answers().numpy()[rows]
        given = qa.answers(answerer, exam)[rows]
        prior = qa.prior_answers(qa.make_exam(1000, seed=seed + 2_000_003), exam)[rows]
        kinds = np.array([exam.questions[row].kind for row in rows])
        accuracy, by_prior = float((given == truth).mean()), float((prior == truth).mean())
        accuracies = [
            {
                "kind": kind,
                "questions": int((kinds == kind).sum()),
                "right": float((given == truth)[kinds == kind].mean()),
                "without the image": float((prior == truth)[kinds == kind].mean()),
            }
            for kind in qa.KINDS
            if (kinds == kind).any()
        ]
        attention = qa.attended_regions(answerer, exam, rows)
        maps = {"attention": attention.sum(1)}
        for method in ("gradcam", "guided_backprop"):
            maps[method] = qa.attributed_regions(answerer, exam, rows, method=method, quiet=quiet)
        table: list[dict[str, Any]] = []
        for name, found in maps.items():
            for kind in qa.KINDS:
                chosen = kinds == kind
                if not any(exam.questions[row].asked for row in rows[chosen]):
                    continue
                result = qa.localization(exam, rows[chosen], found[chosen])
                table.append(
                    {
                        "map": name,
                        "kind": kind,
                        "questions": result.count,
                        "points at it": result.pointing,
                        "any thing": result.by_any_thing,
                        "random pixel": result.by_chance,
                        "mass on it": result.mass,
                        "area": result.area,
                    }
                )
        overall = qa.localization(exam, rows, maps["attention"])
        run.save_table("localization.csv", table)
        run.save_table("accuracy.csv", accuracies)

        sheets: list[Any] = []
        if picture is not None:
            for text in question or ():
                own = qa.Exam(
                    (qa.Scene(picture, (), np.zeros((0, qa.SIZE, qa.SIZE), dtype=bool), ""),),
                    (qa.Question("own", text, "yes", ()),),
                    np.zeros(1, dtype=np.int64),
                )
                said, chance = qa.answer(answerer, picture, text)
                sheets.append(_question_sheet(answerer, own, 0, f"{said} ({chance:.0%})", None))
                run.summary[text] = said
        else:
            for kind in qa.KINDS:
                asks = np.array([bool(exam.questions[row].asked) for row in rows])
                right = rows[(kinds == kind) & (given == truth) & asks]
                if not len(right):
                    continue
                # The first of each of two scenes.
                _, firsts = np.unique(exam.scene_of[right], return_index=True)
                for row in right[firsts[2 * qa.KINDS.index(kind) :][:2]]:
                    title = qa.ANSWERS[given[row]]
                    sheets.append(_question_sheet(answerer, exam, int(row), title, True))
            for row in rows[given != truth][:2]:
                title = f"{qa.ANSWERS[given[row]]} (true: {qa.ANSWERS[truth[row]]})"
                sheets.append(_question_sheet(answerer, exam, int(row), title, False))
        for number, sheet in enumerate(sheets):
            run.save_figure(f"question-{number}.png", sheet)
        report = Report(
            "Where it looked, and which words it heard",
            f"The network answers {accuracy:.1%} of {len(rows)} questions about new scenes; without the image, the "
            f"most frequent answer to the same words is right in {by_prior:.1%}. Its attention is largest on what "
            f"was asked about in {overall.pointing:.1%}; pointing at any thing in the scene would hit "
            f"in {overall.by_any_thing:.1%}, at a random pixel in {overall.by_chance:.1%}.",
            kicker="interpretkit cnn diagnose vqa",
        )
        report.add_numbers(
            {
                "right": (f"{accuracy:.1%}", f"without the image {by_prior:.1%}"),
                "attention points at it": (
                    f"{overall.pointing:.1%}",
                    f"any thing {overall.by_any_thing:.1%}, random pixel {overall.by_chance:.1%}",
                ),
                "attention's mass on it": (f"{overall.mass:.1%}", f"its area {overall.area:.1%}"),
            }
        )
        report.add_section(
            "Questions",
            "White outlines: what was asked about; the network is not told. It looks twice, drawn on one scale: of a "
            "look that stays dark it makes no use. The deeper a word's shade, the more the answer's "
            "probability falls when it is covered.",
        )
        for sheet in sheets:
            report.add_figures((sheet, "", "A question, the image, and the regions that the answer rests on"))
        report.add_section("Answers", table=accuracies, formats={"right": ".1%", "without the image": ".1%"})
        report.add_section(
            "Regions",
            "Over the questions about something in the image. A map points at what its largest value lies on.",
            table=table,
            formats=dict.fromkeys(("points at it", "any thing", "random pixel", "mass on it", "area"), ".1%"),
        )
        report.add_next_step(
            "Ask about a picture of your own:",
            f"interpretkit cnn diagnose vqa --answerer {out / 'answerer.safetensors' if model is None else model} "
            '--image scene.png --question "how many red things are there"',
        )
        report.set_provenance(_called("vqa", "--answerer", model), seed=seed, data=files)
        report.save(run.path("report.html"))
        run.summary.update(
            accuracy=accuracy, accuracy_without_image=by_prior, attention_points_at_it=overall.pointing,
            any_thing=overall.by_any_thing, random_pixel=overall.by_chance,
        )  # fmt: skip
    return {**run.summary, "out": out}


def _question_sheet(answerer: Any, exam: Any, row: int, title: str, right: bool | None) -> Any:
    from cnn_interp.diagnosis import data_figures
    from cnn_interp.diagnosis import question_answering as qa

    looks = qa.attended_regions(answerer, exam, [row])[0]
    maps = {f"look {number + 1}": look for number, look in enumerate(looks)}
    for method, name in (("gradcam", "Grad-CAM"), ("occlusion", "occlusion")):
        maps[name] = qa.attributed_regions(answerer, exam, [row], method=method)[0]
    words = exam.questions[row].text.replace("?", "").split()
    importance = qa.word_importance(answerer, exam, [row])[0][: len(words)]
    scene = exam.scenes[exam.scene_of[row]]
    mask = exam.mask(row) if exam.questions[row].asked else None
    return data_figures.question_sheet(scene.image, mask, maps, words, importance, title, right=right)


def _called(name: str, option: str, value: Path | None) -> str:
    return f"interpretkit cnn diagnose {name}" + ("" if value is None else f" {option} {value}")


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


class _Labelled:
    """Training and test images with features, labels and names."""

    def __init__(
        self,
        described: str,
        categories: Sequence[str],
        train: tuple[Any, Any, Sequence[str], Sequence[Any]],
        test: tuple[Any, Any, Sequence[str], Sequence[Any]],
    ) -> None:
        self.described = described
        self.categories = tuple(categories)
        self.features, self.labels, self.names, self.pictures = train
        self.test_features, self.test_labels, self.test_names, self.test_pictures = test


def _digits(seed: int) -> _Labelled:
    import numpy as np
    from sklearn.datasets import load_digits

    from interpretkit.training import numpy_generator

    digits: Any = load_digits()
    order = numpy_generator(seed, "digits").permutation(len(digits.target))
    pictures = (255 - digits.images * 255 / 16).astype(np.uint8)

    def some(rows: NDArray[np.intp]) -> tuple[Any, Any, list[str], list[Any]]:
        return (
            digits.data[rows] / 16,
            digits.target[rows],
            [f"digit {row}" for row in rows],
            [pictures[row] for row in rows],
        )

    first, second = order[:DIGITS_FOR_TRAINING], order[DIGITS_FOR_TRAINING:]
    return _Labelled(
        "the pixels of handwritten digits", [str(n) for n in range(10)], some(first), some(second)
    )


def _folders(images: Path, test: Path | None, network: str, device: str, seed: int, quiet: bool) -> _Labelled:
    import numpy as np

    from interpretkit.training import numpy_generator

    features, labels, names, pictures, categories = _read_folder(images, network, device, quiet)
    if test is None:
        order = numpy_generator(seed, "held out").permutation(len(labels))
        count = len(labels) // 5
        if count < 1 or len(set(labels[order[count:]].tolist())) < len(categories):
            raise InputError(
                f"{images}: {len(labels)} images; expected at least 5, and several of each label"
            )
        held_out, kept = order[:count], np.sort(order[count:])
        return _Labelled(
            f"{network}'s features",
            categories,
            (features[kept], labels[kept], [names[r] for r in kept], [pictures[r] for r in kept]),
            (
                features[held_out],
                labels[held_out],
                [names[r] for r in held_out],
                [pictures[r] for r in held_out],
            ),
        )
    more, test_labels, test_names, test_pictures, test_categories = _read_folder(test, network, device, quiet)
    unknown = [name for name in test_categories if name not in categories]
    if unknown:
        raise InputError(
            f"{test}: the label {unknown[0]!r} is not in {images}; expected {', '.join(categories)}"
        )
    place = np.array([categories.index(name) for name in test_categories])
    return _Labelled(
        f"{network}'s features",
        categories,
        (features, labels, names, pictures),
        (more, place[test_labels], test_names, test_pictures),
    )


def _read_folder(
    folder: Path, network: str, device: str, quiet: bool
) -> tuple[Any, Any, list[str], list[Any], list[str]]:
    """Return features ``(n, d)``, labels ``(n,)`` from 0, names, small pictures and the categories' names."""
    import numpy as np
    from PIL import Image

    from cnn_interp.datasets.folders import read_labelled_folders
    from cnn_interp.diagnosis.linear_head import penultimate_features
    from cnn_interp.images import read_image
    from cnn_interp.models import load_network

    found = read_labelled_folders(folder)
    values, labels = np.unique(found.labels, return_inverse=True)
    if len(values) < 2:
        raise InputError(f"{folder}: one label only; expected a subfolder for each of two or more")
    categories = [found.category_names[v] if found.category_names else str(v) for v in values]
    loaded = load_network(network, device=device)
    loaded.check_scores()
    images = [read_image(folder / name, convert=True) for name in found.ids]
    features = penultimate_features(loaded, images, quiet=quiet)
    pictures = []
    for image in images:
        image.thumbnail((160, 160), Image.Resampling.LANCZOS)
        pictures.append(np.asarray(image))
    return features, labels, list(found.ids), pictures, categories


def _predictions(
    path: Path,
) -> tuple[list[str], list[str], NDArray[np.float64], list[str], dict[str, list[object]]]:
    """Return names, predictions, confidences, labels and attribute columns of a table."""
    import numpy as np

    rows = _csv(path, "predicted", "confidence")
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
    columns: dict[str, list[object]] = {"predicted": [row["predicted"] for row in rows]}
    columns |= {name: [row[name] for row in rows] for name in rows[0] if name not in apart}
    if len(columns) == 1:
        raise InputError(f"{path}: no column but {', '.join(rows[0])}; expected attributes beside them")
    names = [row.get("image") or f"line {number}" for number, row in enumerate(rows, start=2)]
    labels = [(row.get("label") or "").strip() for row in rows]
    return names, [row["predicted"] for row in rows], np.array(confidence), labels, columns


def _csv(path: Path, *needed: str) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table (CSV)")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval="", restkey=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table (CSV) ({error})") from error
    if not rows:
        raise InputError(f"{path}: holds no rows; expected a table (CSV) with a line of column names")
    for name in needed:
        if name not in rows[0]:
            raise InputError(f"{path}: has no column {name!r}; expected {', '.join(needed)}")
    return [{key: value for key, value in row.items() if key} for row in rows]


def _to_label(
    parts: Any, names: Sequence[str], budget: int, attribute_names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Return examples to label, as many as the budget allows, from all parts in turn."""
    from interpretkit.training import numpy_generator

    order = numpy_generator(seed, "to label").permutation(len(names))
    waiting = [[row for row in order if parts.part[row] == part] for part in range(len(parts.patterns))]
    found: list[dict[str, Any]] = []
    while len(found) < min(budget, len(names)):
        for part, rows in enumerate(waiting):
            if rows and len(found) < budget:
                row = rows.pop()
                found.append({"image": names[row], "part": parts.patterns[part].describe(attribute_names)})
    return found


def _digits_with_holes() -> tuple[Examples, tuple[str, ...], str]:
    import torch
    from sklearn.datasets import load_digits

    from cnn_interp.diagnosis.logic_rules import Examples, digit_attributes

    digits: Any = load_digits()
    examples = Examples(
        torch.from_numpy(digits.data / 16).float(),
        torch.from_numpy(digit_attributes(digits.images)).float(),
        torch.from_numpy(digits.target).long(),
    )
    return examples, tuple(str(n) for n in range(10)), "the pixels of handwritten digits"


def _images_with_attributes(
    folder: Path, table: Path, network: str, device: str, quiet: bool
) -> tuple[Examples, tuple[str, ...], tuple[str, ...]]:
    """Return examples, the categories' names and the attributes' names."""
    import numpy as np
    import torch

    from cnn_interp.diagnosis.linear_head import Scaling
    from cnn_interp.diagnosis.logic_rules import Examples

    rows = {row["image"]: row for row in _csv(table, "image")}
    names = tuple(name for name in next(iter(rows.values())) if name != "image")
    if not names:
        raise InputError(f"{table}: has no column but image; expected attributes beside it")
    features, labels, ids, _, categories = _read_folder(folder, network, device, quiet)
    values = np.zeros((len(ids), len(names)))
    for place, identity in enumerate(ids):
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
    scaled = Scaling.of(features)(features)
    examples = Examples(
        torch.from_numpy(scaled).float(),
        torch.from_numpy(values).float(),
        torch.from_numpy(np.asarray(labels, dtype=np.int64)),
    )
    return examples, tuple(categories), names


def _square_picture(path: Path, size: int) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import ImageOps

    from cnn_interp.images import read_image

    return np.asarray(ImageOps.fit(read_image(path, convert=True), (size, size)), dtype=np.uint8)
