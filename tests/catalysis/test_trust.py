from __future__ import annotations

import numpy as np
import pytest

from catalysis.reports import evaluation_report
from catalysis.trust import print_with_trust, rms_z, trust_warnings

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
        ({"vae_mae_ev": 0.2}, "PROPOSES DESIGNS, IS NO BETTER THAN ITS BASELINE: 0.200 beside 0.100"),
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


def test_page_and_terminal_say_it_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {**SOUND, "mae_ev": 0.2, "warnings": ["odd data"], "inputs": "x", "per_class": {}}
    predictions = {
        "true_ev": [0.0, 0.1, 0.3],
        "teacher_ev": [0.0, 0.1, 0.2],
        "teacher_std_ev": [0.1, 0.1, 0.1],
        "site_class": ["111_top_9"] * 3,
    }
    page = evaluation_report(numbers, predictions, split="x", command="x", seed=0, data=[]).html()
    head = page.split("<main>")[0]
    assert head.count('class="alarm"') == 2
    assert "RANKS DESIGNS, IS NO BETTER THAN ITS BASELINE" in head
    assert 'class="alarm"' not in page.split("<main>")[1]
    print_with_trust({**numbers, "trust": trust_warnings(numbers)})
    shown = " ".join(capsys.readouterr().out.split())
    assert "NO BETTER THAN ITS BASELINE" in shown
    assert "odd data" in shown
    print_with_trust(SOUND)
    assert "BETTER" not in capsys.readouterr().out
