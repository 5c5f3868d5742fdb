"""Changes too small to see that fool a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import check_given, classifier, images_as_pixels, layers_in
from cnn_interp.commands._options import Convert, Images, Layers, Model, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, some_of
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cnn_interp.diagnosis.attacks import Attack
    from cnn_interp.diagnosis.layer_features import LayerChange
    from cnn_interp.diagnosis.pictures import Naming

ATTACKS = ("fgsm", "pgd", "deepfool", "minimal")
# Of several images, so many are drawn.
_MOST_SHOWN = 6
_TITLES = {"fgsm": "FGSM", "pgd": "PGD", "deepfool": "DeepFool", "minimal": "smallest (L-BFGS)"}
_COLUMNS = {
    "image": Column("the image attacked"),
    "method": Column("the attack", words=_TITLES),
    "said": Column("what the network says of the image"),
    "says then": Column("what it says of the changed image", heading="then"),
    "probability": Column("how sure it is of what it says then", format=".1%"),
    "fooled": Column("whether it says something else, or what it was led to"),
    "L2": Column("length of the change, of values in 0 … 1", format=".3g"),
    "largest change, of 255": Column(
        "largest change of a value, of 255", unit="1/255", heading="L∞", format=".2g"
    ),
    "times further than noise, output": Column(
        "how many times further than noise of that length it moves the output",
        heading="× noise",
        format=".3g",
    ),
    "network runs": Column("how often the network ran", heading="runs"),
}


@command(
    out="adversarial",
    example=[
        "interpretkit cnn diagnose adversarial cat.jpg --epsilon 2 --out adversarial",
        "interpretkit cnn diagnose adversarial photos/ --method fgsm,pgd",
    ],
)
def adversarial(
    images: Images = None,
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
) -> Finding:
    """Find changes too small to see that fool a network, and follow them through its layers.

    FGSM and PGD change every value by up to epsilon/255; DeepFool and box-constrained L-BFGS look for the shortest
    change. Beside each stands noise of the same length. Without an image, a photograph of a cat is taken.
    """
    chosen = some_of(ATTACKS, method, "method")
    if not 0 < epsilon <= 255:
        raise InputError(f"epsilon {epsilon}: expected a number above 0 and up to 255")
    if target and "deepfool" in chosen:
        chosen = [name for name in chosen if name != "deepfool"]
        if not chosen:
            raise InputError("target: deepfool leads to no wanted category; expected another --method")
    check_given(images, convert)
    if not images and convert:
        raise InputError("convert: there is no image to convert; expected images with it")
    from cnn_interp.diagnosis.layer_features import layer_change

    loaded = classifier(network, weights, device, seed)
    pixels, names, files = images_as_pixels(loaded, images, convert)
    targets = [loaded.target(target)] * len(pixels) if target else None
    followed = layers_in(loaded, layers) or None
    attacks = _attacks(chosen, loaded, pixels, targets, epsilon / 255, steps, seed, quiet)
    changes = {name: layer_change(loaded, attack, followed, seed=seed) for name, attack in attacks.items()}

    found = Finding(
        f"{network}: how little fools it",
        _fooled(attacks)
        + f" {len(names)} image{'s' if len(names) > 1 else ''}, attacked in pixels between 0 and 1; the network is led "
        "away from what it says of itself" + (f", to “{target}”." if target else "."),
    ).reads(*files)
    found.number(
        "fooled",
        {name: float(attack.succeeded.double().mean()) for name, attack in attacks.items()},
        "images fooled",
        format=".0%",
        note={name: f"median L2 {float(attack.l2.median()):.3g}" for name, attack in attacks.items()},
        words=_TITLES,
    )
    found.values.update(
        median_l2={name: float(attack.l2.median()) for name, attack in attacks.items()},
        amplification={name: _amplification(change) for name, change in changes.items()},
        images=len(names),
    )
    sheets = found.section(
        "What was changed", "Above the image as the network sees it, below what was added, made visible."
    )
    for row, name in enumerate(names[:_MOST_SHOWN]):
        sheet = _attack_sheet(list(attacks.values()), row, loaded.category)
        file = "attacks.png" if row == 0 else f"attacks-{row + 1}.png"
        sheets.figure(file, sheet, f"{name}: the original and what each attack made of it.")
    found.section(
        "Through the layers",
        "How far each layer's representation moves, over its own length (geometric mean over images). Noise of the "
        "same length fades or stays as it is; a direction that was looked for grows.",
    ).figure(
        "layers.png", _layer_change_figure(changes), "Solid: the attack. Dashed: noise of the same length."
    )
    found.section("All attacks").table(
        "attacks.csv", _rows(attacks, changes, names, loaded.category), _COLUMNS, most=200
    )
    found.arrays(
        "attacks.npz",
        originals=pixels.cpu().numpy(),
        **{name: attack.perturbed.numpy() for name, attack in attacks.items()},
        layers=list(next(iter(changes.values())).layers),
        **{f"{name}_change": change.perturbed for name, change in changes.items()},
        **{f"{name}_noise": change.noise for name, change in changes.items()},
    )
    return found.next_step(
        "Change one pixel only:", "interpretkit cnn diagnose one-pixel", *(images or ())[:1]
    )


def _attacks(
    chosen: Sequence[str],
    network: Any,
    pixels: Any,
    targets: list[int] | None,
    epsilon: float,
    steps: int,
    seed: int,
    quiet: bool,
) -> dict[str, Attack]:
    """Attack a network in each way chosen."""
    from cnn_interp.diagnosis import adversarial as attacks
    from interpretkit.runs.progress import track

    ways = {
        "fgsm": lambda: attacks.fgsm(network, pixels, epsilon=epsilon, targets=targets, seed=seed),
        "pgd": lambda: attacks.pgd(network, pixels, epsilon=epsilon, steps=steps, targets=targets, seed=seed),
        "deepfool": lambda: attacks.deepfool(network, pixels, seed=seed),
        "minimal": lambda: attacks.minimal_perturbation(network, pixels, targets=targets, seed=seed),
    }
    return {name: ways[name]() for name in track(chosen, "Attacking", quiet=quiet)}


def _amplification(change: LayerChange) -> float:
    """Return how much further the output moves than under noise, the geometric mean over images."""
    import numpy as np

    return float(np.exp(np.log(change.amplification[:, -1]).mean()))


def _fooled(attacks: Mapping[str, Attack]) -> str:
    """Return how many images each attack fools, and which needs the shortest change."""
    told = ", ".join(
        f"{attack.succeeded.double().mean():.0%} by {_TITLES[name]}" for name, attack in attacks.items()
    )
    shortest = min(attacks, key=lambda name: float(attacks[name].l2.median()))
    length = float(attacks[shortest].l2.median())
    return (
        f"Fooled: {told}. The shortest change is that of {_TITLES[shortest]}, {length:.3g} long (L2, median)."
    )


def _attack_sheet(attacks: Sequence[Attack], row: int, name: Naming) -> Figure:
    """Draw one image under several attacks: what was added, made visible, and what the network then says."""
    from cnn_interp.diagnosis.pictures import say, show, verdict
    from interpretkit.visualization import new_figure, style

    with style():
        figure = new_figure(2.3 * (1 + len(attacks)), 5.4)
        axes = figure.subplots(2, 1 + len(attacks), squeeze=False)
        first = attacks[0]
        show(axes[0, 0], first.originals[row])
        axes[0, 0].set_title("original", fontsize=10)
        say(axes[0, 0], verdict(first.before[row], name))
        axes[1, 0].axis("off")
        for column, attack in enumerate(attacks, start=1):
            top, bottom = axes[:, column]
            show(top, attack.perturbed[row])
            top.set_title(_TITLES[attack.method], fontsize=10)
            say(top, verdict(attack.after[row], name), changed=bool(attack.succeeded[row]))
            difference = attack.difference[row]
            largest = max(float(difference.abs().max()), 1e-9)
            show(bottom, 0.5 + difference / (2 * largest))
            say(
                bottom,
                f"change × {0.5 / largest:.3g}\nL2 {float(attack.l2[row]):.3g},"
                f" largest {255 * float(attack.linf[row]):.2g}/255",
            )
    return figure


def _layer_change_figure(changes: Mapping[str, LayerChange]) -> Figure:
    """Draw the relative change of each layer under attacks, each beside noise of the same length."""
    import numpy as np

    from interpretkit.visualization import colour_of, new_figure, style
    from interpretkit.visualization.style import MUTED

    with style():
        figure = new_figure(7.2, 4.2)
        axes = figure.subplots()
        layers: tuple[str, ...] = ()
        for index, (method, change) in enumerate(changes.items()):
            layers = change.layers
            places = np.arange(len(layers))
            axes.plot(
                places,
                _geometric(change.perturbed),
                "-o",
                color=colour_of(index),
                markersize=4,
                label=_TITLES[method],
            )
            axes.plot(places, _geometric(change.noise), "--", color=colour_of(index), linewidth=1.2)
        axes.plot([], [], "--", color=MUTED, linewidth=1.2, label="noise of the same length")
        axes.set_yscale("log")
        axes.set_xticks(np.arange(len(layers)), layers, rotation=40, ha="right")
        axes.set(ylabel="change / length of representation", title="From the pixels to the output")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def _geometric(values: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    return np.exp(np.log(np.maximum(values, 1e-12)).mean(0))


def _rows(
    attacks: Mapping[str, Attack], changes: Mapping[str, LayerChange], names: Sequence[str], category: Naming
) -> list[dict[str, Any]]:
    """Return a row for each attack on each image."""
    return [
        {
            "image": names[row],
            "method": _TITLES[name],
            "said": category(int(attack.before[row].argmax())),
            "says then": category(int(attack.after[row].argmax())),
            "probability": float(attack.after[row].max()),
            "fooled": bool(attack.succeeded[row]),
            "L2": float(attack.l2[row]),
            "largest change, of 255": 255 * float(attack.linf[row]),
            "times further than noise, output": float(changes[name].amplification[row, -1]),
            "network runs": int(attack.evaluations[row]),
        }
        for name, attack in attacks.items()
        for row in range(len(names))
    ]
