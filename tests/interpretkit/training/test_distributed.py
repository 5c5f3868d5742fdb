import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from interpretkit.errors import InputError
from interpretkit.training.distributed import (
    average,
    from_main,
    gather,
    parallelize,
    process_group,
    sampler,
    world,
)

# Two processes, each with half of every batch, beside one process with the whole of it: the averaged
# gradients must make the same steps.
SCRIPT = """
import os
import sys
import torch
from interpretkit.training import fit
from interpretkit.training.distributed import LostProcessError, average, from_main, gather, parallelize
from interpretkit.training.distributed import process_group, unwrap

def loss(model, batch):
    return {"loss": (model(batch["x"])[:, 0] - batch["y"]).square().mean()}

def train(world, device):
    x = torch.arange(24.0).reshape(8, 3).sin()
    y = x.sum(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    share = slice(world.rank, None, world.size)
    wrapped = parallelize(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = fit(wrapped, [{"x": x[share], "y": y[share]}], loss, optimizer=optimizer, epochs=5,
                  validate=lambda m: {"rank": float(world.rank)}, monitor="train_loss",
                  checkpoint=sys.argv[1] + ".checkpoint", quiet=True)
    assert unwrap(wrapped) is model
    assert gather(world.rank) == list(range(world.size))
    assert from_main(world.rank, device) == 0
    assert history.column("rank") == [0.0] * 5
    assert average({"a": float(world.rank)}, device)["a"] == (world.size - 1) / 2
    if world.is_main:
        torch.save({"weights": model.state_dict(), "losses": history.column("train_loss")}, sys.argv[1])

torch.set_num_threads(1)
try:
    with process_group(torch.device("cpu")) as (world, device):
        train(world, device)
        if world.rank == 1:
            os._exit(0)
        gather("are you there?")
except LostProcessError as error:
    assert world.size == 2 and "another of the 2 processes" in str(error), error
else:
    assert world.size == 1
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_train_as_one_does_on_the_joint_batch(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    alone, together = tmp_path / "alone.pt", tmp_path / "together.pt"
    plain = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    subprocess.run([sys.executable, script, alone], env=plain, check=True, timeout=120)
    # Set as torchrun sets them; started one by one, which takes half the time of torchrun itself.
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, script, together],
            env={
                **plain,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            },
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    one, two = (torch.load(path, weights_only=True) for path in (alone, together))
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)
    for name, weights in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weights, rtol=1e-6, atol=1e-7)
    state = torch.load(tmp_path / "together.pt.checkpoint" / "checkpoint.pt", weights_only=True)
    assert len(state["random_states"]) == 2


def test_a_single_process_needs_nothing():
    model = torch.nn.Linear(1, 1)
    with process_group(torch.device("cpu")) as (here, device):
        assert (here.rank, here.size, here.is_main) == (0, 1, True)
        assert parallelize(model) is model
        assert sampler(torch.utils.data.TensorDataset(torch.zeros(3))) is None
        assert average({"a": 2.0}, device) == {"a": 2.0}
        assert gather(1) == [1]
        assert from_main("x", device) == "x"


def test_an_environment_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InputError, match="WORLD_SIZE='two'"):
        world()
