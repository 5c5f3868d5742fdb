"""The latent space read: what each channel of the PGH-VAE holds, in which dimension or direction, and what it is for.

Whatever is learned about the latents is learned on slabs that the network was trained on, and measured on slabs that
it has not seen; a probe that finds a factor there is set beside the same probe asked for shuffled values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold
from torch import Tensor

from catalysis.energies.training_data import group_folds, slab_groups
from catalysis.structure.elements import group_and_period
from catalysis.structure.sites import COMMON, SHELL, Site
from catalysis.studies.sensitivity import slab_resamples
from catalysis.vae.network import PGHVAE, Latent
from catalysis.vae.report import ACTIVE_VARIANCE
from interpretkit.disentanglement import mig
from interpretkit.disentanglement.table import ScoreTable, score_table
from interpretkit.errors import InputError

Channel = Literal["coordination", "ligand"]
CHANNELS: tuple[Channel, ...] = ("coordination", "ligand")

CARRIED = 0.8
"""A dimension carries a factor alone if it tells this share of what the whole channel tells linearly."""

READABLE = 0.3
"""A factor is readable in a channel if a linear probe has at least this skill on unseen slabs."""

_BINS = 20
_PERMUTATIONS = 10
_ALPHAS = tuple(10.0**k for k in range(-2, 5))
_FEWEST_UNSEEN = 20
_REACH = 2.5  # standard deviations of the codes, to both sides of a traversal's start


# ------------------------------------------------------------------------------------------------ factors


@dataclass(frozen=True)
class Factor:
    """A physical quantity of each of some sites.

    Attributes
    ----------
    name
        For tables and figures.
    values
        Numbers, or numbers that stand for `labels`, (n,).
    labels
        What the numbers stand for; None for a quantity.
    meaning
        What it is, with its unit.
    belongs
        The channel that it should be in: what it is about geometry, or about elements; empty for the energy, which
        both make.
    """

    name: str
    values: np.ndarray
    labels: tuple[str, ...] | None
    meaning: str
    belongs: str

    @property
    def is_discrete(self) -> bool:
        """Whether it takes few values, for scores that count."""
        return self.labels is not None or len(np.unique(self.values)) <= 12


def physical_factors(sites: Sequence[Site], energies_ev: np.ndarray | None = None) -> list[Factor]:
    """Return the physical factors of sites that vary over them.

    Coordination number (mean of the contacts'), class, facet; strain (mean length of the contacts' bonds to metals,
    relative to the mean of the class); elements of the contacts, their mean group in the periodic table, which counts
    d and s electrons; the share of each element in the shell (neighbours of the contacts), and the shell's mean group;
    the energy.

    Parameters
    ----------
    sites
        At least one.
    energies_ev
        In eV, (n,); by default the sites' own, if all have one.
    """
    keys = [f"{site.facet} {site.site_class}" for site in sites]
    lengths = np.zeros(len(sites))
    contact_group, shell_group = np.zeros(len(sites)), np.zeros(len(sites))
    elements = sorted({symbol for site in sites for symbol in site.symbols})
    shares = np.zeros((len(sites), len(elements)))
    for row, site in enumerate(sites):
        bonds = site.bonds[: site.contacts]
        gaps = np.linalg.norm(site.positions[: site.contacts, None] - site.positions[None], axis=-1)
        lengths[row] = gaps[bonds].mean() if bonds.any() else np.nan
        groups = np.array([group_and_period(symbol)[0] for symbol in site.symbols], float)
        contact_group[row] = groups[: site.contacts].mean()
        near = np.flatnonzero((site.zones == COMMON) | (site.zones == SHELL))
        shell_group[row] = groups[near].mean() if len(near) else np.nan
        for atom in near.tolist():
            shares[row, elements.index(site.symbols[atom])] += 1 / len(near)
    of_class = np.unique(keys, return_inverse=True)[1]
    usual = np.bincount(of_class, weights=lengths) / np.bincount(of_class)
    if energies_ev is None:
        energies_ev = np.array([np.nan if site.energy_ev is None else site.energy_ev for site in sites])
    numbers = [float(np.mean(site.coordination_numbers)) for site in sites]
    shape, filling = CHANNELS
    found = [
        Factor("coordination number", np.array(numbers), None, "mean of the contacts'", shape),
        _labelled("class", keys, "class of the site", shape),
        _labelled("facet", [site.facet for site in sites], "facet of the surface", shape),
        Factor(
            "strain",
            lengths / usual[of_class] - 1,
            None,
            "contacts' bonds to metals over their class's mean, less 1",
            shape,
        ),
        _labelled(
            "contact elements", [site.contact_elements for site in sites], "elements of the contacts", filling
        ),
        Factor(
            "d electrons, contacts",
            contact_group,
            None,
            "mean group of the contacts, their d and s electrons",
            filling,
        ),
        *(
            Factor(f"{element} in shell", shares[:, k], None, "share of the contacts' neighbours", filling)
            for k, element in enumerate(elements)
        ),
        Factor("d electrons, shell", shell_group, None, "mean group of the contacts' neighbours", filling),
        Factor("energy", np.asarray(energies_ev, float), None, "adsorption energy, eV", ""),
    ]
    return [f for f in found if np.isfinite(f.values).all() and np.ptp(f.values) > 1e-9]


def _labelled(name: str, texts: Sequence[str], meaning: str, belongs: str) -> Factor:
    labels, numbers = np.unique(np.asarray(texts, dtype=str), return_inverse=True)
    return Factor(name, numbers.astype(float), tuple(labels.tolist()), meaning, belongs)


# ------------------------------------------------------------------------------------------- codes and split


@dataclass(frozen=True, eq=False)
class Codes:
    """What a network makes of sites.

    Attributes
    ----------
    latent
        Posterior means and log variances.
    by_channel
        Posterior means as arrays, (n, d) each.
    active
        Which dimensions of each channel vary over the sites (variance above 0.01), (d,) each.
    """

    latent: Latent
    by_channel: Mapping[str, np.ndarray]
    active: Mapping[str, np.ndarray]


@torch.no_grad()
def encode(vae: PGHVAE, sites: Sequence[Site]) -> Codes:
    """Return the codes of sites.

    Raises
    ------
    InputError
        As `PGHVAE.channels`.
    """
    vae.eval()
    latent = vae.encode(vae.channels(sites))
    arrays = {
        "coordination": latent.coordination.double().cpu().numpy(),
        "ligand": latent.ligand.double().cpu().numpy(),
    }
    return Codes(latent, arrays, {name: codes.var(0) > ACTIVE_VARIANCE for name, codes in arrays.items()})


def split(sites: Sequence[Site], seen: Sequence[str], seed: int = 0) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return rows to learn probes on, rows to measure them on, and whether the network has not seen the latter.

    Parameters
    ----------
    sites
        All of them.
    seen
        `site_id` of those that the network was trained on.
    seed
        Of the split where the network has seen nearly all or nearly none: a fifth, in whole slabs.
    """
    known = np.isin([site.site_id for site in sites], list(seen))
    if (~known).sum() >= _FEWEST_UNSEEN and known.sum() >= _FEWEST_UNSEEN:
        return np.flatnonzero(known), np.flatnonzero(~known), True
    folds = group_folds(slab_groups(sites), 5, seed)
    return np.flatnonzero(folds != 0), np.flatnonzero(folds == 0), not known.any()


# ------------------------------------------------------------------------------------------------- probes


@dataclass(frozen=True, eq=False)
class Probe:
    """What one channel tells of one factor.

    Skill is the share of what chance leaves open: R² of a quantity; of labels, one less the error over that of the
    commonest label. Measured on slabs that neither the probe nor, where possible, the network has seen.

    Attributes
    ----------
    channel, factor
        Which.
    skill, low, high
        Of a linear probe on the whole channel (ridge regression; of labels, linear discriminants with shrinkage), with
        its 95 % interval by bootstrap over slabs.
    control
        The largest skill of the same probe asked for shuffled values, over several shuffles.
    dimension
        The one dimension that tells most.
    dimension_skill
        Of that dimension alone, in 20 bins.
    information, chance
        Its mutual information with the factor over the factor's entropy, and the largest that any dimension has with
        shuffled values.
    direction
        Of a quantity: the unit vector along which the probe reads it, (d,), in units of the codes' deviations; None of
        labels.
    """

    channel: str
    factor: str
    skill: float
    low: float
    high: float
    control: float
    dimension: int
    dimension_skill: float
    information: float
    chance: float
    direction: np.ndarray | None

    @property
    def is_readable(self) -> bool:
        """Whether the channel tells the factor, and not by the probe's own strength."""
        return self.skill >= READABLE and self.low > self.control

    @property
    def verdict(self) -> str:
        """`"one dimension"`, `"a direction"` or `"not linearly"`."""
        if not self.is_readable:
            return "not linearly"
        return "one dimension" if self.dimension_skill >= CARRIED * self.skill else "a direction"


def information(
    codes: np.ndarray, factors: Sequence[Factor], *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mutual information of dimensions and factors over the factors' entropy, (d, k), and its chance (k,).

    Counted in 20 bins of equally many sites. Chance is the largest that any dimension has with shuffled factors, of ten
    shuffles: counts of few rows tell something even where there is nothing to tell.
    """
    table = np.column_stack([factor.values for factor in factors])
    discrete = [factor.is_discrete for factor in factors]

    def measured(rows: np.ndarray) -> np.ndarray:
        found = mig(codes, rows, discrete=discrete, bins=_BINS, binning="equal mass", bounds=False)
        entropies = np.asarray(found.details["entropies"])
        return np.asarray(found.details["mutual_information"]) / entropies

    generator = np.random.default_rng(seed)
    chance = [measured(table[generator.permutation(len(table))]).max(0) for _ in range(_PERMUTATIONS)]
    return measured(table), np.max(chance, axis=0)


def probes(
    codes: Mapping[str, np.ndarray],
    factors: Sequence[Factor],
    train: np.ndarray,
    test: np.ndarray,
    slabs: Sequence[str],
    *,
    resamples: int = 500,
    seed: int = 0,
) -> list[Probe]:
    """Read every factor from every channel.

    Parameters
    ----------
    codes
        From channel to codes, (n, d).
    factors
        Of the same sites.
    train, test
        Rows to learn on and to measure on, of different slabs.
    slabs
        Of all sites, (n,).
    resamples
        For the intervals.
    seed
        Of shuffles and resamples.

    Raises
    ------
    InputError
        If a channel holds no dimension that varies.
    """
    found = []
    for channel, given in codes.items():
        spread = given[train].std(0)
        varies = spread > 1e-6
        if not varies.any():
            raise InputError(
                f"{channel} channel: none of its dimensions varies; expected a network that has not collapsed"
            )
        z = np.where(varies, (given - given[train].mean(0)) / np.where(varies, spread, 1.0), 0.0)
        shared, chance = information(given[:, varies], factors, seed=seed)
        numbers = np.flatnonzero(varies)
        generator = np.random.default_rng(seed)
        shuffles = [generator.permutation(len(z)) for _ in range(_PERMUTATIONS)]
        draws = list(slab_resamples(np.asarray(slabs)[test].tolist(), resamples, seed))
        for k, factor in enumerate(factors):
            right, open_, direction = _linear(z, factor, factor.values, train, test)
            skills = [_skill(right[rows], open_[rows]) for rows in draws]
            low, high = np.quantile(skills, [0.025, 0.975])
            controls = [
                _skill(*_linear(z, factor, factor.values[order], train, test)[:2]) for order in shuffles
            ]
            # The dimension is chosen where the probe learns, and measured where it does not.
            best = int(np.argmax([_skill(*_binned(z[:, j], factor, train, train)) for j in numbers.tolist()]))
            found.append(
                Probe(
                    channel,
                    factor.name,
                    _skill(right, open_),
                    float(low),
                    float(high),
                    float(max(controls)),
                    int(numbers[best]),
                    _skill(*_binned(z[:, numbers[best]], factor, train, test)),
                    float(shared[best, k]),
                    float(chance[k]),
                    direction,
                )
            )
    return found


def _skill(error: np.ndarray, open_: np.ndarray) -> float:
    """Return one less the error over what chance leaves open; both by site."""
    total = float(open_.sum())
    return 1 - float(error.sum()) / total if total > 0 else float("nan")


def _linear(
    z: np.ndarray, factor: Factor, values: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return errors of a linear probe and of chance at the test rows, and a ridge probe's direction."""
    if factor.labels is None:
        probe = RidgeCV(_ALPHAS).fit(z[train], values[train])
        error = (probe.predict(z[test]) - values[test]) ** 2
        weights = np.asarray(probe.coef_, dtype=float)
        size = float(np.linalg.norm(weights))
        direction = weights / size if size > 0 else np.zeros(z.shape[1])
        return error, (values[test] - values[train].mean()) ** 2, direction
    # Indicators regressed on a line would hide the labels in the middle of it; discriminants do not.
    probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    # A label that occurs once has no covariance to learn; it is never predicted, which counts as wrong.
    learned = train[np.bincount(values[train].astype(int))[values[train].astype(int)] > 1]
    if len(np.unique(values[learned])) > 1:
        predicted = probe.fit(z[learned], values[learned]).predict(z[test])
    else:
        predicted = np.full(len(test), values[learned][0] if len(learned) else values[train][0])
    common = np.bincount(values[train].astype(int), minlength=len(factor.labels)).argmax()
    wrong, by_chance = predicted != values[test], values[test] != common
    return np.asarray(wrong, float), np.asarray(by_chance, float), None


def _binned(
    code: np.ndarray, factor: Factor, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors of the mean, or the commonest label, in bins of one dimension, and those of chance."""
    edges = np.quantile(code[train], np.linspace(0, 1, _BINS + 1)[1:-1])
    cells, asked = np.searchsorted(edges, code[train]), np.searchsorted(edges, code[test])
    values = factor.values
    if factor.labels is None:
        counts = np.bincount(cells, minlength=_BINS)
        middle = float(values[train].mean())
        sums = np.bincount(cells, weights=values[train], minlength=_BINS)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), middle)
        return (means[asked] - values[test]) ** 2, (values[test] - middle) ** 2
    table = np.zeros((_BINS, len(factor.labels)))
    np.add.at(table, (cells, values[train].astype(int)), 1)
    common = int(table.sum(0).argmax())
    answers = np.where(table.any(1), table.argmax(1), common)
    return (answers[asked] != values[test]).astype(float), (values[test] != common).astype(float)


METRICS = ("mig", "sap", "dci")


def scores(
    codes: Mapping[str, np.ndarray], factors: Sequence[Factor], *, resamples: int = 10, seed: int = 0
) -> dict[str, ScoreTable]:
    """Return disentanglement scores of each channel on its own factors, and of both together on all.

    Each with its ceiling, the score of the exact factors, and its floor, that of noise. Factors that follow from each
    other, as the coordination number from the class, lower the ceiling; compare with it, not with 1.
    """
    found = {}
    asked = {**{name: [f for f in factors if f.belongs == name] for name in codes}, "both": list(factors)}
    for name, chosen in asked.items():
        given = np.concatenate(list(codes.values()), axis=1) if name == "both" else codes[name]
        varying = given[:, given.std(0) > 1e-6]
        if len(chosen) < 2 or not varying.shape[1]:
            continue
        found[name] = score_table(
            varying,
            np.column_stack([f.values for f in chosen]),
            METRICS,
            discrete=[f.is_discrete for f in chosen],
            bins=_BINS,
            binning="equal mass",
            bootstrap=resamples,
            seed=seed,
        )
    return found


# --------------------------------------------------------------------------------------------- traversals


@dataclass(frozen=True)
class Step:
    """A point of a traversal, decoded.

    Attributes
    ----------
    name
        Of the traversal: channel and dimension, or channel and factor.
    position
        In standard deviations of the codes from the start.
    site
        The likeliest site: ideal geometry, likeliest element in each slot.
    energy_ev
        Of the head at that point.
    changed_slots
        Share of slots whose element differs from that at the start; NaN if the class does.
    """

    name: str
    position: float
    site: Site
    energy_ev: float
    changed_slots: float


@torch.no_grad()
def traverse(
    vae: PGHVAE,
    start: tuple[Tensor, Tensor],
    channel: Channel,
    direction: np.ndarray,
    spread: float,
    name: str,
    *,
    steps: int = 9,
) -> list[Step]:
    """Decode points along a direction of one channel, all else held.

    Parameters
    ----------
    vae
        The network.
    start
        The latents to start from, (dc,) and (dl,).
    channel
        Which of them is moved.
    direction
        Unit vector in the channel, (d,).
    spread
        Standard deviation of the data along it.
    name
        For the steps.
    steps
        How many, an odd number; the middle one is the start.

    Raises
    ------
    InputError
        If no class of the network has a template.
    """
    positions = np.linspace(-_REACH, _REACH, steps)
    way = torch.as_tensor(direction * spread, dtype=start[0].dtype, device=start[0].device)
    moves = torch.as_tensor(positions, dtype=start[0].dtype, device=start[0].device)[:, None] * way
    coordination, ligand = (part.repeat(steps, 1) for part in start)
    if channel == "coordination":
        coordination = coordination + moves
    else:
        ligand = ligand + moves
    decoded = vae.decode_occupations(coordination, ligand)
    sites = [decoded.site(row, vae.config.adsorbate) for row in range(steps)]
    energies = vae.energy(coordination, ligand).double().cpu().numpy()
    middle = sites[steps // 2]
    found = []
    for position, site, energy in zip(positions.tolist(), sites, energies.tolist(), strict=True):
        same = (site.facet, site.site_class, len(site)) == (middle.facet, middle.site_class, len(middle))
        changed = (
            np.mean([a != b for a, b in zip(site.symbols, middle.symbols, strict=True)]) if same else np.nan
        )
        found.append(Step(name, position, site, energy, float(changed)))
    return found


# ----------------------------------------------------------------------------------------------- ablation


@dataclass(frozen=True)
class ChannelAblation:
    """The energy without one channel, on unseen slabs.

    Attributes
    ----------
    inputs
        `"coordination"`, `"ligand"` or `"both"`.
    head_ev
        Mean absolute error (eV) of the network's head, the other channel set to its mean: what the head as trained
        rests on.
    refitted_ev
        Of a kernel regression fitted anew on what is left: what the channel holds.
    low_ev, high_ev
        95 % interval of the latter less that with both, paired, by bootstrap over slabs; NaN for both itself.
    """

    inputs: str
    head_ev: float
    refitted_ev: float
    low_ev: float
    high_ev: float


@torch.no_grad()
def channel_ablation(
    vae: PGHVAE,
    codes: Codes,
    energies_ev: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    slabs: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[ChannelAblation]:
    """Measure the energy from coordination alone, ligands alone, and both.

    Parameters
    ----------
    vae, codes
        Network and what it makes of the sites.
    energies_ev
        In eV, (n,).
    train, test
        Rows; see `split`.
    slabs
        Of all sites, (n,).
    resamples, seed
        For the intervals.
    """
    latent = codes.latent
    groups = np.unique([slabs[k] for k in train.tolist()], return_inverse=True)[1]
    head, refitted = {}, {}
    for inputs in ("both", *CHANNELS):
        parts = [
            given if inputs in ("both", name) else given.mean(0, keepdim=True).expand_as(given)
            for name, given in (("coordination", latent.coordination), ("ligand", latent.ligand))
        ]
        head[inputs] = np.abs(vae.energy(*parts).double().cpu().numpy() - energies_ev)[test]
        left = [codes.by_channel[name] for name in CHANNELS if inputs in ("both", name)]
        # Each channel counts the same, however many dimensions it has.
        scaled = [(x - x[train].mean(0)) / np.sqrt(x[train].var(0).sum() + 1e-12) for x in left]
        refitted[inputs] = np.abs(
            _refitted(np.concatenate(scaled, axis=1), energies_ev, train, groups)[test] - energies_ev[test]
        )
    draws = list(slab_resamples(np.asarray(slabs)[test].tolist(), resamples, seed))
    found = []
    for inputs in (*CHANNELS, "both"):
        difference = refitted[inputs] - refitted["both"]
        low, high = np.quantile([difference[rows].mean() for rows in draws], [0.025, 0.975])
        whole = inputs == "both"
        found.append(
            ChannelAblation(
                inputs,
                float(head[inputs].mean()),
                float(refitted[inputs].mean()),
                float("nan") if whole else float(low),
                float("nan") if whole else float(high),
            )
        )
    return found


def _refitted(x: np.ndarray, energies: np.ndarray, train: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return energies of all rows by kernel ridge regression; width and strength are chosen in folds by slab."""
    folds = min(4, len(np.unique(groups)))
    search = GridSearchCV(
        KernelRidge(kernel="rbf"),
        {"gamma": [0.1, 0.5, 2.0], "alpha": [1e-3, 1e-2, 1e-1]},
        cv=GroupKFold(folds),
        scoring="neg_mean_absolute_error",
    )
    middle = float(energies[train].mean())
    search.fit(x[train], energies[train] - middle, groups=groups)
    return np.asarray(search.predict(x)) + middle


# ------------------------------------------------------------------------------------------------ surface


@dataclass(frozen=True, eq=False)
class Surface:
    """The head's energy over one direction of each channel.

    Attributes
    ----------
    coordination, ligand
        Positions along the directions in which each channel's codes go with the energy, in standard deviations, (g,).
    energies_ev
        Of the head, (g, g): rows by ligand, columns by coordination.
    points
        Where the sites lie, (n, 2): coordination, ligand.
    explained
        R² of the surface at the sites' places against the head's energies of the sites: what both directions hold.
    """

    coordination: np.ndarray
    ligand: np.ndarray
    energies_ev: np.ndarray
    points: np.ndarray
    explained: float


@torch.no_grad()
def energy_surface(vae: PGHVAE, codes: Codes, energies_ev: np.ndarray, *, size: int = 48) -> Surface:
    """Return the head's energy over the two directions that go most with the energy, one of each channel.

    A direction is the covariance of the codes with the energy; all that is across it stays at its mean.
    """
    latent = codes.latent
    e = torch.as_tensor(
        energies_ev - energies_ev.mean(), dtype=latent.ligand.dtype, device=latent.ligand.device
    )
    axes, places, middles = [], [], []
    for given in (latent.coordination, latent.ligand):
        middle = given.mean(0)
        way = (given - middle).T @ e
        way = way / way.norm().clamp_min(1e-12)
        along = (given - middle) @ way
        axes.append(way * along.std())
        places.append((along / along.std().clamp_min(1e-12)).double().cpu().numpy())
        middles.append(middle)
    points = np.stack(places, axis=1)
    lines = [np.linspace(p.min(), p.max(), size) for p in places]

    def at(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        moved = [
            middle + torch.as_tensor(p, dtype=middle.dtype, device=middle.device)[:, None] * axis
            for middle, p, axis in zip(middles, (first, second), axes, strict=True)
        ]
        return vae.energy(moved[0], moved[1]).double().cpu().numpy()

    grid = np.meshgrid(lines[0], lines[1])
    energies = at(grid[0].ravel(), grid[1].ravel()).reshape(size, size)
    own = vae.energy(latent.coordination, latent.ligand).double().cpu().numpy()
    gap = at(points[:, 0], points[:, 1]) - own
    explained = 1 - float((gap**2).sum() / max(((own - own.mean()) ** 2).sum(), 1e-12))
    return Surface(lines[0], lines[1], energies, points, explained)


def best_probe(found: Sequence[Probe], factor: str) -> Probe:
    """Return the probe of the channel that tells a factor best."""
    return max((probe for probe in found if probe.factor == factor), key=lambda probe: probe.skill)


def rows_of(found: Sequence[Probe]) -> list[dict[str, Any]]:
    """Return a row for each probe, with its verdict."""
    return [
        {
            **{name: value for name, value in probe.__dict__.items() if name != "direction"},
            "verdict": probe.verdict,
        }
        for probe in found
    ]
