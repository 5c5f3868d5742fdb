"""What a network looks at in images, and what its units and layers respond to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._options import Convert, Model, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from cnn_interp.images.photographs import Photographs
    from cnn_interp.networks.network import Network
    from cnn_interp.visualization.request import Request
    from interpretkit.visualization.instruments import MappedImage

DEFAULT_METHODS = "gradcam,integrated_gradients,guided_backprop,occlusion"
# So many images make a sheet that fits a page, and so many sheets a report that opens at once.
IMAGES_PER_SHEET = 6
SHEETS_IN_REPORT = 4
IMAGES_IN_VIEWER = 12
# Fewer photographs are neither worth searching nor enough to learn from and to test on.
LEAST_PHOTOGRAPHS = 3
MOST_TARGETS = 3
# Of many images the first few are told in the first lines of the page.
_MOST_NAMED = 4
_COLUMNS = {
    "image": Column("the image's file"),
    "path": Column("where it lies"),
    "target": Column("the output explained", heading="explained"),
    "probability": Column("the network's probability of it", format=".1%"),
    "largest": Column("the most probable output", heading="taken for"),
    "largest_probability": Column(
        "the network's probability of that", heading="its probability", format=".1%"
    ),
}


@command(
    out="visualization",
    example=[
        "interpretkit cnn visualize",
        "interpretkit cnn visualize photo.jpg --method gradcam,lrp,occlusion --target 'tabby'",
        "interpretkit cnn visualize photo.jpg --method occlusion,lime --set occlusion.window=48",
        "interpretkit cnn visualize photos/ --model resnet18 --layer layer3 --method top_patches",
    ],
)
def visualize(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE|FOLDER", help="What to show the network; by default a cat from scikit-image."
        ),
    ] = None,
    model: Model = "mobilenet_v2",
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME,...",
            help="Attribution methods and systems, separated by commas; an unknown name lists them all.",
        ),
    ] = DEFAULT_METHODS,
    layer: Annotated[
        str, typer.Option("--layer", metavar="NAME", help="A layer's dotted name; see cnn layers.")
    ] = "",
    target: Annotated[
        str,
        typer.Option("--target", metavar="NAME|N", help="The output to explain; by default the largest."),
    ] = "",
    top: Annotated[
        int,
        typer.Option(
            "--top", min=1, max=10, help="Explain so many of each image's most probable outputs, to compare."
        ),
    ] = 1,
    unit: Annotated[
        str,
        typer.Option(
            "--unit", metavar="N,...", help="Channels of the layer, for the systems that ask units."
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="METHOD.OPTION=VALUE",
            help="An option of an attribution method, such as occlusion.window=48; may be given again.",
        ),
    ] = None,
    images_per_forward: Annotated[
        int | None,
        typer.Option(
            "--images-per-forward",
            min=1,
            help="Images that go through the network at once, which bounds the memory; 8 on a CPU, else 64.",
        ),
    ] = None,
    weights: Weights = "pretrained",
    convert: Convert = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Take no more images than this; all by default.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Show what a network looks at in images, and what its units and layers respond to.

    Attribution methods are compared on every image: sheet.png, and the values in arrays/. The systems
    activation_maximization, inversion, decoder, plug_and_play, deconvnet_projection, receptive_fields and
    top_patches give a picture each; those that search or learn from photographs take the images given if there are
    at least three, else those that come with scikit-image. A run over a folder that is interrupted goes on where it
    stopped when it is started again in the same way.
    """
    from cnn_interp.images.files import check_images, find_images
    from cnn_interp.visualization.request import check_request

    request = check_request(method, layer, unit, settings or (), images_per_forward)
    if top > 1 and target:
        raise InputError(f"--top {top}: --target names the output to explain; expected one of them")
    if top > 1 and not request.attributions:
        raise InputError(f"--top {top}: no attribution method explains an output; expected one in --method")
    paths = find_images(images or ())[:limit]
    check_images(paths, convert=convert)
    if limit is not None and not images:
        raise InputError(f"limit {limit}: there is one photograph only; expected images with it")
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from cnn_interp.images.photographs import Photographs
    from cnn_interp.networks.loading import load_network
    from cnn_interp.visualization.systems import SYSTEMS, Question, check_units
    from interpretkit.networks.instrumentation import find_layer

    shown = Photographs.of_files(paths, convert=convert) if paths else Photographs.default()
    network = load_network(model, weights=weights, device=device, seed=seed)
    if request.layer is not None:
        find_layer(network.module, request.layer)
    network.check_scores()
    index = network.target(target) if target else None
    searched = shown if len(shown) >= LEAST_PHOTOGRAPHS else Photographs.bundled()
    targets = _targets(network, shown, index) if request.systems else []
    asked = Question(network, shown.subset([0]), searched, targets, request.layer, request.units, seed, quiet)
    check_units(asked)
    # Without attributions an image takes a single pass through the network: nothing worth being kept.
    kept = run.kept(network.digest(), files=paths, without=["device"])
    with kept if request.attributions else TemporaryDirectory(dir=run.folder) as place:
        work = Path(place)
        rows = _explain(network, shown, request, index, top, seed, work, quiet)
        found = _headline(network, rows, request).reads(*paths)
        if request.attributions:
            _add_sheets(found, run, network, shown, rows, work)
        for name in request.systems:
            SYSTEMS[name](asked, found)
    if set(request.systems) - {"inversion"}:
        found.sections[-1].text(f"Searched and learned from: {len(searched)} {searched.source}.")
    table = [
        {"image": Path(str(row["image"])).name, "path": row["image"]}
        | {name: value for name, value in row.items() if name not in ("image", "others")}
        for row in rows
    ]
    found.section("Images").table(
        "images.csv", table, _COLUMNS, shown=[name for name in _COLUMNS if name != "path"], most=200
    )
    found.values.update(
        n_images=len(shown),
        model=model,
        weights=network.source,
        images=(images and list(images)) or f"{shown.names[0]}, a photograph of scikit-image",
        targets=sorted({row["target"] for row in rows}),
        methods=[*request.attributions, *request.systems],
    )
    found.next_step("What do the layers look like?", "interpretkit cnn layers --model", model)
    return found.next_step(
        "What do units respond to?",
        "interpretkit cnn visualize --method activation_maximization,top_patches,deconvnet_projection --model",
        model,
    )


def _headline(network: Network, rows: Sequence[Mapping[str, Any]], request: Request) -> Finding:
    """Begin with what the network says of the images, or with what was asked of its units and layers."""
    from pathlib import Path

    import numpy as np

    first, one = rows[0], len(rows) == 1
    if not request.attributions:
        asked = ", ".join(name.replace("_", " ") for name in request.systems)
        found = Finding(
            f"What {network.name} responds to: {asked}",
            "What each system does stands beside its pictures.",
        )
        return found.number("network", network.name, note=network.source)
    found = Finding(
        f"What {network.name} sees in {Path(str(first['image'])).name if one else f'{len(rows)} images'}",
        f"{network.name} says {_seen(first)}."
        if one and first["target"] == first["largest"]
        else f"Explained is {_seen(first)}."
        if one
        else "; ".join(f"{Path(str(row['image'])).name}: {_seen(row)}" for row in rows[:_MOST_NAMED])
        + (f"; and {len(rows) - _MOST_NAMED} more." if len(rows) > _MOST_NAMED else "."),
    )
    found.number("network", network.name, note=network.source)
    found.number(
        "mean_probability",
        float(np.mean([row["probability"] for row in rows])),
        "probability" if one else "mean probability",
        format=".0%",
        note=f"of {'the output' if one else 'the outputs'} explained",
    )
    return found


def _seen(row: Mapping[str, Any]) -> str:
    """Return what the network takes an image for, and what is explained if that is something else."""
    from cnn_interp.visualization.sheet import percent

    told = f"“{row['target']}” ({percent(row['probability'])})"
    if row["target"] != row["largest"]:
        told += f", though the network says “{row['largest']}” ({percent(row['largest_probability'])})"
    return told


def _explain(
    network: Network,
    shown: Photographs,
    request: Request,
    target: int | None,
    top: int,
    seed: int,
    work: Path,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Put the images through the attribution methods one by one, and keep what is done in the folder `work`.

    An array is called by its method; of the second most probable output and further ones by ``method, output N``.

    Returns
    -------
    list of dict
        A row for each image: its name, the output explained with its probability, the seconds of each method.
    """
    import time
    from pathlib import Path

    import numpy as np
    import torch

    from interpretkit.attribution import METHODS, attribute, method_title
    from interpretkit.errors import InputError
    from interpretkit.networks.instrumentation import instrumented
    from interpretkit.runs.folder import ResumableTable
    from interpretkit.runs.progress import progress

    with (
        ResumableTable(work / "images.jsonl", key="number") as table,
        progress(
            "Explaining images", len(shown) * top * max(1, len(request.attributions)), quiet=quiet
        ) as bar,
    ):
        for number, name in enumerate(shown.names):
            if number not in table:
                inputs = shown.inputs(network, [number])
                with instrumented(network.module, seed), torch.no_grad():
                    outputs = network.module(inputs)
                if target is not None and target >= outputs.shape[1]:
                    raise InputError(
                        f"--target {target}: {network.name} has {outputs.shape[1]} outputs; expected 0 to "
                        f"{outputs.shape[1] - 1}"
                    )
                probabilities = outputs.softmax(1)[0]
                largest = int(probabilities.argmax())
                explained = largest if target is None else target
                others = (
                    [] if top == 1 else probabilities.argsort(descending=True, stable=True)[1:top].tolist()
                )
                values: dict[str, np.ndarray] = {}
                seconds: dict[str, float] = {}
                for output, method in ((o, m) for o in (explained, *others) for m in request.attributions):
                    bar.stage(f"{Path(name).name}, {method_title(method)} of {network.category(output)}")
                    started = time.perf_counter()
                    layer = request.layer if METHODS[method].takes_layer else None
                    found = attribute(
                        network.module,
                        inputs,
                        output,
                        method=method,
                        layer=layer,
                        seed=seed,
                        images_per_forward=request.images_per_forward,
                        **request.settings.get(method, {}),
                    )
                    key = method if output == explained else f"{method}, output {output}"
                    values[key] = found.numpy()[0].astype(np.float32)
                    taken = time.perf_counter() - started
                    seconds[method] = round(seconds.get(method, 0.0) + taken, 3)
                    bar.advance()
                if values:
                    with (work / f"{number:06d}.npz").open("wb") as file:
                        np.savez_compressed(file, **values)  # type: ignore[arg-type]
                table.append(
                    {
                        "number": number,
                        "image": name,
                        "target": network.category(explained),
                        "target_index": explained,
                        "probability": float(probabilities[explained]),
                        "largest": network.category(largest),
                        "largest_probability": float(probabilities[largest]),
                        **({"others": {str(o): float(probabilities[o]) for o in others}} if others else {}),
                        **{f"seconds_{method}": value for method, value in seconds.items()},
                    }
                )
            else:
                bar.advance(top * len(request.attributions))
        return table.rows


def _add_sheets(
    found: Finding,
    run: Run,
    network: Network,
    shown: Photographs,
    rows: Sequence[Mapping[str, Any]],
    work: Path,
) -> None:
    """Write the arrays of every image and a sheet for every few, of which the page shows the first."""
    from pathlib import Path

    import numpy as np

    from cnn_interp.visualization.sheet import Explained, comparison_sheet, percent
    from interpretkit.commandline.finding import InstrumentBlock
    from interpretkit.runs.folder import load_arrays
    from interpretkit.visualization.instruments import MapViewer

    section = found.section(
        "Methods compared",
        "Red speaks for the output, blue against it; each map is scaled by itself, so that red says where, and the "
        "colour bar how much. Of gradients (saliency, guided backprop, deconvnet, smoothgrad, patternnet) only the "
        "size is drawn. Maps of single pixels are blurred a little for the eye, the arrays are not.",
    )
    mapped: list[MappedImage] = []
    for sheet, start in enumerate(range(0, len(rows), IMAGES_PER_SHEET)):
        explained = []
        for row in rows[start : start + IMAGES_PER_SHEET]:
            number = int(row["number"])
            values = load_arrays(work / f"{number:06d}.npz")
            first = [name for name in values if ", output " not in name]
            stem = Path(str(row["image"])).stem
            run.save_arrays(f"arrays/{number:06d}-{stem}.npz", **values)
            pixels = np.asarray(network.crop(shown.load(number).convert("RGB")), dtype=np.float64) / 255
            if len(mapped) < IMAGES_IN_VIEWER:
                mapped.append(_mapped(network, shown, row, values))
            taken_for = f"taken for {row['largest']}, {percent(row['largest_probability'])}"
            explained.append(
                Explained(
                    name=stem,
                    pixels=pixels,
                    target=str(row["target"]),
                    probability=float(row["probability"]),
                    values={method: values[method] for method in first},
                    note=taken_for if row["target"] != row["largest"] else (stem if len(rows) > 1 else ""),
                )
            )
        name = "sheet.png" if sheet == 0 else f"sheets/{sheet + 1:04d}.png"
        figure = comparison_sheet(explained)
        if sheet < SHEETS_IN_REPORT:
            names = ", ".join(each.name for each in explained)
            section.figure(name, figure, alt=f"{names}, with a column for each attribution method")
        else:
            run.save_figure(name, figure)
    section.blocks.insert(1, InstrumentBlock(MapViewer(mapped, label="Maps of each method over each image")))
    if len(rows) > len(mapped):
        section.note(f"The first {len(mapped)} of {len(rows)} images can be looked through.")
    more = -(-len(rows) // IMAGES_PER_SHEET) - SHEETS_IN_REPORT
    if more > 0:
        section.note(f"{more} more sheets are in the folder `sheets`.")


def _mapped(
    network: Network, shown: Photographs, row: Mapping[str, Any], values: Mapping[str, np.ndarray]
) -> MappedImage:
    """Return an image whole, with the map of each method over what the network saw of it."""
    from pathlib import Path

    from cnn_interp.visualization.sheet import UNSIGNED, percent, scaled_heat
    from interpretkit.attribution import method_title
    from interpretkit.visualization.instruments import Map, MappedImage

    picture = shown.load(int(row["number"])).convert("RGB")
    maps = []
    for key, given in values.items():
        method, _, output = key.partition(", output ")
        if output:
            probability = percent(row["others"][output])
            target = f"{network.category(int(output))} ({probability})"
        else:
            target = f"{row['target']} ({percent(row['probability'])})"
        signed = method not in UNSIGNED
        scaled, top = scaled_heat(given, signed=signed)
        called = method_title(method)
        meaning = f"what each pixel adds, in units of {called}" if signed else "size of each pixel's gradient"
        maps.append(Map(scaled, target, called, top, signed, f"({meaning})"))
    note = f"“{row['target']}” has {percent(row['probability'])}."
    if row["target"] != row["largest"]:
        note += f" Taken for “{row['largest']}”, {percent(row['largest_probability'])}."
    return MappedImage(
        Path(str(row["image"])).name, picture, maps, crop=network.crop_box(picture.size), note=note
    )


def _targets(network: Network, shown: Photographs, target: int | None) -> list[int]:
    """Return the classes that the systems of classes are asked about: the one given, else the images' own."""
    import torch

    from interpretkit.networks.instrumentation import instrumented

    if target is not None:
        return [target]
    found: list[int] = []
    with instrumented(network.module, 0), torch.no_grad():
        for _, inputs in shown.subset(range(min(len(shown), 8))).batches(network):
            found += network.module(inputs).argmax(1).tolist()
    return list(dict.fromkeys(found))[:MOST_TARGETS]
