"""Several processes that train a VAE together, each with its share of every batch."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catalysis.energies.baseline import LinearBaseline
from catalysis.fingerprints import coordination_curves
from catalysis.models.site_model import SiteModel, train_model
from catalysis.structure.occupations import occupations
from catalysis.structure.sites import Site
from catalysis.structure.templates import class_templates
from catalysis.structure.user_sites import write_sites
from catalysis.vae.channels import VAEConfig
from catalysis.vae.decorations import Decorations
from interpretkit.cli import main
from interpretkit.errors import InputError
from interpretkit.runs.processes import is_helper


def few_sites() -> list[Site]:
    rng = np.random.default_rng(0)
    sites = []
    for k in range(30):
        name = ("100_bridge", "211_edge")[k % 2]
        template = class_templates(name[:3], name)[0]
        site = template.decorate([str(s) for s in rng.choice(["Pt", "Ru"], len(template))])
        energy = 0.4 * (k % 2) - 0.3 * site.symbols[:2].count("Ru")
        sites.append(replace(site, site_id=str(k), slab_id=f"slab {k // 3}", energy_ev=energy))
    return sites


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_train_the_network_that_one_trains(tmp_path: Path) -> None:
    write_sites(tmp_path / "sites.extxyz", few_sites())
    words = (
        "catalyst",
        "train",
        "--data",
        str(tmp_path / "sites.extxyz"),
        "--quick",
        "--device",
        "cpu",
        "--json",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    # Set as torchrun sets them; started one by one, which takes half the time of torchrun itself.
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "interpretkit", *words, "--out", tmp_path / "two"],
            env={**os.environ, **told, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    torch.set_num_threads(1)
    model = train_model(few_sites(), quick=True, quiet=True)
    printed = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    # One of them prints and saves.
    assert printed[1] == ("", "")
    assert json.loads(printed[0][0])["n_train"] == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sites.extxyz", "two"]
    two = SiteModel.load(tmp_path / "two").vae.state_dict()
    one = model.vae.state_dict()
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=1e-3, atol=2e-4, msg=name)


def test_what_one_process_does_is_refused_to_several(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, message in (("0", "Error: torchrun: `catalyst fingerprint` works in one process"), ("1", "")):
        for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")):
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stopped:
            main(["catalyst", "fingerprint", "bundled", "--out", str(tmp_path / "out")])
        assert stopped.value.code == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(message)
        assert told.err.count("\n") == (rank == "0")
    assert not list(tmp_path.iterdir())


def test_shares_of_a_batch_make_the_batch_up() -> None:
    sites = few_sites()
    data = occupations(sites)
    config = VAEConfig.of(data, "OH", coordination_latent=3, ligand_latent=4, hidden=8)
    curves = coordination_curves(sites)
    real = config.channels(data, curves, torch.device("cpu"))
    energies = np.array([site.energy_ev for site in sites], dtype=float)
    teacher = LinearBaseline().fit(sites)

    def batches(part: int, parts: int) -> list[dict]:
        made = Decorations(
            config,
            real,
            energies,
            data,
            teacher,
            n_decorations=50,
            batch_size=16,
            share=(part, parts),
            seed=3,
        )
        made.set_epoch(1)
        return list(made)

    whole, shares = batches(0, 1), [batches(part, 3) for part in range(3)]
    assert len(whole) == 4
    for batch, *parts in zip(whole, *shares, strict=True):
        assert batch["weight"] == 1
        assert sum(part["weight"] for part in parts) == pytest.approx(3)
        for get in (lambda b: b["energies"], lambda b: b["noise"][1], lambda b: b["channels"].ligands):
            together = torch.cat([get(part) for part in parts])
            assert together.shape == get(batch).shape
            rows = {tuple(np.round(row.flatten().tolist(), 5)) for row in get(batch)}
            assert {tuple(np.round(row.flatten().tolist(), 5)) for row in together} == rows
    with pytest.raises(
        InputError, match="batch_size 4: has 1 real sites for 2 processes; expected at least 8"
    ):
        Decorations(
            config, real, energies, data, teacher, n_decorations=9, batch_size=4, share=(0, 2), seed=0
        )


def test_only_further_processes_of_torchrun_help(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert not is_helper()
    monkeypatch.setenv("RANK", "1")
    assert not is_helper()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert is_helper()
    monkeypatch.setenv("RANK", "0")
    assert not is_helper()
