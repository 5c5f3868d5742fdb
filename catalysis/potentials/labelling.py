"""Adsorption energies from an interatomic potential: place, relax, subtract.

The adsorbate is relaxed on a slab that is held fixed. Its binding atom may be held in the plane midway between two
bridge metals, so that a bridge site stays one: without that, *OH slides to the top or hollow site on several metals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from catalysis.structure.adsorbates import get_adsorbate
from catalysis.structure.binding import BINDING_LIMIT
from catalysis.structure.elements import COVALENT_RADIUS, METALS, fcc_lattice_constant
from catalysis.structure.finding import find_sites, is_clean, sites_on
from catalysis.structure.ordering import first_smallest
from catalysis.structure.reading import ENERGY_KEY
from catalysis.structure.sites import Site
from catalysis.structure.surfaces import bare_slab
from catalysis.structure.user_sites import site_from_structure
from interpretkit.errors import InputError
from interpretkit.runs.files import dump_json
from interpretkit.runs.folder import ResumableTable
from interpretkit.runs.progress import track

# The first guess of the Hessian, in eV/Å².
_STIFFNESS = {"normal": 12.0, "sideways": 4.0, "bond": 40.0, "bend": 3.0}
_MAX_STEP = 0.15  # Å
_EQUAL_EV = 1e-4  # total energies that differ by less are equal: potentials in single precision know no more
# A third metal nearer than this multiple of the contacts' distance makes it a hollow site.
_HOLLOW_RATIO = 1.13


@dataclass(frozen=True)
class Relaxation:
    """A relaxed adsorbate.

    Attributes
    ----------
    energy_ev : float
        Total energy of slab and adsorbate.
    positions : ndarray
        Of the adsorbate, (m, 3) in Å.
    converged : bool
        Whether every force on a free coordinate fell below the limit.
    steps : int
        Evaluations of energy and forces.
    max_force : float
        The largest remaining force on a free coordinate in eV/Å.
    """

    energy_ev: float
    positions: np.ndarray
    converged: bool
    steps: int
    max_force: float


def calculator_digest(calculator: Calculator) -> str:
    """Return what tells a calculator from all others: its class, its parameters and the weights of its networks."""
    told: dict[str, Any] = {"class": f"{type(calculator).__module__}.{type(calculator).__qualname__}"}
    told["parameters"] = dict(calculator.parameters or {})
    for name, value in sorted(vars(calculator).items()):
        if hasattr(value, "named_parameters"):  # a network of torch, which is not imported for the others
            from interpretkit.training.checkpoints import state_digest

            told[name] = state_digest(value)
    return hashlib.sha256(dump_json(told).encode()).hexdigest()


def potential_energy(calculator: Calculator, atoms: Atoms) -> float:
    """Return the energy of a structure in eV.

    Raises
    ------
    InputError
        If the potential does not know an element of it.
    """
    try:
        energy = calculator.get_potential_energy(atoms)
    except NotImplementedError as error:  # ASE's word for an element that a potential lacks
        raise InputError(f"calculator: {error}; expected one that knows the elements") from error
    return float(energy)  # type: ignore[arg-type]


def relax_adsorbate(
    slab: Atoms,
    site: Site,
    calculator: Calculator,
    *,
    hold_bridge: bool = True,
    max_force: float = 0.05,
    max_steps: int = 40,
) -> Relaxation:
    """Relax the adsorbate of a site on a slab that is held fixed.

    BFGS over the adsorbate's coordinates alone, in the site's frame, started from a diagonal Hessian with the usual
    stiffness of bonds and bends; some ten evaluations of the potential in place of forty.

    Parameters
    ----------
    slab : Atoms
        The clean slab.
    site : Site
        A site of that slab, as `find_sites` gives it (positions in the slab's coordinates).
    calculator : Calculator
        Of energies and forces.
    hold_bridge : bool
        Keep the binding atom of a bridge site equally far from both contacts.
    max_force : float
        Convergence limit in eV/Å.
    max_steps : int
        The largest number of evaluations.

    Returns
    -------
    Relaxation
        The last point evaluated.
    """
    symbols, start = site.adsorbate_symbols, site.adsorbate_positions
    basis, stiffness = _coordinates(site, hold_bridge and site.contacts == 2)
    atoms = slab + Atoms(symbols, positions=start)
    first = len(slab)
    hessian = np.diag(stiffness)
    x = np.zeros(len(stiffness))
    energy, gradient = 0.0, np.zeros_like(x)
    previous: tuple[np.ndarray, np.ndarray] | None = None
    steps = 0
    while True:
        atoms.positions[first:] = start + np.tensordot(x, basis, axes=1)
        energy = potential_energy(calculator, atoms)
        gradient = -np.tensordot(basis, np.asarray(calculator.get_forces(atoms))[first:], axes=2)
        steps += 1
        if not (np.isfinite(energy) and np.all(np.isfinite(gradient))):
            return Relaxation(float("nan"), atoms.positions[first:].copy(), False, steps, float("inf"))
        if previous is not None:
            hessian = _bfgs_update(hessian, x - previous[0], gradient - previous[1])
        largest = float(np.abs(gradient).max())
        if largest <= max_force or steps >= max_steps:
            return Relaxation(energy, atoms.positions[first:].copy(), largest <= max_force, steps, largest)
        values, vectors = np.linalg.eigh(hessian)
        step = -vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), 0.5))
        step *= min(1.0, _MAX_STEP / np.abs(step).max())
        previous = (x, gradient)
        x = x + step


def ends_as(slab: Atoms, site: Site, positions: np.ndarray) -> str:
    """Return where a relaxed adsorbate stands.

    Parameters
    ----------
    slab : Atoms
    site : Site
        As for `relax_adsorbate`.
    positions : ndarray
        Of the relaxed adsorbate, (m, 3) in Å.

    Returns
    -------
    str
        The site's kind; or `"top"`, `"hollow"`, `"moved"` (to other metals), `"desorbed"`, `"buried"` (in the slab),
        `"broken"`. What stands on its site can be read again from a file: the rules are those of reading.
    """
    from ase.geometry import get_distances

    _, gaps = get_distances(positions[:1], slab.positions, cell=slab.cell, pbc=slab.pbc)
    ordered = np.sort(gaps[0])
    radius = COVALENT_RADIUS[site.adsorbate_symbols[0]]
    radii = np.array([COVALENT_RADIUS[symbol] for symbol in slab.get_chemical_symbols()])
    reference = np.linalg.norm(site.adsorbate_positions[1:] - site.adsorbate_positions[0], axis=1)
    inner = np.linalg.norm(positions[1:] - positions[0], axis=1)
    if len(inner) and np.any(np.abs(inner - reference) > 0.35):
        return "broken"
    if (gaps[0] / (radii + radius)).min() > BINDING_LIMIT:
        return "desorbed"
    if site.contacts > 1 and ordered[site.contacts - 1] > 1.25 * ordered[0]:
        return "top"
    if not on_contacts(site, positions):
        return "moved"
    if (
        len(ordered) > site.contacts
        and ordered[site.contacts] < _HOLLOW_RATIO * ordered[: site.contacts].mean()
    ):
        return "hollow"
    try:
        site_from_structure(slab + Atoms(site.adsorbate_symbols, positions=positions), kind=site.kind)
    except InputError:
        return "buried"
    return site.kind


def on_contacts(site: Site, positions: np.ndarray) -> bool:
    """Tell whether no metal of the site is nearer to the adsorbate's binding atom than its contacts are."""
    gaps = np.linalg.norm(site.positions - positions[0], axis=1)
    return bool(gaps[: site.contacts].max() <= gaps[site.contacts :].min(initial=np.inf) + 1e-6)


@dataclass(frozen=True)
class Label:
    """An adsorption energy and how it came about.

    Attributes
    ----------
    site : Site
        The site with its relaxed adsorbate and `energy_ev`.
    ends_as : str
        See `ends_as`.
    converged : bool
    steps : int
    max_force : float
        See `Relaxation`.
    """

    site: Site
    ends_as: str
    converged: bool
    steps: int
    max_force: float


def label_site(
    slab: Atoms,
    site: Site,
    calculator: Calculator,
    *,
    slab_energy_ev: float,
    reference_ev: float = 0.0,
    hold_bridge: bool = True,
    max_force: float = 0.05,
    max_steps: int = 40,
) -> Label:
    """Relax an adsorbate from the better of its two orientations and return its adsorption energy.

    Parameters
    ----------
    slab : Atoms
    site : Site
    calculator : Calculator
    hold_bridge : bool
    max_force : float
    max_steps : int
        As for `relax_adsorbate`.
    slab_energy_ev : float
        Of the clean slab.
    reference_ev : float
        Subtracted, see `bridge_reference`.

    Returns
    -------
    Label
        With energy E(slab + adsorbate) − E(slab) − reference in eV.
    """
    starts = [site]
    mirrored = _mirrored(site)
    if mirrored is not None:
        starts.append(mirrored)
        energies = [
            potential_energy(calculator, slab + Atoms(s.adsorbate_symbols, positions=s.adsorbate_positions))
            for s in starts
        ]
        starts = [starts[first_smallest(np.array(energies), _EQUAL_EV)]]
    best = starts[0]
    relaxed = relax_adsorbate(
        slab, best, calculator, hold_bridge=hold_bridge, max_force=max_force, max_steps=max_steps
    )
    energy = relaxed.energy_ev - slab_energy_ev - reference_ev
    return Label(
        replace(best, adsorbate_positions=relaxed.positions, energy_ev=energy),
        ends_as(slab, best, relaxed.positions),
        relaxed.converged,
        relaxed.steps,
        relaxed.max_force,
    )


def bridge_reference(calculator: Calculator, adsorbate: str = "OH") -> float:
    """Return E(slab + adsorbate) − E(slab) in eV on the (111) bridge of platinum: the zero of the energies."""
    slab = bare_slab("111", fcc_lattice_constant("Pt"), symbol="Pt")
    site = find_sites(slab, adsorbate=get_adsorbate(adsorbate).name)[0]
    slab_energy = potential_energy(calculator, slab)
    label = label_site(slab, site, calculator, slab_energy_ev=slab_energy)
    assert label.site.energy_ev is not None
    return label.site.energy_ev


def _mirrored(site: Site) -> Site | None:
    """Return the site with its adsorbate turned to the other side, or None if that changes nothing."""
    _, sideways, _ = site.frame
    offsets = site.adsorbate_positions - site.adsorbate_positions[0]
    turned = offsets - 2 * np.outer(offsets @ sideways, sideways)
    if np.allclose(turned, offsets, atol=1e-3):
        return None
    return replace(site, adsorbate_positions=site.adsorbate_positions[0] + turned)


def _coordinates(site: Site, hold: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return free displacements (k, m, 3) and their stiffness (k,) in eV/Å².

    First the whole adsorbate moves with its binding atom, then every other atom moves by itself, along its bond and
    across it.
    """
    along, sideways, normal = site.frame
    count = len(site.adsorbate_symbols)
    moves: list[tuple[np.ndarray, float]] = []
    for direction, name in ((normal, "normal"), (sideways, "sideways"), (along, "sideways")):
        if not (hold and direction is along):
            moves.append((np.tile(direction, (count, 1)), _STIFFNESS[name]))
    for atom in range(1, count):
        gaps = site.adsorbate_positions[atom] - site.adsorbate_positions
        lengths = np.linalg.norm(gaps, axis=1)
        lengths[atom] = np.inf
        nearest = first_smallest(lengths)
        bond = gaps[nearest] / lengths[nearest]
        # Two directions across the bond, from that axis of the frame which it crosses most nearly at right angles.
        across = np.cross(bond, site.frame[first_smallest(np.abs(site.frame @ bond), 1e-3)])
        across /= np.linalg.norm(across)
        for axis, name in ((bond, "bond"), (across, "bend"), (np.cross(bond, across), "bend")):
            move = np.zeros((count, 3))
            move[atom] = axis
            moves.append((move, _STIFFNESS[name]))
    return np.array([move for move, _ in moves]), np.array([stiffness for _, stiffness in moves])


def _bfgs_update(hessian: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return the BFGS update of a Hessian, damped (Powell) so that it stays positive definite."""
    product = hessian @ step
    curvature, expected = float(step @ change), float(step @ product)
    if curvature < 0.2 * expected:
        mix = 0.8 * expected / (expected - curvature)
        change = mix * change + (1 - mix) * product
        curvature = float(step @ change)
    return hessian + np.outer(change, change) / curvature - np.outer(product, product) / expected


def sites_of_slab(
    atoms: Atoms, label: str, *, kinds: Sequence[str], adsorbate: str, where: str
) -> tuple[Atoms, list[Site]]:
    """Return the clean slab of a structure and the sites on it that are to be labelled.

    Parameters
    ----------
    atoms : Atoms
        A slab: with an adsorbate, its site is the one; without, every site of `kinds` is found.
    label : str
        Serves as `slab_id` where `info` holds none.
    kinds : sequence of str
    adsorbate : str
        For clean slabs, as for `find_sites`.
    where : str
        File and frame, for error messages.

    Raises
    ------
    InputError
        If the structure has no cell, or is no slab.
    """
    if np.linalg.matrix_rank(atoms.cell.array) < 3:
        raise InputError(f"{where}: no cell; expected a slab in a periodic cell with vacuum")
    metal = np.array([symbol in METALS for symbol in atoms.get_chemical_symbols()])
    slab = atoms[metal]
    assert isinstance(slab, Atoms)
    slab.info = {"slab_id": label, **atoms.info}
    slab.calc = None
    if is_clean(atoms):
        return slab, sites_on(slab, label, kinds=kinds, adsorbate=adsorbate, where=where)
    site = site_from_structure(atoms, where=where)
    name = str(slab.info["slab_id"])
    return slab, [replace(site, slab_id=name, site_id=site.site_id or name)]


def label_structures(
    frames: Sequence[tuple[str, str, Atoms]],
    calculator: Calculator,
    *,
    kinds: Sequence[str] = ("bridge",),
    adsorbate: str = "OH",
    reference_ev: float | Callable[[str], float] = 0.0,
    hold_bridge: bool = True,
    journal: Path,
    quiet: bool = False,
) -> tuple[list[Atoms], list[Atoms], list[dict[str, Any]]]:
    """Label the sites of many structures, keeping each label on disk at once.

    Parameters
    ----------
    frames : sequence of tuple of str, str and Atoms
        As `catalysis.structure.reading.read_structures` yields them.
    calculator : Calculator
    hold_bridge : bool
        As for `label_site`.
    reference_ev : float or callable
        As for `label_site`; or a function that gives it for an adsorbate's name, for slabs may carry different ones.
    kinds : sequence of str
    adsorbate : str
        For clean slabs, as for `find_sites`.
    journal : Path
        File of finished labels; what stands there is not computed again.
    quiet : bool
        No progress bar.

    Returns
    -------
    frames, starts, rows
        Per site, the slab with its relaxed adsorbate and the energy in `info`; the same as it was before, without
        energy; and a row of what happened:
        `site_id`, `slab_id`, `site_class`, `adsorbate`, `energy_ev`, `reference_ev`, `ends_as`, `converged`, `usable`,
        `steps`, `max_force`.
    """
    work: list[tuple[str, Atoms, Site]] = []
    for number, (where, name, atoms) in enumerate(frames):
        slab, sites = sites_of_slab(atoms, name, kinds=kinds, adsorbate=adsorbate, where=where)
        work += [(f"{number}-{k}", slab, site) for k, site in enumerate(sites)]
    labelled: list[Atoms] = []
    starts: list[Atoms] = []
    rows: list[dict[str, Any]] = []
    slab_energy: tuple[Atoms, float] | None = None
    with ResumableTable(journal, key="key") as table:
        for key, slab, site in track(work, "sites", quiet=quiet):
            if key not in table:
                if slab_energy is None or slab_energy[0] is not slab:
                    slab_energy = slab, potential_energy(calculator, slab)
                zero = reference_ev(site.adsorbate) if callable(reference_ev) else reference_ev
                result = label_site(
                    slab,
                    site,
                    calculator,
                    slab_energy_ev=slab_energy[1],
                    reference_ev=zero,
                    hold_bridge=hold_bridge,
                )
                table.append(
                    {
                        "key": key,
                        "site_id": site.site_id,
                        "slab_id": site.slab_id,
                        "site_class": site.site_class,
                        "adsorbate": site.adsorbate,
                        "energy_ev": result.site.energy_ev,
                        "reference_ev": zero,
                        "ends_as": result.ends_as,
                        "converged": result.converged,
                        "usable": result.converged and (result.ends_as == site.kind),
                        "steps": result.steps,
                        "max_force": result.max_force,
                        "positions": result.site.adsorbate_positions.tolist(),
                    }
                )
        by_key = {row["key"]: row for row in table.rows}
    for key, slab, site in work:
        row = dict(by_key[key])
        start = slab + Atoms(site.adsorbate_symbols, positions=site.adsorbate_positions)
        start.info = site.info
        frame = start.copy()
        frame.positions[len(slab) :] = row.pop("positions")
        frame.info[ENERGY_KEY] = row["energy_ev"]
        starts.append(start)
        labelled.append(frame)
        row.pop("key")
        rows.append(row)
    return labelled, starts, rows
