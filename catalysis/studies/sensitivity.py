"""Structural sensitivity: how fingerprint and energy of a site answer to small and large changes of it.

A site is changed in one way at a time: an atom is moved, the surface strained, a metal taken away, one added, one
swapped for another element. Each change is measured on the barcodes (bottleneck distance), on the Betti curves (area
between them) and, where there is something to ask, on the adsorption energy.

The filtration admits an arrow at its weight, a bond's length, and vertices at 0. Two weightings of the same arrows that
differ by at most ε give digraphs that contain each other within ε, so that their persistent path homologies are
ε-interleaved and their barcodes lie within the bottleneck distance ε of each other (Chowdhury & Mémoli, SODA 2018).
An atom moved by δ changes no length by more than δ: then ε ≤ δ. The bound says nothing once a bond is made or broken,
for then the arrows are others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from scipy.stats import rankdata

from catalysis.energies.teacher import Teacher
from catalysis.fingerprints import GRID, Directions, SiteDigraph, all_bars, curves_of, site_digraph
from catalysis.path_homology import Barcodes
from catalysis.structure.elements import COVALENT_RADIUS
from catalysis.structure.sites import SECOND, Site
from interpretkit.errors import InputError
from interpretkit.runs.files import dump_json
from interpretkit.runs.progress import progress

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

KINDS = ("displacement", "strain", "vacancy", "adatom", "swap")
"""The ways in which a site is changed."""

ZONES = ("contact", "common", "shell", "second", "adsorbate")
"""Names of the zones of `catalysis.structure.sites.Site`, and of the adsorbate's own atoms."""

DIRECTIONS: tuple[Directions, ...] = ("geometry", "elements")

ROUNDING = 1e-9
"""Å: by so much a distance may exceed its bound for the rounding of sums and roots."""

_CUT = float(GRID[-1])  # Å: where the fingerprint ends; a class alive there is taken to end there
_BATCH = 400  # changed sites whose barcodes are held at once
_VACUUM = 6.0  # Å around a cluster in its box
_FREE = 0.90  # of a bond's length: nearer to an adatom no metal may be
_CLEAR = (
    1.40  # of the sum of covalent radii: an adatom nearer to the adsorbate would bind it, at another site
)
_SAME_PLACE = 0.3  # Å

Energies = Callable[[Sequence[Site]], np.ndarray]
"""From sites to energies (n,) in eV, of which only differences between one site and its changes are used."""


@dataclass(frozen=True, eq=False)
class Change:
    """A site after one change.

    Attributes
    ----------
    kind
        One of `KINDS`.
    what
        In a few words, such as `"biaxial"` or `"Pt → Pd"`.
    amplitude
        Å moved, or strain (0.01 is one percent); NaN where there is none.
    atom
        Vertex of the site's digraph that was changed; -1 if not a single one of it.
    zone
        One of `ZONES`; empty if not a single atom.
    site
        The changed site.
    """

    kind: str
    what: str
    amplitude: float
    atom: int
    zone: str
    site: Site


def zone_of(site: Site, atom: int) -> str:
    """Return the name of the zone of a vertex of the site's digraph."""
    return ZONES[int(site.zones[atom])] if atom < len(site) else "adsorbate"


# ------------------------------------------------------------------------------------------------ changes


def displacements(
    site: Site, amplitudes: Sequence[float], *, directions: int = 1, seed: int = 0
) -> list[Change]:
    """Return the site with each atom in turn moved, in random directions, by each amplitude (Å).

    The directions of an atom are the same for all amplitudes, so that the amplitudes can be compared.
    """
    generator = np.random.default_rng(seed)
    metals, molecule = site.positions, site.adsorbate_positions
    found = []
    for atom in range(len(metals) + len(molecule)):
        ways = generator.normal(size=(directions, 3))
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        for amplitude in amplitudes:
            for way in ways:
                moved = np.vstack([metals, molecule])
                moved[atom] += amplitude * way
                changed = replace(
                    site, positions=moved[: len(metals)], adsorbate_positions=moved[len(metals) :]
                )
                symbol = (*site.symbols, *site.adsorbate_symbols)[atom]
                found.append(
                    Change("displacement", symbol, float(amplitude), atom, zone_of(site, atom), changed)
                )
    return found


def strains(site: Site, amounts: Sequence[float]) -> list[Change]:
    """Return the site strained along the contacts' axis, sideways, and in both directions.

    In the surface's plane only, without contraction across it; the adsorbate stays as it is above the contacts.
    """
    along, sideways, _ = site.frame
    centre = site.positions[: site.contacts].mean(0)
    found = []
    for what, axes in (("along", [along]), ("sideways", [sideways]), ("biaxial", [along, sideways])):
        for amount in amounts:
            stretch = np.eye(3) + amount * sum(np.outer(axis, axis) for axis in axes)
            positions = (site.positions - centre) @ stretch + centre
            found.append(Change("strain", what, float(amount), -1, "", replace(site, positions=positions)))
    return found


def vacancies(site: Site) -> list[Change]:
    """Return the site without each metal in turn but for the contacts, without which it would be another site."""
    found = []
    for atom in range(site.contacts, len(site)):
        kept = [k for k in range(len(site)) if k != atom]
        found.append(
            Change("vacancy", site.symbols[atom], float("nan"), atom, zone_of(site, atom), _some(site, kept))
        )
    return found


def _some(site: Site, kept: Sequence[int]) -> Site:
    return replace(
        site,
        symbols=tuple(site.symbols[k] for k in kept),
        positions=site.positions[list(kept)],
        host_indices=(),
    )


def adatoms(site: Site, element: str = "", *, most: int = 3) -> list[Change]:
    """Return the site with a metal added in each of the free hollows of its surface that are nearest to the adsorbate.

    Parameters
    ----------
    site
        The site.
    element
        Of the adatom; by default that of the first contact.
    most
        As many hollows at most.
    """
    symbol = element or site.symbols[0]
    metals, molecule = site.positions, site.adsorbate_positions
    normal = site.frame[2]
    bonds = site.bonds
    radii = np.array([COVALENT_RADIUS[s] for s in site.symbols])
    length = float(np.linalg.norm(metals[:, None] - metals[None], axis=-1)[bonds].mean())
    reach = np.array([COVALENT_RADIUS[s] for s in site.adsorbate_symbols]) + COVALENT_RADIUS[symbol]
    places: list[np.ndarray] = []
    # All neighbours of these metals belong to the site, so that what looks free beside them is.
    for middle in np.flatnonzero(site.zones < SECOND).tolist():
        for first, last in combinations(np.flatnonzero(bonds[middle]).tolist(), 2):
            place = _above(metals[[first, middle, last]], length, normal)
            if place is None:
                continue
            gaps = np.linalg.norm(metals - place, axis=1)
            # Scaled, so that a small metal may be nearer than a large one.
            if (gaps < _FREE * length * radii / radii.mean()).any() or not _is_outside(place, metals, normal):
                continue
            if (np.linalg.norm(molecule - place, axis=1) < _CLEAR * reach).any():
                continue
            if all(np.linalg.norm(place - other) > _SAME_PLACE for other in places):
                places.append(place)
    distances = [float(np.linalg.norm(place - molecule[0])) for place in places]
    # What is equally far but for rounding keeps the order of the atoms.
    chosen = sorted(range(len(places)), key=lambda k: (round(distances[k], 3), k))[:most]
    return [
        Change(
            "adatom",
            f"{symbol} at {distances[k]:.1f} Å",
            float("nan"),
            -1,
            "",
            replace(
                site,
                symbols=(*site.symbols, symbol),
                positions=np.vstack([metals, places[k]]),
                host_indices=(),
            ),
        )
        for k in chosen
    ]


def _above(corners: np.ndarray, length: float, normal: np.ndarray) -> np.ndarray | None:
    """Return the point on the outer side that is `length` from three points (3, 3), None if there is none."""
    a, b = corners[0] - corners[1], corners[2] - corners[1]
    across = np.cross(a, b)
    area = float(across @ across)
    if area < 1e-6:
        return None
    centre = corners[1] + np.cross(a @ a * b - b @ b * a, np.cross(a, b)) * 0.5 / area
    height = length**2 - float(np.sum((centre - corners[1]) ** 2))
    if height <= 0:
        return None
    outward = across / np.sqrt(area)
    if outward @ normal < 0:
        outward = -outward
    return centre + np.sqrt(height) * outward if outward @ normal > 0.2 else None


def _is_outside(place: np.ndarray, metals: np.ndarray, normal: np.ndarray) -> bool:
    """Tell whether no metal stands above a place."""
    offset = metals - place
    height = offset @ normal
    beside = np.linalg.norm(offset - height[:, None] * normal, axis=1)
    return not bool(np.any((height > 0) & (beside < 1.5)))


def swaps(site: Site, elements: Sequence[str]) -> list[Change]:
    """Return the site with each metal in turn replaced by each other of the elements."""
    found = []
    for atom, symbol in enumerate(site.symbols):
        for other in elements:
            if other != symbol:
                symbols = [*site.symbols[:atom], other, *site.symbols[atom + 1 :]]
                found.append(
                    Change(
                        "swap",
                        f"{symbol} → {other}",
                        float("nan"),
                        atom,
                        zone_of(site, atom),
                        site.with_elements(symbols),
                    )
                )
    return found


def all_changes(
    site: Site,
    *,
    elements: Sequence[str],
    amplitudes: Sequence[float] = (0.02, 0.1, 0.3),
    strain: Sequence[float] = (-0.03, 0.03),
    directions: int = 1,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
) -> list[Change]:
    """Return every change of the kinds wanted.

    Raises
    ------
    InputError
        For an unknown kind.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"changes: {unknown[0]!r}; expected some of {', '.join(KINDS)}")
    made: dict[str, Callable[[], list[Change]]] = {
        "displacement": lambda: displacements(site, amplitudes, directions=directions, seed=seed),
        "strain": lambda: strains(site, strain),
        "vacancy": lambda: vacancies(site),
        "adatom": lambda: adatoms(site),
        "swap": lambda: swaps(site, elements),
    }
    return [change for kind in KINDS if kind in kinds for change in made[kind]()]


# ---------------------------------------------------------------------------------------------- distances


def bottleneck(first: Barcodes, second: Barcodes) -> np.ndarray:
    """Return the exact bottleneck distance of two barcodes by dimension, (3,), in Å, bars cut off at 4.05 Å.

    Cut off, because the fingerprint ends there; it makes no distance larger.
    """
    import gudhi

    return np.array(
        [
            gudhi.bottleneck_distance(_cut(one), _cut(other), 0.0)
            for one, other in zip(first, second, strict=True)
        ]
    )


def _cut(bars: np.ndarray) -> np.ndarray:
    cut = np.minimum(bars, _CUT)
    return cut[cut[:, 1] > cut[:, 0]]


def weight_change(first: SiteDigraph, second: SiteDigraph) -> float:
    """Return the largest difference of two digraphs' arrow weights in Å; infinite if their arrows are not the same.

    It bounds the bottleneck distance of their barcodes in every dimension.
    """
    if len(first.labels) != len(second.labels) or not np.array_equal(first.arrows, second.arrows):
        return float("inf")
    return float(np.abs(first.lengths - second.lengths).max(initial=0.0))


def curve_distance(first: np.ndarray, second: np.ndarray, grid: np.ndarray = GRID) -> np.ndarray:
    """Return the area between Betti curves (..., 3, g) by dimension, (..., 3), in classes times Å."""
    step = float(grid[1] - grid[0])
    return np.abs(np.asarray(first, float) - second).sum(-1) * step


@dataclass(frozen=True)
class Source:
    """Who tells energies, and of which changes.

    Attributes
    ----------
    name
        Such as `"teacher"`.
    energies
        From sites to energies.
    kinds
        The changes that it can judge. One that looks at class and elements alone knows of swaps, and nothing else.
    """

    name: str
    energies: Energies
    kinds: tuple[str, ...] = KINDS


@dataclass(frozen=True)
class Response:
    """How a site answered to a change.

    Attributes
    ----------
    site_id, site_class, slab_id
        Of the site.
    change
        What was done.
    weight_change
        For each of `DIRECTIONS`, see `weight_change`.
    bottleneck, curves
        For each of `DIRECTIONS`, by dimension: `bottleneck`, `curve_distance`.
    energy_ev
        By source, the change of the energy in eV; NaN where the source says nothing of such a change.
    """

    site_id: str
    site_class: str
    slab_id: str
    change: Change
    weight_change: dict[str, float]
    bottleneck: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    energy_ev: dict[str, float]

    def is_bounded(self, direction: str) -> bool:
        """Tell whether the arrows stayed the same, so that the bound of the bottleneck distance holds."""
        return bool(np.isfinite(self.weight_change[direction]))

    def excess(self, direction: str) -> float:
        """Return by how much the bottleneck distance exceeds its bound, in Å: never more than rounding."""
        return float(self.bottleneck[direction].max() - self.weight_change[direction])


def responses(
    site: Site,
    changes: Sequence[Change],
    sources: Sequence[Source] = (),
    *,
    n_threads: int | None = None,
) -> list[Response]:
    """Measure how a site answers to changes.

    Parameters
    ----------
    site
        Before the changes.
    changes
        Of it.
    sources
        Of energies.
    n_threads
        For the barcodes; all cores by default.
    """
    if not changes:
        return []
    changed = [change.site for change in changes]
    differences = {source.name: np.full(len(changed), np.nan) for source in sources}
    for source in sources:
        judged = [k for k, change in enumerate(changes) if change.kind in source.kinds]
        if judged:
            known = source.energies([site, *(changed[k] for k in judged)])
            differences[source.name][judged] = known[1:] - known[0]
    weights: list[dict[str, float]] = [{} for _ in changes]
    distances: list[dict[str, np.ndarray]] = [{} for _ in changes]
    areas: list[dict[str, np.ndarray]] = [{} for _ in changes]
    for direction in DIRECTIONS:
        graph = site_digraph(site, direction)
        intact = all_bars([site], direction, n_threads=n_threads)[0]
        curve = curves_of([intact])[0]
        for start in range(0, len(changed), _BATCH):
            part = changed[start : start + _BATCH]
            found = all_bars(part, direction, n_threads=n_threads)
            for k, (other, bars) in enumerate(zip(part, found, strict=True), start=start):
                weights[k][direction] = weight_change(graph, site_digraph(other, direction))
                distances[k][direction] = bottleneck(intact, bars)
                areas[k][direction] = curve_distance(curve, curves_of([bars])[0])
    return [
        Response(
            site.site_id,
            site.site_class,
            site.slab_id,
            change,
            weights[k],
            distances[k],
            areas[k],
            {name: float(values[k]) for name, values in differences.items()},
        )
        for k, change in enumerate(changes)
    ]


def typical_sites(sites: Sequence[Site], per_class: int = 1) -> list[Site]:
    """Return for each class the sites whose energies are nearest to its median; without energies the first ones."""
    found = []
    for name in sorted({(site.facet, site.site_class) for site in sites}):
        members = [site for site in sites if (site.facet, site.site_class) == name]
        known = [site.energy_ev for site in members if site.energy_ev is not None]
        middle = float(np.median(known)) if known else 0.0
        away = [0.0 if s.energy_ev is None else round(abs(s.energy_ev - middle), 6) for s in members]
        order = sorted(range(len(members)), key=lambda k: (away[k], members[k].site_id))
        found += [members[k] for k in order[:per_class]]
    return found


def by_potential(name: str, calculator: Calculator, journal: Path, *, quiet: bool = True) -> Source:
    """Return a source that tells adsorption energies by a potential, of clusters as they stand, up to a constant.

    Energy of the cluster with its adsorbate less that of the bare one, each in a box with 6 Å around it; nothing is
    relaxed. The molecule's own energy is left out: it cancels in differences.

    Parameters
    ----------
    name
        Of the source.
    calculator
        Of ASE.
    journal
        File of finished energies; what stands there is not computed again.
    quiet
        No progress bar.
    """
    from catalysis.potentials.labelling import potential_energy
    from interpretkit.runs.folder import ResumableTable

    def energy_of(cluster: Atoms, table: ResumableTable, known: dict[str, float]) -> float:
        told = [cluster.get_chemical_symbols(), cluster.positions.round(6).tolist()]
        key = hashlib.sha256(dump_json(told).encode()).hexdigest()
        if key not in known:
            boxed = cluster.copy()
            boxed.info.clear()
            boxed.center(vacuum=_VACUUM)
            boxed.pbc = True
            known[key] = potential_energy(calculator, boxed)
            table.append({"key": key, "energy_ev": known[key]})
        return known[key]

    def energies(sites: Sequence[Site]) -> np.ndarray:
        found = []
        with (
            ResumableTable(journal, key="key") as table,
            progress(f"Energies by {name}", len(sites), quiet=quiet) as bar,
        ):
            known = {row["key"]: float(row["energy_ev"]) for row in table.rows}
            for site in sites:
                cluster = site.to_atoms()
                bare = cluster[: len(site)]
                assert isinstance(bare, Atoms)
                found.append(energy_of(cluster, table, known) - energy_of(bare, table, known))
                bar.advance()
        return np.array(found)

    return Source(name, energies)


def by_teacher(teacher: Teacher) -> Source:
    """Return a source that tells the energies of swaps by an energy model of class and elements by slot."""
    return Source("teacher", lambda sites: teacher.predict_mean(teacher.occupations(sites)), ("swap",))


# ---------------------------------------------------------------------------------------------- summaries


@dataclass(frozen=True)
class Stability:
    """The stability bound, checked on every change that leaves the arrows as they are.

    Attributes
    ----------
    direction
        Of the digraph.
    checked
        Displacements and strains whose arrows stayed the same.
    violated
        Of them, those whose bottleneck distance exceeds the largest change of a weight by more than rounding.
    largest_excess
        The largest difference of both, in Å: negative if the bound was never reached.
    tightest
        The largest share of the bound that was taken up.
    rewired
        Displacements and strains that made or broke a bond: the bound does not speak of them.
    largest_jump
        The largest bottleneck distance among those, over what the lengths of the bonds that stayed have changed, in Å.
    """

    direction: str
    checked: int
    violated: int
    largest_excess: float
    tightest: float
    rewired: int
    largest_jump: float


def stability(found: Sequence[Response], direction: str) -> Stability:
    """Return how the stability bound fared on displacements and strains."""
    moved = [r for r in found if r.change.kind in ("displacement", "strain")]
    bounded = [r for r in moved if r.is_bounded(direction)]
    rewired = [r for r in moved if not r.is_bounded(direction)]
    excess = [r.excess(direction) for r in bounded]
    shares = [
        float(r.bottleneck[direction].max() / r.weight_change[direction])
        for r in bounded
        if r.weight_change[direction] > 1e-6
    ]
    return Stability(
        direction,
        len(bounded),
        sum(e > ROUNDING for e in excess),
        max(excess, default=float("nan")),
        max(shares, default=float("nan")),
        len(rewired),
        max((float(r.bottleneck[direction].max()) for r in rewired), default=float("nan")),
    )


def by_kind(found: Sequence[Response]) -> list[dict[str, Any]]:
    """Return a row for each kind of change, its amplitude or what was done, and the zone where it was done.

    Medians over atoms, elements and sites: bottleneck distance (the largest of the dimensions), area between the Betti
    curves (summed over the dimensions), of both digraphs, and the share of changes that made or broke an arrow; of
    each source of energies the root mean square and the largest absolute change.
    """
    groups: dict[tuple[str, str, str], list[Response]] = {}
    for response in found:
        change = response.change
        if change.kind == "displacement":
            size = f"{change.amplitude:g} Å"
        elif change.kind == "strain":
            size = f"{change.what} {change.amplitude:+.1%}"
        else:
            size = ""
        groups.setdefault((change.kind, size, change.zone), []).append(response)
    zones = (*ZONES, "")
    rows = []
    for kind, size, zone in sorted(
        groups, key=lambda key: (KINDS.index(key[0]), key[1], zones.index(key[2]))
    ):
        members = groups[kind, size, zone]
        row: dict[str, Any] = {"change": kind, "size": size, "zone": zone, "changes": len(members)}
        for direction in DIRECTIONS:
            row[f"bottleneck_{direction}"] = float(
                np.median([r.bottleneck[direction].max() for r in members])
            )
            row[f"curves_{direction}"] = float(np.median([r.curves[direction].sum() for r in members]))
            row[f"rewired_{direction}"] = float(np.mean([not r.is_bounded(direction) for r in members]))
        for name in members[0].energy_ev:
            energies = np.array([r.energy_ev[name] for r in members])
            energies = energies[np.isfinite(energies)]
            row[f"{name}_rms_ev"] = float(np.sqrt(np.mean(energies**2))) if len(energies) else None
            row[f"{name}_largest_ev"] = float(np.abs(energies).max()) if len(energies) else None
        rows.append(row)
    return rows


def agreement(
    found: Sequence[Response],
    source: str,
    kind: str = "swap",
    direction: Directions = "elements",
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the rank correlation of how much fingerprint and energy change, with its 95 % interval by slab.

    Spearman's, between the area between the Betti curves and the absolute change of the energy by a source; NaN where
    one of both does not vary.
    """
    members = [r for r in found if r.change.kind == kind and np.isfinite(r.energy_ev.get(source, np.nan))]
    x = np.array([r.curves[direction].sum() for r in members])
    y = np.abs([r.energy_ev[source] for r in members])
    if len(members) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), float("nan"), float("nan")
    draws = [
        _rank_correlation(x[rows], y[rows])
        for rows in slab_resamples([r.slab_id or r.site_id for r in members], resamples, seed)
        if np.ptp(x[rows]) > 0 and np.ptp(y[rows]) > 0
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return _rank_correlation(x, y), float(low), float(high)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def slab_resamples(slabs: Sequence[str], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Give rows drawn anew, whole slabs at a time, with replacement (bootstrap by cluster)."""
    index = np.unique(np.asarray(slabs, dtype=str), return_inverse=True)[1]
    order = np.argsort(index, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(index))[:-1])
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.concatenate([members[k] for k in generator.integers(0, len(members), len(members))])
