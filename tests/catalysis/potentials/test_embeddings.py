from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111

import catalysis.potentials.embeddings as embeddings
from catalysis.energies.teacher import Teacher, _shares_of_the_best_mixture
from catalysis.models.evaluation import evaluate
from catalysis.potentials.embeddings import ENERGY_PARTS, AtomicDescription, Embedding, embed, get_embedding
from catalysis.structure.finding import find_sites
from catalysis.structure.sites import Site
from catalysis.structure.templates import class_templates
from catalysis.structure.user_sites import site_from_structure
from interpretkit.errors import InputError

ELEMENTS = ["Pd", "Pt", "Ru"]


class Counting:
    """A potential that describes atoms by sums over their neighbours, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Atoms] = []

    def __call__(self, atoms: Atoms) -> AtomicDescription:
        self.asked.append(atoms)
        gaps = atoms.get_all_distances(mic=True)
        near = np.exp(-(gaps**2) / 4)
        vectors = np.column_stack([atoms.numbers, near @ atoms.numbers, near.sum(1)])
        return AtomicDescription(vectors, vectors[:, 1] / 100)


@pytest.fixture
def potential(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Counting]:
    found = Counting()
    monkeypatch.setenv("INTERPRETKIT_CACHE", str(tmp_path / "cache"))
    made = Embedding(lambda device: found, {"last": 3}, "sums over neighbours", lambda: "sums 1", 0.0)
    monkeypatch.setattr(embeddings, "EMBEDDINGS", {"sums": made})
    embeddings._made.cache_clear()
    yield found
    embeddings._made.cache_clear()


def relaxed(n: int, seed: int, weight: float = 0.5) -> list[Site]:
    """Return sites whose oxygen stands at heights of its own, three to a slab, with an energy that follows it."""
    rng = np.random.default_rng(seed)
    template = class_templates("211", "211_edge")[0]
    sites = []
    for k in range(n):
        site = template.decorate([str(s) for s in rng.choice(ELEMENTS, len(template))])
        height = rng.normal(scale=0.15)
        moved = site.adsorbate_positions + height * site.frame[2]
        energy = weight * height + 0.2 * site.symbols[:2].count("Ru")
        sites.append(
            replace(
                site,
                adsorbate_positions=moved,
                site_id=f"{seed}-{k}",
                slab_id=f"slab-{seed}-{k // 3}",
                energy_ev=float(energy),
            )
        )
    return sites


def slab_with_oxygen() -> Atoms:
    slab = fcc111("Pt", (3, 3, 3), vacuum=8, periodic=True)
    slab.pbc = (True, True, False)
    slab.symbols[4], slab.symbols[20], slab.symbols[22] = "Ru", "Pd", "Ru"
    slab += Atoms("O", positions=[slab.positions[20] + [0, 0, 1.9]])
    slab.info.update(facet="111")
    return slab


@pytest.mark.parametrize("periodic", [True, False])
def test_rows_do_not_depend_on_how_a_site_is_turned_shifted_or_numbered(
    potential: Counting, periodic: bool
) -> None:
    frame = slab_with_oxygen()
    if not periodic:
        frame = site_from_structure(frame).to_atoms()
    rng = np.random.default_rng(0)
    first = embed([site_from_structure(frame)], "sums")[0]
    for seed in range(3):
        other = frame.copy()
        other.rotate(float(rng.uniform(10, 170)), rng.normal(size=3), rotate_cell=periodic)
        other.positions += rng.uniform(-3, 3, 3)
        if periodic:
            other.positions += other.cell.array[0] * seed  # all of it into the next cell
        other = other[rng.permutation(len(other))]
        assert np.allclose(first, embed([site_from_structure(other)], "sums")[0], rtol=1e-4, atol=1e-4)
    assert len(first) == 8 * 3 + len(ENERGY_PARTS)


def test_a_site_of_a_slab_is_described_in_it_and_another_filling_of_it_alone(potential: Counting) -> None:
    site = site_from_structure(slab_with_oxygen())
    embed([site], "sums")
    bare, full = potential.asked
    assert len(bare) == 27
    assert len(full) == 28
    assert all(atoms.pbc.all() for atoms in (bare, full))
    assert bare.cell.lengths()[0] == pytest.approx(slab_with_oxygen().cell.lengths()[0])
    changed = site.with_elements(["Pt"] * len(site))
    embed([changed], "sums")
    assert len(potential.asked[2]) == len(changed)
    # Moved metals are not where the slab has them.
    embed([replace(site, positions=site.positions * 1.02)], "sums")
    assert len(potential.asked[4]) == len(site)
    clean = fcc111("Pd", (3, 3, 3), vacuum=8, periodic=True)
    found = find_sites(clean, kinds=["bridge"])[0]
    embed([found], "sums")
    assert len(potential.asked[6]) == 27


def test_what_was_described_once_is_read_by_its_content(potential: Counting, tmp_path: Path) -> None:
    sites = relaxed(5, 0)
    first = embed([*sites, sites[2]], "sums")
    assert len(potential.asked) == 10
    assert np.array_equal(first[2], first[5])
    renamed = [replace(site, site_id="other", slab_id="", energy_ev=None) for site in sites[::-1]]
    assert np.array_equal(embed(renamed, "sums"), first[4::-1])
    assert len(potential.asked) == 10
    nearer = replace(sites[0], adsorbate_positions=sites[0].adsorbate_positions * 0.99)
    embed([nearer], "sums")
    assert len(potential.asked) == 12
    files = sorted((tmp_path / "cache").rglob("*.npz"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(b"torn")
    assert np.array_equal(embed(sites, "sums"), first[:5])
    assert len(potential.asked) == 22
    made = replace(embeddings.EMBEDDINGS["sums"], version=lambda: "sums 2")
    embeddings.EMBEDDINGS["sums"] = made  # type: ignore[index]
    embed(sites[:1], "sums")
    assert len(potential.asked) == 24


def test_a_law_of_the_embeddings_is_learned_and_kept(potential: Counting, tmp_path: Path) -> None:
    train, test = relaxed(90, 1), relaxed(40, 2)
    true = np.array([site.energy_ev for site in test], dtype=float)
    blind = np.abs(Teacher().fit(train).predict(test).mean_ev - true).mean()
    teacher = Teacher(embeddings="sums").fit(train)
    assert teacher.geometry == "relaxed"
    mean, std = teacher.predict(test)
    assert np.abs(mean - true).mean() < 0.25 * blind
    assert np.all(std > 0)
    teacher.save(tmp_path / "teacher.safetensors")
    again = Teacher.load(tmp_path / "teacher.safetensors").predict(test)
    assert np.allclose(again.mean_ev, mean, atol=1e-5)
    assert set(teacher.shares) >= {"class", "sums_binding_last", "sums_energies", "noise"}
    with pytest.raises(InputError, match=r"uses (relaxed geometry|embeddings)"):
        teacher.predict_occupations(Teacher().fit(train).occupations(test))


def test_each_of_several_potentials_has_members_of_its_own(
    potential: Counting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = replace(embeddings.EMBEDDINGS["sums"], layers={"first": 1, "rest": 2})
    monkeypatch.setitem(embeddings.EMBEDDINGS, "halves", made)  # type: ignore[arg-type]
    train, test = relaxed(90, 1), relaxed(40, 2)
    alone = [Teacher(embeddings=name).fit(train).predict(test).mean_ev for name in ("sums", "halves")]
    teacher = Teacher(embeddings="halves, sums").fit(train)
    assert teacher.embeddings == ("sums", "halves")  # in the order of the table, whatever was asked
    shares = teacher.weights.reshape(2, 2).sum(1)
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)
    assert np.allclose(teacher.predict(test).mean_ev, shares @ np.array(alone), atol=1e-6)
    assert {"sums_change_last", "halves_contacts_first", "halves_change_rest"} <= set(teacher.shares)
    teacher.save(tmp_path / "teacher.safetensors")
    again = Teacher.load(tmp_path / "teacher.safetensors")
    assert np.allclose(again.predict(test).mean_ev, teacher.predict(test).mean_ev, atol=1e-5)
    for given, told in (("sums,sums", "named twice"), (("sums", "none"), "'none'; expected one of")):
        with pytest.raises(InputError, match=told):
            Teacher(embeddings=given)


def test_predictions_count_by_what_they_err() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=2000)
    one, other, noise = y + rng.normal(scale=0.1, size=2000), y + rng.normal(scale=0.2, size=2000), -y
    # Independent errors: in the best mixture each counts by one over its variance.
    assert _shares_of_the_best_mixture(np.array([one, other]), y) == pytest.approx([0.8, 0.2], abs=0.03)
    assert _shares_of_the_best_mixture(np.array([one, noise]), y) == pytest.approx([1, 0], abs=0.01)


def test_what_is_the_same_for_all_sites_is_no_kind_of_effect(potential: Counting) -> None:
    # One adsorbed atom alone: there is no rest of it.
    sites = [
        replace(s, adsorbate="O", adsorbate_symbols=("O",), adsorbate_positions=s.adsorbate_positions[:1])
        for s in relaxed(30, 6)
    ]
    known = Teacher(embeddings="sums").fit(sites).shares
    assert "sums_binding_last" in known
    assert "sums_rest_last" not in known


def test_energies_of_test_sites_change_no_prediction(potential: Counting) -> None:
    train, test = relaxed(45, 3), relaxed(12, 4)
    wrong = [replace(site, energy_ev=9.0 - k) for k, site in enumerate(test)]
    first, second = (
        evaluate(train, other, embeddings="sums", vae=False)["predictions"] for other in (test, wrong)
    )
    for name in ("teacher_ev", "teacher_std_ev", "baseline_ev"):
        assert first[name] == second[name]


def test_what_is_missing_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="embeddings: 'soap'; expected one of chgnet, sevennet"):
        get_embedding("soap")
    monkeypatch.setattr(embeddings, "is_installed", lambda name: False)
    with pytest.raises(InputError, match=r"embeddings: chgnet is not installed; run, .*\[mlip\]"):
        Teacher(embeddings="chgnet")


@pytest.mark.parametrize(
    ("name", "package", "width"), [("chgnet", "chgnet", 64), ("sevennet", "sevenn", 5 * 128)]
)
def test_a_potential_tells_the_adsorbate_and_what_it_does(
    name: str, package: str, width: int, tmp_path: Path
) -> None:
    pytest.importorskip(package, reason="needs the extra mlip")
    site = relaxed(1, 5)[0]
    near = replace(site, adsorbate_positions=site.adsorbate_positions - 0.1 * site.frame[2])
    turned = site.to_atoms()
    turned.rotate(50, (1, 2, 3))
    turned.info.update(contacts=2)
    rows = embed([site, near, site_from_structure(turned)], name, folder=tmp_path)
    assert rows.shape == (3, 8 * width + len(ENERGY_PARTS))
    assert np.isfinite(rows).all()
    binding, bare = slice(0, width), slice(4 * width, 6 * width)
    assert np.array_equal(rows[0, bare], rows[1, bare])  # the same metals without the adsorbate
    assert np.abs(rows[0, binding] - rows[1, binding]).max() > 0.01
    assert np.allclose(rows[0], rows[2], rtol=1e-3, atol=2e-3)
    total = -2 if ENERGY_PARTS[-2] == "total" else None
    assert total is not None
    assert -20 < rows[0, total] < -3  # eV: what OH brings
