from __future__ import annotations

import numpy as np
import pytest

from catalysis.energies.by_geometry import TeacherPosterior
from catalysis.energies.teacher import Teacher
from catalysis.models.site_model import SHIPPED
from catalysis.structure.occupations import Occupations, filled
from catalysis.structure.templates import Geometry, class_templates
from interpretkit.errors import InputError


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(SHIPPED / "teacher.safetensors")


@pytest.fixture(scope="module")
def posterior(teacher: Teacher) -> TeacherPosterior:
    return TeacherPosterior(teacher, draws=400, seed=0)


def drawn(
    geometry: Geometry, elements: tuple[str, ...], n: int, shares: list[float]
) -> tuple[np.ndarray, Occupations]:
    table = np.random.default_rng(0).choice(len(elements), size=(n, len(geometry.columns)), p=shares)
    return table.astype(np.uint8), filled([geometry], np.zeros(n, int), elements, table.ravel())


GEOMETRIES = [("111", "111_bridge", 0), ("211", "211_valley", 0), ("532", "532_outer_higher_edge", 0)]


@pytest.mark.parametrize(("facet", "name", "variant"), GEOMETRIES)
def test_means_and_deviations_are_the_teachers(
    teacher: Teacher, posterior: TeacherPosterior, facet: str, name: str, variant: int
) -> None:
    geometry = class_templates(facet, name)[variant].geometry
    # The order of the names is the caller's; a rich and a poor composition.
    elements = ("Ru", "Pt", "Ir", "Pd", "Rh")
    part = posterior.of(geometry, elements)
    for shares in ([0.2] * 5, [0.9, 0.04, 0.02, 0.02, 0.02]):
        table, data = drawn(geometry, elements, 60, shares)
        expected = teacher.predict_occupations(data)
        found = part.predict(table)
        assert found.mean_ev == pytest.approx(expected.mean_ev, abs=1e-6)
        assert found.std_ev == pytest.approx(expected.std_ev, rel=1e-3)


def test_an_element_that_training_lacks_is_as_unsure_as_the_teacher_says(
    teacher: Teacher, posterior: TeacherPosterior
) -> None:
    geometry = class_templates("111", "111_bridge")[0].geometry
    table, data = drawn(geometry, ("Pt", "Ni"), 40, [0.5, 0.5])
    expected = teacher.predict_occupations(data)
    found = posterior.of(geometry, ("Pt", "Ni")).predict(table)
    assert found.mean_ev == pytest.approx(expected.mean_ev, abs=1e-6)
    assert found.std_ev == pytest.approx(expected.std_ev, rel=1e-3)


def test_a_geometry_that_training_lacks_is_as_unsure_as_the_teacher_says(
    teacher: Teacher, posterior: TeacherPosterior
) -> None:
    template = next(t for templates in (class_templates("221", "221_bridge_7-9"),) for t in templates)
    table, data = drawn(template.geometry, teacher.elements, 40, [0.2] * 5)
    expected = teacher.predict_occupations(data)
    found = posterior.of(template.geometry, teacher.elements).predict(table)
    assert found.mean_ev == pytest.approx(expected.mean_ev, abs=1e-6)
    assert found.std_ev == pytest.approx(expected.std_ev, rel=1e-3)


def test_drawn_laws_scatter_as_the_deviations_say_and_share_their_errors(posterior: TeacherPosterior) -> None:
    elements = posterior.teacher.elements
    for facet, name, variant in GEOMETRIES:
        part = posterior.of(class_templates(facet, name)[variant].geometry, elements)
        table, _ = drawn(part.geometry, elements, 50, [0.2] * 5)
        laws, (mean, std) = part.laws(table), part.predict(table)
        assert laws.shape == (50, 400)
        assert laws.mean(1) == pytest.approx(mean, abs=1e-5)  # they come in pairs about the mean
        # 200 independent draws of each variance, averaged over 50 sites.
        explained = (std**2 - part.noise_ev**2).mean()
        assert (laws.var(1)).mean() == pytest.approx(explained, rel=0.25)
    # Two sites that differ in one far slot have nearly the same error; two drawn ones need not.
    part = posterior.of(class_templates("111", "111_bridge")[0].geometry, elements)
    table, _ = drawn(part.geometry, elements, 50, [0.2] * 5)
    near = table.copy()
    near[:, -1] = (near[:, -1] + 1) % 5
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in zip(part.laws(table), part.laws(near), strict=True)]
    others = [np.corrcoef(a, b)[0, 1] for a, b in zip(part.laws(table), part.laws(near[::-1]), strict=True)]
    assert np.mean(pairs) > 0.8
    assert np.mean(np.abs(others)) < 0.5


def test_the_posterior_of_many_sites_is_the_subset_of_regressors(teacher: Teacher) -> None:
    small = Teacher(slot_lengths=(1.0,), seed=0)
    rows = np.arange(0, 1700, 5)
    data = teacher.data[rows]
    import catalysis.energies.teacher as module

    limit = module._EXACT_LIMIT
    module._EXACT_LIMIT = 150
    try:
        small._train(data, teacher.energies[rows], np.arange(len(rows)).astype(str))
    finally:
        module._EXACT_LIMIT = limit
    small.adsorbate = teacher.adsorbate
    assert small.members[0].left is not None
    geometry = class_templates("111", "111_bridge")[0].geometry
    part = TeacherPosterior(small, draws=200, seed=1).of(geometry, small.elements)
    table, sites = drawn(geometry, small.elements, 40, [0.2] * 5)
    expected = small.predict_occupations(sites)
    found = part.predict(table)
    assert found.mean_ev == pytest.approx(expected.mean_ev, abs=1e-6)
    assert found.std_ev == pytest.approx(expected.std_ev, rel=2e-3)
    explained = (found.std_ev**2 - part.noise_ev**2).mean()
    assert part.laws(table).var(1).mean() == pytest.approx(explained, rel=0.3)


def test_what_cannot_be_asked_is_refused(teacher: Teacher) -> None:
    with pytest.raises(InputError, match="not trained"):
        TeacherPosterior(Teacher())
    relaxed = Teacher(geometry="relaxed")
    relaxed.members = teacher.members
    with pytest.raises(InputError, match="relaxed geometry"):
        TeacherPosterior(relaxed)
    geometry = class_templates("111", "111_bridge")[0].geometry
    part = TeacherPosterior(teacher).of(geometry, teacher.elements)
    with pytest.raises(InputError, match="draws"):
        part.laws(np.zeros((1, len(geometry.columns)), np.uint8))
    assert len(part.predict(np.zeros((0, len(geometry.columns)), np.uint8)).mean_ev) == 0
