"""The command ``adversarial``: changes too small to see that fool a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import check_given, classifier, images_as_pixels, layers_in
from cnn_interp.diagnosis.commands.options import Images, Layers, some_of
from cnn_interp.options import Convert, Model, Weights
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from cnn_interp.diagnosis.attacks import Attack
    from cnn_interp.diagnosis.layer_features import LayerChange

ATTACKS = ("fgsm", "pgd", "deepfool", "minimal")


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "adversarial",
        example=[
            "interpretkit cnn diagnose adversarial cat.jpg --epsilon 2 --out adversarial",
            "interpretkit cnn diagnose adversarial photos/ --method fgsm,pgd",
        ],
    )(adversarial)


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
    chosen = some_of(ATTACKS, method, "--method")
    if not 0 < epsilon <= 255:
        raise InputError(f"--epsilon {epsilon}: expected a number above 0 and up to 255")
    if target and "deepfool" in chosen:
        chosen = [name for name in chosen if name != "deepfool"]
        if not chosen:
            raise InputError("--target: deepfool leads to no wanted category; expected another --method")
    check_given(images, convert)
    if not images and convert:
        raise InputError("--convert: there is no image to convert; expected images with it")

    from cnn_interp.diagnosis import adversarial as attacks
    from cnn_interp.diagnosis.layer_features import layer_change
    from cnn_interp.diagnosis.reports import adversarial as shown
    from cnn_interp.diagnosis.reports.page import save_page
    from interpretkit.progress import track
    from interpretkit.results import run_folder

    arguments = {
        "images": [str(path) for path in images or ()], "network": network, "weights": weights, "method": method,
        "epsilon": epsilon, "steps": steps, "target": target, "layers": layers, "convert": convert,
    }  # fmt: skip
    loaded = classifier(network, weights, device, seed)
    pixels, names, files = images_as_pixels(loaded, images, convert)
    targets = [loaded.target(target)] * len(pixels) if target else None
    followed = layers_in(loaded, layers) or None
    with run_folder(out, "cnn diagnose adversarial", arguments, seed, files) as run:
        found: dict[str, Attack] = {}
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
        changes = {name: layer_change(loaded, attack, followed, seed=seed) for name, attack in found.items()}
        rows = shown.attack_table(found, changes, names, loaded.category)
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
            shown.attack_sheet(list(found.values()), row, loaded.category)
            for row in range(min(len(names), shown.MOST_SHOWN))
        ]
        through = shown.layer_change_figure(changes)
        run.save_figure("attacks.png", sheets[0])
        run.save_figure("layers.png", through)
        run.summary.update(
            fooled={name: float(attack.succeeded.double().mean()) for name, attack in found.items()},
            median_l2={name: float(attack.l2.median()) for name, attack in found.items()},
            amplification={name: _amplification(change) for name, change in changes.items()},
            images=len(names),
        )
        report = shown.adversarial_report(
            found, rows, sheets, through, network=network, names=names, target=target
        )
        report.add_next_step(
            "Change one pixel only:",
            ["interpretkit", "cnn", "diagnose", "one-pixel", *(images or [])[:1]],
        )
        save_page(report, run, seed=seed, files=files)
    return {**run.summary, "out": out}


def _amplification(change: LayerChange) -> float:
    """Return how much further the output moves than under noise, the geometric mean over images."""
    import numpy as np

    return float(np.exp(np.log(change.amplification[:, -1]).mean()))
