"""The classifier finds a planted rule of which adsorbates leave, and says what it was not told of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalysis.models.staying import StayingClassifier, area_under_curve
from catalysis.structure.occupations import occupations
from catalysis.structure.sites import Site
from catalysis.structure.templates import class_templates
from interpretkit.errors import InputError


def planted(n: int, seed: int) -> tuple[list[Site], np.ndarray]:
    """Return sites which the adsorbate leaves where a contact is of ruthenium."""
    rng = np.random.default_rng(seed)
    template = class_templates("111", "111_bridge")[0]
    sites = [
        template.decorate([str(s) for s in rng.choice(["Pt", "Pd", "Ru"], len(template))]) for _ in range(n)
    ]
    sites = [replace(site, slab_id=f"slab {k}") for k, site in enumerate(sites)]
    return sites, np.array(["Ru" not in site.contact_elements for site in sites])


def test_a_planted_rule_is_found_on_other_sites(tmp_path: Path) -> None:
    sites, stays = planted(80, 0)
    model = StayingClassifier().fit(sites, stays)
    unseen, truth = planted(60, 1)
    probability = model.predict_probability(occupations(unseen))
    assert ((probability > 0.5) == truth).mean() > 0.9
    assert probability.min() >= 0.01
    assert probability.max() <= 1.0
    model.save(tmp_path / "staying.safetensors")
    loaded = StayingClassifier.load(tmp_path / "staying.safetensors")
    assert np.array_equal(loaded.predict_probability(occupations(unseen)), probability)
    train = np.arange(80) < 50
    assert area_under_curve(sites, stays, train, ~train) > 0.9
    shuffled = np.random.default_rng(0).permutation(stays)
    assert area_under_curve(sites, shuffled, train, ~train) < 0.8


def test_what_cannot_be_learned_or_measured_is_told() -> None:
    sites, stays = planted(30, 0)
    with pytest.raises(InputError, match="stays: all are True; expected sites of both kinds"):
        StayingClassifier().fit(sites, np.ones(30, bool))
    assert np.isnan(area_under_curve(sites, stays, ~stays, stays))
