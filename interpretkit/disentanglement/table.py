"""Many scores of the same codes at once."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from interpretkit.disentanglement.fixed_factor_scores import beta_vae, factor_vae, irs
from interpretkit.disentanglement.information import Binning, Discretiser
from interpretkit.disentanglement.information_scores import dcimig, infomec, med, mig, modularity
from interpretkit.disentanglement.inputs import Codes, Factors, check_codes, check_pair
from interpretkit.disentanglement.prediction_scores import dci, explicitness, sap
from interpretkit.disentanglement.score import Score
from interpretkit.disentanglement.unsupervised_scores import tc, udr
from interpretkit.errors import InputError
from interpretkit.runs.progress import progress

# The slow ones first, so that the last thread to finish has little left to do.
METRICS: Mapping[str, Callable[..., Score]] = {
    "infomec": infomec,
    "dci": dci,
    "explicitness": explicitness,
    "beta_vae": beta_vae,
    "sap": sap,
    "irs": irs,
    "factor_vae": factor_vae,
    "mig": mig,
    "dcimig": dcimig,
    "med": med,
    "modularity": modularity,
    "tc": tc,
    "udr": udr,
}
# The order in which the table shows them.
ORDER = (
    "beta_vae",
    "factor_vae",
    "mig",
    "dcimig",
    "sap",
    "dci",
    "med",
    "modularity",
    "explicitness",
    "infomec",
    "irs",
    "tc",
    "udr",
)
# What scores and their parts are called by people.
TITLES = {
    "beta_vae": "BetaVAE score",
    "factor_vae": "FactorVAE score",
    "mig": "MIG",
    "dcimig": "DCIMIG",
    "sap": "SAP",
    "dci": "DCI",
    "med": "MED",
    "infomec": "InfoMEC",
    "infom": "InfoM",
    "infoe": "InfoE",
    "infoc": "InfoC",
    "irs": "IRS",
    "tc": "total correlation",
    "udr": "UDR",
}
# Of a single factor these cannot be had.
COMPARE_FACTORS = frozenset({"beta_vae", "factor_vae", "dcimig", "dci", "med", "modularity", "infomec"})
LOWER_IS_BETTER = frozenset({"tc"})


def score_title(metric: str, part: str = "") -> str:
    """Return what a score, or a part of one, is called by people: ``DCI completeness``, ``InfoM``."""
    if part in TITLES:
        return TITLES[part]
    return f"{TITLES.get(metric, metric)} {part.replace('_', ' ')}".strip()


def taking(option: str) -> list[str]:
    """Return the metrics that have an option, such as ``binning``, in the order of the table."""
    return [name for name in ORDER if option in inspect.signature(METRICS[name]).parameters]


def definitions(metrics: Iterable[str]) -> dict[str, str]:
    """Return what each metric measures, in a sentence: the first of its function's documentation."""
    return {
        name: " ".join((inspect.getdoc(METRICS[name]) or "").split("\n\n")[0].split()) for name in metrics
    }


@dataclass(frozen=True)
class ScoreTable:
    """Scores by metric.

    Attributes
    ----------
    scores : mapping of str to Score
        In the order of the table.
    """

    scores: Mapping[str, Score]

    def __getitem__(self, metric: str) -> Score:
        return self.scores[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def warnings(self) -> dict[str, list[str]]:
        """Return what to mind, each line with the metrics that it concerns."""
        found: dict[str, list[str]] = {}
        for metric, score in self.scores.items():
            for line in score.warnings:
                found.setdefault(line, []).append(metric)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return a mapping for each score and each further part of one, with plain values."""
        found = []
        for metric, score in self.scores.items():
            parts = {str(score.details.get("part", metric)): score}
            parts.update({name: part for name, part in score.details.items() if isinstance(part, Score)})
            method = score.details.get("learner") or score.details.get("discretiser")
            if "similarity" in score.details:
                method = score.details["similarity"]
            if "neighbours" in score.details:
                method = f"{score.details['neighbours']} nearest neighbours"
            for name, part in parts.items():
                low, high = part.interval or (None, None)
                found.append(
                    {
                        "metric": metric,
                        "part": "" if name == metric else name,
                        "value": part.value,
                        "low": low,
                        "high": high,
                        "ceiling": part.ceiling,
                        "floor": part.floor,
                        "better": "lower" if metric in LOWER_IS_BETTER else "higher",
                        "method": method or "",
                        "resampled": score.details.get("resampled", ""),
                        "warnings": "; ".join(score.warnings),
                    }
                )
        return found


def check_metrics(metrics: Sequence[str] | str | None, *, with_models: bool = False) -> list[str]:
    """Return the names of metrics, in the order of the table; all that can be computed by default.

    Raises
    ------
    InputError
        If a name is unknown, or ``udr`` is asked for without the codes of several models.
    """
    if metrics is None:
        return [name for name in ORDER if name != "udr" or with_models]
    wanted = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in wanted:
        if name not in METRICS:
            raise InputError(f"metric {name!r}: expected one of {', '.join(ORDER)}")
    if not wanted:
        raise InputError(f"metrics: none; expected one or more of {', '.join(ORDER)}")
    if "udr" in wanted and not with_models:
        raise InputError(
            "metric 'udr': compares the codes of several models; expected them as models (m, n, d)"
        )
    return [name for name in ORDER if name in wanted]


def score_table(
    codes: ArrayLike | Codes,
    factors: ArrayLike | Factors,
    metrics: Sequence[str] | str | None = None,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    discrete_codes: Sequence[bool] | bool = False,
    bins: int | None = None,
    binning: Binning | None = None,
    models: Sequence[ArrayLike] | np.ndarray | None = None,
    bootstrap: int = 50,
    seed: int = 0,
    bounds: bool = True,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    threads: int | None = None,
    quiet: bool = True,
) -> ScoreTable:
    """Compute several scores of the same codes, each beside its ceiling and floor.

    Parameters
    ----------
    codes : array_like of float, (n, d)
        The codes.
    factors : array_like, (n, k)
        The factors of variation of the same rows.
    metrics : sequence of str, optional
        Names of ``METRICS``; by default all (``udr`` only if `models` are given).
    discrete : bool or sequence of bool, (k,), optional
        Which factors are discrete; inferred by default.
    discrete_codes : bool or sequence of bool, (d,)
        Which codes are discrete, for the metrics that ask (see :func:`taking`).
    bins, binning : optional
        How continuous codes and factors are cut, for all metrics that cut any; by default each has its own.
    models : sequence of array_like of float, (n, d), optional
        For ``udr``: the codes that models trained alike give to the same rows.
    bootstrap : int
        The number of resamples for each interval; 0 for none.
    seed : int
        The seed of all randomness; the result does not depend on `threads`.
    bounds : bool
        Whether to find ceilings and floors.
    options : mapping of str to mapping, optional
        Further arguments for single metrics, such as ``{"dci": {"learner": "gradient boosting"}}``.
    threads : int, optional
        How many metrics to compute at a time; by default as many as there are processors, up to 4.
    quiet : bool
        Show no progress.

    Returns
    -------
    ScoreTable

    Raises
    ------
    InputError
        If the arrays, a metric's name or an option cannot be used.
    """
    names = check_metrics(metrics, with_models=models is not None)
    special = {name: dict(given) for name, given in (options or {}).items()}
    for name, given in special.items():
        if name not in METRICS:
            raise InputError(f"options of metric {name!r}: expected one of {', '.join(ORDER)}")
        for option in given:
            if option not in inspect.signature(METRICS[name]).parameters:
                raise InputError(f"option {option!r} of metric {name!r}: there is none of that name")
    shared = {"bins": bins, "binning": binning}
    if bins is not None or binning is not None:
        Discretiser(20 if bins is None else bins, binning or "equal width")
    # Once for all, and so that bad input is refused before any thread starts.
    prepared = check_pair(codes, factors, discrete, discrete_codes)
    of_models = [
        check_codes(given, f"models[{number}]")
        for number, given in enumerate(() if models is None else models)
    ]
    with_discrete_codes = taking("discrete_codes")
    plain = replace(prepared[0], levels=(None,) * prepared[0].count)

    def compute(name: str) -> tuple[str, Score]:
        common: dict[str, Any] = {"resamples": bootstrap, "seed": seed, "bounds": bounds}
        parameters = inspect.signature(METRICS[name]).parameters
        common.update(
            {key: value for key, value in shared.items() if value is not None and key in parameters}
        )
        common.update(special.get(name, {}))
        if name == "udr":
            return name, udr(of_models, **common)
        if name not in with_discrete_codes:
            return name, METRICS[name](plain, prepared[1], **common)
        return name, METRICS[name](*prepared, **common)

    workers = threads or min(4, os.cpu_count() or 1)
    found: dict[str, Score] = {}
    ordered = [name for name in METRICS if name in names]
    with progress("Scores", len(ordered), quiet=quiet) as bar, ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(compute, name) for name in ordered]
        try:
            for done in as_completed(waiting):
                name, score = done.result()
                found[name] = score
                bar.advance(note=name)
        except BaseException:
            # Without this, an interruption would wait for all that has not even begun.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return ScoreTable({name: found[name] for name in names})
