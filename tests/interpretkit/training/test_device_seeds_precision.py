import random

import numpy as np
import pytest
import torch

from interpretkit.errors import InputError
from interpretkit.training import (
    autocast,
    derive_seed,
    describe_device,
    numpy_generator,
    resolve_device,
    seed_everything,
    set_threads,
    torch_generator,
)


def test_auto_takes_what_there_is():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert describe_device(resolve_device("cpu"))


@pytest.mark.parametrize("name", ["gpu", "cpu:x", ""])
def test_an_unknown_device_is_refused(name: str):
    with pytest.raises(InputError, match="device"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_an_absent_device_is_refused():
    with pytest.raises(InputError, match=r"device cuda: .*finds none; expected auto or cpu"):
        resolve_device("cuda")


def test_threads_are_set_and_checked():
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        with pytest.raises(InputError):
            set_threads(0)
    finally:
        torch.set_num_threads(before)


def test_seed_everything_repeats_all_three_global_generators():
    def draw():
        seed_everything(5)
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    assert draw() == draw()


def test_derived_seeds_are_fixed_and_differ_by_purpose():
    # Recorded: were it to change between machines or releases, old results could not be repeated.
    assert derive_seed(0, "split", 3) == 9173404900674127650
    assert len({derive_seed(0), derive_seed(1), derive_seed(0, "a"), derive_seed(0, "a", 1)}) == 4
    assert torch.equal(*(torch.rand(4, generator=torch_generator(2, "x")) for _ in range(2)))
    assert (numpy_generator(2, "x").random(4) == numpy_generator(2, "x").random(4)).all()


def test_precision_on_a_cpu_is_float32_unless_asked_otherwise():
    a = torch.ones(2, 2)
    with autocast(torch.device("cpu")):
        assert (a @ a).dtype == torch.float32
    with autocast(torch.device("cpu"), "bfloat16"):
        assert (a @ a).dtype == torch.bfloat16
    with pytest.raises(InputError, match="float16"):
        autocast(torch.device("cpu"), "float16")  # type: ignore[arg-type]
