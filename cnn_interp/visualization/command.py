"""What `cnn visualize` does: images through methods, with every finished image kept, then the systems."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from cnn_interp.images import DEFAULT_PHOTOGRAPH, photograph
from cnn_interp.models import Network, load_network
from cnn_interp.visualization.photographs import Photographs
from cnn_interp.visualization.request import Request
from cnn_interp.visualization.sheet import Explained, comparison_sheet, percent
from cnn_interp.visualization.systems import SYSTEMS, Question, Shown, check_units
from interpretkit.attribution import METHODS, attribute
from interpretkit.attribution.instrumentation import find_layer, instrumented
from interpretkit.caution import warn_loudly
from interpretkit.errors import InputError
from interpretkit.progress import progress
from interpretkit.results import ResumableTable, Run, kept_until_done, load_arrays, run_folder
from interpretkit.visualization import Report

# So many images make a sheet that fits a page, and so many sheets a report that opens at once.
IMAGES_PER_SHEET = 6
SHEETS_IN_REPORT = 4
# Fewer photographs are neither worth searching nor enough to learn from and to test on.
LEAST_PHOTOGRAPHS = 3
MOST_TARGETS = 3


def run(
    images: Sequence[str],
    paths: Sequence[Path],
    request: Request,
    *,
    model: str,
    methods: str,
    layer: str,
    target: str,
    units: str,
    settings: Sequence[str],
    images_per_forward: int | None,
    weights: str,
    convert: bool,
    limit: int | None,
    out: Path,
    seed: int,
    device: str,
    quiet: bool,
) -> dict[str, Any]:
    """Carry out the command; see :func:`cnn_interp.visualization.cli.visualize`, which has checked its options.

    The files found and what is asked for are given beside the options themselves, which go into the manifest.

    Raises
    ------
    InputError
        If an option or an image cannot be used.
    """
    shown = Photographs.of_files(paths, convert=convert) if paths else _default_photograph()
    network = load_network(model, weights=weights, device=device, seed=seed)
    if request.layer is not None:
        find_layer(network.module, request.layer)
    network.check_scores()
    index = network.target(target) if target else None
    searched = shown if len(shown) >= LEAST_PHOTOGRAPHS else Photographs.bundled()
    arguments = {
        "images": list(images), "model": model, "method": methods, "layer": layer, "target": target,
        "unit": units, "set": list(settings), "images_per_forward": images_per_forward, "weights": weights,
        "convert": convert, "limit": limit, "device": device,
    }  # fmt: skip
    with run_folder(out, "cnn visualize", arguments, seed, paths) as folder:
        targets = _targets(network, shown, index) if request.systems else []
        asked = Question(
            network, shown.subset([0]), searched, targets, request.layer, request.units,
            seed, quiet,
        )  # fmt: skip
        check_units(asked)
        same = {**arguments, "seed": seed, "source": network.source}
        with _work_folder(folder, out, request, same, network, paths) as work:
            rows = attribute_all(network, shown, request, index, seed, work, quiet)
            sheets = _write_sheets(folder, network, shown, rows, work) if request.attributions else []
            results = {}
            for name in request.systems:
                results[name] = SYSTEMS[name](asked)
                folder.save_figure(f"{name}.png", results[name].figure)
                folder.save_arrays(f"{name}.npz", **results[name].arrays)
                folder.save_table(f"{name}.csv", results[name].rows)
            folder.save_table("images.csv", rows)
            folder.summary.update(
                n_images=len(shown),
                model=model,
                weights=network.source,
                images=(images and list(images)) or f"{DEFAULT_PHOTOGRAPH}, a photograph of scikit-image",
                targets=sorted({row["target"] for row in rows}),
                methods=[*request.attributions, *request.systems],
                **{name: dict(result.summary) for name, result in results.items()},
            )
            report = _report(network, shown, searched, rows, sheets, results, out)
            warn_loudly((line for each in results.values() for line in each.warnings), report, folder.summary)
            report.set_provenance("interpretkit cnn visualize", seed=seed, data=paths[:20])
            report.save(folder.path("report.html"))
    return {**folder.summary, "out": out, "report": out / "report.html"}


def attribute_all(
    network: Network,
    shown: Photographs,
    request: Request,
    target: int | None,
    seed: int,
    work: Path,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Put the images through the attribution methods one by one, and keep what is done in the folder `work`.

    Returns
    -------
    list of dict
        A row for each image: its name, the output explained with its probability, the seconds of each method.
    """
    with (
        ResumableTable(work / "images.jsonl", key="number") as table,
        progress("Explaining images", len(shown), quiet=quiet) as bar,
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
                values: dict[str, np.ndarray] = {}
                seconds: dict[str, float] = {}
                for method in request.attributions:
                    started = time.perf_counter()
                    layer = request.layer if METHODS[method].takes_layer else None
                    found = attribute(
                        network.module,
                        inputs,
                        explained,
                        method=method,
                        layer=layer,
                        seed=seed,
                        images_per_forward=request.images_per_forward,
                        **request.settings.get(method, {}),
                    )
                    values[method] = found.numpy()[0].astype(np.float32)
                    seconds[method] = round(time.perf_counter() - started, 3)
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
                        **{f"seconds_{method}": value for method, value in seconds.items()},
                    }
                )
            bar.advance(note=Path(name).name)
        return table.rows


@contextmanager
def _work_folder(
    run: Run,
    out: Path,
    request: Request,
    arguments: Mapping[str, Any],
    network: Network,
    images: Sequence[Path],
) -> Iterator[Path]:
    """Give a folder for what is done of the images, in which the same command goes on after an interruption."""
    if not request.attributions:
        # Without attributions an image takes a single pass through the network: nothing worth being kept.
        with TemporaryDirectory(dir=run.folder) as name:
            yield Path(name)
        return
    # The device is in the network's digest, by its kind.
    plain = {name: value for name, value in arguments.items() if name != "device"}
    with kept_until_done(out, [plain, network.digest()], images) as work:
        yield work


def _write_sheets(
    folder: Run, network: Network, shown: Photographs, rows: Sequence[Mapping[str, Any]], work: Path
) -> list[Path]:
    """Write the arrays of every image and a sheet for every few, and return the sheets' paths."""
    sheets = []
    for start in range(0, len(rows), IMAGES_PER_SHEET):
        explained = []
        for row in rows[start : start + IMAGES_PER_SHEET]:
            number = int(row["number"])
            values = load_arrays(work / f"{number:06d}.npz")
            stem = Path(str(row["image"])).stem
            folder.save_arrays(f"arrays/{number:06d}-{stem}.npz", **values)
            pixels = np.asarray(network.crop(shown.load(number).convert("RGB")), dtype=np.float64) / 255
            taken_for = f"taken for {row['largest']}, {percent(row['largest_probability'])}"
            explained.append(
                Explained(
                    name=stem,
                    pixels=pixels,
                    target=str(row["target"]),
                    probability=float(row["probability"]),
                    values=values,
                    note=taken_for if row["target"] != row["largest"] else (stem if len(rows) > 1 else ""),
                )
            )
        name = "sheet.png" if start == 0 else f"sheets/{start // IMAGES_PER_SHEET + 1:04d}.png"
        sheets.append(folder.save_figure(name, comparison_sheet(explained)))
    return sheets


def _report(
    network: Network,
    shown: Photographs,
    searched: Photographs,
    rows: Sequence[Mapping[str, Any]],
    sheets: Sequence[Path],
    results: Mapping[str, Shown],
    out: Path,
) -> Report:
    first = rows[0]
    one = len(rows) == 1
    title = f"What {network.name} sees in {Path(str(first['image'])).name if one else f'{len(rows)} images'}"
    lead = (
        f"Explained is “{first['target']}”, to which the network gives {percent(first['probability'])}."
        if one
        else "Each image with the output that is explained, and the places that spoke for it and against it."
    )
    report = Report(title, lead, kicker="interpretkit cnn visualize")
    report.add_numbers(
        {
            "image" if one else "images": len(rows),
            "network": (network.name, network.source),
            "probability" if one else "mean probability": (
                percent(float(np.mean([r["probability"] for r in rows]))),
                f"of {'the output' if one else 'the outputs'} explained",
            ),
        }
    )
    if sheets:
        report.add_section(
            "Methods compared",
            "Red speaks for the output, blue against it; each map is scaled by itself. Of gradients (saliency, "
            "guided backprop, deconvnet, smoothgrad, patternnet) only the size is drawn. Maps of single pixels "
            "are blurred a little for the eye, the arrays are not.",
        )
        for sheet in sheets[:SHEETS_IN_REPORT]:
            report.add_figures((sheet, "", "Images with a column for each attribution method"))
        if len(sheets) > SHEETS_IN_REPORT:
            report.add_note(f"{len(sheets) - SHEETS_IN_REPORT} more sheets are in `{out}/sheets`.")
    for result in results.values():
        report.add_section(
            result.title, result.text, figures=[(result.figure, result.caption)], table=result.rows
        )
    if set(results) - {"inversion"}:
        report.add_text(f"Searched and learned from: {len(searched)} {searched.source}.")
    table = [
        {
            "image": Path(str(row["image"])).name,
            "explained": row["target"],
            "probability": row["probability"],
            "taken for": row["largest"],
            "its probability": row["largest_probability"],
        }
        for row in rows[:200]
    ]
    shares = {"probability": ".1%", "its probability": ".1%"}
    report.add_section("Images", table=table, formats=shares)
    of_network = ["--model", network.name]
    report.add_next_step("What do the layers look like?", ["interpretkit", "cnn", "layers", *of_network])
    report.add_next_step(
        "What do units respond to?",
        [
            "interpretkit",
            "cnn",
            "visualize",
            *of_network,
            "--method",
            "activation_maximization,top_patches,deconvnet_projection",
        ],
    )
    return report


def _targets(network: Network, shown: Photographs, target: int | None) -> list[int]:
    """Return the classes that the systems of classes are asked about: the one given, else the images' own."""
    if target is not None:
        return [target]
    found: list[int] = []
    with instrumented(network.module, 0), torch.no_grad():
        for _, inputs in shown.subset(range(min(len(shown), 8))).batches(network):
            found += network.module(inputs).argmax(1).tolist()
    return list(dict.fromkeys(found))[:MOST_TARGETS]


def _default_photograph() -> Photographs:
    return Photographs((DEFAULT_PHOTOGRAPH,), lambda _: photograph(), "scikit-image")
