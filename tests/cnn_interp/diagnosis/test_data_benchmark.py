"""The benchmark of influence on digits from IDX files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from interpretkit.errors import InputError


@pytest.fixture(scope="module")
def benchmark(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("diagnosis_data")


def write_idx(folder: Path, prefix: str, images: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    header = struct.pack(">4i", 2051, *images.shape)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.astype(np.uint8).tobytes())
    header = struct.pack(">2i", 2049, len(labels))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Return a folder of 620 images for training and 40 for testing: noise, and a block for each digit."""
    draw = np.random.default_rng(0)
    labels = np.arange(660) % 10
    images = draw.integers(0, 120, (660, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[2 + 4 * (label // 5) :, 2 + 4 * (label % 5) :][:8, :8] += 60
    write_idx(tmp_path / "mnist", "train", images[:620], labels[:620])
    write_idx(tmp_path / "mnist", "t10k", images[620:], labels[620:])
    return tmp_path / "mnist"


def test_mnist_is_brought_to_the_grid_of_the_other_digits(
    benchmark: Any, tmp_path: Path, mnist: Path
) -> None:
    images = np.zeros((610, 28, 28))
    images[:, 2, 5] = 255  # the first of its block: two pixels of margin stand before
    write_idx(tmp_path / "points", "train", images, np.zeros(610))
    points = benchmark.mnist_digits(tmp_path / "points")
    assert points.images.shape == (610, 8, 8)
    assert points.images[0, 1, 1] == pytest.approx(1 / 16)
    assert np.count_nonzero(points.images[0]) == 1
    train, test = points.divided(600, 0)
    assert (len(train), len(test)) == (600, 10)
    assert not set(train) & set(test)

    found = benchmark.mnist_digits(mnist)
    train, test = found.divided(600, 3)
    assert train.max() < 620
    assert sorted(test) == list(range(620, 660))
    assert found.images.max() <= 1
    assert benchmark.scikit_learn_digits().images.max() == 1


def test_influence_is_measured_on_mnist_if_it_is_given(benchmark: Any, mnist: Path) -> None:
    row = next(benchmark.run(data={"mnist": mnist}))
    assert row.data.startswith("MNIST at 8 × 8 px, 600 for training")
    assert row.value > 0.9
    assert next(benchmark.run()).data.startswith("scikit-learn's digits, 600 for training")


def test_too_few_or_other_images_are_refused(benchmark: Any, tmp_path: Path) -> None:
    write_idx(tmp_path / "few", "train", np.zeros((20, 28, 28)), np.zeros(20))
    with pytest.raises(InputError, match="20 images; expected at least 610"):
        benchmark.mnist_digits(tmp_path / "few")
    write_idx(tmp_path / "wide", "train", np.zeros((700, 32, 32)), np.zeros(700))
    with pytest.raises(InputError, match="32 × 32 px; expected 28 × 28"):
        benchmark.mnist_digits(tmp_path / "wide")
