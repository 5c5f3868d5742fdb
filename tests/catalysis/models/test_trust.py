from __future__ import annotations

import numpy as np
import pytest

from catalysis.commands._model_page import warn_of
from catalysis.models.trust import rms_z, trust_warnings
from interpretkit.commandline.finding import Finding

SOUND = {
    "mae_ev": 0.05,
    "vae_mae_ev": 0.06,
    "baseline_mae_ev": 0.10,
    "r2": 0.9,
    "teacher_rms_z": 1.1,
    "n_test": 200,
}


def test_a_sound_model_gets_no_warning() -> None:
    assert trust_warnings(SOUND) == []
    assert trust_warnings({}) == []
    assert trust_warnings(dict.fromkeys(SOUND) | {"n_test": 0}) == []
    assert trust_warnings({**SOUND, "r2": float("nan"), "vae_mae_ev": float("nan")}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mae_ev": 0.10}, "THE TEACHER, WHICH RANKS DESIGNS, IS NO BETTER THAN ITS BASELINE: 0.100"),
        ({"vae_mae_ev": 0.2}, "PROPOSES DESIGNS, IS NO BETTER THAN ITS BASELINE: 0.200 eV beside 0.100 eV"),
        ({"r2": -0.1}, "THE TEACHER IS NO BETTER THAN THE MEAN ENERGY: -0.10"),
        ({"teacher_rms_z": 2.4}, "TOO NARROW: residuals on unseen sites are 2.4 times"),
    ],
)
def test_each_fault_is_named_once(changes: dict[str, float], words: str) -> None:
    (told,) = trust_warnings({**SOUND, **changes})
    assert words in told


def test_intervals_of_calibrated_models_raise_no_alarm_however_few_the_sites() -> None:
    generator = np.random.default_rng(0)
    for count in (2, 5, 20, 500):
        draws = generator.normal(size=(2000, count))
        alarms = sum(
            bool(trust_warnings({**SOUND, "n_test": count, "teacher_rms_z": rms_z(row, np.ones(count))}))
            for row in draws
        )
        assert alarms <= 10  # one in a thousand is expected
    tight = rms_z(generator.normal(size=100), np.full(100, 0.4))
    assert trust_warnings({**SOUND, "n_test": 100, "teacher_rms_z": tight})
    assert np.isnan(rms_z(np.zeros(0), np.zeros(0)))


def test_a_page_says_it_and_what_else_is_to_be_known_of_the_data() -> None:
    found = Finding("Errors on unseen sites")
    warn_of(found, {**SOUND, "mae_ev": 0.2, "warnings": ["odd data"]})
    assert len(found.warnings) == 2
    assert "RANKS DESIGNS, IS NO BETTER THAN ITS BASELINE" in found.warnings[0]
    assert found.warnings[1] == "Odd data."
    sound = Finding("Errors on unseen sites")
    warn_of(sound, SOUND)
    assert sound.warnings == []
