"""The whole way, on a small alloy with planted energies: slabs -> fingerprints, training, evaluation, design."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from catalysis.potentials import calculators as potentials
from catalysis.structure.elements import parse_elements
from catalysis.structure.finding import find_sites
from catalysis.structure.reading import read_structures
from catalysis.structure.surfaces import build_slab
from catalysis.structure.user_sites import read_sites
from catalysis.studies.design import search
from interpretkit.cli import main
from interpretkit.errors import InputError

Run = Callable[..., tuple[int, dict[str, Any] | None, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and gives exit code, JSON of the last line of stdout, and stderr."""

    def call(*arguments: str | Path) -> tuple[int, dict[str, Any] | None, str]:
        with pytest.raises(SystemExit) as ended:
            main(["catalyst", *map(str, arguments)])
        out, err = capfd.readouterr()
        assert len(out.splitlines()) <= 1
        code = ended.value.code
        return (0 if code is None else int(code)), (json.loads(out) if out.strip() else None), err

    return call


@pytest.fixture
def few_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let designs be sought from few points, where how good they are is not the question."""
    defaults = search.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "n_starts", 1500)
    monkeypatch.setitem(defaults, "n_random", 3000)


@pytest.fixture(scope="module")
def slabs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of slabs with an adsorbate; the energy is additive in the contacts and differs by class."""
    folder = tmp_path_factory.mktemp("slabs")
    strength = {"Cu": -0.2, "Pt": 0.3, "Ni": -0.6}
    noise = np.random.default_rng(0)
    for number in range(24):
        facet = ("111", "100")[number % 2]
        slab = build_slab(facet, "CuPtNi", seed=number)
        frames = []
        for site in find_sites(slab)[:3]:
            frame = slab + Atoms(site.adsorbate_symbols, positions=site.adsorbate_positions)
            energy = sum(strength[symbol] for symbol in site.symbols[:2]) - 0.3 * (facet == "100")
            frame.info = {
                "facet": facet,
                "slab_id": f"slab{number}",
                "E_ads": float(energy + noise.normal(0, 0.01)),
            }
            frames.append(frame)
        write(folder / f"slab{number}.extxyz", frames)
    return folder


@pytest.fixture(scope="module")
def model(slabs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    with pytest.raises(SystemExit) as ended:
        main(["catalyst", "train", "--data", str(slabs), "--energy-key", "E_ads", "--quick", "--quiet",
              "--out", str(folder)])  # fmt: skip
    assert not ended.value.code
    return folder


def test_a_model_is_trained_on_a_folder_of_slabs(model: Path) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    numbers = manifest["summary"]
    # The planted energies are additive, so teacher and baseline find them up to the noise of 0.01 eV.
    assert numbers["mae_ev"] < 0.03
    assert numbers["baseline_mae_ev"] < 0.03
    assert numbers["n_train"] + numbers["n_test"] == 72
    assert (model / "report.html").stat().st_size > 10_000


def test_designs_of_a_users_own_model(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "designs"
    code, found, _ = run(
        "design",
        "--model",
        model,
        "--target-ev",
        "0.3",
        "--window-ev",
        "0.15",
        "--n",
        "6",
        "--out",
        out,
        "--json",
    )
    assert code == 0
    assert found is not None
    assert found["n_designs"] == 6
    assert 0 <= found["random_share_in_window"] <= 1
    sites = read_sites(out / "designs.extxyz")
    slabs = read(out / "slabs.extxyz", index=":")
    assert len(sites) == len(slabs) == 6
    assert {site.site_class for site in sites} <= {"111_bridge", "100_bridge"}
    assert {symbol for site in sites for symbol in site.symbols} <= {"Cu", "Pt", "Ni"}
    assert len({tuple(site.symbols) for site in sites}) == 6
    # Each slab, read as any user's, holds its design.
    again = read_sites(out / "slabs.extxyz")
    assert [site.contact_elements for site in again] == [site.contact_elements for site in sites]
    assert 'src="data:image/webp;base64' in (out / "report.html").read_text()


@pytest.mark.usefixtures("few_starts")
def test_the_search_may_be_restricted(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "designs"
    code, _, _ = run(
        "design",
        "--model",
        model,
        "--n",
        "4",
        "--facets",
        "100",
        "--elements",
        "Cu,Ni",
        "--out",
        out,
        "--json",
    )
    assert code == 0
    sites = read_sites(out / "designs.extxyz")
    assert {site.facet for site in sites} == {"100"}
    assert {symbol for site in sites for symbol in site.symbols} <= {"Cu", "Ni"}


@pytest.mark.usefixtures("few_starts")
def test_the_same_seed_gives_the_same_designs(run: Run, model: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        run("design", "--model", model, "--n", "5", "--seed", "3", "--out", tmp_path / name, "--json")
    first, second = ((tmp_path / name / "designs.csv").read_text() for name in ("first", "second"))
    assert first == second


def test_evaluation_gives_the_promised_numbers(run: Run, slabs: Path, tmp_path: Path) -> None:
    code, found, _ = run(
        "evaluate", "--train", slabs, "--folds", "2", "--energy-key", "E_ads", "--quick", "--out", tmp_path / "e",
        "--json",
    )  # fmt: skip
    assert code == 0
    assert found is not None
    promised = {"mae_ev", "vae_mae_ev", "baseline_mae_ev", "rmse_ev", "r2", "n_train", "n_test", "per_class"}
    assert promised <= set(found)
    assert found["n_test"] == 72
    assert set(found["per_class"]) == {"111_bridge", "100_bridge"}
    assert found["mae_ev"] < 0.03


def test_fingerprints_of_a_folder(run: Run, slabs: Path, tmp_path: Path) -> None:
    code, found, _ = run("fingerprint", slabs, "--out", tmp_path / "f", "--json")
    assert code == 0
    assert found is not None
    assert found["n_aligned"] == 72
    arrays = np.load(tmp_path / "f" / "fingerprints.npz", allow_pickle=False)
    assert arrays["coordination"].shape == (72, 3, 40)
    # At the largest threshold a site hangs together.
    assert np.all(arrays["coordination"][:, 0, -1] == 1)


def test_labels_by_effective_medium_theory(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "slab.cif", build_slab("111", "PtCu", seed=0, min_repeat_angstrom=5.0))
    code, found, _ = run(
        "label", tmp_path / "slab.cif", "--calculator", "emt", "--kinds", "hollow", "--adsorbate", "O",
        "--facet", "111", "--absolute", "--out", tmp_path / "labelled", "--json",
    )  # fmt: skip
    assert code == 0
    assert found is not None
    sites = read_sites(tmp_path / "labelled" / "sites.extxyz", require_energies=True)
    assert len(sites) == found["n_usable"]
    assert {site.site_class for site in sites} <= {"111_fcc_9-9-9", "111_hcp_9-9-9"}
    assert list(tmp_path.glob(".labelled*")) == []


def test_labels_of_slabs_without_a_facet_are_read_back(run: Run, tmp_path: Path) -> None:
    for number in range(2):
        slab = build_slab("111", "PtCu", seed=number, min_repeat_angstrom=5.0)
        slab.info.clear()
        (tmp_path / "slabs").mkdir(exist_ok=True)
        write(tmp_path / "slabs" / f"{number}.cif", slab)
    code, found, err = run(
        "label", tmp_path / "slabs", "--calculator", "emt", "--kinds", "hollow", "--adsorbate", "O",
        "--out", tmp_path / "labelled", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert found is not None
    # An empty entry would be read together with its neighbour.
    assert "facet" not in (tmp_path / "labelled" / "sites.extxyz").read_text()
    sites = read_sites(tmp_path / "labelled" / "sites.extxyz", require_energies=True)
    assert {site.facet for site in sites} == {""}
    assert {site.slab_id for site in sites} == {"0", "1"}
    assert any("facet" in warning for warning in found["warnings"])


def test_sites_of_a_small_cell_are_all_read_back(run: Run, tmp_path: Path) -> None:
    # Three atoms in the surface: each pair of them makes three bridges, by different images.
    write(tmp_path / "slab.cif", build_slab("111", "PtCu", seed=0, min_repeat_angstrom=4.0))
    code, found, err = run(
        "label", tmp_path / "slab.cif", "--calculator", "emt", "--adsorbate", "O", "--out", tmp_path / "out", "--json"
    )  # fmt: skip
    assert code == 0, err
    assert found is not None
    assert found["n_labelled"] == 9
    sites = read_sites(tmp_path / "out" / "sites.extxyz", require_energies=True)
    assert len({site.site_id for site in sites}) == len(sites) == found["n_usable"]


def test_energies_refer_to_the_adsorbate_that_a_slab_carries(run: Run, tmp_path: Path) -> None:
    slab = build_slab("111", "Pt", seed=0, min_repeat_angstrom=5.0)
    frames = []
    for adsorbate in ("O", "N"):
        site = find_sites(slab, kinds=("hollow",), adsorbate=adsorbate)[0]
        frames.append(slab + Atoms(site.adsorbate_symbols, positions=site.adsorbate_positions))
    write(tmp_path / "slabs.extxyz", frames)
    energies, references = {}, {}
    for name, options in (("zero", []), ("absolute", ["--absolute"])):
        code, found, err = run(
            "label", tmp_path / "slabs.extxyz", "--calculator", "emt", *options, "--out", tmp_path / name, "--json"
        )  # fmt: skip
        assert code == 0, err
        assert found is not None
        energies[name] = [site.energy_ev for site in read_sites(tmp_path / name / "sites.extxyz")]
        if name == "zero":
            references = found["reference_ev"]
    assert set(references) == {"O", "N"}
    shifts = np.subtract(energies["absolute"], energies["zero"])
    np.testing.assert_allclose(shifts, [references["O"], references["N"]], atol=1e-6)
    assert abs(references["O"] - references["N"]) > 0.01


def test_a_missing_potential_is_told_before_anything_is_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(potentials, "is_installed", lambda name: False)
    (tmp_path / "slabs").mkdir()
    code, _, err = run("label", tmp_path / "slabs", "--out", tmp_path / "out")
    assert code == 2
    assert 'pip install -c constraints.txt ".[mlip]"' in err
    assert "--calculator emt" in err
    assert len(err.splitlines()) == 1


def test_fingerprints_of_clean_slabs(run: Run, tmp_path: Path) -> None:
    slab = build_slab("111", "PtCu", seed=0, min_repeat_angstrom=5.0)
    (tmp_path / "slabs").mkdir()
    write(tmp_path / "slabs" / "a.vasp", slab)
    found = {}
    for kinds in ("bridge", "top"):
        out = tmp_path / kinds
        code, found[kinds], err = run(
            "fingerprint", tmp_path / "slabs", "--kinds", kinds, "--facet", "111", "--out", out, "--json"
        )
        assert code == 0, err
        expected = find_sites(slab, kinds=(kinds,))
        arrays = np.load(out / "fingerprints.npz", allow_pickle=False)
        assert found[kinds]["n_sites"] == len(arrays["coordination"]) == len(expected)
        assert set(arrays["slab_id"].tolist() if "slab_id" in arrays else ["a"]) == {"a"}
    # Three bridges to an atom of the surface.
    assert found["bridge"]["n_sites"] == 3 * found["top"]["n_sites"]


@pytest.mark.parametrize("text", ["Pt,Pd,Ir", "PtPdIr", " Pt Pd,Ir ", "Pt,Pd,Ir,Pt"])
def test_elements_as_people_write_them(text: str) -> None:
    assert parse_elements(text, "--elements") == ("Pt", "Pd", "Ir")


@pytest.mark.parametrize("text", ["", " , ", "Pt-Pd", "PtXx", "pt", "Pt2", "O"])
def test_elements_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--elements"):
        parse_elements(text, "--elements")


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (("design", "--facets", "777"), "111"),
        (("design", "--facets", ""), "--facets"),
        (("design", "--elements", ""), "--elements"),
        (("design", "--energy-key", "E"), "--energy-key"),
        (("design", "--kind", "top"), "--kind"),
        (("design", "--quick"), "--quick"),
        (("design", "--data", "absent.xyz"), "absent.xyz"),
        (("train", "--facet", "111"), "--facet"),
        (("evaluate", "--train", "bundled", "--energy-key", "E"), "--energy-key"),
        (("fingerprint", "bundled", "--facet", "111"), "--facet"),
        (("fingerprint", "bundled", "--kinds", "edge"), "--kinds"),
    ],
)
def test_options_are_checked_before_torch_is_loaded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], mentions: str
) -> None:
    # Whatever loads a model or the data comes by these.
    for module in (
        "catalysis.models.site_model",
        "catalysis.studies.design",
        "catalysis.models.evaluation",
        "catalysis.fingerprints",
    ):
        monkeypatch.setitem(sys.modules, module, None)
    expect_refusal(run, tmp_path / "out", *arguments, mentions=mentions)


def expect_refusal(run: Run, out: Path, *arguments: str | Path, mentions: str) -> None:
    code, found, err = run(*arguments, "--out", out, "--json")
    assert code == 2
    assert found is None
    assert len([line for line in err.splitlines() if not line.startswith("loading ")]) == 1
    assert mentions in err
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}*"))


def test_bad_input_gets_one_line_and_leaves_nothing(
    run: Run, slabs: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    frames = [frame for _, _, frame in read_structures(slabs)]
    (tmp_path / "empty.extxyz").touch()
    write(tmp_path / "few.extxyz", frames[:10])
    bad = frames[30].copy()
    bad.info["E_ads"] = float("nan")
    write(tmp_path / "nan.extxyz", [*frames, bad])
    odd = frames[0].copy()
    odd.symbols[0] = "Xe"
    write(tmp_path / "odd.extxyz", [odd])
    key = ("--energy-key", "E_ads")

    expect_refusal(run, out, "train", "--data", tmp_path / "missing.extxyz", mentions="no such file")
    expect_refusal(run, out, "train", "--data", tmp_path / "empty.extxyz", mentions="empty file")
    expect_refusal(run, out, "train", "--data", slabs, mentions="--energy-key")
    expect_refusal(run, out, "train", "--data", tmp_path / "nan.extxyz", *key, mentions="finite energy")
    expect_refusal(run, out, "train", "--data", tmp_path / "odd.extxyz", *key, mentions="within the surface")
    expect_refusal(run, out, "train", "--data", tmp_path / "few.extxyz", *key, mentions="at least 20")
    expect_refusal(run, out, "train", "--data", slabs, *key, "--held-out", "1.5", mentions="--held-out")
    expect_refusal(run, out, "design", "--model", tmp_path / "nowhere", mentions="--model")
    expect_refusal(run, out, "design", "--model", model, "--window-ev", "0", mentions="--window-ev")
    expect_refusal(run, out, "design", "--model", model, "--n", "0", mentions="--n")
    expect_refusal(run, out, "design", "--model", model, "--target-ev", "9", mentions="--target-ev")
    expect_refusal(run, out, "design", "--model", model, "--elements", "Au", mentions="--elements")
    expect_refusal(run, out, "design", "--model", model, "--facets", "532", mentions="--facets")
    expect_refusal(run, out, "design", "--model", model, "--data", slabs, mentions="--model and --data")
    expect_refusal(run, out, "label", slabs, "--calculator", "dft", mentions="calculator")
    expect_refusal(run, out, "evaluate", "--train", slabs, *key, "--group-by", "moon", mentions="--group-by")
    expect_refusal(run, out, "design", "--no-such-option", mentions="--no-such-option")


def test_a_folder_that_cannot_be_written_is_refused_before_work(
    run: Run, model: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    code, _, err = run("design", "--model", model, "--out", blocked / "designs", "--json")
    assert code == 2
    assert len([line for line in err.splitlines() if not line.startswith("loading ")]) == 1
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "diary.txt").write_text("mine")
    code, _, err = run("design", "--model", model, "--out", notes, "--json")
    assert code == 2
    assert (notes / "diary.txt").read_text() == "mine"
