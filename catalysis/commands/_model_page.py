"""What the pages of a model have in common: how far to trust it, and what its network has learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interpretkit.commandline import Column, Finding

if TYPE_CHECKING:
    from catalysis.commands._explore import Directions
    from catalysis.models.site_model import SiteModel


def warn_of(found: Finding, numbers: Mapping[str, Any]) -> None:
    """Say in large letters why not to trust a model, and what else is to be known of its data."""
    from catalysis.models.trust import trust_warnings

    found.warn(*trust_warnings(numbers))
    found.warn(*(f"{warning[0].upper()}{warning[1:]}." for warning in numbers.get("warnings", ())))


def add_model(
    found: Finding, model: SiteModel, *, cards: bool = False, directions: Directions | None = None
) -> None:
    """Add how well a model does on slabs that it has not seen, and its latent maps.

    Parameters
    ----------
    found : Finding
        To add to.
    model : SiteModel
        The model.
    cards : bool
        Whether its errors stand at the top of the page as well.
    directions : Directions, optional
        Those of its data, where they are known already.
    """
    from interpretkit.visualization import parity

    numbers, sites = model.numbers, model.sites
    if cards:
        _add_cards(found, model)
    seen = sites.held_out
    errors = {
        "teacher (ranks)": numbers["mae_ev"],
        "head of the VAE (proposes)": numbers["vae_mae_ev"],
        "class + contact elements, linear": numbers["baseline_mae_ev"],
    }
    found.section(
        "How far to trust the energies",
        f"Measured on {numbers['n_test']} sites of slabs that were kept out ({numbers['n_train']} sites to learn "
        "from). The teacher ranks the designs; the head, which proposes them, is part of the VAE. The baseline is "
        "linear in class and contact elements: what surrounds the contacts is worth the difference.",
    ).figure(
        "parity.png",
        parity(
            sites.energy_ev[seen],
            sites.teacher_ev[seen],
            groups=sites.facet[seen].tolist(),
            uncertainty=sites.teacher_std_ev[seen],
            quantity=f"*{model.adsorbate} energy",
            title="Teacher on unseen slabs, by facet",
        ),
        "Predicted against given energy for held-out slabs, with residuals; bars are one standard deviation.",
    ).table(
        None,
        [{"model": name, "error_ev": error} for name, error in errors.items()],
        {"error_ev": Column("mean absolute error on held-out slabs", "eV", "mean absolute error", ".3f")},
        "Errors on held-out slabs.",
    )
    learned = {
        "active dimensions, coordination": numbers["active_coordination"],
        "active dimensions, ligands": numbers["active_ligand"],
        "elements recovered": numbers["element_recovery"],
        "classes recovered": numbers["class_recovery"],
        "R² of the Betti curves": numbers["betti_r2"],
    }
    found.section(
        "What the network has learned",
        "The VAE keeps coordination (Betti curves of path homology) and ligands (the element in every slot) in "
        "latent spaces of their own. A dimension is active if its mean varies over the sites; a network without "
        "active dimensions has collapsed. Each map shows the two directions of one channel that go most with the "
        "energy (partial least squares).",
    ).table(
        None,
        [{"measure": name, "value": value} for name, value in learned.items()],
        {"value": Column("on held-out slabs", format=".3g")},
        "On held-out slabs.",
    )
    _add_latent_maps(found, model, directions)


def _add_latent_maps(found: Finding, model: SiteModel, directions: Directions | None) -> None:
    from catalysis.commands._explore import Directions
    from interpretkit.visualization import latent_map

    sites, section = model.sites, found.sections[-1]
    if directions is None:
        directions = Directions(model.latents(), sites.energy_ev)
    colours = (
        ("energy", sites.energy_ev, "eV"),
        ("class", sites.site_class.tolist(), ""),
        ("contact elements", sites.contact_elements.tolist(), ""),
    )
    for channel in directions.collapsed:
        section.warning(f"The {channel} channel has no map: its latents hardly differ between the sites.")
    for channel, flat in directions.flat.items():
        for name, colour, label in colours:
            section.figure(
                f"latent-{channel}-{name}.png".lower().replace(" ", "-"),
                latent_map(
                    flat,
                    colour,
                    label=label,
                    axes_labels=("first direction of partial least squares", "second direction"),
                    title=f"{channel.capitalize()} channel, by {name}",
                ),
                f"The {channel} latents of every site, coloured by {name}.",
            )


def _add_cards(found: Finding, model: SiteModel) -> None:
    numbers = model.numbers
    found.number(
        "mae_ev",
        numbers["mae_ev"],
        "error of the teacher",
        unit="eV",
        format=".3f",
        note=f"class and contacts alone: {numbers['baseline_mae_ev']:.3f} eV",
    )
    found.number(
        "vae_mae_ev",
        numbers["vae_mae_ev"],
        "error of the VAE's head",
        unit="eV",
        format=".3f",
        note="on slabs that it has not seen",
    )
    if "teacher_rms_z" in numbers:
        found.number(
            "teacher_rms_z",
            numbers["teacher_rms_z"],
            "residual over predicted deviation",
            format=".2f",
            note="root mean square, 1 if the intervals are right",
        )
    one_class = len(model.vae.config.classes) == 1
    found.number(
        "active_coordination",
        numbers["active_coordination"],
        "active dimensions, coordination",
        note="one class of sites leaves it nothing to learn"
        if one_class
        else "0 would be a collapsed channel",
    )
    found.number("active_ligand", numbers["active_ligand"], "active dimensions, ligands")
    found.number(
        "element_recovery",
        numbers["element_recovery"],
        "elements recovered",
        format=".1%",
        note="of all metals of unseen sites",
    )
