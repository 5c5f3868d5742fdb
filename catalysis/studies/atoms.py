"""Which atoms make the energy of a site, and which training sites make its prediction.

One engine explains networks and energy models: integrated gradients of
`interpretkit.attribution.attribute`, from the alloy's mean occupation to the site's. The teacher's mean is a sum of
products of the elements in different slots, so that its expectation over independent slots is a polynomial in their
shares; along the straight way from the mean occupation to the site, gradients of that polynomial integrate to the
Shapley values of the slots exactly (Owen, Management Science 18, P64 (1972)), with as few steps as its degree asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata
from torch import Tensor, nn

from catalysis.energies.gaussian_process import SlotEffects
from catalysis.energies.teacher import Teacher
from catalysis.structure.occupations import Occupations, occupations
from catalysis.structure.sites import Site
from catalysis.structure.templates import Geometry, align
from catalysis.studies.sensitivity import slab_resamples
from catalysis.vae.network import PGHVAE
from interpretkit.attribution import attribute
from interpretkit.errors import InputError

SUSPICIOUS = 4.0
"""A label that is so many predicted deviations from what the other slabs say looks wrong."""

_EXACT_STEPS = 4  # Gauss-Legendre is exact up to degree 7: gradients of what is of degree 4 at most
_NETWORK_STEPS = 64


# ---------------------------------------------------------------------------------------------- slots of a site


@dataclass(frozen=True, eq=False)
class Slots:
    """A site as models see it, and which of its metals stands in which slot.

    Attributes
    ----------
    data
        The site alone, in its canonical copy.
    geometry
        Of its template.
    elements
        Index in `data.elements` of each slot's element, (slots,); the last index, one beyond the names, where empty.
    atoms
        The site's metal in each slot, (slots,); -1 where empty.
    """

    data: Occupations
    geometry: Geometry
    elements: np.ndarray
    atoms: np.ndarray

    def to_atoms(self, values: np.ndarray, count: int) -> np.ndarray:
        """Return values by slot (slots,) as values by metal, (count,), 0 for a metal without a slot."""
        found = np.zeros(count)
        filled = self.atoms >= 0
        found[self.atoms[filled]] = values[filled]
        return found


def slots_of(site: Site, elements: Sequence[str]) -> Slots:
    """Return a site's slots.

    Parameters
    ----------
    site
        The site.
    elements
        That the model knows, in its order.

    Raises
    ------
    InputError
        If the site holds another one.
    """
    data = occupations([site], elements)
    geometry = data.geometries[0]
    columns = align(site).columns
    # The metal in each slot of the site as it is given, and of the symmetric copy that models see.
    holder = np.full(data.table.shape[1], -1)
    holder[columns[columns >= 0]] = np.flatnonzero(columns >= 0)
    given = holder[geometry.columns]
    canonical = data.table[0, geometry.columns].astype(int)
    names = list(elements)
    own = np.array([names.index(site.symbols[k]) if k >= 0 else -1 for k in given])
    for permutation in geometry.permutations:
        if np.array_equal(own[permutation], canonical):
            return Slots(data, geometry, np.where(canonical < 0, len(names), canonical), given[permutation])
    raise AssertionError(f"{site.site_id}: no symmetry leads to its canonical copy")


def mean_occupation(sites: Sequence[Site], elements: Sequence[str]) -> np.ndarray:
    """Return the share of each element among all metals of the sites, (elements,)."""
    symbols = np.array([symbol for site in sites for symbol in site.symbols])
    shares = np.array([np.mean(symbols == element) for element in elements])
    return shares / shares.sum()


# ------------------------------------------------------------------------------------------------------- models


class ExpectedEnergy(nn.Module):
    """The teacher's mean energy, averaged over slots that are filled independently of each other.

    Parameters
    ----------
    teacher
        Of ideal geometry.
    geometry
        Of the template.
    elements
        Names that the shares stand for.

    Notes
    -----
    Takes shares (n, slots, elements + 1), the last for an empty slot, which sum to 1 in every slot; gives energies in
    eV, (n,). Where each slot holds one element, that is the teacher's prediction.
    """

    of_single: Tensor
    of_double: Tensor
    of_together: Tensor
    of_crowd: Tensor

    def __init__(self, teacher: Teacher, geometry: Geometry, elements: Sequence[str]) -> None:
        super().__init__()
        if teacher.geometry != "ideal":
            raise InputError("teacher: it uses relaxed geometry; expected one of class and elements")
        effects: SlotEffects = teacher.slot_effects(geometry, elements)
        self.offset, self.scale, self.constant = teacher.mean, teacher.std, float(effects.constant)
        for name in ("single", "double", "together", "crowd"):
            self.register_buffer(f"of_{name}", torch.as_tensor(getattr(effects, name), dtype=torch.float64))
        self.contacts = geometry.contacts
        self.near = [
            torch.from_numpy(np.flatnonzero(geometry.touching[c] & (geometry.zones > 0)))
            for c in range(geometry.contacts)
        ]
        self.zones = [torch.from_numpy(np.flatnonzero(geometry.zones == zone)) for zone in (1, 2, 3)]

    def forward(self, shares: Tensor) -> Tensor:
        """Return energies in eV, (n,)."""
        mean = self.constant + (shares * self.of_single).sum((1, 2))
        for contact, near in enumerate(self.near):
            mean = mean + torch.einsum(
                "na,abs,nsb->n", shares[:, contact], self.of_double[:, :, near], shares[:, near]
            )
        pair = self.of_together.expand(len(shares), *self.of_together.shape)
        for contact in range(self.contacts):
            pair = torch.einsum("ne,ne...->n...", shares[:, contact], pair)
        mean = mean + pair
        contacts = shares[:, : self.contacts].sum(1)
        for zone, members in enumerate(self.zones):
            if not len(members):
                continue
            x, table = (
                shares[:, members],
                self.of_crowd[:, zone],
            )  # (n, m, elements), (contact, element, element)
            total = x.sum(1)
            # A slot holds one element, so that it does not meet itself in another guise.
            products = torch.einsum("na,nb,eab->ne", total, total, table)
            products = products - torch.einsum("nsa,nsb,eab->ne", x, x, table)
            products = products + torch.einsum("nsa,ea->ne", x, torch.diagonal(table, dim1=1, dim2=2))
            mean = mean + (contacts * products).sum(1) / len(members) ** 2
        return self.offset + self.scale * mean


class HeadEnergy(nn.Module):
    """The energy head of a PGH-VAE as a function of the elements in the slots, the coordination held.

    Parameters
    ----------
    vae
        The network; used as it is.
    coordination
        Latent of the site's geometry, (1, dc).

    Notes
    -----
    Takes shares (n, slots, elements), zeros where empty; gives energies in eV, (n,).
    """

    def __init__(self, vae: PGHVAE, coordination: Tensor) -> None:
        super().__init__()
        self.vae = vae
        self.register_buffer("coordination", coordination.detach().clone())

    def forward(self, shares: Tensor) -> Tensor:
        """Return energies in eV, (n,)."""
        coordination = self.get_buffer("coordination")
        ligand = self.vae.ligand_encoder(shares.flatten(1)).chunk(2, dim=1)[0]
        return self.vae.energy(coordination.expand(len(shares), -1), ligand)


# ------------------------------------------------------------------------------------------------- attributions


@dataclass(frozen=True, eq=False)
class AtomAttribution:
    """What each metal of a site adds to its energy, compared with the alloy's mean occupation.

    Attributes
    ----------
    model
        `"teacher"` or `"VAE"`.
    values_ev
        In eV, (n,), in the order of the site's metals; positive: it weakens the bond.
    energy_ev, baseline_ev
        Of the site, and of its geometry filled with the alloy's mean occupation.
    gap_ev
        By how much the values miss the difference of the two: completeness.
    """

    model: str
    values_ev: np.ndarray
    energy_ev: float
    baseline_ev: float
    gap_ev: float


def attribute_teacher(teacher: Teacher, site: Site, shares: np.ndarray, *, seed: int = 0) -> AtomAttribution:
    """Return the Shapley values of a site's slots for the teacher's energy.

    The value of a coalition of slots is the teacher's mean energy with these slots as they are and the others filled
    independently by `shares`, (elements,), the alloy's composition in the order of `teacher.elements`.

    Raises
    ------
    InputError
        For an element that the teacher does not know, or shares that are none.
    """
    elements = teacher.elements
    mixture = _checked_shares(shares, elements)
    slots = slots_of(site, elements)
    kinds = len(elements)
    filled = np.eye(kinds + 1)[slots.elements]
    mean = np.where(filled[:, -1:] > 0, filled, np.append(mixture, 0.0))
    model = ExpectedEnergy(teacher, slots.geometry, elements)
    found = attribute(
        model,
        filled[None],
        0,
        method="integrated_gradients",
        baseline=mean[None],
        steps=_EXACT_STEPS,
        seed=seed,
    )
    return _by_atom("teacher", found.numpy()[0].sum(1), slots, site, found.details)


def attribute_vae(vae: PGHVAE, site: Site, shares: np.ndarray, *, seed: int = 0) -> AtomAttribution:
    """Return integrated gradients of the VAE's energy head by slot, the coordination channel held.

    Shares are the alloy's composition, (elements,), in the order of `vae.config.elements`.

    Raises
    ------
    InputError
        As `PGHVAE.channels`, or for shares that are none.
    """
    elements = vae.config.elements
    mixture = _checked_shares(shares, elements)
    slots = slots_of(site, elements)
    columns = list(vae.config.columns)
    channels = vae.channels([site])
    with torch.no_grad():
        coordination = vae.encode(channels).coordination
    filled = np.zeros((len(columns), len(elements)))
    mean = np.zeros_like(filled)
    place = np.array([columns.index(c) if c in columns else -1 for c in slots.geometry.columns.tolist()])
    for slot, column in enumerate(place.tolist()):
        if column >= 0 and slots.elements[slot] < len(elements):
            filled[column, slots.elements[slot]] = 1.0
            mean[column] = mixture
    found = attribute(
        HeadEnergy(vae, coordination),
        filled[None].astype(np.float32),
        0,
        method="integrated_gradients",
        baseline=mean[None],
        steps=_NETWORK_STEPS,
        seed=seed,
    )
    by_column = np.append(found.numpy()[0].sum(1), 0.0)
    return _by_atom("VAE", by_column[place], slots, site, found.details)


def _by_atom(
    name: str, by_slot: np.ndarray, slots: Slots, site: Site, details: Mapping[str, Tensor]
) -> AtomAttribution:
    energy, baseline, gap = (
        float(details[key][0]) for key in ("scores", "baseline_scores", "completeness_gap")
    )
    return AtomAttribution(name, slots.to_atoms(by_slot, len(site)), energy, baseline, gap)


def _checked_shares(shares: np.ndarray, elements: Sequence[str]) -> np.ndarray:
    given = np.asarray(shares, dtype=float)
    if given.shape != (len(elements),) or not np.all(given >= 0) or not np.isclose(given.sum(), 1):
        raise InputError(f"shares: {given}; expected one for each of {', '.join(elements)}, that add up to 1")
    return given


def substitution_sites(site: Site, elements: Sequence[str]) -> list[Site]:
    """Return the site with each metal in turn replaced by each of the elements, its own too: metals × elements."""
    return [
        site.with_elements([*site.symbols[:atom], element, *site.symbols[atom + 1 :]])
        for atom in range(len(site))
        for element in elements
    ]


def substitutions(
    energies_ev: np.ndarray, site: Site, elements: Sequence[str], shares: np.ndarray
) -> np.ndarray:
    """Return what each metal does by itself: the site's energy less the mean over what could stand in its place.

    Parameters
    ----------
    energies_ev
        Of `substitution_sites`, in eV, (metals · elements,).
    site, elements, shares
        The site, the elements in the same order, and the alloy's composition.

    Returns
    -------
    ndarray
        In eV, (metals,); positive where the metal weakens the bond, as in an attribution.
    """
    table = np.asarray(energies_ev, float).reshape(len(site), len(elements))
    names = list(elements)
    own = table[np.arange(len(site)), [names.index(symbol) for symbol in site.symbols]]
    return own - table @ np.asarray(shares, float)


def substituted_by_teacher(teacher: Teacher, site: Site, shares: np.ndarray) -> np.ndarray:
    """Return `substitutions` as the teacher predicts them, (metals,), in eV."""
    changed = substitution_sites(site, teacher.elements)
    energies = teacher.predict_mean(teacher.occupations(changed))
    return substitutions(energies, site, teacher.elements, shares)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation; NaN where one of both does not vary."""
    a, b = rankdata(first), rankdata(second)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def mean_over_slabs(
    values: Sequence[float], slabs: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean of values by site, with its 95 % interval by bootstrap over slabs; NaN are left out."""
    given = np.asarray(values, float)
    known = np.isfinite(given)
    if not known.any():
        return float("nan"), float("nan"), float("nan")
    kept = given[known]
    names = [slab for slab, is_known in zip(slabs, known, strict=True) if is_known]
    draws = [float(kept[rows].mean()) for rows in slab_resamples(names, resamples, seed)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(kept.mean()), float(low), float(high)


# ---------------------------------------------------------------------------------------------------- influence


@dataclass(frozen=True, eq=False)
class TrainingInfluence:
    """What the training slabs did to a teacher, each seen by what would be predicted without it.

    Exact for a Gaussian process whose prior is held: no slab is left out by training anew.

    Attributes
    ----------
    slabs
        The training slabs, (g,).
    counts
        Sites of each, (g,).
    changes_ev
        By how much a slab's presence moves the mean energy of each question, (questions, g): prediction with it less
        without.
    residual_ev, deviation_ev
        Of each training site, its label less what the other slabs predict, and the deviation predicted for that, (n,).
    """

    slabs: tuple[str, ...]
    counts: np.ndarray
    changes_ev: np.ndarray
    residual_ev: np.ndarray
    deviation_ev: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """Residuals over their deviations, (n,): far from 0, a label looks wrong."""
        return self.residual_ev / self.deviation_ev


def training_influence(
    teacher: Teacher, slabs: Sequence[str], questions: Sequence[Site]
) -> TrainingInfluence:
    """Return which training slabs made the teacher's predictions, and which labels disagree with all other slabs.

    Parameters
    ----------
    teacher
        Trained on at most 3000 sites, which is exact.
    slabs
        Of its training sites, in their order, (n,).
    questions
        Sites whose predictions are asked about.

    Raises
    ------
    InputError
        If there are other than `n` slabs, one slab only, or the teacher spans more sites than it keeps.
    """
    n = len(teacher.basis)
    if len(slabs) != n or n != len(teacher.energies):
        raise InputError(
            f"slabs: {len(slabs)} for {len(teacher.energies)} training sites; expected one for each of {n}"
        )
    names, index = np.unique(np.asarray(slabs, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise InputError(f"slabs: all are {names[0]!r}; expected at least two")
    y = (teacher.energies - teacher.mean) / teacher.std
    asked = teacher.occupations(questions) if len(questions) else None
    order = np.argsort(index, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(index))[:-1])
    changes = np.zeros((len(questions), len(names)))
    residual, variance = np.zeros(n), np.zeros(n)
    for member, weight in zip(teacher.members, teacher.weights, strict=True):
        if member.left is not None:
            raise InputError(
                "teacher: spans more sites than it keeps; expected one of at most 3000 training sites"
            )
        points = member.design(teacher.data[teacher.basis])[0].astype(float)
        gram = points @ points.T
        gram[np.diag_indices(n)] += member.noise
        inverse = cho_solve(cho_factor(gram, lower=True), np.eye(n))
        solution = inverse @ y
        across = np.zeros((0, n))
        if asked is not None:
            across = member.design(asked)[0].astype(float) @ points.T @ inverse
        for number, rows in enumerate(members):
            block = np.linalg.inv(inverse[np.ix_(rows, rows)])
            left = block @ solution[rows]
            residual[rows] += weight * left
            variance[rows] += weight * np.diag(block)
            changes[:, number] += weight * across[:, rows] @ left
    return TrainingInfluence(
        tuple(names.tolist()),
        np.bincount(index),
        teacher.std * changes,
        teacher.std * residual,
        teacher.std * teacher.calibration * np.sqrt(variance),
    )
