"""Elements in slots: the one array that carries sites from template to proposal to prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from catalysis.structure.sites import Site
from catalysis.structure.templates import (
    N_SLOTS,
    ZONE_CAPACITY,
    Alignment,
    Geometry,
    Template,
    align,
    smallest_copy,
    template_of,
)
from interpretkit.errors import InputError


@dataclass(frozen=True, eq=False)
class Occupations:
    """Which element fills which slot, for many sites: all that models of unrelaxed sites look at.

    A `Site` with atoms is made of a row only where one is shown or written.

    Attributes
    ----------
    geometries : tuple of Geometry
        The distinct geometries, (g,).
    geometry : ndarray
        Index of each site's geometry, shape (n,).
    elements : tuple of str
        The names that `table` points to.
    table : ndarray
        Element index by column, shape (n, N_SLOTS), int16, -1 where there is no metal.
    aligned : ndarray
        Which sites were matched to a template, shape (n,); the others go by zone and rank of distance.
    relaxed : ndarray or None
        Numbers about the relaxed geometry, shape (n, k), for models that ask for them.
    embedded : mapping
        What potentials know of each site, rows of shape (n, k) by the potential's name, see
        `catalysis.potentials.embeddings.embed`.
    """

    geometries: tuple[Geometry, ...]
    geometry: np.ndarray
    elements: tuple[str, ...]
    table: np.ndarray
    aligned: np.ndarray
    relaxed: np.ndarray | None = None
    embedded: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.table)

    def __getitem__(self, rows: np.ndarray | slice) -> Occupations:
        """Return some of the sites."""
        return replace(
            self,
            geometry=self.geometry[rows],
            table=self.table[rows],
            aligned=self.aligned[rows],
            relaxed=None if self.relaxed is None else self.relaxed[rows],
            embedded={name: known[rows] for name, known in self.embedded.items()},
        )

    def by_geometry(self) -> Iterator[tuple[np.ndarray, Geometry]]:
        """Yield the rows of each geometry that occurs, (k,), and the geometry."""
        for number, geometry in enumerate(self.geometries):
            rows = np.flatnonzero(self.geometry == number)
            if len(rows):
                yield rows, geometry

    @property
    def contact_elements(self) -> list[str]:
        """The contacts' elements of each site in alphabetical order, (n,), for example `"Pd-Pt"`."""
        names = np.array([*self.elements, ""])[self.table[:, : ZONE_CAPACITY[0]]]
        return ["-".join(sorted(name for name in row if name)) for row in names]

    def canonical(self) -> Occupations:
        """Return the lexicographically smallest of the symmetric copies of each occupation."""
        table = self.table.copy()
        for rows, geometry in self.by_geometry():
            block = (rows[:, None], geometry.columns[None])
            table[block] = smallest_copy(table[block], geometry.permutations)
        return replace(self, table=table)

    def differences(self, row: int, others: np.ndarray) -> np.ndarray:
        """Return in how many slots a site differs from some of the same geometry, up to its symmetries.

        Parameters
        ----------
        row : int
            The one.
        others : ndarray
            Rows of the others, (k,).

        Returns
        -------
        ndarray
            Shape (k,).
        """
        geometry = self.geometries[self.geometry[row]]
        copies = self.table[row, geometry.columns][geometry.permutations]
        return (copies[None] != self.table[np.ix_(others, geometry.columns)][:, None]).sum(2).min(1)

    def symbols(self, row: int) -> tuple[str, ...]:
        """Return the element in each slot of a site, in the order of its template."""
        columns = self.geometries[self.geometry[row]].columns
        return tuple(self.elements[k] for k in self.table[row, columns].tolist())

    def site(self, row: int, adsorbate: str) -> Site:
        """Return one of the sites with its atoms: the ideal geometry, the adsorbate placed on it.

        Raises
        ------
        InputError
            If its geometry is of no template.
        """
        return self.geometries[self.geometry[row]].template(adsorbate).decorate(self.symbols(row))

    def with_elements(self, elements: Sequence[str]) -> Occupations:
        """Return the same occupations with another list of names, which must hold every element that occurs."""
        if tuple(elements) == self.elements:
            return self
        lookup = np.full(len(self.elements) + 1, -1, dtype=np.int16)
        for index in np.unique(self.table[self.table >= 0]):
            lookup[index] = list(elements).index(self.elements[index])
        return replace(self, elements=tuple(elements), table=lookup[self.table])


def joined(parts: Sequence[Occupations]) -> Occupations:
    """Return the sites of several arrays in one, at least one of them, all with the same list of elements."""
    assert all(part.elements == parts[0].elements for part in parts)
    geometries = tuple(dict.fromkeys(geometry for part in parts for geometry in part.geometries))
    number = {geometry: k for k, geometry in enumerate(geometries)}
    return Occupations(
        geometries,
        np.concatenate(
            [np.array([number[g] for g in part.geometries], int)[part.geometry] for part in parts]
        ),
        parts[0].elements,
        np.concatenate([part.table for part in parts]),
        np.concatenate([part.aligned for part in parts]),
    )


def filled(
    geometries: Sequence[Geometry], geometry: np.ndarray, elements: Sequence[str], contents: np.ndarray
) -> Occupations:
    """Return occupations of templates.

    Parameters
    ----------
    geometries : sequence of Geometry
        Of templates.
    geometry : ndarray
        Which of them each site has, (n,).
    elements : sequence of str
        The names that `contents` points to.
    contents : ndarray
        Element index in every slot: of the first site in the template's order, then of the second, and so on.

    Returns
    -------
    Occupations
        As given: no symmetric copy is taken for another, see `Occupations.canonical`.
    """
    table = np.full((len(geometry), N_SLOTS), -1, dtype=np.int16)
    columns = [geometries[k].columns for k in geometry]
    rows = np.repeat(np.arange(len(geometry)), np.array([len(part) for part in columns], int))
    table[rows, np.concatenate([*columns, np.zeros(0, int)])] = contents
    return Occupations(
        tuple(geometries), np.asarray(geometry, int), tuple(elements), table, np.ones(len(geometry), bool)
    )


def occupations(sites: Sequence[Site], elements: Sequence[str] | None = None) -> Occupations:
    """Return which element fills which slot of each site.

    Parameters
    ----------
    sites : sequence of Site
        At least one. Sites that share their positions, as decorated templates do, are aligned once.
    elements : sequence of str, optional
        Order of the names; by default those that occur, in alphabetical order.

    Returns
    -------
    Occupations
        Of symmetric copies the lexicographically smallest.

    Raises
    ------
    InputError
        If a site has an element that is not among `elements`.
    """
    names = sorted({s for site in sites for s in site.symbols}) if elements is None else list(elements)
    index = {name: k for k, name in enumerate(names)}
    table = np.full((len(sites), N_SLOTS), -1, dtype=np.int16)
    geometry = np.zeros(len(sites), dtype=int)
    aligned = np.zeros(len(sites), dtype=bool)
    geometries: list[Geometry] = []
    number: dict[object, int] = {}
    for row, site in enumerate(sites):
        alignment, own = _aligned_once(site)
        template = alignment.template or own
        assert template is not None
        key: object = (template.facet, template.key)
        if alignment.template is None:
            # Sites without template share a geometry if as many metals fill each zone: the first stands for all.
            key = (site.facet, site.site_class, site.contacts, template.zones.tobytes())
        if key not in number:
            number[key] = len(geometries)
            geometries.append(template.geometry)
        geometry[row] = number[key]
        aligned[row] = alignment.template is not None
        try:
            symbols = [index[symbol] for symbol in site.symbols]
        except KeyError as error:
            raise InputError(
                f"{site.site_id or 'site'}: element {error.args[0]} is not among {', '.join(names)}"
            ) from None
        kept = alignment.columns >= 0
        table[row, alignment.columns[kept]] = np.array(symbols, dtype=np.int16)[kept]
    return Occupations(tuple(geometries), geometry, tuple(names), table, aligned).canonical()


_ALIGNED: dict[tuple[str, str, int, bytes], tuple[Alignment, Template | None]] = {}
_ALIGNED_LIMIT = 50_000  # sites; a kilobyte each


def _aligned_once(site: Site) -> tuple[Alignment, Template | None]:
    """Return `align(site)`, remembered by positions, and where there is no template the site as its own."""
    shape = (site.facet, site.site_class, site.contacts, site.positions.tobytes())
    found = _ALIGNED.get(shape)
    if found is None:
        if len(_ALIGNED) >= _ALIGNED_LIMIT:
            _ALIGNED.clear()
        alignment = align(site)
        found = _ALIGNED[shape] = alignment, None if alignment.template else template_of(site)
    return found
