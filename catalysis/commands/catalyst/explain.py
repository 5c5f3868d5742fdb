"""Which atoms make the energy of a site, and which training sites its prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalysis.checks import ENERGY_KEY, check_sites
from catalysis.commands._model_page import warn_of
from catalysis.commands._options import (
    BUNDLED,
    ZONES,
    Data,
    EnergyKey,
    Facet,
    Kind,
    Quick,
    TrainedModel,
    data_files,
    load_sites,
)
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from catalysis.models.site_model import SiteModel
    from catalysis.structure.sites import Site
    from catalysis.studies.atoms import AtomAttribution, TrainingInfluence
    from interpretkit.visualization.instruments import StructureExplorer

_ATOM_COLUMNS = {
    "atom": Column("number within the site"),
    "element": Column("its element"),
    "zone": Column("contact, common neighbour, shell or second neighbour", words=ZONES),
    "distance": Column("from the binding atom", "Å", format=".2f"),
    "teacher_ev": Column("Shapley value for the teacher's energy", "eV", "teacher", "+.4f"),
    "vae_ev": Column("integrated gradients of the VAE's head", "eV", "VAE", "+.4f"),
    "substitution_ev": Column(
        "energy less the mean over what could stand in its place, by the teacher",
        "eV",
        "substitution",
        "+.4f",
    ),
}
_ZONE_COLUMNS = {
    "zone": Column("of the metals", words=ZONES),
    "metals": Column("how many"),
    "teacher_ev": Column("sum of the Shapley values", "eV", "teacher", "+.3f"),
    "vae_ev": Column("sum of the integrated gradients", "eV", "VAE", "+.3f"),
}
_AGREEMENT_COLUMNS = {
    "attributions": Column("of which model"),
    "against": Column("what they are compared with"),
    "rank_correlation": Column(
        "mean over sites of Spearman's, over the metals", heading="rank correlation", format=".3f"
    ),
    "low": Column(
        "lower end of the 95 % interval, by bootstrap over slabs", heading="95 % from", format=".3f"
    ),
    "high": Column("upper end", heading="95 % to", format=".3f"),
    "sites": Column("how many"),
}
_INFLUENCE_COLUMNS = {
    "slab_id": Column("training slab"),
    "sites": Column("its training sites"),
    "change_ev": Column("prediction with it less without", "eV", "change", "+.4f"),
}
_LABEL_COLUMNS = {
    "site_id": Column("training site"),
    "site_class": Column("its class", heading="class"),
    "energy_ev": Column("its label", "eV", "label", "+.3f"),
    "residual_ev": Column("label less what the other slabs predict", "eV", "residual", "+.3f"),
    "score": Column("residual over its predicted deviation", format="+.1f"),
}


@command(
    out="explained",
    example=[
        "interpretkit catalyst explain",
        "interpretkit catalyst explain --site HEA-111-004_111_bridge_0-1",
        "interpretkit catalyst explain --model model --data my-sites.extxyz --composition PtRu",
    ],
)
def explain(
    data: Data = BUNDLED,
    site_id: Annotated[
        str,
        typer.Option(
            "--site", metavar="ID", help="site_id of the site to explain; else a typical one of the data."
        ),
    ] = "",
    composition: Annotated[
        str,
        typer.Option(
            "--composition",
            metavar="ALLOY",
            help="What to compare with, such as Pt0.5Ru0.5; else all metals of --data.",
        ),
    ] = "",
    per_class: Annotated[
        int, typer.Option("--per-class", min=1, metavar="N", help="Sites of each class that are checked.")
    ] = 3,
    model_folder: TrainedModel = "",
    quick: Quick = False,
    energy_key: EnergyKey = ENERGY_KEY,
    facet: Facet = "",
    kind: Kind = "",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Tell which atoms make the energy of a site, and which training slabs make its prediction.

    Shapley values of the occupied slots for the teacher, integrated gradients for the VAE's head, both against the
    alloy's mean occupation, both complete; checked against substitutions of single atoms on sites of every class.
    """
    check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    if model_folder and not Path(model_folder).is_dir():
        raise InputError(f"--model {model_folder}: no such folder; expected what `catalyst train` wrote")
    if quick and (model_folder or data == BUNDLED):
        raise InputError("--quick: nothing is trained; expected --data with sites of your own and no --model")
    asked: dict[str, float] = {}
    if composition:
        from catalysis.structure.surfaces import parse_composition

        asked = dict(parse_composition(composition, "--composition"))
    import numpy as np

    from catalysis.figures import attribution_sheet
    from catalysis.models.site_model import SHIPPED, SiteModel, train_model
    from catalysis.studies.atoms import (
        attribute_teacher,
        attribute_vae,
        mean_occupation,
        substituted_by_teacher,
        training_influence,
    )
    from catalysis.studies.sensitivity import typical_sites, zone_of
    from interpretkit.runs.progress import track
    from interpretkit.training import resolve_device

    where = str(resolve_device(device))
    sites = load_sites(data, energy_key=energy_key, facet=facet, kind=kind, require_energies=True)
    chosen = [site for site in sites if site.site_id == site_id] if site_id else typical_sites(sites)[:1]
    if not chosen:
        raise InputError(
            f"--site {site_id}: no such site_id in --data; expected one such as {sites[0].site_id}"
        )
    site = chosen[0]
    if model_folder or data == BUNDLED:
        model = SiteModel.load(model_folder or SHIPPED, where)
    else:
        model = train_model(sites, seed=seed, device=where, quick=quick, quiet=quiet)
    elements = model.teacher.elements
    _refuse_unknown(model, sites, set(asked))
    shares = mean_occupation(sites, elements)
    if asked:
        shares = np.array([asked.get(element, 0.0) for element in elements])

    def both(one: Site) -> tuple[AtomAttribution, AtomAttribution, np.ndarray]:
        return (
            attribute_teacher(model.teacher, one, shares, seed=seed),
            attribute_vae(model.vae, one, shares, seed=seed),
            substituted_by_teacher(model.teacher, one, shares),
        )

    teacher, head, substituted = both(site)
    checked = typical_sites(sites, per_class)
    every = [both(one) for one in track(checked, "Sites explained", quiet=quiet)]

    alloy = "".join(
        f"{e}{share:.2f}" for e, share in zip(elements, shares.tolist(), strict=True) if share > 0
    )
    found = Finding(
        f"Why {site.site_id or 'this site'} binds as it does",
        f"*{site.adsorbate} on {site.site_class}, {site.contact_elements}: {teacher.energy_ev:+.3f} eV by the teacher, "
        f"{teacher.energy_ev - teacher.baseline_ev:+.3f} eV from what the same geometry would have in {alloy}, filled "
        "at random.",
    ).reads(*data_files(data), *([model_folder] if model_folder else []))
    warn_of(found, model.numbers)
    found.number("energy_ev", teacher.energy_ev, "energy by the teacher", unit="eV", format="+.3f")
    found.number(
        "baseline_ev",
        teacher.baseline_ev,
        "of the alloy's mean occupation",
        unit="eV",
        format="+.3f",
        note=alloy,
    )
    found.values.update(vae_energy_ev=head.energy_ev, vae_baseline_ev=head.baseline_ev, site_id=site.site_id)
    gaps = [abs(a.gap_ev) for trio in every for a in trio[:2]]
    found.number(
        "completeness_gap_ev",
        float(max(gaps)),
        "largest gap of completeness",
        unit="eV",
        format=".1e",
        note=f"sum of the values less what they explain, {len(checked)} sites, both models",
    )
    rows = [
        {
            "atom": k,
            "element": site.symbols[k],
            "zone": zone_of(site, k),
            "distance": float(np.linalg.norm(site.positions[k] - site.adsorbate_positions[0])),
            "teacher_ev": float(teacher.values_ev[k]),
            "vae_ev": float(head.values_ev[k]),
            "substitution_ev": float(substituted[k]),
        }
        for k in range(len(site))
    ]
    zones = list(dict.fromkeys(row["zone"] for row in rows))
    found.section(
        "Which atoms",
        "Red weakens the bond, blue strengthens it, compared with the alloy's mean occupation of the same slot. The "
        "site explained comes first; the others are typical sites of each class.",
    ).instrument(_explorer([site, *checked], [(teacher, head, substituted), *every])).figure(
        "atoms.png",
        attribution_sheet(
            site,
            {
                "teacher, Shapley values": teacher.values_ev,
                "VAE, integrated gradients": head.values_ev,
                "teacher, substitutions": substituted,
            },
        ),
        f"{site.site_id}: each metal coloured by what it adds to the energy, from above and from the side.",
    ).table(
        "zones.csv",
        [
            {
                "zone": zone,
                "metals": sum(row["zone"] == zone for row in rows),
                "teacher_ev": sum(row["teacher_ev"] for row in rows if row["zone"] == zone),
                "vae_ev": sum(row["vae_ev"] for row in rows if row["zone"] == zone),
            }
            for zone in zones
        ],
        _ZONE_COLUMNS,
        in_terminal=True,
    ).table("atoms.csv", rows, _ATOM_COLUMNS, most=60)
    _add_agreement(found, checked, every, seed)
    influence = training_influence(model.teacher, model.sites.slab_id.tolist(), [site])
    _add_influence(found, model, influence, site)
    coloured = site.to_atoms()
    padding = [0.0] * len(site.adsorbate_symbols)
    coloured.arrays["teacher_ev"] = np.array([*teacher.values_ev, *padding])
    coloured.arrays["vae_ev"] = np.array([*head.values_ev, *padding])
    found.structures("explained.extxyz", [coloured])
    found.next_step(
        "See what displacements and swaps do to such sites:", "interpretkit catalyst sensitivity --data", data
    )
    return found.next_step(
        "Read the latent space that the head rests on:", "interpretkit catalyst latent --data", data
    )


def _explorer(
    sites: Sequence[Site], every: Sequence[tuple[AtomAttribution, AtomAttribution, np.ndarray]]
) -> StructureExplorer:
    """Return sites with their atoms coloured by what each adds to the energy."""
    from catalysis.commands._explore import energy_property, share_properties
    from catalysis.exploring import explorer_of
    from interpretkit.visualization.instruments import AtomValues, Property

    properties = {
        "energy_ev": energy_property([teacher.energy_ev for teacher, _, _ in every], "energy by the teacher"),
        "baseline_ev": Property(
            "energy of the alloy's mean occupation", [teacher.baseline_ev for teacher, _, _ in every], "eV"
        ),
        "vae_energy_ev": Property("energy by the VAE's head", [head.energy_ev for _, head, _ in every], "eV"),
        **share_properties(sites),
    }
    atom_values = {
        "teacher_ev": AtomValues(
            "teacher, Shapley values", [trio[0].values_ev.tolist() for trio in every], "eV"
        ),
        "vae_ev": AtomValues("VAE, integrated gradients", [t[1].values_ev.tolist() for t in every], "eV"),
        "substitution_ev": AtomValues("teacher, substitutions", [t[2].tolist() for t in every], "eV"),
    }
    return explorer_of(
        sites,
        properties,
        x="baseline_ev",
        y="energy_ev",
        colour="site_class",
        groups=["explained", *(["typical"] * (len(sites) - 1))],
        marked="explained",
        atom_values=atom_values,
        file="explained",
    )


def _refuse_unknown(model: SiteModel, sites: Sequence[Site], asked: set[str]) -> None:
    known = set(model.teacher.elements)
    foreign = sorted(asked - known)
    if foreign:
        raise InputError(
            f"--composition: the model does not know {foreign[0]}; expected some of {', '.join(sorted(known))}"
        )
    foreign = sorted({symbol for site in sites for symbol in site.symbols} - known)
    if foreign:
        raise InputError(
            f"--data: the model does not know {foreign[0]}; expected sites of {', '.join(sorted(known))}"
        )


def _add_agreement(
    found: Finding,
    checked: Sequence[Site],
    every: Sequence[tuple[AtomAttribution, AtomAttribution, np.ndarray]],
    seed: int,
) -> None:
    """Compare attributions with what single substitutions do, over sites of all classes."""
    from catalysis.studies.atoms import mean_over_slabs, rank_correlation

    slabs = [site.slab_id or site.site_id for site in checked]
    pairs = (
        ("teacher", "substitutions by the teacher", [rank_correlation(a.values_ev, c) for a, _, c in every]),
        ("VAE", "substitutions by the teacher", [rank_correlation(b.values_ev, c) for _, b, c in every]),
        (
            "VAE",
            "Shapley values of the teacher",
            [rank_correlation(b.values_ev, a.values_ev) for a, b, _ in every],
        ),
    )
    rows: list[dict[str, Any]] = []
    for (name, against, values), key in zip(pairs, ("teacher", "vae", "models"), strict=True):
        mean, low, high = mean_over_slabs(values, slabs, seed=seed)
        rows.append(
            {
                "attributions": name,
                "against": against,
                "rank_correlation": mean,
                "low": low,
                "high": high,
                "sites": len(values),
            }
        )
        found.number(
            f"rank_correlation_{key}",
            mean,
            f"{name} against {against}",
            format=".2f",
            note=f"rank correlation over the metals of a site, 95 % interval {low:.2f} … {high:.2f}",
        )
    found.section(
        "Are they right?",
        "A substitution changes one metal alone, by the mean over what could stand in its place; an attribution shares "
        "the energy among all. Where the two agree in order, a change of what the attribution points at moves the "
        "energy.",
    ).table("agreement.csv", rows, _AGREEMENT_COLUMNS)


def _add_influence(found: Finding, model: SiteModel, influence: TrainingInfluence, site: Site) -> None:
    """Show which training slabs made the prediction, and which labels disagree with all other slabs."""
    import numpy as np

    from catalysis.studies.atoms import SUSPICIOUS

    changes = influence.changes_ev[0]
    order = np.argsort(-np.abs(changes), kind="stable")
    found.section(
        "Which training slabs",
        "By how much the teacher's prediction for this site would be another without a slab: the closed form of "
        "leaving it out, with the prior held. A site's own slab is among them if it was trained on.",
    ).table(
        "influence.csv",
        [
            {"slab_id": influence.slabs[k], "sites": int(influence.counts[k]), "change_ev": float(changes[k])}
            for k in order.tolist()
        ],
        _INFLUENCE_COLUMNS,
        f"{site.site_id}: the slabs that matter most.",
        most=12,
    )
    scores = influence.scores
    worst = np.argsort(-np.abs(scores), kind="stable")
    suspicious = int((np.abs(scores) > SUSPICIOUS).sum())
    found.number(
        "suspicious_labels",
        suspicious,
        "labels that look wrong",
        note=f"of {len(scores)}; further than {SUSPICIOUS:g} deviations from what the other slabs say",
    )
    found.section(
        "Labels that look wrong",
        "Training sites whose energies are farthest from what the teacher says without their slab, in deviations that "
        "it predicts for itself.",
    ).table(
        "labels.csv",
        [
            {
                "site_id": str(model.sites.site_id[k]),
                "site_class": str(model.sites.site_class[k]),
                "energy_ev": float(model.sites.energy_ev[k]),
                "residual_ev": float(influence.residual_ev[k]),
                "score": float(scores[k]),
            }
            for k in worst.tolist()
        ],
        _LABEL_COLUMNS,
        most=12,
    )
