"""Put a network to the test: what fools it, what its parts mean, what its training taught it."""

# Heavy packages are imported inside the commands, so that the list of commands and their help come at once.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.diagnosis import data_cli
from cnn_interp.options import Convert, Model, Weights
from interpretkit.command import Device, Out, Quiet, Seed, application, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from cnn_interp.diagnosis.small_network import Pictures, SmallNetwork
    from cnn_interp.models import Network

app = application("Question a network: where it can be fooled, what its layers hold, what it was biased by.")

Images = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGE|FOLDER", help="Images, or folders of images.", show_default=False),
]
Layers = Annotated[
    str, typer.Option("--layer", metavar="NAME,...", help="Dotted names; the network's stages by default.")
]
SmallData = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="digits|cifar10=FILE",
        help="Images to train a small network on: scikit-learn's digits, or an npz of JPEGs with train and test.",
    ),
]
# Of the rendered scenes as networks are shown them, px.
SCENE_SIDE = 96
FEWEST_FOR_BIAS = 10
ATTACKS = ("fgsm", "pgd", "deepfool", "minimal")


@command(
    app,
    "adversarial",
    example=[
        "interpretkit cnn diagnose adversarial cat.jpg --epsilon 2 --out adversarial",
        "interpretkit cnn diagnose adversarial photos/ --method fgsm,pgd",
    ],
)
def adversarial(
    images: Images = None,
    out: Out = Path("adversarial"),
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    method: Annotated[
        str, typer.Option("--method", metavar="NAME,...", help=f"Some of {', '.join(ATTACKS)}.")
    ] = ",".join(ATTACKS),
    epsilon: Annotated[
        float, typer.Option("--epsilon", help="Largest change of a value for fgsm and pgd, of 255.")
    ] = 1.0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of pgd.")] = 10,
    target: Annotated[
        str, typer.Option("--target", help="A category, or its index, to lead to (fgsm, pgd, minimal).")
    ] = "",
    layers: Layers = "",
    convert: Convert = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Find changes too small to see that fool a network, and follow them through its layers.

    FGSM and PGD change every value by up to epsilon/255; DeepFool and box-constrained L-BFGS look for the shortest
    change. Beside each stands noise of the same length. Without an image, a photograph of a cat is taken.
    """
    from cnn_interp.diagnosis import adversarial as attacks
    from cnn_interp.diagnosis.layer_features import layer_change
    from cnn_interp.diagnosis.network_reports import MOST_SHOWN, TITLES, attack_sheet, layer_change_figure
    from interpretkit.progress import track
    from interpretkit.results import run_folder
    from interpretkit.visualization import Report

    chosen = _names(method, "--method", ATTACKS)
    if not 0 < epsilon <= 255:
        raise InputError(f"--epsilon {epsilon}: expected a number above 0 and up to 255")
    if target and "deepfool" in chosen:
        chosen = [name for name in chosen if name != "deepfool"]
        if not chosen:
            raise InputError("--target: deepfool leads to no wanted category; expected another --method")
    arguments = {
        "images": [str(path) for path in images or ()], "network": network, "weights": weights, "method": method,
        "epsilon": epsilon, "steps": steps, "target": target, "layers": layers, "convert": convert,
    }  # fmt: skip
    loaded = _network(network, weights, device, seed)
    pixels, names, files = _pixels(loaded, images, convert)
    targets = [loaded.target(target)] * len(pixels) if target else None
    with run_folder(out, "cnn diagnose adversarial", arguments, seed, files) as run:
        found: dict[str, attacks.Attack] = {}
        for name in track(chosen, "Attacking", quiet=quiet):
            if name == "fgsm":
                found[name] = attacks.fgsm(loaded, pixels, epsilon=epsilon / 255, targets=targets, seed=seed)
            elif name == "pgd":
                found[name] = attacks.pgd(
                    loaded, pixels, epsilon=epsilon / 255, steps=steps, targets=targets, seed=seed
                )
            elif name == "deepfool":
                found[name] = attacks.deepfool(loaded, pixels, seed=seed)
            else:
                found[name] = attacks.minimal_perturbation(loaded, pixels, targets=targets, seed=seed)
        changes = {
            name: layer_change(loaded, attack, _split(layers) or None, seed=seed)
            for name, attack in found.items()
        }
        rows = [
            {
                "image": names[row],
                "method": TITLES[name],
                "said": loaded.category(int(attack.before[row].argmax())),
                "says then": loaded.category(int(attack.after[row].argmax())),
                "probability": float(attack.after[row].max()),
                "fooled": bool(attack.succeeded[row]),
                "L2": float(attack.l2[row]),
                "largest change, of 255": 255 * float(attack.linf[row]),
                "times further than noise, output": float(changes[name].amplification[row, -1]),
                "network runs": int(attack.evaluations[row]),
            }
            for name, attack in found.items()
            for row in range(len(names))
        ]
        run.save_table("attacks.csv", rows)
        run.save_arrays(
            "attacks.npz",
            originals=pixels.cpu().numpy(),
            **{name: attack.perturbed.numpy() for name, attack in found.items()},
            layers=list(next(iter(changes.values())).layers),
            **{f"{name}_change": change.perturbed for name, change in changes.items()},
            **{f"{name}_noise": change.noise for name, change in changes.items()},
        )
        sheets = [
            attack_sheet(list(found.values()), row, loaded.category)
            for row in range(min(len(names), MOST_SHOWN))
        ]
        through = layer_change_figure(changes)
        run.save_figure("attacks.png", sheets[0])
        run.save_figure("layers.png", through)
        rates = {name: float(attack.succeeded.double().mean()) for name, attack in found.items()}
        shortest = {name: float(attack.l2.median()) for name, attack in found.items()}
        last = {name: float(_geometric_mean(change.amplification[:, -1])) for name, change in changes.items()}
        run.summary.update(fooled=rates, median_l2=shortest, amplification=last, images=len(names))
        report = Report(
            f"{network}: how little fools it",
            f"{len(names)} image{'s' if len(names) > 1 else ''}, attacked in pixels between 0 and 1. What the network "
            "says of itself is what it is led away from" + (f", to “{target}”." if target else "."),
            kicker="interpretkit cnn diagnose adversarial",
        )
        report.add_numbers(
            {
                f"{TITLES[name]}: fooled": (f"{rates[name]:.0%}", f"median L2 {shortest[name]:.3g}")
                for name in found
            }
        )
        report.add_section(
            "What was changed",
            "Above the image as the network sees it, below what was added, made visible.",
            figures=[
                (sheet, f"{names[row]}: the original and what each attack made of it.")
                for row, sheet in enumerate(sheets)
            ],
        )
        report.add_section(
            "Through the layers",
            "How far each layer's representation moves, over its own length (geometric mean over images). Noise of the "
            "same length fades or stays as it is; a direction that was looked for grows.",
            figures=[(through, "Solid: the attack. Dashed: noise of the same length.")],
        )
        report.add_section("All attacks", table=rows[:200])
        report.add_next_step(
            "Change one pixel only:",
            "interpretkit cnn diagnose one-pixel" + (f" {images[0]}" if images else ""),
        )
        report.set_provenance(_line("adversarial", images, network), seed=seed, data=files)
        report.save(run.path("report.html"))
    return {**run.summary, "out": out}


@command(
    app,
    "one-pixel",
    example=[
        "interpretkit cnn diagnose one-pixel",
        "interpretkit cnn diagnose one-pixel --data cifar10=cifar10.npz --population 400 --generations 75",
        "interpretkit cnn diagnose one-pixel cat.jpg --model mobilenet_v2 --population 60 --generations 5",
    ],
)
def one_pixel(
    images: Images = None,
    out: Out = Path("one-pixel"),
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    data: SmallData = "digits",
    test_images: Annotated[
        int, typer.Option("--test-images", min=1, help="Images of the data to attack.")
    ] = 40,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of the small network's training.")] = 6,
    pixels_changed: Annotated[int, typer.Option("--pixels", min=1, help="How many pixels may change.")] = 1,
    population: Annotated[
        int, typer.Option("--population", min=5, help="Of the evolution; 400 in the article.")
    ] = 100,
    generations: Annotated[
        int, typer.Option("--generations", min=1, help="Of the evolution; 75 in the article.")
    ] = 20,
    convert: Convert = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Fool a network by one pixel, found by differential evolution.

    With images, the named network is attacked on them. Without, a small network is trained on small images, where a
    pixel weighs more, and attacked on test images that it has right.
    """
    from cnn_interp.diagnosis.network_reports import one_pixel_sheet
    from cnn_interp.diagnosis.one_pixel import one_pixel as attack_by_pixel
    from cnn_interp.diagnosis.small_network import binomial_interval
    from interpretkit.results import run_folder
    from interpretkit.visualization import Report

    arguments = {
        "images": [str(path) for path in images or ()], "network": network, "weights": weights, "data": data,
        "test_images": test_images, "epochs": epochs, "pixels": pixels_changed, "population": population,
        "generations": generations, "convert": convert,
    }  # fmt: skip
    options: dict[str, Any] = {
        "pixels_changed": pixels_changed,
        "population": population,
        "generations": generations,
        "seed": seed,
        "quiet": quiet,
    }
    right: float | None = None
    pictures: Pictures | None = None
    model: Any = None
    if images:
        model = _network(network, weights, device, seed)
        shown, names, files = _pixels(model, images, convert)
        labels, category, attacked = None, model.category, network
    else:
        pictures, files = _pictures(data), _data_files(data)
        shown, labels = pictures.test[:test_images], pictures.test_labels[:test_images]
        names = [f"test image {row}" for row in range(len(shown))]
        category, attacked = pictures.categories.__getitem__, f"a small network on {pictures.name}"
    with run_folder(out, "cnn diagnose one-pixel", arguments, seed, files) as run:
        if pictures is not None:
            model, right = _trained(pictures, epochs, seed, device, quiet)
        attack = attack_by_pixel(model, shown, labels, images_per_forward=32 if images else 128, **options)
        fair = int(attack.fair.sum())
        rate = attack.success_rate
        rows = [
            {
                "image": names[row],
                "label": category(int(attack.labels[row])),
                "says then": category(int(attack.after[row].argmax())),
                "probability": float(attack.after[row].max()),
                "fooled": bool(attack.succeeded[row] & attack.fair[row]),
                "right before": bool(attack.fair[row]),
                "network runs": int(attack.evaluations[row]),
            }
            for row in range(len(names))
        ]
        sheet = one_pixel_sheet(attack, category)
        run.save_table("attacks.csv", rows)
        run.save_arrays("attacks.npz", originals=attack.originals.numpy(), perturbed=attack.perturbed.numpy())
        run.save_figure("attacks.png", sheet)
        interval = binomial_interval(rate, fair) if fair else (float("nan"), float("nan"))
        run.summary.update(success_rate=rate, interval=interval, attacked=fair, accuracy=right)
        plural = "pixel" if pixels_changed == 1 else f"{pixels_changed} pixels"
        report = Report(
            f"{'One' if pixels_changed == 1 else 'Up to'} {plural} against {attacked}",
            "The place and the colour are found by differential evolution, from the network's outputs alone.",
            kicker="interpretkit cnn diagnose one-pixel",
        )
        report.add_numbers(
            {
                "fooled": (f"{rate:.0%}" if fair else "–", f"of {fair} images that it had right"),
                "95 % interval": f"{interval[0]:.0%} … {interval[1]:.0%}" if fair else "–",
                "accuracy": (f"{right:.1%}" if right is not None else "–", "on all test images"),
                "network runs per image": (int(attack.evaluations.double().mean()), "with early stop"),
            }
        )
        report.add_section(
            "The images",
            "Those that were enough, the changed pixel circled; if none was, some that withstood.",
            figures=[(sheet, "Label before → after, with probabilities.")],
        )
        report.add_section(
            "All attacks",
            "For comparison: of a residual network with 92.3 % on CIFAR-10, Su and others fooled 34 % of the images "
            "with a population of 400 and 75 generations.",
            table=rows[:200],
        )
        report.set_provenance(_line("one-pixel", images, network), seed=seed, data=files)
        report.save(run.path("report.html"))
    return {**run.summary, "out": out}


@command(
    app,
    "directions",
    example=[
        "interpretkit cnn diagnose directions --layer features.7,features.18",
        "interpretkit cnn diagnose directions photos/ --model resnet50",
    ],
)
def directions(
    images: Images = None,
    out: Out = Path("directions"),
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layers: Layers = "",
    top: Annotated[int, typer.Option("--top", min=2, help="Strongest images of a direction.")] = 9,
    count: Annotated[int, typer.Option("--directions", min=2, help="How many random directions.")] = 256,
    convert: Convert = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Ask whether single units mean more than random directions of their layer.

    The strongest images of each unit are compared with those of random directions: by how far they agree on a known
    attribute (scenes rendered here, without images), or by how alike the network's outputs to them are (with images).
    A rotated basis is the control.
    """
    from cnn_interp.diagnosis.directions import compare_directions, rotated
    from cnn_interp.diagnosis.layer_features import OUTPUT, pooled_features, stages
    from cnn_interp.diagnosis.network_reports import purity_figure, strongest_images
    from interpretkit.results import run_folder
    from interpretkit.visualization import Report

    arguments = {
        "images": [str(path) for path in images or ()], "network": network, "weights": weights, "layers": layers,
        "top": top, "directions": count, "convert": convert,
    }  # fmt: skip
    loaded = _network(network, weights, device, seed, None if images else SCENE_SIDE)
    files: list[Path] = []
    factors = None
    if images:
        pixels, _, files = _pixels(loaded, images, convert)
    else:
        pixels, factors, _ = _scenes(SCENE_SIDE)
    if len(pixels) < 2 * top:
        raise InputError(f"IMAGE: {len(pixels)} images; expected at least {2 * top}, twice --top")
    chosen = _split(layers) or list(stages(loaded.module, loaded.normalise(pixels[:1]), most=4))
    with run_folder(out, "cnn diagnose directions", arguments, seed, files) as run:
        wanted = [*chosen, OUTPUT] if images else chosen
        features = pooled_features(loaded, pixels, wanted, seed=seed, quiet=quiet)
        against: dict[str, Any] = (
            {"attributes": factors} if factors is not None else {"reference": features[OUTPUT]}
        )
        options: dict[str, Any] = {"top": top, "directions": count, "seed": seed, **against}
        found = {layer: compare_directions(features[layer], **options) for layer in chosen}
        controls = {layer: compare_directions(rotated(features[layer], seed), **options) for layer in chosen}
        rows = [
            {
                "layer": layer,
                "units": len(result.units),
                "purity of units": float(result.units.mean()),
                "of random directions": float(result.random.mean()),
                "of images at random": result.chance,
                "difference": result.difference,
                "from": result.interval[0],
                "to": result.interval[1],
                "unit purer than direction": result.superiority,
                "the same, rotated": controls[layer].superiority,
            }
            for layer, result in found.items()
        ]
        run.save_table("directions.csv", rows)
        run.save_arrays(
            "directions.npz",
            **{f"{layer}.units": result.units for layer, result in found.items()},
            **{f"{layer}.random": result.random for layer, result in found.items()},
            **{f"{layer}.unit_images": result.unit_images for layer, result in found.items()},
        )
        figure = purity_figure(found, controls)
        run.save_figure("purity.png", figure)
        last = found[chosen[-1]]
        run.summary.update(
            images=len(pixels),
            superiority={layer: result.superiority for layer, result in found.items()},
            rotated={layer: result.superiority for layer, result in controls.items()},
        )
        purer = [layer for layer, result in found.items() if result.interval[0] > 0]
        report = Report(
            f"{network}: units against random directions",
            (
                f"In {', '.join(purer)} the strongest images of units have more in common than those of random "
                "directions."
                if purer
                else "In none of the layers do the strongest images of units have more in common than those of random "
                "directions."
            )
            + f" {len(pixels)} {'images' if images else 'rendered scenes'}, {top} strongest.",
            kicker="interpretkit cnn diagnose directions",
        )
        report.add_numbers(
            {
                layer: (
                    f"{result.superiority:.0%}",
                    "a unit purer than a random direction; 50 % = no difference",
                )
                for layer, result in found.items()
            }
        )
        report.add_section(
            "Purity",
            "Attributes: bits that the images have in common, by the attribute that tells most (size, shape, "
            "viewpoint, colours). Images: the mean cosine between the network's outputs to them. A rotated basis spans "
            "the same space; if units are special, its are not.",
            figures=[(figure, "Boxes: quartiles; whiskers: 1.5 times their distance.")],
            table=rows,
        )
        small = _smaller(pixels, 64)
        report.add_section(f"Strongest images in {chosen[-1]}")
        for kind in ("units", "directions"):
            picture = strongest_images(last, small, kind=kind)
            report.add_figures((picture, f"{top} strongest images of each; purity beside them."))
        report.set_provenance(_line("directions", images, network), seed=seed, data=files)
        report.save(run.path("report.html"))
    return {**run.summary, "out": out}


@command(
    app,
    "transferability",
    example=[
        "interpretkit cnn diagnose transferability",
        "interpretkit cnn diagnose transferability --data cifar10=cifar10.npz --repeats 4 --epochs 20",
    ],
)
def transferability(
    out: Out = Path("transferability"),
    data: SmallData = "digits",
    train_images: Annotated[
        int, typer.Option("--train-images", min=4, help="Training images of a category, at most.")
    ] = 100,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of every training.")] = 6,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Splits of the categories into halves.")
    ] = 2,
    widths: Annotated[
        str, typer.Option("--widths", metavar="N,...", help="Channels of each layer of the network.")
    ] = "8,16,32",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Find out layer by layer how general features are, by transfer between halves of the categories.

    A run that is interrupted goes on where it stopped when it is started again.
    """
    import hashlib
    import shutil

    from cnn_interp.diagnosis.network_reports import transfer_figure
    from cnn_interp.diagnosis.transferability import TREATMENTS, transfer
    from interpretkit.files import dump_json
    from interpretkit.results import run_folder
    from interpretkit.training import resolve_device
    from interpretkit.visualization import Report

    numbers = _split(widths)
    if not numbers or not all(number.isdigit() and int(number) > 0 for number in numbers):
        raise InputError(f"--widths {widths!r}: expected whole numbers such as 8,16,32")
    pictures = _pictures(data).limited(train_images, 10**9)
    files = _data_files(data)
    arguments = {
        "data": data, "train_images": train_images, "epochs": epochs, "repeats": repeats, "widths": widths,
    }  # fmt: skip
    # More repeats may go on from fewer; whatever else differs begins a state of its own.
    same = {name: value for name, value in arguments.items() if name != "repeats"}
    digest = hashlib.sha256(dump_json([same, seed]).encode()).hexdigest()[:12]
    final = out.resolve()
    state = final.parent / f".{final.name}.unfinished-{digest}"
    with run_folder(out, "cnn diagnose transferability", arguments, seed, files) as run:
        found = transfer(
            pictures,
            widths=[int(number) for number in numbers],
            epochs=epochs,
            repeats=repeats,
            seed=seed,
            device=resolve_device(device),
            state=state,
            quiet=quiet,
        )
        run.save_table("accuracies.csv", found.rows)
        figure = transfer_figure(found)
        run.save_figure("transfer.png", figure)
        curves = {treatment: found.curve(treatment).tolist() for treatment in TREATMENTS}
        run.summary.update(base=found.base, **curves)
        last = len(numbers) - 1
        report = Report(
            "How general is each layer?",
            f"A network of {len(numbers)} layers, trained on half of the categories of {pictures.name}; its first "
            "layers copied into a network for the other half.",
            kicker="interpretkit cnn diagnose transferability",
        )
        report.add_numbers(
            {
                "trained on B": (f"{found.base:.1%}", f"{found.test_images} test images, {repeats} splits"),
                "all layers from A": (f"{curves['AnB'][last]:.1%}", "frozen; only the head learns"),
                "all layers from B": (f"{curves['BnB'][last]:.1%}", "frozen; only the head learns"),
                "from A, tuned": (f"{curves['AnB+'][last]:.1%}", "the copied layers go on learning"),
            }
        )
        report.add_section(
            "Accuracy against the number of layers copied",
            "AnB: copied from the network of A and frozen. BnB: from that of B. With a plus they go on learning. AnB "
            "below BnB tells that features were made for A; BnB below the line, that layers had been fitted to each "
            "other. Pale dots are single splits: the distance between them is what chance does.",
            figures=[(figure, "Means over splits of the categories.")],
            table=[
                {"layers copied": n + 1, **{treatment: curves[treatment][n] for treatment in TREATMENTS}}
                for n in range(len(numbers))
            ],
            formats=dict.fromkeys(TREATMENTS, ".3f"),
        )
        report.add_section(
            "The halves",
            table=[
                {"split": n + 1, "A": ", ".join(a), "B": ", ".join(b)}
                for n, (a, b) in enumerate(zip(found.categories_a, found.categories_b, strict=True))
            ],
        )
        report.set_provenance(
            f"interpretkit cnn diagnose transferability --data {data}", seed=seed, data=files
        )
        report.save(run.path("report.html"))
    shutil.rmtree(state, ignore_errors=True)
    return {**run.summary, "out": out}


@command(
    app,
    "probe",
    example=[
        "interpretkit cnn diagnose probe --model mobilenet_v2",
        "interpretkit cnn diagnose probe --data cifar10=cifar10.npz --images 1000",
    ],
)
def probe(
    out: Out = Path("probe"),
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    data: SmallData = "digits",
    count: Annotated[int, typer.Option("--images", min=40, help="How many images of the data to use.")] = 500,
    side: Annotated[int, typer.Option("--side", min=16, help="Their side for the network, px.")] = 64,
    layers: Layers = "",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Read categories off each layer of a trained network by a linear classifier, on data it was not made for.

    A cheap companion to transferability: nothing but the classifier is trained.
    """
    from cnn_interp.diagnosis.layer_features import OUTPUT, pooled_features, resize, stages
    from cnn_interp.diagnosis.network_reports import probe_figure
    from cnn_interp.diagnosis.transferability import linear_probes
    from interpretkit.results import run_folder
    from interpretkit.visualization import Report

    pictures = _pictures(data)
    files = _data_files(data)
    per_category = max(4, count // len(pictures.categories))
    some = pictures.limited(per_category, 1)
    loaded = _network(network, weights, device, seed, side)
    pixels = resize(some.train.expand(-1, 3, -1, -1), side)
    chosen = _split(layers) or list(stages(loaded.module, loaded.normalise(pixels[:1])))
    arguments = {
        "network": network, "weights": weights, "data": data, "images": count, "side": side, "layers": layers,
    }  # fmt: skip
    with run_folder(out, "cnn diagnose probe", arguments, seed, files) as run:
        features = {"pixels": resize(some.train, 8).flatten(1).numpy()}
        features |= pooled_features(loaded, pixels, [*chosen, OUTPUT], seed=seed, quiet=quiet)
        found = linear_probes(features, some.train_labels.numpy(), seed=seed)
        rows = [
            {
                "layer": result.layer,
                "accuracy": result.accuracy,
                "from": result.interval[0],
                "to": result.interval[1],
                "features": result.width,
            }
            for result in found
        ]
        run.save_table("probes.csv", rows)
        figure = probe_figure(found)
        run.save_figure("probes.png", figure)
        best = max(found, key=lambda result: result.accuracy)
        run.summary.update(
            accuracies={result.layer: result.accuracy for result in found},
            best=best.layer,
            chance=best.chance,
        )
        report = Report(
            f"What a linear classifier reads off {network}",
            f"{len(pixels)} images of {pictures.name}, four-fold cross-validation. Features are means over positions; "
            "`pixels` are the images themselves at 8\u00a0×\u00a08.",
            kicker="interpretkit cnn diagnose probe",
        )
        report.add_numbers(
            {
                "best layer": (best.layer, f"{best.accuracy:.1%}"),
                "pixels": (f"{found[0].accuracy:.1%}", "without any network"),
                "output": (f"{found[-1].accuracy:.1%}", "the network's own categories"),
                "chance": f"{best.chance:.1%}",
            }
        )
        report.add_section("Layer by layer", figures=[(figure, "Bars: 95 % intervals.")], table=rows)
        report.set_provenance(
            f"interpretkit cnn diagnose probe --model {network} --data {data}", seed=seed, data=files
        )
        report.save(run.path("report.html"))
    return {**run.summary, "out": out}


@command(
    app,
    "features",
    example="interpretkit cnn diagnose features --model mobilenet_v2 --side 96 --out features",
)
def features(
    out: Out = Path("features"),
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layers: Layers = "",
    side: Annotated[int, typer.Option("--side", min=32, help="Of the scenes, px.")] = 96,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Split the variance of each layer's features into shape, viewpoint, colours and size.

    An object in a room is rendered in all combinations of these factors, so that the shares are exact.
    """
    from cnn_interp.diagnosis.feature_distributions import variance_shares
    from cnn_interp.diagnosis.layer_features import OUTPUT, pooled_features, stages
    from cnn_interp.diagnosis.network_reports import factor_maps, shares_figure
    from interpretkit.disentanglement.datasets import SHAPES3D
    from interpretkit.results import run_folder
    from interpretkit.visualization import Report

    loaded = _network(network, weights, device, seed, side)
    pixels, factors, images = _scenes(side)
    varied = [column for column in range(factors.shape[1]) if len(set(factors[:, column])) > 1]
    factors, names = factors[:, varied], [SHAPES3D.names[column] for column in varied]
    chosen = _split(layers) or list(stages(loaded.module, loaded.normalise(pixels[:1])))
    arguments = {"network": network, "weights": weights, "layers": layers, "side": side}
    with run_folder(out, "cnn diagnose features", arguments, seed) as run:
        read = pooled_features(loaded, pixels, [*chosen, OUTPUT], seed=seed, quiet=quiet)
        everything = {"pixels": images.reshape(len(images), -1) / 255, **read}
        found = {layer: variance_shares(values, factors, names) for layer, values in everything.items()}
        rows = [{"layer": layer, **shares.shares} for layer, shares in found.items()]
        run.save_table("shares.csv", rows)
        run.save_arrays(
            "effects.npz",
            **{
                f"{layer}.{effect.name}": effect.effects
                for layer, shares in found.items()
                for effect in shares.factors
                if layer != "pixels"
            },
        )
        examples = {
            name: _examples(images, factors, column)[:, 14:54, 12:52] for column, name in enumerate(names)
        }
        figure = shares_figure(found)
        maps = factor_maps(found[chosen[-1]].factors, examples)
        run.save_figure("shares.png", figure)
        run.save_figure("maps.png", maps)
        last = found[chosen[-1]]
        run.summary.update(shares={layer: shares.shares for layer, shares in found.items()})
        report = Report(
            f"{network}: what its features are about",
            f"{len(pixels)} scenes, all combinations of {', '.join(name.replace('_', ' ') for name in names)}. A "
            "feature is taken for the sum of one effect of each factor; the rest is what factors do together.",
            kicker="interpretkit cnn diagnose features",
        )
        report.add_numbers(
            {
                effect.name.replace("_", " "): (
                    f"{effect.share:.0%}",
                    f"of {chosen[-1]}; {found['pixels'].shares[effect.name]:.0%} of the pixels; "
                    f"{effect.dimensions} dimension{'s' if effect.dimensions > 1 else ''}",
                )
                for effect in last.factors
            }
        )
        report.add_section(
            "Shares of the variance",
            figures=[(figure, "From the pixels to the output.")],
            table=[{key.replace("_", " "): value for key, value in row.items()} for row in rows],
            formats=dict.fromkeys([*(name.replace("_", " ") for name in names), "residual"], ".3f"),
        )
        report.add_section(
            f"Maps of {chosen[-1]}",
            "The mean feature of each value of a factor, in the plane of the factor's first two principal axes: "
            "neighbours in viewpoint should be neighbours here, and hues, that go round in a circle, a ring.",
            figures=[(maps, "One picture for each value.")],
        )
        report.set_provenance(f"interpretkit cnn diagnose features --model {network}", seed=seed)
        report.save(run.path("report.html"))
    return {**run.summary, "out": out}


@command(
    app,
    "bias",
    example=[
        "interpretkit cnn diagnose bias",
        'interpretkit cnn diagnose bias photos/ --categories "tabby,Egyptian cat,remote control,keypad" '
        "--layer features.13 --relations relations.csv",
    ],
)
def bias(
    images: Images = None,
    out: Out = Path("bias"),
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    categories: Annotated[
        str,
        typer.Option(
            "--categories", metavar="NAME,...", help="Outputs of the network to relate; three or more."
        ),
    ] = "",
    layer: Annotated[
        str, typer.Option("--layer", metavar="NAME", help="The layer whose features are looked at.")
    ] = "",
    relations: Annotated[
        str,
        typer.Option(
            "--relations", metavar="FILE", help="CSV: first, second, relation (positive, none or negative)."
        ),
    ] = "",
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Of the small networks, without images.")
    ] = 10,
    convert: Convert = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Find attributes that a network tells by each other's features though they are not related.

    With images, outputs of the named network are related. Without, two small networks are trained on rendered scenes:
    one in which round things stand before warm walls, and one in which they stand anywhere.
    """
    from cnn_interp.diagnosis.layer_features import stages
    from cnn_interp.diagnosis.network_reports import cosine_figure, relation_figure
    from cnn_interp.diagnosis.representation_bias import (
        SCENE_ATTRIBUTES,
        attribute_scenes,
        find_bias,
        mine_relations,
        read_relations,
    )
    from cnn_interp.diagnosis.small_network import SmallNetwork, train_network
    from interpretkit.results import run_folder
    from interpretkit.training import resolve_device
    from interpretkit.visualization import Report

    arguments = {
        "images": [str(path) for path in images or ()], "network": network, "weights": weights,
        "categories": categories, "layer": layer, "relations": relations, "epochs": epochs, "convert": convert,
    }  # fmt: skip
    given = read_relations(relations) if relations else {}
    files = [Path(relations)] if relations else []
    named = [] if not images else _split(categories)
    if images and len(set(named)) < 3:
        raise InputError(
            f"--categories {categories!r}: expected at least three names of the network's outputs"
        )
    outputs = {name: number for number, name in enumerate(SCENE_ATTRIBUTES)}
    pixels = attribute_scenes(150, seed=seed + 1)[0]
    networks: dict[str, Any] = {}
    if images:
        loaded = _network(network, weights, device, seed)
        networks[network] = loaded
        outputs = {name: loaded.target(name) for name in named}
        pixels, _, found_files = _pixels(loaded, images, convert)
        if len(pixels) < FEWEST_FOR_BIAS:
            raise InputError(
                f"IMAGE: {len(pixels)} images; expected at least {FEWEST_FOR_BIAS}, for distributions are compared"
            )
        files += found_files
        every = stages(loaded.module, loaded.normalise(pixels[:1]))
        layer = layer or every[max(0, len(every) - 3)]
    layer = layer or "blocks.1"
    with run_folder(out, "cnn diagnose bias", arguments, seed, files) as run:
        if not images:
            for name, pair in (("biased", ("warm wall", "round")), ("control", None)):
                scenes, present = attribute_scenes(800, bias=pair, seed=seed)
                model = SmallNetwork(3, len(outputs), (8, 16, 16), seed=seed).to(resolve_device(device))
                train_network(
                    model,
                    scenes,
                    present,
                    epochs=epochs,
                    seed=seed,
                    description=f"Training: {name}",
                    quiet=quiet,
                )
                networks[name] = model
        mined = {
            name: mine_relations(each, pixels, outputs, layer, seed=seed) for name, each in networks.items()
        }
        found = {name: find_bias(each, given) for name, each in mined.items()}
        rows = [
            {
                "network": name,
                "first": pair.first,
                "second": pair.second,
                "given": pair.given,
                "cosine": pair.cosine,
                "cosine of such pairs": pair.expected,
                "divergence": pair.divergence,
                "outlying": pair.outlying,
                "suspected": pair.suspected,
            }
            for name, pairs in found.items()
            for pair in pairs
        ]
        run.save_table("pairs.csv", rows)
        run.save_arrays(
            "relations.npz",
            pairs=next(iter(mined.values())).pairs,
            **{f"{name}.cosines": each.cosines for name, each in mined.items()},
        )
        suspected = {
            name: [f"{pair.first} – {pair.second}" for pair in pairs if pair.suspected]
            for name, pairs in found.items()
        }
        matrices = [relation_figure(each, f"Relations: {name}") for name, each in mined.items()]
        spread = [cosine_figure(mined[name], found[name], f"Cosines: {name}") for name in mined]
        run.save_figure("relations.png", matrices[0])
        run.summary.update(
            suspected=suspected,
            largest_divergence={name: pairs[0].divergence for name, pairs in found.items()},
            layer=layer,
        )
        report = Report(
            "Which attributes does the network mix up?",
            "; ".join(
                f"{name}: {', '.join(pairs) or 'no pair stands out'}" for name, pairs in suspected.items()
            )
            + ".",
            kicker="interpretkit cnn diagnose bias",
        )
        report.add_numbers(
            {
                f"{name}: most divergent pair": (
                    f"{pairs[0].divergence:.2f} nats",
                    f"{pairs[0].first} – {pairs[0].second}, cosine {pairs[0].cosine:.2f}",
                )
                for name, pairs in found.items()
            }
        )
        report.add_section(
            "Relations in the network",
            "For each image an attribute's output is modelled as linear in the features of "
            f"`{layer}`; two attributes are related as far as their weights point the same way."
            + (
                ""
                if images
                else " The biased network was trained where round things always stand before warm walls; "
                "the control was not. Both are asked about scenes in which all attributes are independent."
            ),
            figures=[(figure, "Mean cosine over the images.") for figure in matrices],
        )
        report.add_section(
            "Distributions",
            "A pair is compared with all others that are given as related in the same way. It is suspected if its "
            "divergence is far outside what the other pairs show, and its cosine differs by more than 0.4.",
            figures=[(figure, "The three most divergent pairs.") for figure in spread],
            table=rows[:200],
        )
        report.set_provenance(_line("bias", images, network), seed=seed, data=files)
        report.save(run.path("report.html"))
    return {**run.summary, "out": out}


data_cli.register(app)


def _network(name: str, weights: str, device: str, seed: int, side: int | None = None) -> Network:
    """Return a network that has been seen to classify images, of `side` px if they are not of its own size."""
    from cnn_interp.models import load_network
    from interpretkit.training import resolve_device

    network = load_network(name, weights=weights, device=resolve_device(device), seed=seed)
    network.check_scores(side)
    return network


def _pixels(
    network: Network, images: Sequence[Path] | None, convert: bool
) -> tuple[Tensor, list[str], list[Path]]:
    """Return what the network sees of images, what they are called, and their files."""
    import torch

    from cnn_interp.diagnosis.layer_features import photographs_as_pixels
    from cnn_interp.images import DEFAULT_PHOTOGRAPH, find_images, in_batches, photograph

    if not images:
        return photographs_as_pixels(network, [photograph()]).cpu(), [DEFAULT_PHOTOGRAPH], []
    paths = find_images(images)
    parts = [photographs_as_pixels(network, some).cpu() for _, some in in_batches(paths, 32, convert=convert)]
    return torch.cat(parts), [path.name for path in paths], paths


def _scenes(side: int) -> tuple[Tensor, Any, Any]:
    """Return rendered scenes as pixels ``(n, 3, side, side)``, their factors, and the images as they were rendered."""
    import torch

    from cnn_interp.diagnosis.feature_distributions import render_scenes
    from cnn_interp.diagnosis.layer_features import resize

    images, factors = render_scenes()
    return resize(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, side), factors, images


def _examples(images: Any, factors: Any, column: int) -> Any:
    """Return an image of each value of a factor, the others as near to the middle of their values as they can be."""
    import numpy as np

    # Between two in the middle the later is taken, which for the size is the larger.
    off = np.abs(factors - np.median(factors, axis=0) - 0.1).astype(float)
    off[:, column] = 0
    rows = [
        np.where(factors[:, column] == value, off.sum(1), np.inf).argmin()
        for value in np.unique(factors[:, column])
    ]
    return images[rows]


def _pictures(data: str) -> Pictures:
    from cnn_interp.diagnosis.small_network import digits, read_cifar10

    if data == "digits":
        return digits()
    kind, equals, path = data.partition("=")
    if kind != "cifar10" or not equals:
        raise InputError(f"--data {data!r}: expected digits or cifar10=FILE")
    return read_cifar10(path)


def _data_files(data: str) -> list[Path]:
    return [Path(data.partition("=")[2])] if "=" in data else []


def _trained(
    pictures: Pictures, epochs: int, seed: int, device: str, quiet: bool
) -> tuple[SmallNetwork, float]:
    """Return a small network trained on pictures, and its accuracy on those to test on."""
    from cnn_interp.diagnosis.small_network import SmallNetwork, accuracy, train_network
    from interpretkit.training import resolve_device

    model = SmallNetwork(pictures.train.shape[1], len(pictures.categories), seed=seed)
    model.to(resolve_device(device))
    train_network(model, pictures.train, pictures.train_labels, epochs=epochs, seed=seed, quiet=quiet)
    return model, accuracy(model, pictures.test, pictures.test_labels)


def _smaller(pixels: Tensor, side: int) -> Tensor:
    from cnn_interp.diagnosis.layer_features import resize

    return resize(pixels, min(side, pixels.shape[-1]))


def _geometric_mean(values: Any) -> float:
    import numpy as np

    return float(np.exp(np.log(values).mean()))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _names(text: str, option: str, known: Sequence[str]) -> list[str]:
    chosen = _split(text)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise InputError(f"{option} {text!r}: expected some of {', '.join(known)}")
    return list(dict.fromkeys(chosen))


def _line(check: str, images: Sequence[Path] | None, network: str) -> str:
    shown = "".join(f" {path}" for path in (images or [])[:3])
    return f"interpretkit cnn diagnose {check}{shown}" + (f" --model {network}" if images else "")
