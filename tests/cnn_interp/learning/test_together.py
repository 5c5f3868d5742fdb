"""Two processes, as torchrun starts them, beside one: what they see, what they learn, and who refuses them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cnn_interp.learning.capsules import CapsuleConfig, Schedule, train_network
from cnn_interp.learning.grey_images import GreyBatches, GreyImages
from cnn_interp.learning.infogan import InfoGANConfig, train_infogan
from cnn_interp.learning.infogan import Schedule as Played
from interpretkit.cli import main
from interpretkit.training.distributed import gather, is_joined, training_together

# Without batch normalisation, whose statistics are of each process's own share.
CAPSULES = CapsuleConfig(
    side=12, categories=("up", "left"), stem=((6, 3, 2),), types=2, primary_size=4, primary_kernel=3,
    capsule_size=4, decoder=(8,),
)  # fmt: skip


def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of bars that stand or lie."""
    generator = torch.Generator().manual_seed(3)
    images, labels = torch.zeros(count, 12, 12, dtype=torch.uint8), torch.arange(count) % 2
    for row, at in enumerate(torch.randint(1, 11, (count,), generator=generator).tolist()):
        (images[row] if row % 2 else images[row].T)[at, 2:10] = 255
    return images, labels


def trained(path: Path) -> None:
    """Train both networks and write their weights, and what the process has told of itself."""
    torch.set_num_threads(1)
    pixels, labels = drawn(72)
    images = GreyImages("bars", pixels[:48], labels[:48], pixels[48:60], labels[48:60], pixels[60:], labels[60:],
                        ("up", "left"))  # fmt: skip
    own = path.with_name(f"{path.name}.{os.environ.get('RANK', 'alone')}")
    with training_together(torch.device("cpu"), own) as (where, folder):
        capsules, history = train_network(
            "capsules", CAPSULES, images, Schedule(epochs=2, batch_size=12, shift=1), seed=1, device=where,
            checkpoint=folder / "capsules", quiet=True,
        )  # fmt: skip
        config = InfoGANConfig(side=12, categories=2, continuous=1, noise=3, width=4, units=8)
        codes, _ = train_infogan(
            images.train, config, Played(epochs=1, batch_size=12), seed=1, device=where, quiet=True
        )
        alike = gather({name: weight for name, weight in codes.state_dict().items() if "running" not in name})
        for other in alike[1:]:
            for name, weight in alike[0].items():
                torch.testing.assert_close(weight, other[name])
        folders = gather(str(folder))
    if os.environ.get("RANK", "0") == "0":
        found = {"weights": capsules.state_dict(), "losses": history.column("train_loss"), "folders": folders}
        torch.save(found, path)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, tmp_path / "two.pt"],
            env={**os.environ, **told, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    trained(tmp_path / "one.pt")
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    # The first process keeps the state, and both would go on from it.
    assert len(set(two["folders"])) == 1
    assert (Path(two["folders"][0]) / "capsules" / "checkpoint.pt").is_file()
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    for name, weights in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weights, rtol=1e-3, atol=1e-5, msg=name)


def test_shares_of_images_make_the_batch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = drawn(30)

    def batches() -> list[dict[str, torch.Tensor]]:
        made = GreyBatches(pixels, labels, 8, shift=2, seed=5)
        made.set_epoch(1)
        return list(made)

    whole = batches()
    assert not is_joined()
    monkeypatch.setattr("interpretkit.training.batches.is_joined", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        shares.append(batches())
    assert [len(batch["labels"]) for batch in whole] == [8, 8, 8, 6]
    for batch, *parts in zip(whole, *shares, strict=True):
        for rank, part in enumerate(parts):
            for name, rows in batch.items():
                assert torch.equal(part[name], rows[rank::3])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("capsnet --routings 0", "routings '0'"),
        ("infogan --example --epochs 2", "nothing is trained"),
        ("icnn --loss none", "`cnn train icnn` works in one process"),
        ("rcnn --data none", "`cnn train rcnn` works in one process"),
    ],
)
def test_several_processes_are_refused_by_what_trains_in_minutes(
    line: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        main(["cnn", "train", *line.split()])
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


if __name__ == "__main__":
    trained(Path(sys.argv[1]))
