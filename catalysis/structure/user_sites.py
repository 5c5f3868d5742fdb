"""Sites in the structures of others: slabs and clusters that carry an adsorbate, in any file that ASE reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import write as ase_write

from catalysis.structure.adsorbates import (
    Adsorbate,
    adsorbate_name,
    bond_limits,
    connected_parts,
    reached_from,
    remember_adsorbate,
)
from catalysis.structure.binding import Surroundings
from catalysis.structure.elements import METALS
from catalysis.structure.finding import is_clean, sites_on
from catalysis.structure.periodicity import Lattice
from catalysis.structure.reading import ENERGY_KEY, describe_entries, iterate_structures, read_energy
from catalysis.structure.refusal import RADII, check_structure
from catalysis.structure.sites import (
    BRIDGE_CLASSES,
    KINDS,
    Site,
    local_frame,
    named_kind,
    ordered_site,
    site_class_name,
)
from catalysis.structure.surfaces import read_facet
from interpretkit.errors import InputError

_IS_METAL = np.array([symbol in METALS for symbol in chemical_symbols])
_CLASS_NAMES = frozenset(BRIDGE_CLASSES.values())


def site_from_structure(
    atoms: Atoms,
    *,
    facet: str | None = None,
    kind: str | None = None,
    energy_key: str = ENERGY_KEY,
    where: str = "structure",
) -> Site:
    """Cut the site out of a slab, or a cluster, that carries one adsorbate.

    Parameters
    ----------
    atoms : Atoms
        Metals and one molecule of non-metals. `info` may hold `facet`, `site_class`, `site_id`, `slab_id`,
        `contacts` and the energy. A finite cluster has no cell, and says by `contacts`, `site_class` or `kind` that
        it is meant as one.
    facet : str, optional
        Overrides `info["facet"]`.
    kind : str, optional
        `"top"`, `"bridge"` or `"hollow"` fixes the number of contacts (1, 2, 3 or 4); by default every metal within
        binding distance is a contact, and a class of `BRIDGE_CLASSES` in `info` means two.
    energy_key : str
        The entry of `info` with the adsorption energy in eV.
    where : str
        File and frame, for error messages.

    Returns
    -------
    Site
        Contacts are counted by periodic image: in a small cell they may be images of one atom.

    Raises
    ------
    InputError
        For a structure without metals or adsorbate, with several adsorbates, with one that lies below the surface or
        is not bound to it, with atoms that have no place or stand in one place, without periodicity, and for an energy
        that is no finite number.
    """
    lattice = check_structure(atoms, where)
    is_metal = _IS_METAL[atoms.numbers]
    if not is_metal.any():
        raise InputError(f"{where}: no metal atoms; expected a metal slab with an adsorbate")
    if is_metal.all():
        raise InputError(
            f"{where}: no adsorbate; expected one on the slab (`catalyst label` finds sites on clean slabs)"
        )
    info = atoms.info
    if not atoms.pbc.any() and kind is None and not ("contacts" in info or info.get("site_class")):
        raise InputError(
            f"{where}: no cell and no periodicity; expected a slab with its cell and pbc, or, for a finite cluster, "
            "contacts=1 (2, 3, 4) in its info or --kind"
        )
    molecule_symbols, molecule_positions = _whole_molecule(atoms, is_metal, lattice, where)
    count, at_least = _contact_count(info, kind, where)
    around = Surroundings(atoms, is_metal, lattice, molecule_positions)
    order = around.binding_first(molecule_symbols, molecule_positions)
    molecule_positions = molecule_positions[order]
    molecule_symbols = tuple(molecule_symbols[i] for i in order)
    name = adsorbate_name(molecule_symbols, molecule_positions)
    contacts = around.contacts_of(molecule_positions[0], molecule_symbols[0], name, count, at_least, where)
    remember_adsorbate(name, molecule_symbols, molecule_positions)
    environment, coordination = around.environment(contacts)
    site = ordered_site(environment, len(contacts), name, molecule_symbols, molecule_positions)
    facet_text = read_facet(
        info.get("facet") if facet is None else facet, where if facet is None else "facet"
    )
    found_kind = KINDS[len(contacts)]
    if len(contacts) == 3:
        normal = local_frame(environment.positions, 3, environment.bonds)[2]
        found_kind = named_kind(environment.positions, 3, normal)
    found = site_class_name(facet_text, found_kind, coordination)
    named = str(info.get("site_class", ""))
    if named == site_class_name(facet_text, "hollow", coordination):
        named = ""  # written before fcc and hcp hollows were told apart
    return replace(
        site,
        facet=facet_text,
        site_class=named or found,
        site_id=str(info.get("site_id", "")),
        slab_id=str(info.get("slab_id", "")),
        energy_ev=read_energy(info, energy_key, where),
        host=atoms if atoms.pbc.any() else None,
    )


def read_sites(
    path: str | Path,
    *,
    facet: str | None = None,
    kind: str | None = None,
    energy_key: str = ENERGY_KEY,
    require_energies: bool = False,
    find_kinds: Sequence[str] = (),
    find_adsorbate: str | Adsorbate | Atoms = "OH",
) -> list[Site]:
    """Read sites from any file that ASE reads, or from every such file of a folder.

    Parameters
    ----------
    path : str or Path
        As for `catalysis.structure.reading.iterate_structures`: one site per structure, of a relaxation the last
        step. Where `info` holds no `site_id` and `slab_id`, the names of folder, file and row serve.
    facet, kind : str, optional
    energy_key : str
        As for `site_from_structure`.
    require_energies : bool
        Refuse frames without an energy.
    find_kinds : sequence of str
    find_adsorbate : str or Adsorbate or Atoms
        With kinds, every such site is found on slabs without adsorbate, as by `find_sites`; without, they are refused.

    Raises
    ------
    InputError
        If the path is missing, empty or unreadable, or a frame is no site; the message names file and frame.
    """
    sites: list[Site] = []
    for found in iterate_structures(path, energy_key=energy_key):
        where, atoms = found.where, found.atoms
        if find_kinds and is_clean(atoms):
            slab = atoms.copy()
            if facet is not None:
                slab.info["facet"] = facet
            sites += sites_on(slab, found.slab, kinds=find_kinds, adsorbate=find_adsorbate, where=where)
            continue
        site = site_from_structure(atoms, facet=facet, kind=kind, energy_key=energy_key, where=where)
        if require_energies and site.energy_ev is None:
            raise InputError(
                f"{where}: no energy; expected info[{energy_key!r}] in eV (--energy-key): {describe_entries(atoms)}"
            )
        sites.append(replace(site, site_id=site.site_id or found.label, slab_id=site.slab_id or found.slab))
    return sites


def write_sites(path: str | Path, sites: Sequence[Site]) -> None:
    """Write sites as clusters into one file (extxyz by suffix); `read_sites` gives them back."""
    ase_write(str(path), [site.to_atoms() for site in sites])


def _whole_molecule(
    atoms: Atoms, is_metal: np.ndarray, lattice: Lattice, where: str
) -> tuple[list[str], np.ndarray]:
    """Return symbols and positions of the one adsorbate, put together across periodic boundaries."""
    members = np.flatnonzero(~is_metal)
    names = [chemical_symbols[number] for number in atoms.numbers[members].tolist()]
    positions = atoms.positions[members].copy()
    if len(members) == 1:
        return names, positions
    radii = RADII[atoms.numbers[members]]
    limits = bond_limits(radii)
    own = np.arange(len(names))
    # From the first to the second, every image of it within reach.
    shifts = lattice.shifts(float(limits.max())) if lattice.periodic else np.zeros((1, 3))
    gaps = lattice.centred(positions[None] - positions[:, None])[:, :, None] + shifts @ lattice.cell
    lengths = np.sqrt(np.einsum("ijkl,ijkl->ijk", gaps, gaps))
    bonded = lengths <= limits[:, :, None]
    # An atom is no neighbour of itself, but may be one of its images.
    bonded[own, own, np.flatnonzero(~shifts.any(1))[0]] = False
    endless = bool(np.any(bonded.sum(-1) > 1) or np.any(bonded[own, own]))
    gaps = np.take_along_axis(gaps, lengths.argmin(-1)[:, :, None, None], axis=2)[:, :, 0]
    bonds = bonded.any(-1)
    np.fill_diagonal(bonds, False)
    parts = connected_parts(bonds)
    if len(parts) > 1:
        raise InputError(f"{where}: {_several(atoms, names, parts)}")
    for j, i in reached_from(0, bonds)[1:]:
        positions[j] = positions[i] + gaps[i, j]
    if endless or np.abs(positions[None] - positions[:, None] - gaps)[bonds].max() > 1e-3:
        raise InputError(
            f"{where}: {Atoms(names).get_chemical_formula()} is bonded to its own periodic images; "
            "expected one molecule as adsorbate"
        )
    return names, positions


def _several(atoms: Atoms, names: Sequence[str], parts: Sequence[Sequence[int]]) -> str:
    """Return what is wrong with an adsorbate of several parts."""
    formulas = Counter(Atoms([names[i] for i in part]).get_chemical_formula() for part in parts)
    listed = ", ".join(f"{number} {name}" for name, number in sorted(formulas.items()))
    text = f"{len(parts)} separate molecules of non-metals ({listed}); expected exactly one adsorbate"
    if 4 * len(names) > len(atoms):
        text += " on a metal (oxides, hydrides, carbides and the like are not supported)"
    return text


def _contact_count(info: Mapping[str, object], kind: str | None, where: str) -> tuple[int | None, int]:
    """Return the number of contacts if it is told, and else the least number."""
    if kind is not None:
        counts: dict[str, tuple[int | None, int]] = {"top": (1, 1), "bridge": (2, 2), "hollow": (None, 3)}
        if kind not in counts:
            raise InputError(f"kind: {kind!r}; expected top, bridge or hollow")
        return counts[kind]
    if "contacts" in info:
        count = info["contacts"]
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or int(count) not in KINDS:
            raise InputError(f"{where}: contacts is {count!r}; expected 1 to 4")
        return int(count), 1
    return (2 if str(info.get("site_class", "")) in _CLASS_NAMES else None), 1
