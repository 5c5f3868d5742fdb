"""The systems of section 2 as the command line shows them: a picture each, arrays, numbers and few words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from cnn_interp.visualization import deconvnet_projection
from cnn_interp.visualization.activation import check_channels
from cnn_interp.visualization.activation_maximization import maximize_activation
from cnn_interp.visualization.decoder import train_decoder
from cnn_interp.visualization.empirical_fields import empirical_receptive_fields
from cnn_interp.visualization.inversion import invert
from cnn_interp.visualization.plug_and_play import generate, train_prior
from cnn_interp.visualization.sheet import gallery, percent, relief
from cnn_interp.visualization.top_patches import UnitPatches, patch_crops, top_patches
from interpretkit.commandline.caution import no_better
from interpretkit.commandline.finding import Column, Finding
from interpretkit.errors import InputError
from interpretkit.networks.recording import map_layers
from interpretkit.visualization.instruments import Gallery, Item


@dataclass
class Question:
    """What is asked of a network.

    Attributes
    ----------
    network : Network
        The network.
    image : Photographs
        The image to invert; one.
    photographs : Photographs
        To search and to learn from; at least three.
    targets : sequence of int
        Classes.
    layer : str or None
        The layer asked for.
    units : sequence of int or None
        The channels asked for.
    seed : int
        Seed of all randomness.
    quiet : bool
        Show no progress.
    """

    network: Network
    image: Photographs
    photographs: Photographs
    targets: Sequence[int]
    layer: str | None = None
    units: Sequence[int] | None = None
    seed: int = 0
    quiet: bool = True

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The layers that give maps, in the order in which they run, with ``(channels, height, width)``."""
        return map_layers(self.network.module, self.image.inputs(self.network, [0]))

    @cached_property
    def middle_layer(self) -> str:
        """The layer asked for, else the last whose maps have an eighth of the image's side.

        Units there see a part of the image that is large enough to show something and small enough to be a part.
        """
        if self.layer is not None:
            return self.layer
        return self.last_with(8)

    def last_with(self, shrinkage: int) -> str:
        """Return the last layer whose maps are no more than so many times smaller than the image.

        If no layer is so, as in a vision transformer, which makes patches of the image at once: the last of those
        with the largest maps.
        """
        least = self.network.size / shrinkage
        names = [name for name, shape in self.shapes.items() if least <= shape[1] <= self.network.size / 2]
        if names:
            return names[-1]
        areas = {name: shape[1] * shape[2] for name, shape in self.shapes.items()}
        largest = max(areas.values(), default=0)
        if largest < 2:
            raise InputError(
                f"{self.network.name}: has no layer that gives maps; expected `layer` to name one"
            )
        return [name for name, area in areas.items() if area == largest][-1]

    @cached_property
    def patches(self) -> UnitPatches:
        """The strongest patches of the units asked for, else of three that stand out."""
        found = top_patches(
            self.network, self.middle_layer, self.photographs, units=self.units, k=5, seed=self.seed,
            quiet=self.quiet,
        )  # fmt: skip
        few = slice(None) if self.units is not None else slice(0, 3)
        return UnitPatches(
            found.layer, found.units[few], found.values[few], found.images[few], found.positions[few],
            found.boxes[few], found.field, found.n_images,
        )  # fmt: skip


_COLUMNS = {
    "unit": Column("channel of the layer, or class"),
    "reached": Column("activation of the image that was made"),
    "best photograph": Column("activation of the photograph that excites it most"),
    "noise": Column("activation of noise with a natural spectrum"),
    "layer": Column("dotted name of the layer"),
    "relative error": Column("error of the layer's output, relative to its norm", format=".3f"),
    "another photograph": Column("the same error of another photograph", format=".3f"),
    "what": Column("what stands for the image"),
    "mean square error": Column("of pixels in 0 … 1, on pieces that were held out"),
    "class": Column("the class that the image was drawn towards"),
    "drawn": Column("whether the prior drew along"),
    "probability": Column("the network's probability of the class", format=".1%"),
    "distance": Column("how far the prior's autoencoder moves the image; small is realistic by its lights"),
    "distance of photographs": Column("the same of photographs"),
    "rank": Column("1 for the strongest"),
    "activation": Column("activation of the unit"),
    "photograph": Column("where the patch comes from"),
    "row": Column("place on the layer's map"),
    "column": Column("place on the layer's map"),
    "left by projection": Column("share of the activation left by the pixels projected", format=".0%"),
    "left by the middle": Column("share left by as many pixels in the middle", format=".0%"),
    "left by blots at random": Column("share left by as many pixels in blots at random", format=".0%"),
    "used (px)": Column("side of the receptive field that the unit uses", "px", format=".0f"),
    "theoretical (px)": Column("side of the receptive field that it could use", "px", format=".0f"),
    "share": Column("of the theoretical field that is used", format=".0%"),
}


def _add(
    found: Finding,
    name: str,
    title: str,
    text: str,
    figure: Figure,
    caption: str,
    arrays: Mapping[str, NDArray[Any]],
    rows: list[dict[str, Any]],
    summary: Mapping[str, Any],
    warnings: Sequence[str] = (),
    browsed: Sequence[tuple[str, Sequence[NDArray[np.floating]], Mapping[str, float]]] = (),
) -> None:
    """Add what a system shows: a picture, a table, arrays and a few words.

    Units with pictures of their own, and numbers to sort them by, are browsed on the page instead of the one picture.
    """
    section = found.section(title, text)
    if browsed:
        items = [Item(unit, beside(pictures), numbers=numbers) for unit, pictures, numbers in browsed]
        section.instrument(Gallery(items, placeholder="a unit", side=28, label=f"{title}, to browse"))
    section.figure(f"{name}.png", figure, caption, on_page=not browsed).table(f"{name}.csv", rows, _COLUMNS)
    found.arrays(f"{name}.npz", **arrays)
    found.values[name] = dict(summary)
    found.warn(*warnings)


def _pictures(images: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    return list(images.transpose(0, 2, 3, 1))


def activation_maximization(question: Question, found: Finding) -> None:
    """Images for the units asked for, else for the classes."""
    network, units = question.network, question.units
    if units is not None and question.layer is None:
        raise InputError("unit: activation_maximization needs to know the layer; expected `layer` with it")
    layer = question.layer
    if layer is not None and units is None:
        units = question.patches.units.tolist()
    channels = units if layer is not None and units is not None else question.targets
    result = maximize_activation(
        network, channels, layer=layer, photographs=question.photographs, steps=128, seed=question.seed,
        quiet=question.quiet,
    )  # fmt: skip
    assert result.best_photograph is not None
    assert result.best_photograph_index is not None
    name = (lambda c: f"unit {c}") if layer else network.category
    rows = [
        {
            "unit": name(int(channel)),
            "reached": float(reached),
            "best photograph": float(best),
            "noise": float(noise),
        }
        for channel, reached, best, noise in zip(
            result.channels, result.reached, result.best_photograph, result.noise, strict=True
        )
    ]
    best_pictures = network.pixels(
        question.photographs.inputs(network, result.best_photograph_index.tolist())
    )
    figure = gallery(
        {
            "made": [
                (p, f"{r['unit']}\n{r['reached']:.3g}")
                for p, r in zip(_pictures(result.images), rows, strict=True)
            ],
            "best\nphotograph": [
                (p.clip(0, 1), f"{r['best photograph']:.3g}")
                for p, r in zip(_pictures(best_pictures.cpu().numpy()), rows, strict=True)
            ],
        },
        side=2.3,
    )
    stronger = sum(row["reached"] > row["best photograph"] for row in rows)
    found.lead += (
        f" Images that were made excite {stronger} of {len(rows)} {'units' if layer else 'classes'} more than the best "
        f"of {len(question.photographs)} photographs does."
    )
    what = "logits" if layer is None else f"the mean of a channel of `{layer}`"
    _add(
        found,
        "activation_maximization",
        "Activation maximization",
        f"Images made to excite a unit, improved from grey by 128 steps. Activations are {what}; beside them are "
        f"the strongest of {len(question.photographs)} photographs, and of noise with a natural spectrum.",
        figure,
        "What was made to excite the unit, and the photograph that excites it most, with the activations.",
        {
            "images": result.images,
            "channels": result.channels,
            "reached": result.reached,
            "history": result.history,
        },
        rows,
        {"reached_over_best_photograph": float(np.mean(result.reached / result.best_photograph))},
        [
            line
            for row in rows
            for line in no_better(
                f"what was made for {row['unit']}",
                row["reached"],
                "the best photograph",
                row["best photograph"],
            )
        ],
        [
            (
                str(row["unit"]),
                [made, photograph.clip(0, 1)],
                {"made": row["reached"], "best photograph": row["best photograph"], "noise": row["noise"]},
            )
            for row, made, photograph in zip(
                rows, _pictures(result.images), _pictures(best_pictures.cpu().numpy()), strict=True
            )
        ],
    )


def inversion(question: Question, found: Finding) -> None:
    """The image as the layer asked for keeps it, else layers of every resolution."""
    network = question.network
    layers = [question.layer] if question.layer else _one_of_each_resolution(question)
    inputs = question.image.inputs(network, [0])
    result = invert(
        network, inputs, layers, steps=120, photographs=question.photographs, seed=question.seed,
        quiet=question.quiet,
    )  # fmt: skip
    rows = [
        {
            "layer": layer,
            "relative error": float(result.error[layer][0]),
            "another photograph": result.other_photographs[layer],
        }
        for layer in layers
    ]
    original = network.pixels(inputs).cpu().numpy().clip(0, 1)
    pictures = [(original[0].transpose(1, 2, 0), "image")]
    pictures += [
        (result.images[r["layer"]][0].transpose(1, 2, 0), f"{r['layer']}\nerror {r['relative error']:.2f}")
        for r in rows
    ]
    _add(
        found,
        "inversion",
        "Inversion",
        "Images that give a layer what the image on the left gave it; what differs is what the layer has let go. "
        "The error is that of the layer's output, relative to its norm. Beside it stands the error of another "
        "photograph.",
        gallery({"": pictures}, side=1.6),
        "Deeper layers keep what there is and let go where and how exactly.",
        {f"images_{number}": result.images[layer] for number, layer in enumerate(layers)}
        | {"layers": np.array(layers), "error": np.array([r["relative error"] for r in rows])},
        rows,
        {"relative_error": {r["layer"]: r["relative error"] for r in rows}},
        [
            line
            for r in rows
            for line in no_better(
                f"the inversion of {r['layer']}",
                r["relative error"],
                "another photograph",
                r["another photograph"],
                lower_is_better=True,
            )
        ],
    )


def _one_of_each_resolution(question: Question) -> list[str]:
    last = {shape[1:]: name for name, shape in question.shapes.items() if shape[1] > 1}
    if not last:
        raise InputError(
            f"{question.network.name}: has no layer that gives maps; expected `layer` to name one"
        )
    return list(last.values())[-4:]


def decoder(question: Question, found: Finding) -> None:
    """Reconstructions by an up-convolutional decoder trained now."""
    layer = question.layer or question.last_with(16)
    result = train_decoder(
        question.network, layer, question.photographs, seed=question.seed, quiet=question.quiet
    )
    share = result.error / result.mean_image_error
    figure = gallery(
        {
            "held out": [(p, "") for p in _pictures(result.originals[:6])],
            "decoded": [(p, "") for p in _pictures(result.reconstructions[:6])],
        },
        side=1.3,
    )
    rows = [
        {"what": f"decoded from {layer}", "mean square error": result.error},
        {"what": "the mean image", "mean square error": result.mean_image_error},
    ]
    _add(
        found,
        "decoder",
        "Up-convolutional decoder",
        f"A network trained on {result.n_train} pieces of photographs to restore them from `{layer}`, tested on "
        f"{result.n_held_out} pieces of other photographs. It makes {share:.0%} of the error of the mean image.",
        figure,
        "Pieces of photographs that the decoder has not seen, and what it makes of the layer's output for them.",
        {"originals": result.originals, "reconstructions": result.reconstructions},
        rows,
        {"error": result.error, "mean_image_error": result.mean_image_error, "layer": layer},
        no_better(
            "the decoder", result.error, "the mean image", result.mean_image_error, lower_is_better=True
        ),
    )


def plug_and_play(question: Question, found: Finding) -> None:
    """Images of the classes, drawn with and without a prior trained now."""
    network = question.network
    prior = train_prior(question.photographs, device=network.device, seed=question.seed, quiet=question.quiet)
    result = generate(network, question.targets, prior, seed=question.seed, quiet=question.quiet)
    rows = [
        {
            "class": network.category(int(target)),
            "drawn": drawn,
            "probability": float(probability),
            "distance": float(distance),
            "distance of photographs": prior.distance,
        }
        for drawn, probabilities, distances in (
            ("with prior", result.probability, result.distance),
            ("without", result.probability_without_prior, result.distance_without_prior),
        )
        for target, probability, distance in zip(result.targets, probabilities, distances, strict=True)
    ]
    figure = gallery(
        {
            drawn: [
                (picture, f"{network.category(int(target))}, {percent(float(probability))}")
                for picture, target, probability in zip(
                    _pictures(images), result.targets, probabilities, strict=True
                )
            ]
            for drawn, images, probabilities in (
                ("with prior", result.images, result.probability),
                ("without", result.without_prior, result.probability_without_prior),
            )
        },
        side=2.3,
    )
    _add(
        found,
        "plug_and_play",
        "Plug & play generation",
        "Images drawn step by step towards a class, with a denoising autoencoder of pixels, trained now, that draws "
        "them towards photographs. The distance is how far the autoencoder moves an image: small is realistic by "
        "its lights. Trained on small pieces, it knows surfaces and edges but no objects.",
        figure,
        "The same beginning and the same number of steps, with the prior and without.",
        {"images": result.images, "without_prior": result.without_prior, "targets": result.targets},
        rows,
        {"probability": float(result.probability.mean()), "distance": float(result.distance.mean()),
         "distance_without_prior": float(result.distance_without_prior.mean())},
        [
            *no_better("the prior", prior.error, "the noisy image", prior.noise_error, lower_is_better=True),
            *no_better(
                "the walk with the prior", float(result.distance.mean()),
                "the walk without", float(result.distance_without_prior.mean()), lower_is_better=True,
            ),
        ],
    )  # fmt: skip


def top_patches_of_units(question: Question, found: Finding) -> None:
    """The patches to which units respond most."""
    result = question.patches
    crops = patch_crops(question.network, question.photographs, result)
    figure = gallery(
        {
            f"unit {unit}": [
                (framed(crops[u][rank], result, u, rank), f"{result.values[u, rank]:.3g}")
                for rank in range(len(crops[u]))
            ]
            for u, unit in enumerate(result.units)
        },
        side=1.5,
    )
    rows = [
        {
            "unit": int(unit),
            "rank": rank + 1,
            "activation": float(result.values[u, rank]),
            "photograph": question.photographs.names[int(result.images[u, rank])],
            "row": int(result.positions[u, rank, 0]),
            "column": int(result.positions[u, rank, 1]),
        }
        for u, unit in enumerate(result.units)
        for rank in range(result.values.shape[1])
    ]
    _add(
        found,
        "top_patches",
        "Top patches",
        f"The patches of {result.n_images} photographs to which units of `{result.layer}` respond most; each is "
        f"the unit's receptive field, {_size(result)}.",
        figure,
        "With the activations below them.",
        {"units": result.units, "values": result.values, "images": result.images,
         "positions": result.positions, "boxes": result.boxes},
        rows,
        {"layer": result.layer, "units": result.units.tolist()},
        browsed=[
            (
                f"unit {unit}",
                [framed(crop, result, u, rank) for rank, crop in enumerate(crops[u])],
                {"strongest activation": float(result.values[u].max())},
            )
            for u, unit in enumerate(result.units)
        ],
    )  # fmt: skip


def beside(pictures: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Return pictures of one size side by side, with a little white between them."""
    height = pictures[0].shape[0]
    white = np.ones((height, max(1, height // 40), 3))
    coloured = [
        picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1) for picture in pictures
    ]
    return np.concatenate([part for picture in coloured for part in (picture, white)][:-1], axis=1)


def deconvnet_projections(question: Question, found: Finding) -> None:
    """The pixels that the strongest activations stand for."""
    network, patches = question.network, question.patches
    crops = patch_crops(network, question.photographs, patches)
    projections = deconvnet_projection.project(network, question.photographs, patches, seed=question.seed)
    test = deconvnet_projection.sufficiency(network, question.photographs, projections, seed=question.seed)
    pictures: dict[str, list[tuple[Any, str]]] = {}
    for u, unit in enumerate(patches.units):
        pictures[f"unit {unit}"] = [
            (framed(crop, patches, u, rank), "") for rank, crop in enumerate(crops[u])
        ]
        pictures[f"projected {unit}"] = [
            (
                framed(relief(projections.crop(u, rank)), patches, u, rank),
                "silent" if patches.silent[u, rank] else f"{test.projected[u, rank]:.0%} left",
            )
            for rank in range(len(crops[u]))
        ]
    rows = [
        {
            "unit": int(unit),
            "left by projection": _mean(test.projected[u]),
            "left by the middle": _mean(test.centred[u]),
            "left by blots at random": _mean(test.random[u]),
        }
        for u, unit in enumerate(patches.units)
    ]
    _add(
        found,
        "deconvnet_projection",
        "Deconvnet projections",
        f"The strongest activations of units of `{patches.layer}` carried back to the pixels. As a test, all but "
        f"the {test.share:.0%} of the receptive field to which the projection points is blanked: the table "
        "says which share of the activation is left, beside as many pixels in the middle and in blots at random.",
        gallery(pictures, side=1.3),
        "Patches, and the pixels in them that made the activation.",
        {"values": projections.values, "units": patches.units, "boxes": patches.boxes},
        rows,
        {"left_by_projection": _mean(test.projected), "left_at_random": _mean(test.random)},
        no_better("the projection", _mean(test.projected), "blots at random", _mean(test.random), form=".1%"),
    )


def receptive_fields(question: Question, found: Finding) -> None:
    """How much of their receptive fields units use."""
    all_patches = question.patches
    few = np.s_[:2, :3]
    patches = UnitPatches(
        all_patches.layer, all_patches.units[:2], all_patches.values[few], all_patches.images[few],
        all_patches.positions[few], all_patches.boxes[few], all_patches.field, all_patches.n_images,
    )  # fmt: skip
    result = empirical_receptive_fields(
        question.network, question.photographs, patches, seed=question.seed, quiet=question.quiet
    )
    height, width = result.maps.shape[1:]
    reach = [
        min(int(size / 2) + result.occluder, extent // 2)
        for size, extent in zip(
            [s if np.isfinite(s) else 1e9 for s in result.theoretical.size], (height, width), strict=True
        )
    ]
    window = np.s_[
        height // 2 - reach[0] : height // 2 + reach[0] + 1, width // 2 - reach[1] : width // 2 + reach[1] + 1
    ]
    rows = [
        {
            "unit": int(unit),
            "used (px)": _mean(size),
            "theoretical (px)": result.theoretical.size[0],
            "share": _mean(r),
        }
        for unit, size, r in zip(result.units, result.sizes, result.ratios, strict=True)
    ]
    pictures = [
        (
            np.nan_to_num(map_[window]),
            f"unit {unit}: " + ("silent" if np.isnan(size) else f"{size:.0f} of {_size(patches)}"),
        )
        for map_, unit, size in zip(result.maps, result.units, result.sizes, strict=True)
    ]
    _add(
        found,
        "receptive_fields",
        "Receptive fields",
        f"What units of `{patches.layer}` could see, and what they use: an {result.occluder} px occluder slides "
        "over the images to which a unit responds most, and the change of its activation is drawn around its place.",
        gallery({"": pictures}, side=2.8),
        "The frame is the theoretical field, and the occluder's width around it.",
        {"maps": result.maps, "sizes": result.sizes, "units": result.units},
        rows,
        {"layer": patches.layer, "theoretical_px": result.theoretical.size[0], "used_px": _mean(result.sizes)},
    )  # fmt: skip


def framed(picture: NDArray[np.floating], patches: UnitPatches, unit: int, rank: int) -> NDArray[np.floating]:
    """Return a patch ``(h, w, 3)`` in the frame of the whole receptive field, pale where that leaves the image."""
    if not np.isfinite(patches.field.size).all():
        return picture
    height, width = (min(round(size), 3 * max(picture.shape)) for size in patches.field.size)
    centre = patches.field.centres(patches.positions[unit, rank])
    frame = np.full((max(height, picture.shape[0]), max(width, picture.shape[1]), 3), 0.93)
    top, left = (
        int(np.clip(corner - round(middle - (size - 1) / 2), 0, extent - length))
        for corner, middle, size, extent, length in zip(
            patches.boxes[unit, rank][:2], centre, (height, width), frame.shape, picture.shape, strict=False
        )
    )
    frame[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return frame


def _mean(values: NDArray[np.floating] | np.floating) -> float | None:
    """Return the mean of the finite values; None if there are none."""
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def _size(patches: UnitPatches) -> str:
    height, width = patches.field.size
    return "all of the image" if np.isinf(height) else f"{height:.0f} × {width:.0f} px"


SYSTEMS: Mapping[str, Callable[[Question, Finding], None]] = {
    "activation_maximization": activation_maximization,
    "inversion": inversion,
    "decoder": decoder,
    "plug_and_play": plug_and_play,
    "deconvnet_projection": deconvnet_projections,
    "receptive_fields": receptive_fields,
    "top_patches": top_patches_of_units,
}
# Those that ask single units.
OF_UNITS = ("activation_maximization", "deconvnet_projection", "receptive_fields", "top_patches")


def check_units(question: Question) -> None:
    """Raise InputError unless the layer has the units asked for."""
    if question.units is None:
        return
    layer = question.middle_layer
    if layer in question.shapes:
        outputs = torch.empty(1, *question.shapes[layer], device="meta")
        check_channels(outputs, torch.tensor(list(question.units)), layer)
