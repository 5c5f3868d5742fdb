"""Large digraphs: the sum of their components, in memory that grows with what there is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from catalysis.path_homology import betti_numbers, engines, persistence, persistence_batch, readable
from interpretkit.errors import InputError

INF = np.inf


def random_digraph(rng: np.random.Generator, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.argwhere(~np.eye(n, dtype=bool))
    arrows = pairs[np.sort(rng.choice(len(pairs), m, replace=False))]
    return arrows, rng.integers(1, 9, m).astype(float)


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize(("engine", "field"), [("auto", 2), ("readable", 2), ("readable", 3)])
def test_taken_apart_it_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, engine: str, field: int, regular: bool
):
    rng = np.random.default_rng(7)
    options = {"engine": engine, "field": field, "regular": regular}
    for _ in range(15):
        n = int(rng.integers(2, 12))
        arrows, weights = random_digraph(rng, n, int(rng.integers(0, n * (n - 1) // 3 + 1)))
        whole = persistence(n, arrows, weights, **options)
        with monkeypatch.context() as patch:
            patch.setattr(engines, "MANY", 1)
            patch.setattr(readable, "MANY", 1)  # columns are sparse
            apart = persistence(n, arrows, weights, **options)
        for bars, expected in zip(apart, whole, strict=True):
            np.testing.assert_array_equal(bars, expected)


def test_cycles_of_components_carry_the_vertices_of_the_whole(monkeypatch: pytest.MonkeyPatch):
    # Two loops of three, far from each other, and a vertex alone.
    arrows = [[7, 5], [5, 9], [9, 7], [1, 0], [0, 3], [3, 1]]
    monkeypatch.setattr(engines, "MANY", 1)
    bars = persistence(10, arrows, [1, 1, 3, 1, 1, 2.0], max_dim=1, representatives=True)
    np.testing.assert_array_equal(bars[1], [[2.0, INF], [3.0, INF]])
    assert bars.representatives is not None
    assert [cycle.vertices.tolist() for cycle in bars.representatives[1]] == [[0, 1, 3], [5, 7, 9]]
    assert len(bars.representatives[0]) == len(bars[0]) == 10
    assert bars.engine == "readable"


def test_known_numbers_beyond_the_tables():
    n = 20_000
    ring = np.column_stack([np.arange(n), np.roll(np.arange(n), -1)])
    assert betti_numbers(n, ring).tolist() == [1, 1, 0]
    # As many loops of four as there is room for, each a square that is no boundary, and 100 vertices alone.
    fours = ring.copy()
    fours[3::4, 1] = fours[3::4, 0] - 3
    bars = persistence(n + 100, fours, np.ones(n))
    assert [len(part) for part in bars] == [5000 + 15_000 + 100, 5000, 0]
    assert bars.engine == "fast"
    batch = persistence_batch([n + 100, 3], [0, n, n + 1], np.vstack([fours, [[0, 1]]]), np.ones(n + 1))
    np.testing.assert_array_equal(batch[0][1], bars[1])
    assert [len(part) for part in batch[1]] == [3, 0, 0]


def test_the_fast_engine_refuses_what_no_part_of_fits():
    n = 9000
    with pytest.raises(InputError, match="9000 vertices are more than the 8192"):
        persistence(n, np.column_stack([np.arange(n - 1), np.arange(1, n)]), np.ones(n - 1), engine="fast")
    assert len(persistence(n, [[0, 1]], [1.0], engine="fast")[0]) == n


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read where Linux keeps it")
@pytest.mark.parametrize("arrows", ["np.zeros((0, 2), int)", "np.arange(20_000).reshape(-1, 2)", "chain"])
def test_memory_grows_with_what_there_is(arrows: str):
    """A million vertices with few arrows take no more than a few hundred megabytes above the start."""
    code = (
        "import resource, numpy as np\n"
        "from catalysis.path_homology import persistence, engines\n"
        "persistence(3, [[0, 1]], [1.0])\n"
        "chain = np.column_stack([np.arange(9_999), np.arange(1, 10_000)])\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"before, arrows = peak(), {arrows}\n"
        "bars = persistence(1_000_000, arrows, np.ones(len(arrows)))\n"
        "print(peak() - before, len(bars[0]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kilobytes, n_bars = map(int, done.stdout.split())
    assert kilobytes < 400_000
    assert n_bars == 1_000_000


def test_a_long_chain_is_one_component_in_linear_memory():
    rng = np.random.default_rng(0)
    n = 12_000
    labels = rng.permutation(n)
    chain = np.column_stack([labels[:-1], labels[1:]])
    bars = persistence(n, chain, rng.random(n - 1))
    assert bars.engine == "readable"
    assert [len(part) for part in bars] == [n, 0, 0]
    assert int(np.isinf(bars[0][:, 1]).sum()) == 1
