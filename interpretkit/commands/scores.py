"""How well codes separate factors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interpretkit.commandline import Column, Finding, Quiet, Seed, command, listed
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from interpretkit.disentanglement.information import Binning, Discretiser
    from interpretkit.disentanglement.inputs import Codes, Factors
    from interpretkit.disentanglement.table import ScoreTable

_COLUMNS = {
    "score": Column("the metric, and which part of it"),
    "value": Column("its value", format=".3f", between=("floor", "ceiling")),
    "interval": Column("95 % interval by bootstrap"),
    "floor": Column("value of as many codes of noise, on the same rows", format=".3f"),
    "ceiling": Column("value of the exact factors as codes, with noise for the rest", format=".3f"),
    "better": Column("which values are better"),
    "method": Column("how it was computed"),
}
_IN_TERMINAL = ("score", "value", "interval", "floor", "ceiling", "better")


@command(
    out="scores",
    example=[
        "interpretkit scores codes.npz",
        "interpretkit scores codes.npz --metrics mig,sap,dci --bootstrap 200 --out scores --json",
    ],
)
def scores(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="Holds the codes and the factors.")],
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Which scores, separated by commas; all by default."),
    ] = None,
    codes_key: Annotated[str, typer.Option(help="The array (n, d) of codes in the file.")] = "codes",
    factors_key: Annotated[str, typer.Option(help="The array (n, k) of factors in the file.")] = "factors",
    models_key: Annotated[
        str | None, typer.Option(help="An array (m, n, d) of the codes of m models, for udr.")
    ] = None,
    discrete: Annotated[
        str | None,
        typer.Option(help="Which factors are discrete: all, none, or 0,2,...; inferred by default."),
    ] = None,
    discrete_codes: Annotated[
        str | None,
        typer.Option(help="Which codes are discrete: all, none, or 0,2,...; none by default."),
    ] = None,
    bins: Annotated[
        int | None,
        typer.Option(help="Into how many bins continuous codes and factors are cut; each score's own."),
    ] = None,
    binning: Annotated[
        str | None,
        typer.Option(
            metavar="equal-width|equal-mass",
            help="How they are cut; equal-mass, also called quantile, minds no outliers. Each score's own.",
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Let DCI learn by gradient boosting; takes minutes.")
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the 95 % intervals; 0 for none.")] = 50,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> Finding:
    """Score how well codes separate factors, each score beside its floor and its ceiling."""
    from interpretkit.commands._checks import check_scores

    check_scores(
        file,
        metrics,
        codes=codes_key,
        factors=factors_key,
        models=models_key,
        discrete=discrete,
        reference=reference,
    )
    from interpretkit.disentanglement.information import Discretiser
    from interpretkit.disentanglement.inputs import check_codes, check_factors
    from interpretkit.disentanglement.score import ABOVE, check_resamples
    from interpretkit.disentanglement.table import (
        COMPARE_FACTORS,
        check_metrics,
        definitions,
        score_table,
        score_title,
        taking,
    )
    from interpretkit.runs.folder import load_arrays

    names = None if metrics is None else listed(metrics)
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
    left_out = [name for name in wanted if name in COMPARE_FACTORS and names is None and factors.count < 2]
    wanted = [name for name in wanted if name not in left_out]

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

    found = Finding(
        f"How well {codes.count} code{'s' * (codes.count != 1)} separate{'s' * (codes.count == 1)} "
        f"{factors.count} factor{'s' * (factors.count != 1)}",
        _verdict(rows)
        + "Each score stands beside its floor (as many codes of noise) and its ceiling (the exact factors as codes, "
        "with noise for the rest) on the same rows: a score is read between the two, for few metrics reach 1 on "
        "perfect codes. The ceiling is no bound.",
    ).reads(file)
    headline = [row for row in rows if row["metric"] in ("mig", "sap", "dci", "factor_vae") or len(rows) < 5][
        :4
    ]
    for row in headline:
        note = f"floor {row['floor']:.3f}, ceiling {row['ceiling']:.3f}"
        name = f"{row['metric']} {row['part']}".strip()
        found.number(name, row["value"], _title(row), format=".3f", note=note)
    found.values.update(
        n_rows=len(codes),
        n_codes=codes.count,
        factors=[
            {"name": name, "discrete": bool(kind)}
            for name, kind in zip(factor_names, factors.discrete, strict=True)
        ],
        scores=rows,
    )
    lines = _warning_lines(table)
    # What lies above its ceiling is to be understood, and no reason to distrust the page.
    above = [line for line in lines if ABOVE in line]
    found.warn(*(line for line in lines if ABOVE not in line))
    kinds = ", ".join(
        f"{name} ({'discrete' if kind else 'continuous'})"
        for name, kind in zip(factor_names, factors.discrete, strict=True)
    )
    section = found.section("Scores", f"{len(codes)} rows. Factors: {kinds}.").table(
        None, [_cells(row) for row in rows], _COLUMNS, shown=_IN_TERMINAL, in_terminal=True
    )
    if left_out:
        told = ", ".join(map(score_title, left_out))
        section.note(f"Left out, for they compare factors and there is one only: {told}.")
    if above:
        section.note("\n".join(f"- {line}" for line in above))
    section.text(_intervals_text(rows))
    found.section(
        "What they mean",
        "\n".join(f"- {definition} (`{name}`)" for name, definition in definitions(table).items())
        + "\n\nThe marks on a bar are the floor and the ceiling. A value above its ceiling is no error: the ceiling is "
        "what exact factors reach on these rows, and codes that hold them several times, or "
        "cut otherwise, may reach more.",
    )
    found.section("How they were computed").table(
        None, [_cells(row) for row in rows], _COLUMNS, shown=("score", "method")
    )
    shown = Discretiser(20 if bins is None else bins, cut or "equal width")
    matrices = _matrices(codes, factors, table, shown)
    _add_matrices(found, matrices, factor_names, codes.count, table, shown)
    found.table("scores.csv", rows)
    found.next_step(
        "See how far the scores scatter, with 95 % intervals by resampling:",
        "interpretkit scores",
        file,
        *("--bootstrap", "200"),
    )
    return found.next_step(
        "Compare with published DCI, whose learner is gradient boosting (takes minutes):",
        "interpretkit scores",
        file,
        *("--metrics", "dci", "--reference"),
    )


def _add_matrices(
    found: Finding,
    matrices: Mapping[str, np.ndarray],
    factor_names: list[str],
    n_codes: int,
    table: ScoreTable,
    discretiser: Discretiser,
) -> None:
    """Show what each code tells about each factor, and what DCI's learner uses."""
    from interpretkit.visualization import heatmap

    code_names = [f"code {number}" for number in range(n_codes)]
    section = found.section("Codes and factors")
    section.figure(
        "mutual_information.png",
        heatmap(
            matrices["mutual_information"] / matrices["entropies"],
            code_names,
            factor_names,
            label="mutual information / entropy of the factor",
            title="What each code tells about each factor",
        ),
        f"Mutual information over the factor's entropy, {discretiser}.",
    )
    if "importance" in matrices:
        section.figure(
            "importance.png",
            heatmap(
                matrices["importance"],
                code_names,
                factor_names,
                label="importance",
                title="What a learner uses for each factor",
            ),
            f"DCI's importances by {table['dci'].details['learner']}; columns sum to 1.",
        )
    found.arrays("matrices.npz", **matrices, factor_names=factor_names)


def _verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence how far the best known of the scores is from noise and from the exact factors."""
    known = [row for name in ("mig", "dci", "sap") for row in rows if row["metric"] == name] or list(rows)
    row = known[0]
    reach = row["ceiling"] - row["floor"]
    told = f"{_title(row)} is {row['value']:.3f}, between {row['floor']:.3f} for noise and {row['ceiling']:.3f} for "
    told += "the exact factors"
    return told + (f": {(row['value'] - row['floor']) / reach:.0%} of the way. " if reach > 0 else ". ")


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    interval = "" if row["low"] is None else f"{row['low']:.3f} … {row['high']:.3f}"
    kept = {name: row[name] for name in ("value", "floor", "ceiling", "better", "method")}
    return {"score": _title(row), "interval": interval, **kept}


def _title(row: Mapping[str, Any]) -> str:
    from interpretkit.disentanglement.table import score_title

    return score_title(row["metric"], row["part"])


def _array(file: Path, arrays: Mapping[str, np.ndarray], key: str, option: str) -> np.ndarray:
    from interpretkit.runs.arrays import read_headers

    if key not in arrays:
        present = ", ".join(sorted(read_headers(file))) or "none"
        raise InputError(f"{file}: has no array {key!r} ({option}); expected one of: {present}")
    return arrays[key]


def _said_binning(bins: int | None, binning: str | None) -> Binning | None:
    """Return the kind of bins by the name that the library has for it, both options checked."""
    from typing import get_args

    from interpretkit.disentanglement.information import Binning, Discretiser

    named = None if binning is None else binning.replace("-", " ")
    if named is not None and named not in get_args(Binning):
        raise InputError(
            f"binning {binning}: expected equal-width, or equal-mass (also called quantile), bins of equally many "
            "rows"
        )
    if bins is not None and bins < 2:
        raise InputError(f"bins {bins}: expected at least 2")
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
    from interpretkit.disentanglement.table import score_title

    everywhere = len(table)
    return [
        line if len(metrics) == everywhere else f"{', '.join(map(score_title, metrics))}: {line}"
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
    import numpy as np

    from interpretkit.disentanglement.information import JointCounts

    information, entropies = JointCounts(codes, factors, discretiser).mutual_information()
    found = {"mutual_information": information, "entropies": entropies}
    if "dci" in table:
        found["importance"] = np.asarray(table["dci"].details["importance"])
    return found


def _intervals_text(rows: list[dict[str, Any]]) -> str:
    from interpretkit.disentanglement.table import score_title

    drawn: dict[str, list[str]] = {}
    for row in rows:
        if row["low"] is not None:
            drawn.setdefault(row["resampled"], []).append(score_title(row["metric"]))
    if not drawn:
        return "No intervals were asked for."
    lines = [f"- {what}: {', '.join(dict.fromkeys(metrics))}" for what, metrics in drawn.items()]
    return "Intervals are 95 % intervals by bootstrap. Drawn anew were:\n\n" + "\n".join(lines)
