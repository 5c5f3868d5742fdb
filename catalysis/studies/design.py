"""From a wanted energy to sites that have it.

The latent space of the PGH-VAE is searched for points whose predicted energy lies in the window; they are decoded
into a class and an element for every slot, that is, into sites that exist on their facet. What proposed a site does
not judge it: the teacher, a separate energy model with an uncertainty, ranks the proposals, after what is known of its
bias at such energies has been taken off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import entropy

from catalysis.energies.protocol import Prediction
from catalysis.models.site_model import SiteModel
from catalysis.structure.host_slabs import Host, host_site
from catalysis.structure.occupations import Occupations, filled, joined
from catalysis.structure.ordering import tolerant_order
from catalysis.structure.sites import Site
from catalysis.structure.templates import Template, class_templates
from catalysis.studies.activity import Target
from catalysis.studies.conditions import Conditions
from catalysis.studies.selection import NO_BIAS, MeanBias, teacher_bias
from catalysis.vae.network import Latent
from interpretkit.errors import InputError, check_count
from interpretkit.runs.progress import progress
from interpretkit.variational import draw_codes

_EQUAL = 1e-6  # energies in eV and probabilities that differ by less rank by place
_REACH_EV = 0.3  # how far outside the energies of the data a window may lie


@dataclass(frozen=True, eq=False)
class Design:
    """A designed site.

    Attributes
    ----------
    host : Host
        A slab that holds the site.
    energy_ev, deviation_ev : float
        The teacher's prediction, its bias taken off, and its standard deviation.
    probability : float
        Of the energy lying in the window and the adsorbate staying on the site.
    head_energy_ev : float
        What the VAE's own head predicts for the site.
    stays : float
        Probability that the adsorbate stays on the site when it is relaxed.
    nearest_known : int
        How many slots differ from the most similar site of the training data on the same class.
    """

    host: Host
    energy_ev: float
    deviation_ev: float
    probability: float
    head_energy_ev: float
    stays: float
    nearest_known: int

    @property
    def site(self) -> Site:
        """The site in its slab, with the predicted energy left out: it is no measurement."""
        return self.host.site


def random_occupations(
    templates: Sequence[Template], composition: Mapping[str, float], n: int, seed: int
) -> Occupations:
    """Draw sites at random: every template equally often, every slot from the composition.

    Parameters
    ----------
    templates : sequence of Template
        To draw from.
    composition : mapping of str to float
        Fractions by element.
    n : int
        How many.
    seed : int
        Of the draws.

    Returns
    -------
    Occupations
        Of the composition's elements in its order, (n,).
    """
    which = np.arange(n) % len(templates)
    geometries = [template.geometry for template in templates]
    slots = np.array([len(geometry.columns) for geometry in geometries])[which].sum()
    drawn = np.random.default_rng(seed).choice(len(composition), size=slots, p=list(composition.values()))
    return filled(geometries, which, list(composition), drawn)


def distinct(candidates: Occupations, known: Occupations) -> np.ndarray:
    """Return the rows of the first of each kind of candidate that is not among the known sites, ascending.

    Sites that a symmetry turns into each other are of one kind. Both must name their elements in the same order.
    """
    both = joined([known, candidates]).canonical()
    first = np.unique(np.column_stack([both.geometry, both.table]), axis=0, return_index=True)[1]
    return np.sort(first[first >= len(known)]) - len(known)


def choose(
    candidates: Occupations,
    probability: np.ndarray,
    n: int,
    *,
    max_share: float = 0.25,
    min_difference: int = 2,
) -> list[int]:
    """Choose the likeliest sites so that they are not all alike.

    Parameters
    ----------
    candidates : Occupations
        To choose from, (k,).
    probability : ndarray
        Of being what is wanted, (k,).
    n : int
        How many to choose.
    max_share : float
        No pair of class and contact elements makes up more than this share, while others are left.
    min_difference : int
        Two designs of one class differ in at least so many slots.

    Returns
    -------
    list of int
        Rows, likeliest first.
    """
    order = tolerant_order(-probability, tolerance=_EQUAL)
    limit = max(1, int(np.ceil(max_share * n)))
    contacts = candidates.contact_elements
    chosen: list[int] = []
    passed_over: list[int] = []
    kinds: Counter[tuple[int, str]] = Counter()

    def is_near(row: int) -> bool:
        others = [other for other in chosen if candidates.geometry[other] == candidates.geometry[row]]
        return bool(np.any(candidates.differences(row, np.array(others, int)) < min_difference))

    for row in order.tolist():
        if len(chosen) == n:
            break
        if is_near(row):
            continue
        kind = (int(candidates.geometry[row]), contacts[row])
        # Variety is worth a less likely site, but not one that is likelier to miss than to hit.
        if kinds[kind] >= limit or (probability[row] < 0.5 and passed_over):
            passed_over.append(row)
            continue
        kinds[kind] += 1
        chosen.append(row)
    for row in passed_over:
        if len(chosen) == n:
            break
        if not is_near(row):
            chosen.append(row)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    return sorted(chosen, key=lambda row: rank[row])


def finished(
    chosen: Occupations,
    judged: Prediction,
    head_energies: np.ndarray,
    stays: np.ndarray,
    target: Target,
    known: Occupations,
    *,
    adsorbate: str,
    seed: int,
) -> list[Design]:
    """Put chosen sites into slabs and add up what is known of each.

    Parameters
    ----------
    chosen : Occupations
        In order of rank, (n,).
    judged : Prediction
        Of the teacher, in eV, (n,).
    head_energies : ndarray
        Of the VAE's head, in eV, (n,).
    stays : ndarray
        Probability that the adsorbate stays on the site, (n,).
    target : Target
        The window.
    known : Occupations
        The training data, with the same order of elements.
    adsorbate : str
        To place.
    seed : int
        Of what fills the slabs outside the sites.
    """
    probability = target.probability(*judged) * stays
    both = joined([chosen, known])
    designs = []
    for row in range(len(chosen)):
        name, symbols = f"design-{row + 1:03d}", chosen.symbols(row)
        template = chosen.geometries[chosen.geometry[row]].template(adsorbate)
        host = host_site(template, symbols, adsorbate=adsorbate, seed=seed + row, site_id=name, slab_id=name)
        relatives = np.flatnonzero(both.geometry == both.geometry[row])
        differences = both.differences(row, relatives[relatives >= len(chosen)])
        designs.append(
            Design(
                Host(host.slab, replace(host.site, energy_ev=None)),
                float(judged.mean_ev[row]),
                float(judged.std_ev[row]),
                float(probability[row]),
                float(head_energies[row]),
                float(stays[row]),
                int(differences.min(initial=len(symbols))),
            )
        )
    return designs


@dataclass(frozen=True, eq=False)
class Search:
    """Everything that a search for designs found.

    Attributes
    ----------
    target : Target
        The window.
    designs : list of Design
        The chosen ones, likeliest first.
    chosen : Occupations
        The same as elements in slots.
    proposals : Occupations
        Every distinct new site that the latent search proposed, (k,).
    proposal_ev, proposal_std_ev : ndarray
        The teacher's judgement of them, its bias taken off, (k,); the judge had no part in proposing them.
    proposed_by : ndarray
        `"gradient"` or `"sampling"`, (k,).
    n_decoded, n_distinct, n_new : int
        Latent points decoded, each of them a site that exists and meets the conditions; how many of them are
        distinct; how many of these are not in the training data.
    n_classes : int
        Classes that designs may be of.
    random : Occupations
        Sites drawn at random that meet the conditions, (m,).
    random_ev : ndarray
        The teacher's energies of them, its bias taken off, (m,).
    bias : MeanBias
        What was taken off.
    """

    target: Target
    designs: list[Design]
    chosen: Occupations
    proposals: Occupations
    proposal_ev: np.ndarray
    proposal_std_ev: np.ndarray
    proposed_by: np.ndarray
    n_decoded: int
    n_distinct: int
    n_new: int
    n_classes: int
    random: Occupations
    random_ev: np.ndarray
    bias: MeanBias = NO_BIAS

    @property
    def numbers(self) -> dict[str, float | int]:
        """The search in numbers: shares of sites inside the window by the teacher, and diversity."""
        inside = self.target.holds(self.proposal_ev)
        random_share = float(self.target.holds(self.random_ev).mean())
        share = float(inside.mean()) if len(inside) else float("nan")
        chosen = diversity(self.chosen)
        bias, unsure = self.bias.at(self.target.energy_ev)
        return {
            "n_designs": len(self.designs),
            "n_decoded": self.n_decoded,
            "n_proposals": len(self.proposals),
            "uniqueness": self.n_distinct / self.n_decoded,
            "novelty": self.n_new / self.n_distinct,
            "share_in_window": share,
            **{
                f"share_in_window_{how}": float(inside[self.proposed_by == how].mean())
                for how in ("gradient", "sampling")
                if np.any(self.proposed_by == how)
            },
            "random_share_in_window": random_share,
            "n_random": len(self.random),
            "enrichment": share / random_share if random_share > 0 else float("inf"),
            "designs_in_window": int(sum(self.target.holds(np.array([d.energy_ev for d in self.designs])))),
            "mean_probability": float(np.mean([d.probability for d in self.designs]))
            if self.designs
            else 0.0,
            "design_classes": int(chosen["classes"]),
            "design_contact_pairs": int(chosen["contact_pairs"]),
            "design_mean_difference": chosen["mean_difference"],
            "design_composition_entropy": chosen["composition_entropy"],
            "design_class_coverage": chosen["classes"] / self.n_classes,
            "bias_ev": float(bias),
            "bias_deviation_ev": float(unsure),
        }


def search(
    model: SiteModel,
    target: Target,
    n: int,
    *,
    conditions: Conditions | None = None,
    n_starts: int = 10_000,
    n_random: int = 20_000,
    steps: int = 60,
    most_judged: int | None = None,
    bias: MeanBias | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> Search:
    """Search the latent space of a model for sites with an energy in the window.

    Half of the starting points are posterior samples of known sites, which are moved down the gradient of the
    distance between the head's energy and an energy drawn from the window, held by a weak pull to where they began.
    Half are samples: the coordination of one known site with the ligands of two others, of which the head's
    favourites are kept. All are decoded, to what the conditions allow; duplicates up to symmetry and known sites are
    dropped, and so are sites that the head, given the decoded site, no longer puts into the window. The teacher judges
    what remains, corrected by `catalysis.studies.selection.teacher_bias`.

    Parameters
    ----------
    model : SiteModel
        See `catalysis.models.site_model`.
    target : Target
        The window.
    n : int
        How many designs.
    conditions : Conditions, optional
        What they must be; anything that the model knows by default.
    n_starts : int
        Points in latent space.
    n_random : int
        Random sites to compare with: every class equally often, elements equally often, or where a price limits them
        in the shares of largest mixing entropy within it.
    steps : int
        Of the gradient.
    most_judged : int, optional
        How many proposals the teacher may judge, the head's favourites first; all by default.
    bias : MeanBias, optional
        Of the teacher; estimated by default.
    seed : int
        Of everything random.
    quiet : bool
        No progress bar.

    Raises
    ------
    InputError
        If `n` is not positive, a condition is refused (`Conditions.check`), the window lies far from all that the model
        has seen, or nothing new could be decoded.
    """
    config = model.vae.config
    asked = conditions or Conditions()
    check_request(
        target,
        n,
        energies_ev=model.sites.energy_ev,
        known_elements=config.elements,
        known_classes={(entry.facet, entry.site_class) for entry in config.classes},
        conditions=asked,
    )
    names = asked.allowed(config.elements)
    allowed = [config.elements.index(name) for name in names]
    templates = [
        entry.template(config.adsorbate) if asked.allows(entry.facet, entry.site_class) else None
        for entry in config.classes
    ]
    costs = None if asked.max_price is None else asked.usd_per_mol(config.elements)
    limit = asked.max_price or float("inf")
    with progress("Designing", 6, quiet=quiet) as bar:
        bar.stage("the teacher's own error")
        of_teacher = teacher_bias(model.teacher, model.sites.slab_id.tolist()) if bias is None else bias
        bar.advance()
        bar.stage("moving latents towards the energy")
        latent = model.latents()
        moved = _by_gradient(model, latent, target, n_starts // 2, steps, seed)
        bar.advance()
        bar.stage("sampling around good sites")
        sampled = _by_sampling(model, latent, target, n_starts - n_starts // 2, seed + 1)
        bar.advance()
        bar.stage("decoding sites")
        classes = [template is not None for template in templates]
        decoded = [
            model.vae.decode_occupations(*points, classes, allowed, costs=costs, max_cost=limit)
            for points in (moved, sampled)
        ]
        candidates = joined(decoded)
        how = np.repeat(["gradient", "sampling"], [len(part) for part in decoded])
        known = model.occupations()
        new = distinct(candidates, known)
        if not len(new):
            raise InputError(
                "the search decoded only sites of the training data; expected a wider `window_ev`"
            )
        heads = model.vae.predict_occupations(candidates[new])
        # A decoded site is the latent point rounded to elements, which moves its energy.
        order = tolerant_order(np.abs(heads - target.energy_ev), tolerance=_EQUAL)
        kept = order[: max(n, int(target.holds(heads).sum()))][:most_judged]
        proposals, heads, how = candidates[new[kept]], heads[kept], how[new[kept]]
        bar.advance()
        bar.stage("judging proposals and random sites")
        judged = of_teacher.corrected(model.teacher.predict_occupations(proposals.canonical()))
        drawn = random_sites(
            [t for t in templates if t is not None], asked, config.elements, n_random, seed + 2
        )
        random_ev = model.teacher.predict_mean(drawn.canonical())
        random_ev = random_ev + of_teacher.at(random_ev)[0]
        bar.advance()
        bar.stage("choosing, and building slabs")
        stays = model.stays(proposals)
        rows = choose(proposals, target.probability(*judged) * stays, n)
        designs = finished(
            proposals[np.array(rows, int)],
            Prediction(*(part[rows] for part in judged)),
            heads[rows],
            stays[rows],
            target,
            known,
            adsorbate=model.adsorbate,
            seed=seed,
        )
        bar.advance()
    return Search(
        target,
        designs,
        proposals[np.array(rows, int)],
        proposals,
        *judged,
        how,
        n_decoded=len(candidates),
        n_distinct=len(distinct(candidates, known[:0])),
        n_new=len(new),
        n_classes=sum(classes),
        random=drawn,
        random_ev=random_ev,
        bias=of_teacher,
    )


def random_sites(
    templates: Sequence[Template], conditions: Conditions, elements: Sequence[str], n: int, seed: int
) -> Occupations:
    """Draw random sites that meet conditions: every template about equally often.

    Parameters
    ----------
    templates : sequence of Template
        To draw from, as the conditions allow.
    conditions : Conditions
        Of the metals and their price.
    elements : sequence of str
        The model's, in whose order the result numbers them.
    n : int
        How many; fewer where most of what is drawn is too dear.
    seed : int
        Of the draws.
    """
    composition = conditions.composition(elements)
    drawn = random_occupations(templates, composition, n, seed).with_elements(elements)
    if conditions.max_price is None:
        return drawn
    affordable = site_prices(drawn, conditions) <= conditions.max_price
    return drawn[np.flatnonzero(affordable)]


def site_prices(sites: Occupations, conditions: Conditions) -> np.ndarray:
    """Return what the metals of each site cost, in US dollars per mole of atoms, (n,); NaN where a price is unknown."""
    costs = np.append(conditions.usd_per_mol(sites.elements), 0.0)
    return costs[sites.table].sum(1) / (sites.table >= 0).sum(1)


def check_request(
    target: Target,
    n: int,
    *,
    energies_ev: Sequence[float] | np.ndarray,
    known_elements: Collection[str],
    known_classes: Collection[tuple[str, str]],
    conditions: Conditions | None = None,
) -> None:
    """Refuse a search that cannot succeed, from the data alone: before a model is trained for it.

    Parameters
    ----------
    target : Target
    n : int
    conditions : Conditions, optional
        As for `search`.
    energies_ev : sequence of float or ndarray
    known_elements : collection of str
    known_classes : collection of tuple of str
        Of the data; classes with their facets in front.

    Raises
    ------
    InputError
        As `search`, but for what only the search itself can tell.
    """
    check_count("n", n)
    lowest, highest = float(np.min(energies_ev)), float(np.max(energies_ev))
    if target.low > highest + _REACH_EV or target.high < lowest - _REACH_EV:
        raise InputError(
            f"target_ev: {target.energy_ev:+.2f} ± {target.window_ev:.2f} eV is far from anything the model has "
            f"seen; expected an energy near {lowest:+.2f} to {highest:+.2f} eV"
        )
    asked = conditions or Conditions()
    asked.check(known_elements=known_elements, known_classes=known_classes)
    if not any(facet for facet, _ in known_classes):
        raise InputError(
            "the sites lie on no known facet, so none can be built; expected a facet in the data "
            "(info['facet'] or `facet` when training)"
        )
    allowed = sorted((facet, name) for facet, name in known_classes if facet and asked.allows(facet, name))
    if not any(class_templates(facet, name) for facet, name in allowed):
        raise InputError(
            f"no ideal slab has a site like those of the data, such as {allowed[0][1]} on facet {allowed[0][0]}; "
            "expected classes that `find_sites` gives"
        )


_Points = tuple[torch.Tensor, torch.Tensor]


def _posterior_samples(latent: Latent, rows: torch.Tensor, noise: torch.Generator) -> _Points:
    drawn = []
    for mean, log_variance in (
        (latent.coordination, latent.coordination_log_variance),
        (latent.ligand, latent.ligand_log_variance),
    ):
        blur = torch.randn(len(rows), mean.shape[1], generator=noise).to(mean.device)
        drawn.append(draw_codes(mean[rows], log_variance[rows], blur))
    return drawn[0], drawn[1]


def _by_gradient(
    model: SiteModel, latent: Latent, target: Target, count: int, steps: int, seed: int
) -> _Points:
    """Move posterior samples of known sites to energies drawn from the window."""
    noise = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(latent.ligand), (count,), generator=noise)
    start = _posterior_samples(latent, rows, noise)
    # The inner half of the window, so that rounding to elements seldom leads out of it.
    wanted = target.energy_ev + target.window_ev * (torch.rand(count, generator=noise) - 0.5)
    wanted = wanted.to(start[0].device)
    scale = [part.std(0).clamp_min(1e-3) for part in (latent.coordination, latent.ligand)]
    points = [part.clone().requires_grad_(True) for part in start]
    optimizer = torch.optim.Adam(points, lr=0.05)
    for _ in range(steps):
        energy = model.vae.energy(points[0], points[1])
        pull = sum(
            (((point - begin) / width) ** 2).mean(1)
            for point, begin, width in zip(points, start, scale, strict=True)
        )
        loss = (((energy - wanted) / target.window_ev) ** 2 + 0.1 * pull).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return points[0].detach(), points[1].detach()


@torch.no_grad()
def _by_sampling(model: SiteModel, latent: Latent, target: Target, count: int, seed: int) -> _Points:
    """Pair coordination and ligands of known sites anew, mix two ligand codes, keep what the head likes best."""
    noise = torch.Generator().manual_seed(seed)
    pool = 20 * count
    first, second, third = (torch.randint(len(latent.ligand), (pool,), generator=noise) for _ in range(3))
    coordination, _ = _posterior_samples(latent, first, noise)
    _, ligand = _posterior_samples(latent, second, noise)
    _, other = _posterior_samples(latent, third, noise)
    # Each dimension comes from one of the two parents.
    mask = torch.rand(pool, ligand.shape[1], generator=noise).to(ligand.device) < 0.5
    ligand = torch.where(mask, ligand, other)
    distance = (model.vae.energy(coordination, ligand) - target.energy_ev).abs()
    best = torch.argsort(distance, stable=True)[:count]
    return coordination[best], ligand[best]


def diversity(sites: Occupations) -> dict[str, float]:
    """Return how different some sites are.

    Returns
    -------
    dict
        `classes` and `contact_pairs` that occur; `mean_difference`: mean share of slots in which two sites of one
        class differ, 0 to 1 (NaN if no class has two); `kinds`: effective number of pairs of class and contacts, the
        exponential of their entropy; `composition_entropy`: entropy of the elements over all slots of all sites, 1 if
        every element is as frequent.
    """
    shares = [
        sites.differences(row, rows[:k]) / len(geometry.columns)
        for rows, geometry in sites.by_geometry()
        for k, row in enumerate(rows.tolist())
    ]
    differences = np.concatenate([*shares, np.zeros(0)])
    contacts = sites.contact_elements
    kinds = Counter(zip(sites.geometry.tolist(), contacts, strict=True))
    elements = np.bincount(sites.table[sites.table >= 0], minlength=len(sites.elements))
    most = np.log(max(2, len(sites.elements)))
    return {
        "classes": len(np.unique(sites.geometry)),
        "contact_pairs": len(set(contacts)),
        "mean_difference": float(differences.mean()) if len(differences) else float("nan"),
        "kinds": float(np.exp(entropy(list(kinds.values())))) if len(sites) else 0.0,
        "composition_entropy": float(entropy(elements) / most) if len(sites) else float("nan"),
    }
