"""What topology tells of the energy: which bars go with it, and what Betti curves add to class and elements.

Sites of one slab share atoms, so that slabs, not sites, are drawn anew for intervals and kept together in folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist, pdist
from scipy.stats import false_discovery_control, pearsonr
from scipy.stats import t as student

from catalysis.energies.relaxed_geometry import relaxed_geometry
from catalysis.energies.teacher import Teacher
from catalysis.energies.training_data import check_training_data, group_folds, slab_groups
from catalysis.fingerprints import Bar, Directions, all_bars, bars_with_atoms, curves_of
from catalysis.structure.sites import Site
from catalysis.structure.templates import align
from catalysis.studies.sensitivity import DIRECTIONS, ZONES, slab_resamples
from interpretkit.errors import InputError
from interpretkit.runs.progress import progress

SHORTEST = 0.01
"""Å: shorter bars are left out, for positions are hardly known better."""

MEASURES = ("bars", "length", "birth")
"""What is measured of the bars of a kind: how many, their total length (Å), their mean birth (Å)."""

_FEWEST_CLASSES = 4  # means of fewer correlate by chance however they lie
_VARIES = 1e-6  # a feature whose standard deviation is less is constant but for rounding
_RIDGES = tuple(10.0**k for k in range(-3, 2))
_EXTRAS = (0.01, 0.1, 1.0, 10.0)  # variance of topology's share over that of the rest, or of the noise
_INNER_FOLDS = 4

Setting = Literal["unrelaxed", "relaxed"]


# --------------------------------------------------------------------------------------------------- bars


@dataclass(frozen=True)
class BarFeatures:
    """What the bars of some sites have of each kind.

    Attributes
    ----------
    values
        Shape (n, k).
    direction, dimension, zone, measure
        What each column is, (k,) each: of which digraph, 0 to 2, one of `ZONES` (where the innermost atom of the cycle
        that carries the bar stands), one of `MEASURES`.
    """

    values: np.ndarray
    direction: tuple[str, ...]
    dimension: tuple[int, ...]
    zone: tuple[str, ...]
    measure: tuple[str, ...]


def bar_zone(site: Site, bar: Bar) -> str:
    """Return the innermost zone among the metals on the bar's cycle; that of the adsorbate if it holds none."""
    zones = site.zones
    metals = [int(zones[atom]) for atom in bar.atoms if atom < len(site)]
    return ZONES[min(metals)] if metals else "adsorbate"


def bar_features(
    sites: Sequence[Site],
    directions: Sequence[Directions] = DIRECTIONS,
    *,
    shortest: float = SHORTEST,
    quiet: bool = True,
) -> BarFeatures:
    """Return number, total length and mean birth of bars, by digraph, dimension and zone of the cycle.

    A column is kept if it varies over the sites; of births, if every site has such a bar.

    Parameters
    ----------
    sites
        At least one.
    directions
        Which digraphs.
    shortest
        In Å; shorter bars are not counted.
    quiet
        No progress bar.
    """
    columns: dict[tuple[str, int, str, str], np.ndarray] = {}
    kinds = [(d, k, zone) for d in directions for k in range(3) for zone in ZONES]
    for direction, dimension, zone in kinds:
        for measure in MEASURES:
            columns[direction, dimension, zone, measure] = np.zeros(len(sites))
    with progress("Bars with their atoms", len(sites) * len(directions), quiet=quiet) as shown:
        for row, site in enumerate(sites):
            for direction in directions:
                births: dict[tuple[int, str], list[float]] = {}
                for bar in bars_with_atoms(site, direction):
                    # What never dies ends with the fingerprint; there is one such bar for each part of the digraph.
                    if (
                        not np.isfinite(bar.death_angstrom)
                        or bar.death_angstrom - bar.birth_angstrom < shortest
                    ):
                        continue
                    kind = bar.dimension, bar_zone(site, bar)
                    columns[direction, *kind, "bars"][row] += 1
                    columns[direction, *kind, "length"][row] += bar.death_angstrom - bar.birth_angstrom
                    births.setdefault(kind, []).append(bar.birth_angstrom)
                for dimension in range(3):
                    for zone in ZONES:
                        found = births.get((dimension, zone))
                        columns[direction, dimension, zone, "birth"][row] = (
                            np.mean(found) if found else np.nan
                        )
                shown.advance()
    kept = {
        key: values for key, values in columns.items() if np.isfinite(values).all() and values.std() > _VARIES
    }
    keys = list(kept)
    return BarFeatures(
        np.stack(list(kept.values()), axis=1) if kept else np.zeros((len(sites), 0)),
        tuple(key[0] for key in keys),
        tuple(key[1] for key in keys),
        tuple(key[2] for key in keys),
        tuple(key[3] for key in keys),
    )


@dataclass(frozen=True)
class Association:
    """How a feature goes with the energy.

    Attributes
    ----------
    column
        Which feature.
    level
        `"within"` classes (both less their class's mean) or `"between"` (class means).
    correlation
        Pearson's.
    low, high
        95 % interval by bootstrap over slabs.
    p
        Within: of the slope, with a variance that lets sites of a slab depend on each other. Between: of the
        correlation over the classes, whose number is small.
    q
        The same after Benjamini and Hochberg over all associations of the table: of those with q ≤ 0.05, one in twenty
        may be expected to be none.
    n
        Sites, or classes.
    """

    column: int
    level: str
    correlation: float
    low: float
    high: float
    p: float
    q: float
    n: int


def associations(
    values: np.ndarray,
    energies: np.ndarray,
    classes: Sequence[str],
    slabs: Sequence[str],
    *,
    resamples: int = 500,
    seed: int = 0,
) -> list[Association]:
    """Correlate features with the energy, within and between classes.

    Parameters
    ----------
    values
        Features, (n, k).
    energies
        In eV, (n,).
    classes, slabs
        Of the sites, (n,) each.
    resamples
        For the intervals.
    seed
        Of the resamples.

    Returns
    -------
    list of Association
        Those that can be computed, by ascending p; features that are constant within classes, or between them, have
        none there.
    """
    index = np.unique(np.asarray(classes, dtype=str), return_inverse=True)[1]
    groups = np.unique(np.asarray(slabs, dtype=str), return_inverse=True)[1]
    x, y = np.asarray(values, float), np.asarray(energies, float)
    inner_x, inner_y = _centred(x, index), _centred(y[:, None], index)[:, 0]
    found: list[Association] = []
    draws_within, draws_between = [], []
    for rows in slab_resamples(slabs, resamples, seed):
        own = index[rows]
        draws_within.append(_correlations(_centred(x[rows], own), _centred(y[rows, None], own)[:, 0]))
        draws_between.append(_correlations(_means(x[rows], own), _means(y[rows, None], own)[:, 0]))
    within, between = (
        _correlations(inner_x, inner_y),
        _correlations(_means(x, index), _means(y[:, None], index)[:, 0]),
    )
    n_classes = int(index.max()) + 1
    for column in range(x.shape[1]):
        if np.isfinite(within[column]):
            p = clustered_p(inner_x[:, column], inner_y, groups)
            low, high = _interval([draw[column] for draw in draws_within])
            found.append(Association(column, "within", float(within[column]), low, high, p, p, len(y)))
        if n_classes >= _FEWEST_CLASSES and np.isfinite(between[column]):
            p = _p_of(pearsonr(_means(x, index)[:, column], _means(y[:, None], index)[:, 0]))
            low, high = _interval([draw[column] for draw in draws_between])
            found.append(Association(column, "between", float(between[column]), low, high, p, p, n_classes))
    if not found:
        return []
    adjusted = false_discovery_control([a.p for a in found])
    found = [replace(a, q=float(q)) for a, q in zip(found, adjusted, strict=True)]
    return sorted(found, key=lambda a: (a.p, a.column))


def _means(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the mean of each class that occurs, (classes, k)."""
    counts = np.bincount(index)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, index, values)
    return sums[counts > 0] / counts[counts > 0, None]


def _centred(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return values less the mean of their class."""
    present = np.unique(index, return_inverse=True)[1]
    return values - _means(values, index)[present]


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the correlation of each column with y, NaN where one of them does not vary."""
    a, b = x - x.mean(0), y - y.mean()
    sizes = np.sqrt((a**2).sum(0)), float(np.sqrt(b @ b))
    vary = (sizes[0] > _VARIES * np.sqrt(len(y))) & (sizes[1] > _VARIES * np.sqrt(len(y)))
    return np.where(vary, a.T @ b / np.where(vary, sizes[0] * sizes[1], 1.0), np.nan)


def _p_of(found: Any) -> float:
    return float(found.pvalue)


def _interval(draws: Sequence[float]) -> tuple[float, float]:
    known = np.array(draws)[np.isfinite(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def clustered_p(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """Return the two-sided p of the slope of y on x, both centred, with a variance robust to dependence in groups.

    The sandwich estimator by cluster (Liang & Zeger, Biometrika 73, 13 (1986)) with its small-sample factor
    G / (G − 1), against Student's t with G − 1 degrees of freedom. NaN for fewer than two groups.
    """
    count = len(np.unique(groups))
    size = float(x @ x)
    if count < 2 or size <= 0:
        return float("nan")
    slope = float(x @ y) / size
    scores = np.bincount(groups, weights=x * (y - slope * x))
    spread = float(np.sqrt((scores @ scores) * count / (count - 1))) / size
    return float(2 * student.sf(abs(slope) / spread, count - 1)) if spread > 0 else 0.0


# ----------------------------------------------------------------------------------------------- ablation


@dataclass(frozen=True)
class Ablated:
    """The error of a model without and with topology, on slabs that it has not seen.

    Attributes
    ----------
    model
        Its name.
    setting
        `"unrelaxed"`: class and elements, and curves of the ideal sites; `"relaxed"`: also the distances of the given
        positions, and their curves. Never to be compared with each other.
    mae_ev, with_topology_ev
        Mean absolute errors in eV, without and with Betti curves. The first is NaN for topology alone.
    difference_ev, low_ev, high_ev
        Second less first, with its paired 95 % interval by bootstrap over slabs: below 0 topology helps.
    chosen
        In how many folds the inner folds gave topology any weight.
    folds
        Of how many.
    """

    model: str
    setting: str
    mae_ev: float
    with_topology_ev: float
    difference_ev: float
    low_ev: float
    high_ev: float
    chosen: int
    folds: int

    @property
    def helps(self) -> bool:
        """Whether the interval lies below 0."""
        return self.high_ev < 0

    @property
    def harms(self) -> bool:
        """Whether it lies above."""
        return self.low_ev > 0


def ideal_copy(site: Site) -> Site | None:
    """Return the site on the ideal positions of its class, None where it matches no template.

    Metals that the template lacks are left out.
    """
    alignment = align(site)
    template = alignment.template
    if template is None:
        return None
    kept = np.flatnonzero(alignment.slots >= 0)
    ideal = template.site
    return replace(
        site,
        symbols=tuple(site.symbols[k] for k in kept.tolist()),
        positions=ideal.positions[template.order[alignment.slots[kept]]],
        adsorbate_positions=ideal.adsorbate_positions,
        adsorbate_symbols=ideal.adsorbate_symbols,
        host_indices=(),
    )


def topology_of(sites: Sequence[Site]) -> np.ndarray:
    """Return the Betti curves of both digraphs of each site as one row, (n, 240), float."""
    curves = [curves_of(all_bars(sites, direction)) for direction in DIRECTIONS]
    return np.concatenate([part.reshape(len(sites), -1) for part in curves], axis=1).astype(float)


def ablation(
    sites: Sequence[Site],
    energies_ev: np.ndarray | None = None,
    *,
    setting: Setting = "unrelaxed",
    topology: np.ndarray | None = None,
    folds: int = 5,
    resamples: int = 2000,
    seed: int = 0,
    quiet: bool = True,
) -> list[Ablated]:
    """Measure what Betti curves add to class and elements, in folds that never split a slab.

    Two models are given the curves as one more Gaussian process, linear or radial, beside what they know: a ridge
    regression of class, contact elements and counts by zone, and the teacher. How much of it is chosen in inner folds
    by slab on the training side, none being one of the choices; the models without it are the same with none. Third,
    the curves alone.

    Parameters
    ----------
    sites, energies_ev
        At least 20; energies (n,) in eV, by default the sites' own.
    setting
        See `Ablated`.
    topology
        Rows to take in place of the Betti curves, (n, k).
    folds, seed
        Of the outer folds; the seed also chooses the inner ones and the resamples.
    resamples
        For the intervals.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        For too few sites or slabs, or an unknown setting; unrelaxed, for a site that matches no template.
    """
    energies = check_training_data(sites, energies_ev)
    if setting not in ("unrelaxed", "relaxed"):
        raise InputError(f"setting: {setting!r}; expected unrelaxed or relaxed")
    slabs = slab_groups(sites)
    if len(set(slabs)) < max(2, folds):
        raise InputError(
            f"slab_id: {len(set(slabs))} slabs; expected at least one for each of {max(2, folds)} folds"
        )
    if topology is None:
        topology = topology_of(_ideal(sites) if setting == "unrelaxed" else sites)
    outer = group_folds(slabs, folds, seed)
    plain = _plain_features(sites)
    distances = relaxed_geometry(sites) if setting == "relaxed" else np.zeros((len(sites), 0))
    predicted = {name: np.zeros((2, len(sites))) for name in ("ridge", "teacher", "topology")}
    chosen = dict.fromkeys(predicted, 0)
    with progress("What topology adds", 3 * folds, quiet=quiet) as bar:
        for fold in range(folds):
            train, test = np.flatnonzero(outer != fold), np.flatnonzero(outer == fold)
            inner = group_folds([slabs[k] for k in train.tolist()], _INNER_FOLDS, seed + 1)
            extras = _topology_kernels(topology, train)
            learned = [sites[k] for k in train.tolist()]
            teacher = Teacher(seed=seed, geometry="ideal" if setting == "unrelaxed" else "relaxed")
            teacher.fit(learned, energies[train], [slabs[k] for k in train.tolist()])
            data = teacher.occupations(sites)
            members = [member.design(data)[0].astype(float) for member in teacher.members]
            scaled = (distances - distances[train].mean(0)) / (distances[train].std(0) + 1e-3)
            x = np.concatenate([plain, scaled], axis=1)
            bases = {
                "ridge": ([x @ x.T], [_RIDGES]),
                "teacher": ([m @ m.T for m in members], [(member.noise,) for member in teacher.members]),
                "topology": ([np.zeros((len(sites), len(sites)))], [_RIDGES]),
            }
            for name, (kernels, noises) in bases.items():
                known = _Known(kernels, noises, energies, train, inner)
                without, best = known.predict(test, []), known.predict(test, extras)
                predicted[name][0, test], predicted[name][1, test] = without[0], best[0]
                chosen[name] += best[1]
                bar.advance(note=name)
    names = {"ridge": "ridge on class and elements", "teacher": "teacher", "topology": "topology alone"}
    rows = []
    for name, (without, with_it) in predicted.items():
        errors = np.abs(without - energies), np.abs(with_it - energies)
        difference = errors[1] - errors[0]
        draws = [float(difference[picked].mean()) for picked in slab_resamples(slabs, resamples, seed)]
        low, high = _interval(draws)
        alone = name == "topology"
        rows.append(
            Ablated(
                names[name],
                setting,
                float("nan") if alone else float(errors[0].mean()),
                float(errors[1].mean()),
                float("nan") if alone else float(difference.mean()),
                float("nan") if alone else low,
                float("nan") if alone else high,
                chosen[name],
                folds,
            )
        )
    return rows


def _ideal(sites: Sequence[Site]) -> list[Site]:
    found = []
    for number, site in enumerate(sites):
        copy = ideal_copy(site)
        if copy is None:
            raise InputError(
                f"{site.site_id or f'site {number}'}: matches no template of its class; expected sites that do, "
                "for the curves of ideal sites"
            )
        found.append(copy)
    return found


def _plain_features(sites: Sequence[Site]) -> np.ndarray:
    """Return class, contact elements and counts of elements by zone, (n, k): one-hot, counts over their root."""
    classes = sorted({site.site_class for site in sites})
    pairs = sorted({site.contact_elements for site in sites})
    elements = sorted({symbol for site in sites for symbol in site.symbols})
    x = np.zeros((len(sites), len(classes) + len(pairs) + 3 * len(elements)))
    for row, site in enumerate(sites):
        x[row, classes.index(site.site_class)] = 1.0
        x[row, len(classes) + pairs.index(site.contact_elements)] = 1.0
        zones = site.zones
        for zone in (1, 2, 3):
            members = np.flatnonzero(zones == zone)
            at = len(classes) + len(pairs) + (zone - 1) * len(elements)
            for atom in members.tolist():
                x[row, at + elements.index(site.symbols[atom])] += 1 / np.sqrt(len(members))
    return x


def _topology_kernels(topology: np.ndarray, train: np.ndarray) -> list[np.ndarray]:
    """Return a linear and a radial kernel of all sites, scaled by the training ones, of mean square 1 there."""
    spread = topology[train].std(0)
    varying = spread > _VARIES
    if not varying.any():
        return []
    z = (topology[:, varying] - topology[train][:, varying].mean(0)) / spread[varying]
    linear = z @ z.T
    linear /= np.trace(linear[np.ix_(train, train)]) / len(train)
    distances = pdist(z[train], "sqeuclidean")
    radial = np.exp(-cdist(z, z, "sqeuclidean") / max(float(np.median(distances)), _VARIES))
    return [linear, radial]


class _Known:
    """Kernel regressions of standardised energies, their strengths chosen in inner folds; means over the members."""

    def __init__(
        self,
        kernels: Sequence[np.ndarray],
        noises: Sequence[Sequence[float]],
        energies: np.ndarray,
        train: np.ndarray,
        inner: np.ndarray,
    ) -> None:
        self.kernels, self.noises, self.train, self.inner = kernels, noises, train, inner
        self.mean, self.std = float(energies[train].mean()), float(energies[train].std())
        self.y = (energies[train] - self.mean) / self.std

    def predict(self, test: np.ndarray, extras: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        """Return the energies of the sites `test` in eV, and whether an extra kernel was given any weight."""
        strengths: list[tuple[int, float]] = [(-1, 0.0)]
        strengths += [(k, strength) for k in range(len(extras)) for strength in _EXTRAS]
        means, used = [], False
        for kernel, noises in zip(self.kernels, self.noises, strict=True):
            choices = [
                (noise, k, strength)
                for noise in noises
                for k, strength in strengths
                # Without any kernel only the mean is left, once.
                if k >= 0 or kernel.any() or noise == noises[0]
            ]
            errors = [self._inner_error(self._total(kernel, extras, k, s), noise) for noise, k, s in choices]
            noise, k, strength = choices[int(np.argmin(errors))] if len(choices) > 1 else choices[0]
            total = self._total(kernel, extras, k, strength)
            means.append(_posterior(total, noise, self.y, self.train, test))
            used |= k >= 0
        return self.mean + self.std * np.mean(means, axis=0), used

    def _total(self, kernel: np.ndarray, extras: Sequence[np.ndarray], k: int, strength: float) -> np.ndarray:
        return kernel if k < 0 else kernel + strength * extras[k]

    def _inner_error(self, kernel: np.ndarray, noise: float) -> float:
        errors = np.zeros(len(self.train))
        for fold in range(_INNER_FOLDS):
            learn, ask = np.flatnonzero(self.inner != fold), np.flatnonzero(self.inner == fold)
            found = _posterior(kernel, noise, self.y[learn], self.train[learn], self.train[ask])
            errors[ask] = np.abs(found - self.y[ask])
        return float(errors.mean())


def _posterior(
    kernel: np.ndarray, noise: float, y: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    gram = kernel[np.ix_(train, train)].copy()
    gram[np.diag_indices(len(gram))] += noise
    return kernel[np.ix_(test, train)] @ cho_solve(cho_factor(gram, lower=True), y)


def slabs_until(sites: Sequence[Site], most: int, seed: int) -> list[Site]:
    """Return the sites of slabs drawn at random, whole slabs until there are `most` sites or all are taken."""
    names = [site.slab_id or site.site_id for site in sites]
    order = np.random.default_rng(seed).permutation(sorted(set(names)))
    taken: set[Any] = set()
    count = 0
    for name in order.tolist():
        if count >= most:
            break
        taken.add(name)
        count += names.count(name)
    return [site for site, name in zip(sites, names, strict=True) if name in taken]
