from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalysis.energies.baseline import LinearBaseline
from catalysis.energies.features import BLOCKS
from catalysis.energies.gaussian_process import AdditiveGaussianProcess
from catalysis.energies.protocol import EnergyModel
from catalysis.energies.teacher import Teacher
from catalysis.energies.training_data import check_training_data, group_folds
from catalysis.structure.occupations import occupations
from catalysis.structure.sites import COMMON, CONTACT, SHELL, Site
from catalysis.structure.templates import class_templates
from interpretkit.errors import InputError

ELEMENTS = ["Ir", "Pd", "Pt", "Rh", "Ru"]
CLASSES = {"100_bridge": -0.9, "211_edge": -1.3, "211_hill": -0.6, "532_hill2": -0.8}
BINDING = {"Ru": -0.3, "Rh": -0.15, "Ir": -0.1, "Pd": 0.05, "Pt": 0.15}
AROUND = {"Ru": 0.03, "Rh": 0.01, "Ir": 0.02, "Pd": -0.01, "Pt": -0.02}


def planted(n: int, seed: int, noise: float = 0.0, adsorbate: str = "OH") -> list[Site]:
    """Return random sites, three to a slab, whose energy adds up from class, contacts and neighbours."""
    rng = np.random.default_rng(seed)
    sites = []
    for k in range(n):
        name = str(rng.choice(list(CLASSES)))
        template = class_templates(name.split("_")[0], name, adsorbate)[0]
        site = template.decorate([str(s) for s in rng.choice(ELEMENTS, len(template))])
        energy = CLASSES[name] + noise * rng.normal()
        for symbol, zone in zip(site.symbols, site.zones, strict=True):
            energy += BINDING[symbol] * (zone == CONTACT) + AROUND[symbol] * (zone in (COMMON, SHELL))
        sites.append(replace(site, site_id=f"site-{k}", slab_id=f"slab-{k // 3}", energy_ev=float(energy)))
    return sites


def energies(sites: list[Site]) -> np.ndarray:
    return np.array([site.energy_ev for site in sites], dtype=float)


@pytest.fixture(scope="module")
def train() -> list[Site]:
    return planted(240, 0, noise=0.01)


@pytest.fixture(scope="module")
def teacher(train: list[Site]) -> Teacher:
    return Teacher().fit(train)


def test_teacher_recovers_planted_energies_that_the_baseline_cannot(
    train: list[Site], teacher: Teacher
) -> None:
    test = planted(150, 1)
    error = np.abs(teacher.predict(test).mean_ev - energies(test)).mean()
    baseline = np.abs(LinearBaseline().fit(train).predict(test).mean_ev - energies(test)).mean()
    # The neighbours alone make a standard deviation of 0.06 eV, which class and contacts do not explain.
    assert baseline > 0.04
    assert error < 0.015


def test_uncertainty_is_calibrated_and_wider_far_from_the_training(
    train: list[Site], teacher: Teacher
) -> None:
    test = planted(300, 2, noise=0.01)
    mean, std = teacher.predict(test)
    z = (mean - energies(test)) / std
    assert 0.75 < np.sqrt((z**2).mean()) < 1.3
    template = class_templates("211", "211_edge")[0]
    elements = ["Pd"] * len(template)
    known = template.decorate(elements)
    gold = template.decorate(["Au", "Au", *elements[2:]])
    unseen = class_templates("111", "111_fcc_9-9-9")[0]
    std = teacher.predict([known, gold, unseen.decorate(["Pd"] * len(unseen))]).std_ev
    assert np.isfinite(std).all()
    assert std[1] > 1.5 * std[0]
    assert std[2] > 1.5 * std[0]


def test_an_unseen_class_is_as_unsure_as_the_likeness_of_coordination_says(train: list[Site]) -> None:
    """The posterior in features is that of the covariance exp(-d²/2) itself, also where training holds no class."""
    member, noise = AdditiveGaussianProcess(0.5), 0.01
    known = [site for site in train if site.site_class != "532_hill2"][:60]
    unseen = [site for site in train if site.site_class == "532_hill2"][:1]
    data = occupations([*known, *unseen])
    learned, asked = data[np.arange(len(known))], data[np.array([len(known)])]
    member.learn_space(learned)
    member.prior = np.array([float(name == "class_likeness") for name in member.blocks])
    member.scales, member.noise = np.ones(len(member.blocks)), noise
    member.condition(learned, np.zeros(len(known)), np.arange(len(known)))
    # Twice the number of contacts, mean and spread of their coordination numbers: 8-8, 7-7, 7-10 and 6-10.
    numbers = {
        "100_bridge": (4, 8, 0),
        "211_edge": (4, 7, 0),
        "211_hill": (4, 8.5, 3),
        "532_hill2": (4, 8, 4),
    }
    points = np.array([numbers[site.site_class] for site in [*known, *unseen]]) / 1.5
    covariance = np.exp(-0.5 * ((points[:, None] - points[None]) ** 2).sum(-1))
    across = covariance[-1, :-1]
    expected = 1 - across @ np.linalg.solve(covariance[:-1, :-1] + noise * np.eye(len(known)), across)
    assert expected > 0.3
    np.testing.assert_allclose(member.predict(asked)[1], expected, rtol=1e-3)


def test_leaving_out_groups_in_closed_form_is_learning_from_the_others() -> None:
    member, y = Teacher().fit(planted(60, 3, noise=0.05)).members[0], np.random.default_rng(0).normal(size=60)
    groups = np.arange(60) // 7
    mean, variance = member.left_out(y, groups)
    points = member.basis.astype(float)
    for group in (0, 4):
        rest, own = groups != group, groups == group
        within = points[rest] @ points[rest].T + member.noise * np.eye(rest.sum())
        across = points[own] @ points[rest].T
        np.testing.assert_allclose(mean[own], across @ np.linalg.solve(within, y[rest]), atol=1e-6)
        left = points[own] @ points[own].T - across @ np.linalg.solve(within, across.T)
        np.testing.assert_allclose(variance[own], np.diag(left) + member.noise, rtol=1e-6)


def test_only_unseen_classes_are_widened_by_what_left_out_classes_ask_for() -> None:
    """Levels of classes that nothing about them tells: those left out miss by more than likeness lets expect."""
    train = planted(150, 4, noise=0.01)
    teacher = Teacher().fit(train)
    known, unseen = class_templates("211", "211_edge")[0], class_templates("532", "532_valley2")[0]
    assert teacher.calibration_of(known.geometry) == teacher.calibration
    asked = teacher.calibration_of(unseen.geometry)
    assert asked >= teacher.calibration
    site = unseen.decorate(["Pd"] * len(unseen))
    before = teacher.predict([site]).std_ev[0]
    for member in teacher.members:
        member.left_out = lambda y, groups: (np.zeros_like(y), np.full_like(y, 0.01))
    teacher._of_left_out.clear()  # residuals that are ten times as large as predicted
    assert teacher.calibration_of(known.geometry) == teacher.calibration
    assert teacher.predict([site]).std_ev[0] / before == pytest.approx(10 / asked, rel=1e-6)


@pytest.mark.parametrize("make", [Teacher, LinearBaseline])
def test_every_energy_model_keeps_the_protocol(make: type[EnergyModel], train: list[Site]) -> None:
    model = make()
    groups = [site.slab_id for site in train[:60]]
    assert model.fit(train[:60], energies(train[:60]), groups) is model
    assert model.geometry == "ideal"
    assert list(model.elements) == ELEMENTS
    sites = planted(8, 13)
    data = occupations(sites)
    mean, std = model.predict(sites)
    assert mean.shape == std.shape == (8,)
    assert np.all(std > 0)
    assert np.allclose(model.predict_occupations(data).mean_ev, mean, atol=1e-9)
    assert np.allclose(model.predict_occupations(data).std_ev, std, atol=1e-9)
    assert np.allclose(model.predict_mean(data), mean, atol=2e-5)
    # Whatever the order in which elements are named.
    assert np.allclose(model.predict_mean(data.with_elements(ELEMENTS[::-1])), mean, atol=2e-5)


def test_shares_find_what_was_planted(teacher: Teacher) -> None:
    shares = teacher.shares
    assert set(shares) == {*BLOCKS, "noise"}
    assert shares["second"] < 0.2 * shares["shell"]
    assert shares["noise"] < 5e-4


def test_predictions_do_not_depend_on_relaxation_order_or_batch(teacher: Teacher) -> None:
    sites = planted(30, 3)
    rng = np.random.default_rng(0)
    moved = [replace(s, positions=s.positions + rng.uniform(-0.08, 0.08, s.positions.shape)) for s in sites]
    turned = [
        replace(
            s,
            positions=s.positions[[1, 0, *range(2, len(s))]],
            symbols=(s.symbols[1], s.symbols[0], *s.symbols[2:]),
        )
        for s in sites
    ]
    mean, std = teacher.predict(sites)
    for other in (moved, turned):
        assert np.allclose(teacher.predict(other).mean_ev, mean, atol=1e-6)
    assert np.allclose(teacher.predict(sites[:1]).std_ev, std[:1], rtol=1e-3)
    assert len(teacher.predict([]).mean_ev) == 0


def test_tables_of_effects_give_the_same_means(teacher: Teacher) -> None:
    sites = planted(60, 4)
    template = class_templates("111", "111_bridge")[0]
    sites.append(template.decorate(["Au", *["Ru"] * (len(template) - 1)]))
    data = occupations(sites)
    assert np.allclose(teacher.predict_mean(data), teacher.predict_occupations(data).mean_ev, atol=2e-5)


def test_saved_model_predicts_the_same(teacher: Teacher, tmp_path: Path) -> None:
    sites = planted(40, 5)
    teacher.save(tmp_path / "teacher.safetensors")
    loaded = Teacher.load(tmp_path / "teacher.safetensors")
    for a, b in zip(loaded.predict(sites), teacher.predict(sites), strict=True):
        assert np.array_equal(a, b)
    assert (tmp_path / "teacher.safetensors").stat().st_size < 200_000


def test_same_seed_same_model(train: list[Site]) -> None:
    sites = planted(20, 6)
    first, second = (Teacher(slot_lengths=(0.5,), seed=3).fit(train[:90]).predict(sites) for _ in range(2))
    assert np.array_equal(first.mean_ev, second.mean_ev)
    assert np.array_equal(first.std_ev, second.std_ev)


def test_many_sites_share_a_basis(train: list[Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("catalysis.energies.teacher._EXACT_LIMIT", 150)
    monkeypatch.setattr("catalysis.energies.teacher._SEARCH_LIMIT", 120)
    model = Teacher(slot_lengths=(0.5,)).fit(train)
    assert len(model.basis) == 150
    test = planted(100, 7, noise=0.01)
    mean, std = model.predict(test)
    assert np.abs(mean - energies(test)).mean() < 0.02
    assert 0.6 < np.sqrt((((mean - energies(test)) / std) ** 2).mean()) < 1.5
    model.save(tmp_path / "large.safetensors")
    loaded = Teacher.load(tmp_path / "large.safetensors").predict(test)
    assert np.allclose(loaded.mean_ev, mean, atol=1e-6)
    assert np.allclose(loaded.std_ev, std, rtol=1e-4)


def test_baseline_is_class_plus_pair() -> None:
    sites = planted(300, 8)
    exact = [
        replace(s, energy_ev=CLASSES[s.site_class] + sum(BINDING[e] for e in s.symbols[:2])) for s in sites
    ]
    model = LinearBaseline().fit(exact)
    assert np.abs(model.predict(exact).mean_ev - energies(exact)).max() < 1e-3
    assert len(model.model.coef_) == len(CLASSES) + len({s.contact_elements for s in sites})


def test_group_folds_never_split_a_group_and_are_even() -> None:
    groups = [f"g{k}" for k in np.random.default_rng(0).integers(0, 60, 500)]
    folds = group_folds(groups, 5, 0)
    assert all(len({folds[i] for i, g in enumerate(groups) if g == name}) == 1 for name in set(groups))
    assert np.ptp(np.bincount(folds)) <= 10
    assert np.array_equal(folds, group_folds(groups, 5, 0))
    assert not np.array_equal(folds, group_folds(groups, 5, 1))


def test_bad_training_data_are_refused(train: list[Site]) -> None:
    with pytest.raises(InputError, match="19 sites with energies; expected at least 20"):
        Teacher().fit(train[:19])
    with pytest.raises(InputError, match="site-3: no energy"):
        check_training_data([*train[:3], replace(train[3], energy_ev=None), *train[4:30]], None)
    values = energies(train)
    values[7] = np.nan
    with pytest.raises(InputError, match="site-7: energy nan; expected a finite number"):
        LinearBaseline().fit(train, values)
    with pytest.raises(InputError, match=r"energies: shape \(3,\)"):
        Teacher().fit(train, values[:3])
    with pytest.raises(InputError, match=r"energies: all are 0\.5 eV"):
        Teacher().fit(train, np.full(len(train), 0.5))
    with pytest.raises(InputError, match="adsorbates: O, OH; expected one"):
        Teacher().fit([*train, *planted(3, 0, adsorbate="O")])


def test_bad_use_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not trained"):
        Teacher().predict(planted(1, 0))
    with pytest.raises(InputError, match="adsorbate O; the energy model knows OH"):
        teacher.predict(planted(1, 0, adsorbate="O"))
    with pytest.raises(InputError, match="no such file"):
        Teacher.load(tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        Teacher.load(tmp_path / "broken.safetensors")


def test_sites_of_an_unknown_facet_train_as_well(train: list[Site]) -> None:
    nameless = [replace(s, facet="", site_class=f"bridge_{s.site_class[4:]}") for s in train[:120]]
    model = Teacher(slot_lengths=(0.5,)).fit(nameless)
    assert not model.data.aligned.any()
    test = [replace(s, facet="", site_class=f"bridge_{s.site_class[4:]}") for s in planted(60, 9)]
    assert np.abs(model.predict(test).mean_ev - energies(test)).mean() < 0.04


def test_relaxed_geometry_helps_where_the_energy_depends_on_it(train: list[Site], tmp_path: Path) -> None:
    rng = np.random.default_rng(11)

    def lifted(sites: list[Site]) -> list[Site]:
        heights = rng.normal(0, 0.05, len(sites))
        return [
            replace(
                s,
                adsorbate_positions=s.adsorbate_positions + h * s.frame[2],
                energy_ev=float(s.energy_ev or 0.0) + 2.0 * float(h),
            )
            for s, h in zip(sites, heights, strict=True)
        ]

    known, test = lifted(train), lifted(planted(60, 12))
    ideal = Teacher(slot_lengths=(0.7,)).fit(known)
    relaxed = Teacher(slot_lengths=(0.7,), geometry="relaxed").fit(known)
    errors = [np.abs(model.predict(test).mean_ev - energies(test)).mean() for model in (ideal, relaxed)]
    assert errors[0] > 0.06
    assert errors[1] < 0.04
    relaxed.save(tmp_path / "relaxed.safetensors")
    loaded = Teacher.load(tmp_path / "relaxed.safetensors")
    assert np.array_equal(loaded.predict(test).mean_ev, relaxed.predict(test).mean_ev)
    with pytest.raises(InputError, match="uses relaxed geometry"):
        relaxed.predict_mean(occupations(test))
