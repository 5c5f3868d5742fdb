"""What ``interpretkit scores`` does: a file of codes and factors in, a table, figures and a report out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from interpretkit.arrays import read_headers
from interpretkit.disentanglement.information import Binning, Discretiser, JointCounts
from interpretkit.disentanglement.inputs import Codes, Factors, check_codes, check_factors
from interpretkit.disentanglement.score import check_resamples
from interpretkit.disentanglement.table import ScoreTable, check_metrics, score_table, taking
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
    discrete_codes: str | None = None,
    bins: int | None = None,
    binning: str | None = None,
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
    discrete_codes : str or None
        The same of the codes; none by default.
    bins, binning : optional
        How continuous codes and factors are cut: the number of bins, and ``equal-width`` or ``equal-mass`` (also
        called ``quantile``). By default each metric has its own.
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
    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    wanted = check_metrics(names, with_models=models_key is not None)
    check_resamples(bootstrap)
    cut = _said_binning(bins, binning)
    _check_used(
        wanted,
        {
            "--models-key": (models_key is not None, ["udr"]),
            "--reference": (reference, ["dci"]),
            "--discrete-codes": (discrete_codes is not None, taking("discrete_codes")),
            "--bins": (bins is not None, taking("bins")),
            "--binning": (binning is not None, taking("binning")),
        },
    )
    said = _said_discrete(discrete, "--discrete")
    said_codes = _said_discrete(discrete_codes, "--discrete-codes")

    arrays = load_arrays(
        file, [codes_key, factors_key, "factor_names", *([models_key] if models_key else [])]
    )
    models = None if models_key is None else _array(file, arrays, models_key, "--models-key")
    raw_codes = _array(file, arrays, codes_key, "--codes-key")
    raw = _array(file, arrays, factors_key, "--factors-key")
    chosen_codes = _chosen(said_codes, raw_codes, "--discrete-codes", "codes")
    try:
        codes = check_codes(raw_codes, repr(codes_key), discrete=chosen_codes or False)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if raw.shape[:1] != raw_codes.shape[:1]:
        raise InputError(
            f"{file}: {codes_key!r} has shape {raw_codes.shape} and {factors_key!r} {raw.shape}; "
            "expected equally many rows"
        )
    if models is not None and (models.ndim != 3 or models.shape[1] != len(codes)):
        raise InputError(
            f"{file}: {models_key!r} has shape {models.shape}; expected (models, {len(codes)}, d)"
        )
    chosen = _chosen(said, raw, "--discrete", "factors")
    try:
        factors = check_factors(raw, chosen)
    except InputError as error:
        raise InputError(f"{file}: {factors_key!r}: {error}") from error
    factor_names = _names(file, arrays, factors.count)

    arguments = {
        "file": str(file),
        "metrics": wanted,
        "codes_key": codes_key,
        "factors_key": factors_key,
        "models_key": models_key,
        "discrete": factors.discrete,
        "discrete_codes": [levels is not None for levels in codes.levels],
        "bins": bins,
        "binning": cut,
        "reference": reference,
        "bootstrap": bootstrap,
    }
    with run_folder(out, "scores", arguments, seed, [file]) as folder:
        table = score_table(
            codes,
            factors,
            wanted,
            bins=bins,
            binning=cut,
            models=models,
            bootstrap=bootstrap,
            seed=seed,
            options={"dci": {"learner": "gradient boosting"}} if reference else None,
            quiet=quiet,
        )
        rows = table.rows()
        folder.summary.update({_title(row): row["value"] for row in rows})
        folder.save_table("scores.csv", rows)
        shown = Discretiser(20 if bins is None else bins, cut or "equal width")
        matrices = _matrices(codes, factors, table, shown)
        folder.save_arrays("matrices.npz", **matrices, factor_names=np.array(factor_names))
        _draw(folder, file, table, rows, matrices, factor_names, codes, factors, shown, seed)
    return {
        "out": out,
        "n_rows": len(codes),
        "n_codes": codes.count,
        "factors": [
            {"name": name, "discrete": bool(kind)}
            for name, kind in zip(factor_names, factors.discrete, strict=True)
        ],
        "scores": rows,
        "warnings": _warning_lines(table),
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
    for line in result["warnings"]:
        console.print(f"\nMind: {line}", markup=False, highlight=False)
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


def _said_binning(bins: int | None, binning: str | None) -> Binning | None:
    """Return the kind of bins by the name that the library has for it, both options checked."""
    named = None if binning is None else binning.replace("-", " ")
    if named is not None and named not in get_args(Binning):
        raise InputError(
            f"--binning {binning}: expected equal-width, or equal-mass (also called quantile), bins of equally many "
            "rows"
        )
    if bins is not None and bins < 2:
        raise InputError(f"--bins {bins}: expected at least 2")
    return None if named is None else Discretiser(binning=named).binning  # type: ignore[arg-type]


def _check_used(wanted: list[str], options: Mapping[str, tuple[bool, list[str]]]) -> None:
    """Refuse an option that was given and that none of the metrics wanted has."""
    for option, (given, having) in options.items():
        if given and not set(having) & set(wanted):
            raise InputError(
                f"{option}: none of the metrics {', '.join(wanted)} uses it; expected one of {', '.join(having)} "
                "among them"
            )


def _said_discrete(discrete: str | None, option: str) -> bool | set[int] | None:
    if discrete is None:
        return None
    if discrete in ("all", "none"):
        return discrete == "all"
    try:
        return {int(number) for number in discrete.split(",")}
    except ValueError as error:
        raise InputError(f"{option} {discrete}: expected all, none, or numbers such as 0,2") from error


def _chosen(
    said: bool | set[int] | None, array: np.ndarray, option: str, what: str
) -> list[bool] | bool | None:
    """Return whether each column was said to be discrete."""
    if said is None or isinstance(said, bool):
        return said
    count = array.shape[1] if array.ndim == 2 else 0
    if not said <= set(range(count)):
        numbers = ",".join(map(str, sorted(said)))
        raise InputError(f"{option} {numbers}: expected numbers of {what} from 0 to {count - 1}")
    return [number in said for number in range(count)]


def _warning_lines(table: ScoreTable) -> list[str]:
    """Return what to mind, a line each, beginning with the metrics concerned where they are not all."""
    everywhere = len(table)
    return [
        line if len(metrics) == everywhere else f"{', '.join(metrics)}: {line}"
        for line, metrics in table.warnings().items()
    ]


def _names(file: Path, arrays: Mapping[str, np.ndarray], count: int) -> list[str]:
    """Return the factors' names, from an array ``factor_names`` of the file if it has one."""
    given = arrays.get("factor_names")
    if given is None:
        return [f"factor {number}" for number in range(count)]
    if given.shape != (count,):
        raise InputError(
            f"{file}: 'factor_names' has shape {given.shape}; expected ({count},), one for each factor"
        )
    return [str(name) for name in given]


def _matrices(
    codes: Codes, factors: Factors, table: ScoreTable, discretiser: Discretiser
) -> dict[str, np.ndarray]:
    information, entropies = JointCounts(codes, factors, discretiser).mutual_information()
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
    codes: Codes,
    factors: Factors,
    discretiser: Discretiser,
    seed: int,
) -> None:
    from interpretkit.visualization import Report, heatmap

    code_names = [f"code {number}" for number in range(codes.count)]
    shared = heatmap(
        matrices["mutual_information"] / matrices["entropies"],
        code_names,
        factor_names,
        label="mutual information / entropy of the factor",
        title="What each code tells about each factor",
    )
    folder.save_figure("mutual_information.png", shared)
    figures: list[Any] = [(shared, f"Mutual information over the factor's entropy, {discretiser}.")]
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
        f"How well {codes.count} codes separate {factors.count} factors",
        "Each score stands beside its floor (as many codes of noise) and its ceiling (the exact factors as codes, with "
        "noise for the rest) on the same rows: a score is read between the two, for few metrics reach 1 on perfect "
        "codes. The ceiling is no bound.",
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
    lines = _warning_lines(table)
    if lines:
        report.add_section("What to mind", text="\n".join(f"- {line}" for line in lines))
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
