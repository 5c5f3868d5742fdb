"""One class of sites on one facet, the commonest data: all works, and what cannot be learned is said."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from catalysis.commands._model_page import add_model, warn_of
from catalysis.commands.catalyst.design import design as design_command
from catalysis.energies.training_data import group_folds
from catalysis.models import site_model as models
from catalysis.models.evaluation import evaluate
from catalysis.models.site_model import train_model
from catalysis.structure.finding import find_sites
from catalysis.structure.occupations import occupations
from catalysis.structure.sites import Site
from catalysis.structure.surfaces import build_slab
from catalysis.structure.templates import Template, align, class_templates, facet_templates
from catalysis.structure.user_sites import site_from_structure, write_sites
from catalysis.studies.design import Target, check_request, search
from catalysis.vae.training import one_class_note
from interpretkit.commandline.finding import Finding
from interpretkit.errors import InputError

EFFECT = {"Pt": 0.2, "Ru": -0.4, "Pd": 0.0}


def hollow() -> Template:
    (name,) = [name for name in facet_templates("111", "O") if "fcc" in name]
    return class_templates("111", name, "O")[0]


def planted(n: int, seed: int = 0) -> list[Site]:
    """Return fcc hollows whose energy is a sum over contacts and common neighbours, three to a slab."""
    template, rng = hollow(), np.random.default_rng(seed)
    sites = []
    for k in range(n):
        symbols = [str(s) for s in rng.choice(sorted(EFFECT), len(template))]
        energy = sum(EFFECT[s] for s in symbols[:3]) / 3 + sum(EFFECT[s] for s in symbols[3:9]) / 10
        sites.append(
            template.decorate(
                symbols, site_id=f"s{k}", slab_id=f"slab {k // 3}", energy_ev=energy + rng.normal(0, 0.005)
            )
        )
    return sites


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return planted(90)


def test_one_class_is_measured_and_the_idle_channel_is_told(sites: list[Site]) -> None:
    with pytest.warns(UserWarning, match="nothing to learn from one class") as caught:
        found = evaluate(sites, folds=2, quick=True)
    assert len([w for w in caught if "one class" in str(w.message)]) == 1
    assert found["mae_ev"] < 0.02
    assert found["vae_mae_ev"] is not None
    assert any("coordination channel has nothing to learn" in warning for warning in found["warnings"])
    told = Finding("x")
    warn_of(told, found)
    assert any("nothing to learn from one class of sites" in line for line in told.warnings)


def test_two_classes_are_no_cause_for_a_note(sites: list[Site]) -> None:
    assert one_class_note(sites) is not None
    assert one_class_note([*sites, replace(sites[0], site_class="111_top_9")]) is None


def test_a_model_of_one_class_trains_reports_and_designs(sites: list[Site]) -> None:
    with pytest.warns(UserWarning, match="one class"):
        model = train_model(sites, quick=True, quiet=True)
    assert np.isfinite(model.numbers["vae_mae_ev"])
    assert "nothing to learn" in model.numbers["warnings"][0]
    told = Finding("x")
    warn_of(told, model.numbers)
    add_model(told, model, cards=True)
    assert any("coordination channel has nothing to learn" in line for line in told.warnings)
    assert "nothing to learn" in str(told.numbers["active_coordination"].note)
    energies = np.array([site.energy_ev for site in sites], dtype=float)
    found = search(model, Target(float(np.median(energies)), 0.05), 5, n_starts=200, n_random=200, steps=10)
    assert len(found.designs) == 5
    assert {d.site.site_class for d in found.designs} == {hollow().site_class}


@pytest.mark.parametrize("name", ["111_top_9", "fcc", "hcp", "111_bridge"])
def test_small_cells_whose_images_belong_to_the_site_fit_their_template(name: str) -> None:
    (key,) = [key for key in facet_templates("111") if name in key]
    template = class_templates("111", key)[0]
    slab = build_slab("111", "PtPdRu", min_repeat_angstrom=7.0, seed=2, lattice_constant=3.9)
    found = [s for s in find_sites(slab, kinds=("top", "bridge", "hollow")) if s.site_class == key]
    assert found
    for site in found:
        # Two slots of the site are images of one atom.
        assert len(set(site.host_indices)) < len(site)
        alignment = align(site)
        assert alignment.template is template
        assert sorted(alignment.slots) == list(range(len(template)))
        for one in set(site.host_indices):
            images = [k for k, host in enumerate(site.host_indices) if host == one]
            assert len({site.symbols[k] for k in images}) == 1


def test_sites_without_template_share_one_geometry() -> None:
    rng = np.random.default_rng(0)
    many = [
        replace(site, facet="", site_class="hollow", positions=site.positions + rng.normal(0, 0.01, (1, 3)))
        for site in planted(30)
    ]
    found = occupations(many)
    assert not found.aligned.any()
    assert len(found.geometries) == 1


def test_what_can_be_checked_is_checked_before_training(
    sites: list[Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("catalysis.models.measurement.train_vae", never)
    monkeypatch.setattr(models.Teacher, "fit", never)
    held_out = np.flatnonzero(group_folds([site.slab_id for site in sites], 5, 0) == 0)
    rare = list(sites)
    rare[held_out[0]] = rare[held_out[0]].with_elements(["Au"] * len(hollow()))
    with pytest.raises(InputError, match="Au occurs in one slab only"):
        train_model(rare, quick=True, quiet=True)
    with pytest.raises(InputError, match="lost: sites with OH; expected O"):
        train_model(sites, [replace(sites[0], adsorbate="OH")], quick=True)
    with pytest.raises(InputError, match="group_by site_class: all sites have site_class"):
        evaluate(sites, group_by="site_class")
    with pytest.raises(InputError, match="expected at least 20"):
        evaluate(sites[:30], folds=2, group_by="site_id")
    file = tmp_path / "sites.extxyz"
    write_sites(file, sites)
    for target_ev, elements, facets, message in (
        (9.0, None, None, "far from anything"),
        (0.0, "Ag", None, "does not know Ag"),
        (0.0, None, "211", "no facet 211"),
    ):
        with pytest.raises(InputError, match=message):
            design_command(str(file), target_ev, elements=elements or None, facets=facets or None, quiet=True)
    with pytest.raises(InputError, match="no ideal slab has a site like"):
        check_request(
            Target(0.0, 0.1), 1, energies_ev=[0.0, 0.1], known_elements=["Pt"], known_classes=[("111", "odd")]
        )


def test_sites_cut_out_of_a_small_cell_are_those_that_were_found() -> None:
    slab = build_slab("111", "PtPdRu", min_repeat_angstrom=7.0, seed=2, lattice_constant=3.9)
    for site in find_sites(slab, kinds=("top",), adsorbate="OH")[:3]:
        atoms = slab + Atoms(site.adsorbate_symbols, positions=site.adsorbate_positions)
        again = site_from_structure(atoms)
        names = sorted(set(slab.get_chemical_symbols()))
        assert np.array_equal(occupations([site], names).table, occupations([again], names).table)


def test_nothing_is_warned_of_where_all_is_well(sites: list[Site]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert one_class_note([sites[0], replace(sites[1], facet="100")]) is None
