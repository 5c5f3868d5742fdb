"""The pages that a person looks at: fingerprints, errors, what a model learned, what was designed with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cross_decomposition import PLSRegression

from catalysis.design import Design, Search
from catalysis.figures import barcode_sheet, site_gallery
from catalysis.fingerprints import Fingerprints, bars_with_atoms
from catalysis.model import SiteModel
from catalysis.sites import Site
from catalysis.trust import trust_warnings
from interpretkit.visualization import distributions, latent_map, parity
from interpretkit.visualization.report import Report, format_number


def design_table(designs: Sequence[Design]) -> list[dict[str, Any]]:
    """Return one row per design: what it is, what is predicted, how new it is."""
    rows = []
    for rank, design in enumerate(designs, start=1):
        site = design.site
        symbols = sorted(set(site.symbols))
        rows.append(
            {
                "rank": rank,
                "site_id": site.site_id,
                "facet": site.facet,
                "site_class": site.site_class,
                "contacts": site.contact_elements,
                "energy_ev": design.energy_ev,
                "deviation_ev": design.deviation_ev,
                "stays": design.stays,
                "probability": design.probability,
                "head_energy_ev": design.head_energy_ev,
                "slots_unlike_nearest_known": design.nearest_known,
                "metals": len(site),
                "composition": "".join(f"{symbol}{site.symbols.count(symbol)}" for symbol in symbols),
            }
        )
    return rows


def add_model_sections(report: Report, model: SiteModel) -> None:
    """Add how well a model does on slabs that it has not seen, and its latent maps."""
    numbers, sites = model.numbers, model.sites
    seen = sites.held_out
    report.add_section(
        "How far to trust the energies",
        f"Measured on {numbers['n_test']} sites of slabs that were kept out ({numbers['n_train']} sites to learn "
        "from). The teacher ranks the designs; the head, which proposes them, is part of the VAE. The baseline is "
        "linear in class and contact elements: what surrounds the contacts is worth the difference.",
        figures=[
            (
                parity(
                    sites.energy_ev[seen],
                    sites.teacher_ev[seen],
                    groups=sites.facet[seen].tolist(),
                    uncertainty=sites.teacher_std_ev[seen],
                    quantity=f"*{model.adsorbate} energy",
                    title="Teacher on unseen slabs, by facet",
                ),
                "Predicted against given energy for held-out slabs, with residuals; bars are one standard deviation.",
            )
        ],
        table=[
            {"model": "teacher (ranks)", "mean absolute error (eV)": numbers["mae_ev"]},
            {"model": "head of the VAE (proposes)", "mean absolute error (eV)": numbers["vae_mae_ev"]},
            {
                "model": "class + contact elements, linear",
                "mean absolute error (eV)": numbers["baseline_mae_ev"],
            },
        ],
        table_caption="Errors on held-out slabs.",
        formats={"mean absolute error (eV)": ".3f"},
    )
    report.add_section(
        "What the network has learned",
        "The VAE keeps coordination (Betti curves of path homology) and ligands (the element in every slot) in "
        "latent spaces of their own. A dimension is active if its mean varies over the sites; a network without "
        "active dimensions has collapsed. Each map shows the two directions of one channel that go most with the "
        "energy (partial least squares).",
        table=[
            {"measure": "active dimensions, coordination", "value": str(numbers["active_coordination"])},
            {"measure": "active dimensions, ligands", "value": str(numbers["active_ligand"])},
            {"measure": "elements recovered", "value": f"{numbers['element_recovery']:.3f}"},
            {"measure": "classes recovered", "value": f"{numbers['class_recovery']:.3f}"},
            {"measure": "R² of the Betti curves", "value": format_number(numbers["betti_r2"], digits=3)},
        ],
        table_caption="On held-out slabs.",
    )
    latent = model.latents()
    pairs = _most_frequent(sites.contact_elements, 7)
    for channel, points in (
        ("Coordination", latent.coordination.cpu().numpy()),
        ("Ligand", latent.ligand.cpu().numpy()),
    ):
        if np.linalg.matrix_rank(points - points.mean(0), tol=1e-3 * np.sqrt(len(points))) < 2:
            report.add_note(
                f"The {channel.lower()} channel has no map: its latents hardly differ between the sites.",
                "warning",
            )
            continue
        flat = PLSRegression(2).fit(points, sites.energy_ev).transform(points)
        report.add_figures(
            *(
                (
                    latent_map(
                        flat,
                        colour,
                        label=label,
                        axes_labels=("direction that goes with the energy", "next such direction"),
                        title=f"{channel} channel, by {name}",
                    ),
                    f"The {channel.lower()} latents of every site, coloured by {name}.",
                )
                for name, colour, label in (
                    ("energy", sites.energy_ev, "eV"),
                    ("class", sites.site_class.tolist(), ""),
                    ("contact elements", pairs, ""),
                )
            )
        )


def train_report(model: SiteModel, command: str, seed: int, data: Sequence[Path], out: Path) -> Report:
    """Return the page about a freshly trained model."""
    numbers = model.numbers
    report = Report(
        "A model of adsorption sites",
        f"{len(model.sites)} sites with *{model.adsorbate} energies, {len(model.vae.config.classes)} classes, "
        f"metals {', '.join(model.vae.config.elements)}.",
    )
    _add_alarms(report, numbers)
    report.add_numbers(_error_cards(model))
    add_model_sections(report, model)
    report.add_next_step(
        "Design sites with an energy of your choice:",
        ["interpretkit", "catalyst", "design", "--model", out, "--target-ev", "0.1", "--out", "designs"],
    )
    report.set_provenance(command, seed=seed, data=list(data))
    return report


def design_report(
    model: SiteModel,
    search: Search,
    *,
    data_note: str,
    command: str,
    seed: int,
    data: Sequence[Path],
    out: Path,
) -> Report:
    """Return the page about a search for designs.

    Parameters
    ----------
    model, search
        What searched and what was found.
    data_note
        A sentence on where the energies come from and what they are worth.
    command, seed, data, out
        For the provenance and the next steps.
    """
    numbers, target = search.numbers, search.target
    report = Report(
        "Designed sites",
        f"{numbers['n_designs']} sites whose *{model.adsorbate} energy should be "
        f"{target.energy_ev:+.2f} ± {target.window_ev:.2f} eV, decoded from the latent space of a PGH-VAE and ranked "
        "by a separate energy model.",
    )
    _add_alarms(report, model.numbers)
    report.add_numbers(
        {
            "designs in the window": (
                f"{numbers['designs_in_window']} of {numbers['n_designs']}",
                "by the teacher's mean; it did the ranking",
            ),
            "proposals in the window": (
                f"{numbers['share_in_window']:.0%}",
                f"of {numbers['n_proposals']} new sites, before any ranking",
            ),
            "random sites in the window": (
                f"{numbers['random_share_in_window']:.2%}",
                f"of {numbers['n_random']}"
                + (
                    f"; proposals are {numbers['enrichment']:.0f} times as often in it"
                    if np.isfinite(numbers["enrichment"])
                    else ""
                ),
            ),
            "error of the teacher": (
                f"{model.numbers['mae_ev']:.3f} eV",
                f"on unseen slabs; class and contacts alone {model.numbers['baseline_mae_ev']:.3f} eV",
            ),
        }
    )
    designs = search.designs
    shown = designs[:8]
    report.add_section(
        "The likeliest",
        "Metals carry their symbols, the two with a dark rim bind the adsorbate, deeper ones are paler. The energy "
        "is the teacher's prediction with its standard deviation.",
        figures=[
            (
                site_gallery(
                    [design.site for design in shown],
                    [
                        f"{d.site.site_class}, {d.site.contact_elements}\n{d.energy_ev:+.2f} ± {d.deviation_ev:.2f} eV"
                        for d in shown
                    ],
                ),
                f"The first {len(shown)} designs, seen from above and from the side.",
            )
        ],
    )
    if numbers["designs_in_window"] < numbers["n_designs"]:
        report.add_note(
            f"{numbers['n_designs'] - numbers['designs_in_window']} designs lie outside the window: the search found "
            "no better ones. Widen the window, or allow more facets and elements.",
            "warning",
        )
    report.add_note(data_note)
    report.add_section(
        "Where the energies lie",
        "The window, the data, sites drawn at random, what the latent search proposed, and what was chosen.",
        figures=[
            (
                distributions(
                    {
                        "data": model.sites.energy_ev,
                        "random sites": search.random_ev,
                        "proposals": search.proposal_ev,
                        "designs": np.array([design.energy_ev for design in designs]),
                    },
                    window=(target.low, target.high),
                    quantity=f"*{model.adsorbate} energy",
                    title="Energies by the teacher; the data's as given",
                ),
                "Distributions of energies with the wanted window.",
            )
        ],
    )
    report.add_section(
        "All designs",
        f"{numbers['design_classes']} classes and {numbers['design_contact_pairs']} pairs of contact elements; two "
        f"designs of one class differ in {numbers['design_mean_difference']:.0%} of their slots on average. None is in "
        "the training data: `slots_unlike_nearest_known` tells in how many slots each differs from its nearest "
        "relative there. `stays` is the probability that the adsorbate stays where it is put; `probability` that it "
        "stays and the energy lies in the window, which ranks the designs.",
        table=design_table(designs),
        formats={
            "energy_ev": "+.3f", "deviation_ev": ".3f", "stays": ".2f", "probability": ".2f", "head_energy_ev": "+.3f",
        },
    )  # fmt: skip
    add_model_sections(report, model)
    report.add_next_step(
        "Check the designs with an interatomic potential (install the extra mlip):",
        ["interpretkit", "catalyst", "label", out / "slabs.extxyz", "--out", "checked"],
    )
    report.add_next_step(
        "Or relax the slabs of `slabs.extxyz` with DFT, and train on what comes out:",
        "interpretkit catalyst train --data my-relaxed-slabs.extxyz --out model",
    )
    report.add_next_step(
        "Ask for another energy, on some facets, of some metals:",
        "interpretkit catalyst design --target-ev -0.3 --facets 111,211 --elements Pt,Pd,Ir --out other",
    )
    report.set_provenance(command, seed=seed, data=list(data))
    return report


def evaluation_report(
    found: Mapping[str, Any],
    predictions: Mapping[str, Any],
    *,
    split: str,
    command: str,
    seed: int,
    data: Sequence[Path],
) -> Report:
    """Return the page about errors on unseen sites.

    Parameters
    ----------
    found, predictions
        What `catalysis.evaluation.evaluate` returns, and its `predictions`.
    split
        In words, what was unseen.
    command, seed, data
        For the provenance.
    """
    report = Report("Errors on unseen sites", f"{found['n_test']} sites: {split}.")
    _add_alarms(report, found)
    head = found["vae_mae_ev"]
    report.add_numbers(
        {
            "teacher": (f"{found['mae_ev']:.3f} eV", "mean absolute error; ranks designs"),
            "head of the VAE": (
                "unknown" if head is None else f"{head:.3f} eV",
                "mean absolute error; proposes designs",
            ),
            "baseline": (f"{found['baseline_mae_ev']:.3f} eV", "class and contact elements, linear"),
            "residual over predicted deviation": (
                f"{found['teacher_rms_z']:.2f}",
                "root mean square, 1 if the intervals are right",
            ),
        }
    )
    report.add_section(
        "Teacher against given energies",
        f"Inputs: {found['inputs']}.",
        figures=[
            (
                parity(
                    predictions["true_ev"],
                    predictions["teacher_ev"],
                    groups=[name.split("_")[0] for name in predictions["site_class"]],
                    uncertainty=predictions["teacher_std_ev"],
                ),
                "Predicted against given energy, with residuals; bars are one standard deviation.",
            )
        ],
        table=[{"class": name, **row} for name, row in found["per_class"].items()],
        table_caption="Mean absolute errors by class in eV.",
    )
    report.set_provenance(command, seed=seed, data=list(data))
    return report


def bar_table(site: Site) -> list[dict[str, Any]]:
    """Return one row per bar of a site's barcode, with the atoms on a cycle that carries it."""
    return [
        {
            "dimension": bar.dimension,
            "birth_angstrom": bar.birth_angstrom,
            "death_angstrom": bar.death_angstrom,
            "atoms": " ".join(map(str, bar.atoms)),
            "elements": " ".join(bar.elements),
        }
        for bar in bars_with_atoms(site)
    ]


def fingerprint_report(
    sites: Sequence[Site], found: Fingerprints, *, command: str, data: Sequence[Path], out: Path
) -> Report:
    """Return the page about fingerprints: one site of each of the first classes, and averages by class."""
    names = np.array(found.site_classes)
    classes = sorted(set(found.site_classes))
    report = Report(
        "Fingerprints of sites",
        f"{len(sites)} sites of {len(classes)} classes as Betti curves and elements by slot.",
    )
    report.add_numbers(
        {
            "sites": len(sites),
            "classes": len(classes),
            "matched to a template": (
                int(found.ligands.aligned.sum()),
                "the others go by zone and rank of distance",
            ),
        }
    )
    report.add_section(
        "From structure to fingerprint",
        "A site is a digraph whose arrows are bonds weighted by their length. As the threshold grows, components "
        "merge (β0), loops open and close (β1), voids appear (β2).",
    )
    for name in classes[:4]:
        index = found.site_classes.index(name)
        sheet = barcode_sheet(
            sites[index], bars_with_atoms(sites[index]), found.grid, found.coordination[index]
        )
        report.add_figures((sheet, f"Site {found.site_ids[index]}: seen from above, barcode, Betti curves."))
    rows = []
    for name in classes:
        members = np.flatnonzero(names == name)
        mean = found.coordination[members].mean((0, 2))
        rows.append(
            {
                "class": name,
                "sites": len(members),
                "metals": float(np.mean([len(sites[k]) for k in members.tolist()])),
                **{f"mean β{dimension}": float(mean[dimension]) for dimension in range(3)},
            }
        )
    report.add_section("By class", table=rows, table_caption="Betti numbers averaged over the thresholds.")
    report.add_next_step(
        "Read the arrays in Python:", f"numpy.load({str(out / 'fingerprints.npz')!r})['coordination']"
    )
    report.set_provenance(command, data=list(data))
    return report


def _add_alarms(report: Report, numbers: Mapping[str, Any]) -> None:
    """Say in large letters why not to trust a model, and what else is to be known of its data."""
    for alarm in trust_warnings(numbers):
        report.add_alarm(alarm)
    for warning in numbers.get("warnings", ()):
        report.add_alarm(f"{warning[0].upper()}{warning[1:]}.")


def _error_cards(model: SiteModel) -> dict[str, tuple[str, str]]:
    numbers = model.numbers
    baseline = f"class and contacts alone: {numbers['baseline_mae_ev']:.3f} eV"
    return {
        "error of the teacher": (f"{numbers['mae_ev']:.3f} eV", baseline),
        "error of the VAE's head": (f"{numbers['vae_mae_ev']:.3f} eV", "on slabs that it has not seen"),
        **(
            {
                "residual over predicted deviation": (
                    f"{numbers['teacher_rms_z']:.2f}",
                    "root mean square, 1 if the intervals are right",
                )
            }
            if "teacher_rms_z" in numbers
            else {}
        ),
        "active dimensions": (
            f"{numbers['active_coordination']} + {numbers['active_ligand']}",
            "coordination + ligands; "
            + (
                "one class of sites leaves coordination nothing to learn"
                if len(model.vae.config.classes) == 1
                else "0 would be a collapsed channel"
            ),
        ),
        "elements recovered": (f"{numbers['element_recovery']:.1%}", "of all metals of unseen sites"),
    }


def _most_frequent(names: np.ndarray, count: int) -> list[str]:
    """Return the names with the rare ones called "other"."""
    unique, counts = np.unique(names, return_counts=True)
    kept = set(unique[np.argsort(-counts, kind="stable")[:count]].tolist())
    return [str(name) if name in kept else "other" for name in names]
