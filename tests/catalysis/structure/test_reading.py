"""Files, folders, data bases and trajectories as people have them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read, write

from catalysis.structure.finding import find_sites
from catalysis.structure.reading import iterate_structures, read_structures
from catalysis.structure.surfaces import build_slab
from catalysis.structure.user_sites import read_sites
from interpretkit.errors import InputError


def decorated(seed: int, site: str = "fcc", symbol: str = "O") -> Atoms:
    """Return a small slab of its own with an atom on it."""
    slab = fcc111("Cu", (3, 3, 4), vacuum=7)
    chosen = np.random.default_rng(seed).choice(len(slab), 6, replace=False)
    symbols = slab.get_chemical_symbols()
    for index in chosen:
        symbols[index] = "Ag"
    slab.set_chemical_symbols(symbols)
    add_adsorbate(slab, symbol, {"ontop": 1.8, "bridge": 1.4}.get(site, 1.2), site)
    slab.info = {}
    return slab


def relaxation(seed: int = 0, steps: int = 4, drop: float = 0.1) -> list[Atoms]:
    """Return the steps of a relaxation that lowers the adsorbate, the last one at its place."""
    frames = []
    for step in range(steps):
        atoms = decorated(seed)
        atoms.positions[-1, 2] += drop * (steps - 1 - step)
        atoms.positions[:-1] += 0.01 * np.sin(step + np.arange(3))
        atoms.calc = SinglePointCalculator(atoms, energy=-10.0 - step)
        frames.append(atoms)
    return frames


def write_trajectory(path: Path, frames: list[Atoms]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, frames)


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read_sites(path, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert "expected" in text
    return text


# --- relaxations


@pytest.mark.parametrize("name", ["relax.traj", "steps.extxyz", "steps.xyz"])
def test_a_relaxation_is_one_site_its_last_step(tmp_path: Path, name: str) -> None:
    frames = relaxation()
    write(tmp_path / name, frames)
    (site,) = read_sites(tmp_path / name)
    np.testing.assert_allclose(site.adsorbate_positions[0], frames[-1].positions[-1], atol=1e-6)
    (found,) = iterate_structures(tmp_path / name)
    assert found.steps == 4


def test_a_tree_of_calculations_is_named_by_its_folders(tmp_path: Path) -> None:
    for k in range(3):
        write_trajectory(tmp_path / "tree" / f"slab{k}" / "relax.traj", relaxation(seed=k))
        (tmp_path / "tree" / f"slab{k}" / "relax.log").write_text("BFGS: 0 -10.0\n")
    sites = read_sites(tmp_path / "tree")
    assert [(s.slab_id, s.site_id) for s in sites] == [(f"slab{k}",) * 2 for k in range(3)]
    (alone,) = read_sites(tmp_path / "tree" / "slab1" / "relax.traj")
    assert alone.slab_id == "slab1"
    deeper = tmp_path / "deeper"
    for adsorbate in ("O", "N"):
        for k in range(2):
            write_trajectory(deeper / adsorbate / f"s{k}" / "opt.traj", relaxation(seed=k))
    assert sorted(s.slab_id for s in read_sites(deeper)) == ["N/s0", "N/s1", "O/s0", "O/s1"]


def test_several_relaxations_in_one_file_are_one_site_each(tmp_path: Path) -> None:
    frames = [*relaxation(0), *relaxation(1, steps=6), *relaxation(2, steps=1)]
    write(tmp_path / "all.traj", frames)
    sites = read_sites(tmp_path / "all.traj")
    assert [site.site_id for site in sites] == ["all:3", "all:9", "all:10"]
    assert len({site.slab_id for site in sites}) == 3
    for site, last in zip(sites, (3, 9, 10), strict=True):
        np.testing.assert_allclose(site.adsorbate_positions[0], frames[last].positions[-1])


def test_an_atom_that_crosses_the_boundary_takes_a_small_step(tmp_path: Path) -> None:
    frames = relaxation()
    for frame in frames[2:]:
        frame.positions[-1] += frame.cell.array[0] - frame.cell.array[1]
    write(tmp_path / "wrapped.traj", frames)
    assert len(read_sites(tmp_path / "wrapped.traj")) == 1


def test_sites_of_one_slab_and_different_slabs_stay_apart(tmp_path: Path) -> None:
    places = ("fcc", "hcp", "bridge", "ontop")
    write(tmp_path / "places.extxyz", [decorated(0, place) for place in places])
    sites = read_sites(tmp_path / "places.extxyz")
    assert [site.contacts for site in sites] == [3, 3, 2, 1]
    assert len({site.site_id for site in sites}) == 4
    assert {site.slab_id for site in sites} == {"places:0"}  # they share atoms, and belong into one fold
    frames = [atoms.info for _, _, atoms in read_structures(tmp_path / "places.extxyz")]
    assert [info.get("slab_id", "places:0") for info in frames] == ["places:0"] * 4
    write(tmp_path / "slabs.extxyz", [decorated(k) for k in range(5)])
    slabs = read_sites(tmp_path / "slabs.extxyz")
    assert [site.slab_id for site in slabs] == [f"slabs:{k}" for k in range(5)]
    strained = []
    for scale in (0.99, 1.0, 1.01):
        atoms = decorated(0)
        atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
        strained.append(atoms)
    write(tmp_path / "strained.traj", strained)
    assert len({site.slab_id for site in read_sites(tmp_path / "strained.traj")}) == 3


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("slab_id", ["a", "b", "c", "d"]),
        ("site_id", [1, 2, 3, 4]),
        ("adsorption_energy_eV", [-0.1, -0.2, -0.3, -0.4]),
        ("source", ["p", "q", "r", "s"]),
    ],
)
def test_frames_that_say_what_they_are_are_no_steps(tmp_path: Path, key: str, values: list[object]) -> None:
    frames = relaxation()
    for frame, value in zip(frames, values, strict=True):
        frame.info[key] = value
    write(tmp_path / "frames.extxyz", frames)
    sites = read_sites(tmp_path / "frames.extxyz")
    assert len(sites) == 4
    assert len({site.slab_id for site in sites}) == (4 if key == "slab_id" else 1)


def test_numbers_of_a_step_do_not_make_it_a_site(tmp_path: Path) -> None:
    frames = relaxation()
    for step, frame in enumerate(frames):
        frame.info.update(step=step, fmax=1.0 / (step + 1), converged=step == 3)
    write(tmp_path / "frames.extxyz", frames)
    assert len(read_sites(tmp_path / "frames.extxyz")) == 1


def test_the_output_of_a_program_is_one_calculation_however_far_it_steps(tmp_path: Path) -> None:
    frames = relaxation(drop=0.9, steps=3)
    write(tmp_path / "XDATCAR", frames, format="vasp-xdatcar")
    (found,) = iterate_structures(tmp_path / "XDATCAR")
    assert found.steps == 3
    assert found.label == tmp_path.name
    symbols = found.atoms.get_chemical_symbols()
    oxygen = found.atoms.positions[symbols.index("O")]
    assert oxygen[2] == pytest.approx(frames[-1].positions[-1, 2], abs=1e-3)


def test_of_the_files_of_one_calculation_the_most_telling_is_read(tmp_path: Path) -> None:
    for k in range(2):
        folder = tmp_path / "calc" / f"run{k}"
        folder.mkdir(parents=True)
        frames = relaxation(k)
        write(folder / "POSCAR", frames[0], format="vasp", sort=True)
        write(folder / "CONTCAR", frames[-1], format="vasp", sort=True)
        write(folder / "XDATCAR", frames, format="vasp-xdatcar")
        for name in ("INCAR", "KPOINTS", "OSZICAR", "POTCAR"):
            (folder / name).write_text("not a structure\n")
        (folder / "OUTCAR").touch()  # empty: the run was killed
    sites = read_sites(tmp_path / "calc")
    assert [site.slab_id for site in sites] == ["run0", "run1"]


# --- data bases


def test_energies_of_a_data_base_may_be_key_value_pairs_or_data(tmp_path: Path) -> None:
    for name in ("rows.db", "rows.json"):
        rows = connect(str(tmp_path / name))
        rows.write(decorated(0), adsorption_energy_eV=-0.5, slab_id="a1", facet="fcc111")
        rows.write(decorated(0), data={"adsorption_energy_eV": -0.7, "facet": "fcc111"})
        total = decorated(1)
        total.calc = SinglePointCalculator(total, energy=-123.0)
        rows.write(total, key_value_pairs={"adsorption_energy_eV": -0.9})
        rows.write(
            decorated(2), adsorption_energy_eV=-1.0, data={"adsorption_energy_eV": -99.0, "array": [1, 2]}
        )
        rows.write(decorated(3))
        del connect(str(tmp_path / name))[3]
        sites = read_sites(tmp_path / name)
        assert [site.energy_ev for site in sites] == [-0.5, -0.7, -1.0, None]
        assert [site.slab_id for site in sites] == ["a1", "rows:2", "rows:4", "rows:5"]
        assert [site.facet for site in sites] == ["111", "111", "", ""]
        text = refusal(tmp_path / name, require_energies=True)
        assert f"{name}, row 5: no energy" in text


def test_a_folder_of_json_data_bases_is_read_and_other_json_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for k in range(2):
        atoms = decorated(k)
        rows = connect(str(folder / f"slab{k}.json"))
        rows.write(atoms, adsorption_energy_eV=-0.1 * k)
    (folder / "manifest.json").write_text(json.dumps({"ids": "none"}))
    (folder / "broken.json").write_text("{")
    (folder / "notes.md").write_text("# notes")
    assert [(s.slab_id, s.energy_ev) for s in read_sites(folder)] == [("slab0", 0.0), ("slab1", -0.1)]
    write(folder / "plain.json", decorated(5))
    assert len(read_sites(folder)) == 3
    for name in ("slab0.json", "slab1.json", "plain.json"):
        (folder / name).unlink()
    assert "empty folder" in refusal(folder)


# --- names, entries and formats


def test_files_of_the_same_name_are_named_by_their_folders(tmp_path: Path) -> None:
    names = ["a/POSCAR", "b/POSCAR", "c/slab.extxyz", "c/other.extxyz", "d/slab.extxyz", "d/e/unique.cif"]
    for k, name in enumerate(names):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, decorated(k))
    labels = [label for _, label, _ in read_structures(tmp_path / "data")]
    assert labels == ["a", "b", "other", "c", "unique", "d"]
    write(tmp_path / "data" / "c" / "slab.cif", decorated(9))
    labels = [label for _, label, _ in read_structures(tmp_path / "data")]
    assert len(set(labels)) == len(labels) == 7


def test_the_folder_that_a_command_left_is_read_once(tmp_path: Path) -> None:
    out = tmp_path / "labelled"
    out.mkdir()
    usable = [decorated(k) for k in range(2)]
    for atoms in usable:
        atoms.info["adsorption_energy_eV"] = -0.3
    write(out / "sites.extxyz", usable)
    write(out / "lost.extxyz", [decorated(7)])
    (out / "labels.csv").write_text("site_id\n")
    (out / "manifest.json").write_text("{}")
    assert len(read_sites(out, require_energies=True)) == 2
    (out / "manifest.json").unlink()
    assert len(read_sites(out)) == 3


def test_clean_slabs_give_their_sites_when_asked(tmp_path: Path) -> None:
    slab = build_slab("111", "PtPd", seed=0)
    write(tmp_path / "clean.cif", slab)
    assert "no adsorbate" in refusal(tmp_path)
    sites = read_sites(tmp_path, facet="111", find_kinds=("hollow",), find_adsorbate="O")
    assert {site.site_class for site in sites} == {"111_fcc_9-9-9", "111_hcp_9-9-9"}
    assert {site.slab_id for site in sites} == {"clean"}


@pytest.mark.parametrize("entry", ["facet=", 'facet=""', "facet= slab_id=", 'site_class="" facet='])
def test_an_empty_entry_of_extxyz_counts_as_absent(tmp_path: Path, entry: str) -> None:
    atoms = decorated(0)
    write(tmp_path / "a.extxyz", atoms)
    lines = (tmp_path / "a.extxyz").read_text().split("\n")
    head, tail = lines[1].split("Properties=")
    for comment in (f"{head}{entry} Properties={tail}", f"{lines[1]} {entry}", f"{entry} {lines[1]}"):
        (tmp_path / "a.extxyz").write_text("\n".join([lines[0], comment, *lines[2:]]))
        (site,) = read_sites(tmp_path / "a.extxyz")
        assert (site.facet, site.contacts, site.slab_id) == ("", 3, "a")
    (tmp_path / "a.extxyz").write_text("\n".join([lines[0], lines[1] + " facet=111 e = 2.5 f=", *lines[2:]]))
    (site,) = read_sites(tmp_path / "a.extxyz", energy_key="e")
    assert (site.facet, site.energy_ev) == ("111", 2.5)


@pytest.mark.parametrize(
    ("text", "name"),
    [("010", "010"), ("1-10", "1,-1,0"), ("110", "110"), ("hcp0001", "0001"), ("fcc001", "001")],
)
def test_a_facet_survives_what_extxyz_makes_of_it(tmp_path: Path, text: str, name: str) -> None:
    atoms = decorated(0)
    write(tmp_path / "a.extxyz", atoms)
    lines = (tmp_path / "a.extxyz").read_text().split("\n")
    lines[1] += f" facet={text}"
    (tmp_path / "a.extxyz").write_text("\n".join(lines))
    assert read_sites(tmp_path / "a.extxyz")[0].facet == name


def test_a_facet_that_extxyz_has_spoilt_is_asked_for(tmp_path: Path) -> None:
    for text in ("0001", "001"):
        atoms = decorated(0)
        write(tmp_path / "a.extxyz", atoms)
        lines = (tmp_path / "a.extxyz").read_text().split("\n")
        lines[1] += f" facet={text}"
        (tmp_path / "a.extxyz").write_text("\n".join(lines))
        text = refusal(tmp_path / "a.extxyz")
        assert "a.extxyz: facet 1 may have been 001 or 0001" in text
        assert read_sites(tmp_path / "a.extxyz", facet="0001")[0].site_class == "0001_fcc_9-9-9"


@pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)])
@pytest.mark.parametrize("name", ["a.extxyz", "b.cif", "c.traj", "POSCAR", "d.db", "e.json"])
def test_compressed_files_are_read(tmp_path: Path, suffix: str, opener: object, name: str) -> None:
    write(tmp_path / name, decorated(0))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    with opener(tmp_path / f"{name}{suffix}", "wb") as stream:  # type: ignore[operator]
        stream.write(content)
    (site,) = read_sites(tmp_path)
    assert site.contacts == 3
    assert site.slab_id == (tmp_path.name if name == "POSCAR" else Path(name).stem)


def test_damaged_compressed_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.extxyz", decorated(0))
    packed = gzip.compress((tmp_path / "a.extxyz").read_bytes())
    torn = bytearray(packed)
    torn[len(torn) // 2 : len(torn) // 2 + 40] = bytes(40)
    for content in (
        b"no gzip at all",
        packed[: len(packed) // 2],
        packed[:-9] + b"123456789",
        packed[:-5],
        bytes(torn),
    ):
        (tmp_path / "b.extxyz.gz").write_bytes(content)
        assert "b.extxyz.gz: a damaged .gz file" in refusal(tmp_path / "b.extxyz.gz")
    (tmp_path / "b.extxyz.gz").write_bytes(gzip.compress(b""))
    assert "an empty file" in refusal(tmp_path / "b.extxyz.gz")


@pytest.mark.parametrize("name", ["a.extxyz", "a.extxyz.gz", "a.traj", "a.db"])
def test_frames_come_one_after_the_other_and_a_bad_one_is_named(tmp_path: Path, name: str) -> None:
    bare = tmp_path / name.removesuffix(".gz")
    frames = [decorated(k) for k in range(5)]
    if bare.suffix == ".db":
        for frame in frames:
            connect(str(bare)).write(frame)
    else:
        write(bare, frames)
    content = bare.read_bytes()
    if bare.suffix == ".extxyz":
        lines = content.decode().splitlines()
        size = len(lines) // 5
        # What comes after it is not read before it is asked for.
        lines[3 * size + 7] = "Cu 1.0 nowhere 2.0"
        content = "\n".join(lines).encode()
        whole = 2  # the third is only known to be no step of a path when the fourth has been read
    else:
        whole = 5
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = iterate_structures(tmp_path / name)
    for k in range(whole):
        assert np.array_equal(next(found).atoms.numbers, frames[k].numbers)
    if whole == 5:
        assert next(found, None) is None
        return
    with pytest.raises(InputError, match=rf"{name}, frame 3: cannot be read \(.*nowhere"):
        next(found)


def test_empty_lines_between_frames_end_nothing(tmp_path: Path) -> None:
    frames = [decorated(k) for k in range(3)]
    parts = []
    for frame in frames:
        write(tmp_path / "one.extxyz", frame)
        parts.append((tmp_path / "one.extxyz").read_text())
    (tmp_path / "a.extxyz").write_text("\n" + "\n \n".join(parts) + "\n\n")
    sites = read_sites(tmp_path / "a.extxyz")
    assert [site.site_id for site in sites] == ["a:0", "a:1", "a:2"]
    (tmp_path / "a.extxyz").write_text(parts[0] + "\n" + parts[1] + "and so on\n")
    assert "a.extxyz, frame 2: cannot be read" in refusal(tmp_path / "a.extxyz")
    (tmp_path / "a.extxyz").write_text(parts[0] + parts[1][: len(parts[1]) // 2])
    assert "a.extxyz, frame 1: cannot be read" in refusal(tmp_path / "a.extxyz")
    (tmp_path / "a.extxyz").write_text("\n\n")
    assert "no structures" in refusal(tmp_path / "a.extxyz")


def test_lines_that_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.extxyz", [decorated(0), decorated(1)])
    content = (tmp_path / "a.extxyz").read_bytes()
    monkeypatch.setattr("catalysis.structure.reading._LARGEST_FRAME", 10_000)
    (tmp_path / "b.extxyz.gz").write_bytes(gzip.compress(content.replace(b"pbc=", b"x" * 20_000 + b" pbc=")))
    assert "a frame of more than" in refusal(tmp_path / "b.extxyz.gz")
    (tmp_path / "b.extxyz.gz").write_bytes(gzip.compress(content + b"0" * 10**6))
    assert "b.extxyz.gz, frame 2: " in refusal(tmp_path / "b.extxyz.gz")
    assert len(read_sites(tmp_path / "a.extxyz")) == 2


def test_a_name_with_an_at_sign_is_a_name(tmp_path: Path) -> None:
    write(tmp_path / "PtOH.traj", [decorated(0), decorated(1)])
    (tmp_path / "PtOH.traj").rename(tmp_path / "OH@0.traj")
    assert len(read_sites(tmp_path / "OH@0.traj")) == 2


def test_total_energies_are_never_taken_and_the_entries_are_listed(tmp_path: Path) -> None:
    atoms = decorated(0)
    atoms.calc = SinglePointCalculator(atoms, energy=-123.4, free_energy=-123.5)
    atoms.info.update(slab_id="x0", e_ads=-0.4)
    write(tmp_path / "a.extxyz", atoms)
    text = refusal(tmp_path / "a.extxyz", require_energies=True)
    assert "the frame has e_ads, slab_id; a calculator's total energy is never taken" in text
    assert "total energy" in refusal(tmp_path / "a.extxyz", require_energies=True, energy_key="energy")
    assert read_sites(tmp_path / "a.extxyz")[0].energy_ev is None
    assert read_sites(tmp_path / "a.extxyz", energy_key="e_ads")[0].energy_ev == -0.4


def test_an_energy_of_the_wrong_kind_names_its_frame(tmp_path: Path) -> None:
    frames = [decorated(k) for k in range(3)]
    for frame in frames:
        frame.info["adsorption_energy_eV"] = -0.1
    frames[2].info["adsorption_energy_eV"] = "-1.2 eV"
    write(tmp_path / "a.extxyz", frames)
    assert "a.extxyz, frame 2: adsorption_energy_eV is '-1.2 eV'" in refusal(tmp_path / "a.extxyz")
    rows = connect(str(tmp_path / "a.db"))
    rows.write(decorated(0), data={"adsorption_energy_eV": [1, 2]})
    assert "adsorption_energy_eV is [1, 2]" in refusal(tmp_path / "a.db")


def test_many_frames_are_read_quickly_and_alike(tmp_path: Path) -> None:
    frames = []
    for k in range(40):
        slab = build_slab("111", "IrPdPtRhRu", seed=k)
        site = find_sites(slab, kinds=("hollow",))[k % 18]
        atoms = slab + Atoms(site.adsorbate_symbols, positions=site.adsorbate_positions)
        atoms.info = {"facet": "111", "adsorption_energy_eV": 0.01 * k, "slab_id": f"s{k}"}
        frames.append(atoms)
    write(tmp_path / "a.extxyz", frames * 5)
    (tmp_path / "b.extxyz.gz").write_bytes(gzip.compress((tmp_path / "a.extxyz").read_bytes()))
    began = time.process_time()
    sites = read_sites(tmp_path / "b.extxyz.gz", require_energies=True)
    spent = time.process_time() - began
    assert len(sites) == 200
    assert spent < 200 * 8e-3  # 2 ms each where this was written; loose, for slow machines
    for first, second in zip(sites[:40], sites[160:], strict=True):
        assert (first.symbols, first.site_class, first.energy_ev) == (
            second.symbols,
            second.site_class,
            second.energy_ev,
        )
        np.testing.assert_array_equal(first.positions, second.positions)
    assert len(read(tmp_path / "a.extxyz", ":")) == 200
