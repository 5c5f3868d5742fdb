"""What ``interpretkit scores`` does: a file of codes and factors in, a table, figures and a report out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from interpretkit.arrays import read_headers
from interpretkit.disentanglement.information import Discretiser, JointCounts
from interpretkit.disentanglement.inputs import Factors, Floats, check_codes, check_factors
from interpretkit.disentanglement.table import ScoreTable, check_metrics, score_table
from interpretkit.errors import InputError
from interpretkit.results import load_arrays, run_folder

COLUMNS = ("score", "value", "interval", "floor", "ceiling", "better")


def run(
    file: Path,
    *,
    metrics: str | None,
    codes_key: str,
    factors_key: str,
    models_key: str | None,
    discrete: str | None,
    reference: bool,
    bootstrap: int,
    out: Path,
    seed: int,
    quiet: bool,
) -> dict[str, Any]:
    """Score the codes in a file and write table, matrices, figures and report.

    Parameters
    ----------
    file : path
        An ``.npz`` file.
    metrics : str or None
        Names of metrics, separated by commas; all by default.
    codes_key, factors_key : str
        The arrays ``(n, d)`` and ``(n, k)`` in the file.
    models_key : str or None
        An array ``(m, n, d)`` of the codes of several models, for ``udr``.
    discrete : str or None
        ``all``, ``none``, or the numbers of the discrete factors, separated by commas; inferred by default.
    reference : bool
        Whether DCI learns by gradient boosting.
    bootstrap : int
        The number of resamples for the intervals.
    out : path
        The result's folder.
    seed : int
        The seed of all randomness.
    quiet : bool
        Show no progress.

    Returns
    -------
    dict
        The rows of the table and what they were computed from.

    Raises
    ------
    InputError
        If the file, an array or an option cannot be used.
    """
    arrays = load_arrays(
        file, [codes_key, factors_key, "factor_names", *([models_key] if models_key else [])]
    )
    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    models = None if models_key is None else _array(file, arrays, models_key, "--models-key")
    wanted = check_metrics(names, with_models=models is not None)
    codes = _checked(file, codes_key, _array(file, arrays, codes_key, "--codes-key"))
    raw = _array(file, arrays, factors_key, "--factors-key")
    if raw.shape[:1] != codes.shape[:1]:
        raise InputError(
            f"{file}: {codes_key!r} has shape {codes.shape} and {factors_key!r} {raw.shape}; expected equally many rows"
        )
    if models is not None and (models.ndim != 3 or models.shape[1] != len(codes)):
        raise InputError(
            f"{file}: {models_key!r} has shape {models.shape}; expected (models, {len(codes)}, d)"
        )
    said = _said_discrete(discrete, raw.shape[1] if raw.ndim == 2 else 0)
    try:
        factors = check_factors(raw, said)
    except InputError as error:
        raise InputError(f"{file}: {factors_key!r}: {error}") from error
    factor_names = _names(arrays, factors.count)

    arguments = {
        "file": str(file),
        "metrics": wanted,
        "codes_key": codes_key,
        "factors_key": factors_key,
        "models_key": models_key,
        "discrete": factors.discrete,
        "reference": reference,
        "bootstrap": bootstrap,
    }
    with run_folder(out, "scores", arguments, seed, [file]) as folder:
        table = score_table(
            codes,
            factors.values,
            wanted,
            discrete=factors.discrete.tolist(),
            models=models,
            bootstrap=bootstrap,
            seed=seed,
            options={"dci": {"learner": "gradient boosting"}} if reference else None,
            quiet=quiet,
        )
        rows = table.rows()
        folder.summary.update({_title(row): row["value"] for row in rows})
        folder.save_table("scores.csv", rows)
        matrices = _matrices(codes, factors, table)
        folder.save_arrays("matrices.npz", **matrices, factor_names=np.array(factor_names))
        _draw(folder, file, table, rows, matrices, factor_names, codes, factors, seed)
    return {
        "out": out,
        "n_rows": len(codes),
        "n_codes": codes.shape[1],
        "factors": [
            {"name": name, "discrete": bool(kind)}
            for name, kind in zip(factor_names, factors.discrete, strict=True)
        ],
        "scores": rows,
    }


def print_table(result: Mapping[str, Any]) -> None:
    """Print the scores of :func:`run` as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        shown.add_column(name, justify="left" if name in ("score", "better") else "right")
    for row in result["scores"]:
        shown.add_row(*_cells(row).values())
    console = Console()
    console.print(shown)
    console.print(
        f"\n{result['n_rows']} rows, {result['n_codes']} codes; report in {result['out']}/report.html"
    )


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    interval = "" if row["low"] is None else f"{row['low']:.3f} … {row['high']:.3f}"
    numbers = {name: _three_digits(row[name]) for name in ("value", "floor", "ceiling")}
    cells = {"score": _title(row), "interval": interval, "better": row["better"], **numbers}
    return {name: cells[name] for name in COLUMNS}


def _three_digits(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['metric']} {row['part']}".strip()


def _array(file: Path, arrays: Mapping[str, np.ndarray], key: str, option: str) -> np.ndarray:
    if key not in arrays:
        present = ", ".join(sorted(read_headers(file))) or "none"
        raise InputError(f"{file}: has no array {key!r} ({option}); expected one of: {present}")
    return arrays[key]


def _checked(file: Path, key: str, array: np.ndarray) -> Floats:
    try:
        return check_codes(array, repr(key))
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _said_discrete(discrete: str | None, count: int) -> list[bool] | bool | None:
    if discrete is None:
        return None
    if discrete in ("all", "none"):
        return discrete == "all"
    try:
        numbers = {int(number) for number in discrete.split(",")}
    except ValueError as error:
        raise InputError(
            f"--discrete {discrete}: expected all, none, or numbers of factors such as 0,2"
        ) from error
    if not numbers <= set(range(count)):
        raise InputError(f"--discrete {discrete}: expected numbers of factors from 0 to {count - 1}")
    return [number in numbers for number in range(count)]


def _names(arrays: Mapping[str, np.ndarray], count: int) -> list[str]:
    """Return the factors' names, from an array ``factor_names`` of the file if it fits."""
    given = arrays.get("factor_names")
    if given is not None and given.shape == (count,):
        return [str(name) for name in given]
    return [f"factor {number}" for number in range(count)]


def _matrices(codes: Floats, factors: Factors, table: ScoreTable) -> dict[str, np.ndarray]:
    information, entropies = JointCounts(codes, factors, Discretiser()).mutual_information()
    found = {"mutual_information": information, "entropies": entropies}
    if "dci" in table:
        found["importance"] = np.asarray(table["dci"].details["importance"])
    return found


def _draw(
    folder: Any,
    file: Path,
    table: ScoreTable,
    rows: list[dict[str, Any]],
    matrices: Mapping[str, np.ndarray],
    factor_names: list[str],
    codes: Floats,
    factors: Factors,
    seed: int,
) -> None:
    from interpretkit.visualization import Report, heatmap

    code_names = [f"code {number}" for number in range(codes.shape[1])]
    shared = heatmap(
        matrices["mutual_information"] / matrices["entropies"],
        code_names,
        factor_names,
        label="mutual information / entropy of the factor",
        title="What each code tells about each factor",
    )
    folder.save_figure("mutual_information.png", shared)
    figures: list[Any] = [(shared, "Mutual information over the factor's entropy, 20 bins of equal width.")]
    if "importance" in matrices:
        important = heatmap(
            matrices["importance"],
            code_names,
            factor_names,
            label="importance",
            title="What a learner uses for each factor",
        )
        folder.save_figure("importance.png", important)
        figures.append(
            (important, f"DCI's importances by {table['dci'].details['learner']}; columns sum to 1.")
        )

    report = Report(
        f"How well {codes.shape[1]} codes separate {factors.count} factors",
        "Each score stands beside its floor (as many codes of noise) and its ceiling (the exact factors as codes, with "
        "noise for the rest) on the same rows: a score is read between the two, for few metrics reach 1 on perfect "
        "codes.",
    )
    headline = [row for row in rows if row["metric"] in ("mig", "sap", "dci", "factor_vae") or len(rows) < 5][
        :4
    ]
    report.add_numbers(
        {
            _title(row): (row["value"], f"floor {row['floor']:.3f}, ceiling {row['ceiling']:.3f}")
            for row in headline
        }
    )
    report.add_section("Scores", table=[_cells(row) | {"method": row["method"]} for row in rows])
    report.add_text(_intervals_text(rows))
    kinds = ", ".join(
        f"{name} ({'discrete' if kind else 'continuous'})"
        for name, kind in zip(factor_names, factors.discrete, strict=True)
    )
    report.add_text(f"{len(codes)} rows. Factors: {kinds}.")
    report.add_section("Codes and factors", figures=figures)
    report.add_next_step(
        "See how far the scores scatter, with 95 % intervals by resampling:",
        ["interpretkit", "scores", file, "--bootstrap", "200"],
    )
    report.add_next_step(
        "Compare with published DCI, whose learner is gradient boosting (takes minutes):",
        ["interpretkit", "scores", file, "--metrics", "dci", "--reference"],
    )
    report.set_provenance(["interpretkit", "scores", file], seed=seed, data=[file])
    folder.save_text("report.html", report.html())


def _intervals_text(rows: list[dict[str, Any]]) -> str:
    drawn: dict[str, list[str]] = {}
    for row in rows:
        if row["low"] is not None:
            drawn.setdefault(row["resampled"], []).append(row["metric"])
    if not drawn:
        return "No intervals were asked for."
    lines = [f"- {what}: {', '.join(dict.fromkeys(metrics))}" for what, metrics in drawn.items()]
    return "Intervals are 95 % intervals by bootstrap. Drawn anew were:\n\n" + "\n".join(lines)
