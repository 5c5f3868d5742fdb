"""Fingerprints: what a site looks like in two channels, coordination and ligands.

Both come from the site's digraph (metals and adsorbate as vertices, bonds as arrows, lengths as weights) and its
persistent path homology. Which way an arrow points is a choice, and it decides what the Betti curves speak of:

- `directions="geometry"`: every metal-metal bond points both ways. The curves see the geometry only and serve as the
  *coordination channel*.
- `directions="elements"`: from the lower to the higher `catalysis.structure.elements.arrow_order`, both ways when
  equal, as in the published fingerprint. The curves mix coordination with the elements.

Redecorating a site leaves the first unchanged, and the first tells the classes of sites from other slabs apart a
little better (`interpretkit bench fingerprints`). So it separates coordination from ligand effects; the elements
themselves are the ligand channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from catalysis.path_homology import Barcodes, betti_curves, persistence, persistence_batch
from catalysis.structure.elements import ELEMENT_PROPERTIES, arrow_order, element_properties
from catalysis.structure.occupations import Occupations, occupations
from catalysis.structure.ordering import first_smallest, merged
from catalysis.structure.sites import Site
from interpretkit.errors import InputError

Directions = Literal["geometry", "elements"]

GRID = np.linspace(0.0, 4.05, 40)
"""Thresholds of the Betti curves in Å: the published range and number."""
GRID.flags.writeable = False

SUMMARIES = ("entropy", "silhouette", "landscape")
"""Summaries of barcodes through `gudhi.representations`."""

_LANDSCAPES, _RESOLUTION = 3, 40
_EQUAL = 1e-6  # Å: bonds that differ by less are equally long


@dataclass(frozen=True, eq=False)
class SiteDigraph:
    """A site as a weighted digraph.

    Attributes
    ----------
    labels : tuple of str
        Element of each vertex: the site's metals in its order, then the adsorbate's atoms, binding atom first.
    arrows : ndarray
        Tail and head, shape (m, 2).
    lengths : ndarray
        Their weights: distances in Å, shape (m,).
    """

    labels: tuple[str, ...]
    arrows: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Fingerprints of some sites.

    Attributes
    ----------
    site_ids, site_classes : tuple of str
        Shape (n,).
    grid : ndarray
        Thresholds in Å, shape (g,).
    coordination : ndarray
        Betti curves β0, β1, β2 of the geometry-only digraph, shape (n, 3, g).
    path_homology : ndarray
        Betti curves of the digraph directed by elements, the published fingerprint, shape (n, 3, g).
    ligands : Occupations
        Which element fills which slot: contacts, common neighbours, shell, second neighbours, by distance within a
        zone.
    properties : ndarray or None
        `catalysis.structure.elements.element_properties` by slot, shape (n, N_SLOTS, 5), NaN in empty slots; None
        unless asked for.
    summaries : dict of str to ndarray
        For each summary asked for, of the geometry-only digraph: `entropy` (n, 3), `silhouette` (n, 3, 40) and
        `landscape` (n, 3, 3, 40), both over the grid's range.
    coordination_bars, path_homology_bars : sequence of Barcodes
        The barcodes themselves, one per site; with representatives if they were asked for.
    """

    site_ids: tuple[str, ...]
    site_classes: tuple[str, ...]
    grid: np.ndarray
    coordination: np.ndarray
    path_homology: np.ndarray
    ligands: Occupations
    properties: np.ndarray | None = None
    summaries: dict[str, np.ndarray] = field(default_factory=dict)
    coordination_bars: Sequence[Barcodes] = ()
    path_homology_bars: Sequence[Barcodes] = ()

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.site_ids)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything but the barcodes as named arrays, ready for an npz file."""
        arrays = {
            "site_id": np.array(self.site_ids),
            "site_class": np.array(self.site_classes),
            "grid_angstrom": np.asarray(self.grid),
            "coordination": self.coordination,
            "path_homology": self.path_homology,
            "ligands": self.ligands.table,
            "elements": np.array(self.ligands.elements),
            "aligned": self.ligands.aligned,
            **{f"summary_{name}": values for name, values in self.summaries.items()},
        }
        if self.properties is not None:
            arrays["properties"] = self.properties
            arrays["property_names"] = np.array(ELEMENT_PROPERTIES)
        return arrays


@dataclass(frozen=True)
class Bar:
    """A bar of a barcode and the atoms on a cycle that represents it.

    Attributes
    ----------
    dimension : int
        0, 1 or 2.
    birth_angstrom, death_angstrom : float
        Death is infinite for a class that never dies.
    atoms : tuple of int
    elements : tuple of str
        Vertices of the site's digraph and their elements.
    """

    dimension: int
    birth_angstrom: float
    death_angstrom: float
    atoms: tuple[int, ...]
    elements: tuple[str, ...]


def site_digraph(site: Site, directions: Directions = "geometry") -> SiteDigraph:
    """Return a site as a digraph weighted by distances.

    Metals within bonding distance are joined (see the module's text for the directions); arrows lead from the
    contacts to the adsorbate's binding atom, and along the adsorbate's own bonds towards it.

    Raises
    ------
    InputError
        For unknown `directions`.
    """
    if directions not in ("geometry", "elements"):
        raise InputError(f"directions: {directions!r}; expected 'geometry' or 'elements'")
    n = len(site)
    positions = np.vstack([site.positions, site.adsorbate_positions])
    tails, heads = np.nonzero(site.bonds)
    if directions == "elements":
        rank = np.array([100 * group + period for group, period in map(arrow_order, site.symbols)])
        upwards = rank[tails] <= rank[heads]
        tails, heads = tails[upwards], heads[upwards]
    molecule = _towards_binding_atom(site)
    arrows = np.concatenate(
        [
            np.stack([tails, heads], 1),
            np.stack([np.arange(site.contacts), np.full(site.contacts, n)], 1),
            n + molecule,
        ]
    )
    lengths = np.linalg.norm(positions[arrows[:, 0]] - positions[arrows[:, 1]], axis=1)
    # Bonds that are equal but for rounding enter together, or bars of no length would come between them.
    return SiteDigraph((*site.symbols, *site.adsorbate_symbols), arrows, merged(lengths, _EQUAL))


def _towards_binding_atom(site: Site) -> np.ndarray:
    """Return the arrows within the adsorbate, shape (m − 1, 2): each atom points to its nearest one further in."""
    positions = site.adsorbate_positions
    joined, arrows = [0], []
    waiting = list(range(1, len(positions)))
    while waiting:
        gaps = np.linalg.norm(positions[waiting][:, None] - positions[joined][None], axis=-1)
        outer, inner = np.unravel_index(first_smallest(gaps), gaps.shape)
        arrows.append((waiting[outer], joined[inner]))
        joined.append(waiting.pop(int(outer)))
    return np.array(arrows, dtype=int).reshape(-1, 2)


def site_bars(site: Site, directions: Directions = "geometry", *, representatives: bool = False) -> Barcodes:
    """Return the persistent path homology H0–H2 of a site's digraph: regular, with 3-paths, bars in Å."""
    graph = site_digraph(site, directions)
    return persistence(
        len(graph.labels), graph.arrows, graph.lengths, max_dim=2, representatives=representatives
    )


def all_bars(
    sites: Sequence[Site],
    directions: Directions = "geometry",
    *,
    representatives: bool = False,
    n_threads: int | None = None,
) -> Sequence[Barcodes]:
    """Return `site_bars` of many sites, computed together on all cores unless representatives are asked for."""
    if representatives:
        return [site_bars(site, directions, representatives=True) for site in sites]
    graphs = [site_digraph(site, directions) for site in sites]
    return persistence_batch(
        [len(graph.labels) for graph in graphs],
        np.cumsum([0, *(len(graph.arrows) for graph in graphs)]),
        np.concatenate([graph.arrows for graph in graphs]),
        np.concatenate([graph.lengths for graph in graphs]),
        max_dim=2,
        n_threads=n_threads,
    )


def bars_with_atoms(site: Site, directions: Directions = "geometry") -> list[Bar]:
    """Return every bar of a site together with the atoms on a cycle that represents it.

    A representative is one of many: it tells where in the site a class lives, not which atoms alone cause it.
    """
    labels = (*site.symbols, *site.adsorbate_symbols)
    barcodes = site_bars(site, directions, representatives=True)
    bars = []
    for dimension, cycles in enumerate(barcodes.representatives or ()):
        for (birth, death), cycle in zip(barcodes[dimension], cycles, strict=True):
            atoms = tuple(int(vertex) for vertex in cycle.vertices)
            bars.append(
                Bar(dimension, float(birth), float(death), atoms, tuple(labels[atom] for atom in atoms))
            )
    return bars


def coordination_curves(sites: Sequence[Site], grid: np.ndarray = GRID) -> np.ndarray:
    """Return the coordination channel, shape (n, 3, g): computed once for sites that share their positions."""
    if not len(sites):
        return np.zeros((0, 3, len(grid)), dtype=np.int64)
    number: dict[tuple[bytes, bytes, bytes], int] = {}
    distinct, which = [], np.zeros(len(sites), dtype=int)
    for row, site in enumerate(sites):
        # Bonds depend on the elements' radii, so equal positions alone are not enough.
        shape = (site.positions.tobytes(), site.adsorbate_positions.tobytes(), site.bonds.tobytes())
        if shape not in number:
            number[shape] = len(distinct)
            distinct.append(site)
        which[row] = number[shape]
    return curves_of(all_bars(distinct, "geometry"), grid)[which]


def curves_of(barcodes: Sequence[Barcodes], grid: np.ndarray = GRID) -> np.ndarray:
    """Return the Betti curves of barcodes, shape (n, 3, g)."""
    return np.stack([betti_curves(bars, grid) for bars in barcodes])


def fingerprints(
    sites: Sequence[Site],
    *,
    grid: np.ndarray = GRID,
    elements: Sequence[str] | None = None,
    summaries: Sequence[str] = (),
    properties: bool = False,
    representatives: bool = False,
) -> Fingerprints:
    """Return the fingerprints of sites.

    Parameters
    ----------
    sites : sequence of Site
        At least one.
    grid : ndarray
        Thresholds of the Betti curves in Å.
    elements : sequence of str, optional
        Order of the ligand channel's categories; by default those that occur.
    summaries : sequence of str
        Any of `SUMMARIES`.
    properties : bool
        Also give the elements' properties by slot.
    representatives : bool
        Keep for each bar a cycle that represents it (slower: the readable engine computes it).

    Raises
    ------
    InputError
        If there is no site, an unknown summary, or an element that is not among `elements`.
    """
    if not len(sites):
        raise InputError("sites: none given; expected at least one")
    unknown = [name for name in summaries if name not in SUMMARIES]
    if unknown:
        raise InputError(f"summaries: {unknown[0]!r}; expected any of {', '.join(SUMMARIES)}")
    ligands = occupations(sites, elements)
    geometry = all_bars(sites, "geometry", representatives=representatives)
    directed = all_bars(sites, "elements", representatives=representatives)
    by_slot = None
    if properties:
        values = np.vstack([element_properties(list(ligands.elements)), np.full((1, 5), np.nan)])
        by_slot = values[ligands.table]
    return Fingerprints(
        site_ids=tuple(site.site_id for site in sites),
        site_classes=tuple(site.site_class for site in sites),
        grid=np.asarray(grid, dtype=float),
        coordination=curves_of(geometry, grid),
        path_homology=curves_of(directed, grid),
        ligands=ligands,
        properties=by_slot,
        summaries={name: summarise(geometry, name, (float(grid[0]), float(grid[-1]))) for name in summaries},
        coordination_bars=geometry,
        path_homology_bars=directed,
    )


def summarise(barcodes: Sequence[Barcodes], name: str, span: tuple[float, float]) -> np.ndarray:
    """Return a summary of barcodes through `gudhi.representations`, bars cut off at the end of `span` (Å).

    Parameters
    ----------
    barcodes : sequence of Barcodes
        One per site, (n,).
    name : str
        `"entropy"`: persistence entropy, shape (n, 3); `"silhouette"`: shape (n, 3, 40); `"landscape"`: the first
        three functions, shape (n, 3, 3, 40).
    span : tuple of float
        Range of the functions in Å.
    """
    from gudhi.representations import Entropy, Landscape, Silhouette

    columns = []
    for dimension in range(3):
        diagrams = [_finite(bars[dimension], span[1]) for bars in barcodes]
        if name == "entropy":
            values = Entropy(mode="scalar")
            columns.append(np.array([values(d)[0] if len(d) else 0.0 for d in diagrams]))
        elif name == "silhouette":
            silhouette = Silhouette(resolution=_RESOLUTION, sample_range=list(span))
            columns.append(np.array([silhouette(d) if len(d) else np.zeros(_RESOLUTION) for d in diagrams]))
        elif name == "landscape":
            landscape = Landscape(num_landscapes=_LANDSCAPES, resolution=_RESOLUTION, sample_range=list(span))
            shape = (_LANDSCAPES, _RESOLUTION)
            columns.append(
                np.array([np.reshape(landscape(d), shape) if len(d) else np.zeros(shape) for d in diagrams])
            )
        else:
            raise InputError(f"summaries: {name!r}; expected any of {', '.join(SUMMARIES)}")
    return np.stack(columns, axis=1)


def _finite(bars: np.ndarray, end: float) -> np.ndarray:
    cut = np.minimum(bars, end)
    return cut[cut[:, 1] > cut[:, 0]]
