"""The two engines agree, on digraphs larger than an oracle by definition can take, and say who served."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalysis.path_homology import Barcodes, betti_curves, engines, persistence
from interpretkit.errors import InputError

LENGTHS = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]


@st.composite
def digraphs(draw):
    """Draw sparse to complete digraphs of up to nine vertices, with many ties or none."""
    n = draw(st.integers(1, 9))
    seed = draw(st.integers(0, 2**32 - 1))
    density = draw(st.sampled_from([0.0, 0.2, 0.4, 0.7, 1.0]))
    levels = draw(st.sampled_from([1, 2, 4, 1000]))
    rng = np.random.default_rng(seed)
    there = rng.random((n, n)) < density
    np.fill_diagonal(there, False)
    arrows = np.argwhere(there)
    return n, arrows, rng.integers(0, levels, len(arrows)) / 7


def assert_same(one: Barcodes, other: Barcodes):
    assert len(one) == len(other)
    for bars, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(bars, again)


@pytest.mark.parametrize("regular", [True, False])
@given(digraph=digraphs(), lengths=st.sampled_from(LENGTHS))
@settings(max_examples=150, deadline=None)
def test_engines_agree(regular, digraph, lengths):
    options = {"max_dim": lengths[0], "max_path_length": lengths[1], "regular": regular}
    fast = persistence(*digraph, engine="fast", **options)
    readable = persistence(*digraph, engine="readable", **options)
    assert (fast.engine, readable.engine) == ("fast", "readable")
    assert_same(fast, readable)


def fcc_like(nx, ny, nz, seed):
    """Return a rattled close-packed slab with random ranks, arrows from lower to higher or equal rank."""
    rng = np.random.default_rng(seed)
    grid = np.array([(i, j, k) for k in range(nz) for j in range(ny) for i in range(nx)], dtype=float)
    i, j, k = grid.T
    points = np.stack([i + 0.5 * (j % 2) + 0.5 * (k % 3), (j + (k % 3) / 3) * 0.866, k * 0.8165], axis=1)
    points = 2.75 * points + rng.normal(0, 0.05, points.shape)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    a, b = np.nonzero((distance > 0) & (distance < 3.3))
    ranks = rng.integers(0, 5, len(points))
    keep = ranks[a] <= ranks[b]
    return len(points), np.stack([a, b], axis=1)[keep], distance[a, b][keep]


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_engines_agree_on_a_slab(regular, seed):
    slab = fcc_like(4, 4, 3, seed)
    fast = persistence(*slab, engine="fast", regular=regular)
    assert_same(fast, persistence(*slab, engine="readable", regular=regular))
    assert sum(len(bars) for bars in fast) > len(fast[0])


def many_loops(n_loops, length=3):
    """Return directed cycles that share no vertex: as many classes live at once."""
    arrows = [(length * i + k, length * i + (k + 1) % length) for i in range(n_loops) for k in range(length)]
    return length * n_loops, np.array(arrows), np.arange(len(arrows), dtype=float)


def test_more_living_classes_than_a_word_holds():
    for n_loops in (64, 65, 300):
        barcodes = persistence(*many_loops(n_loops), engine="fast")
        assert len(barcodes[1]) == n_loops
    slab = fcc_like(8, 8, 2, 0)
    assert_same(persistence(*slab, engine="fast"), persistence(*slab, engine="readable"))


def test_the_readable_engine_serves_when_too_many_classes_live():
    loops = many_loops(513)
    barcodes = persistence(*loops)
    assert barcodes.engine == "readable"
    assert len(barcodes[1]) == 513
    with pytest.raises(InputError, match="engine = 'fast': more than 512 classes"):
        persistence(*loops, engine="fast")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"field": 3}, "field = 2 only"),
        ({"max_dim": 3}, "stops at max_dim = 2"),
        ({"representatives": True}, "no representatives"),
    ],
)
def test_the_result_names_the_engine_that_served(option, reason):
    triangle = 3, [[0, 1], [1, 2], [2, 0]], [1.0, 1.0, 1.0]
    assert persistence(*triangle).engine == "fast"
    assert persistence(*triangle, **option).engine == "readable"
    with pytest.raises(InputError, match=reason) as caught:
        persistence(*triangle, engine="fast", **option)
    assert "\n" not in str(caught.value)


def test_without_numba_the_readable_engine_serves(monkeypatch):
    monkeypatch.setattr(engines, "compiled", lambda: None)
    triangle = 3, [[0, 1], [1, 2], [2, 0]], [1.0, 1.0, 1.0]
    assert persistence(*triangle).engine == "readable"
    with pytest.raises(InputError, match="needs numba"):
        persistence(*triangle, engine="fast")


def test_importing_the_package_does_not_import_numba():
    code = "import sys, catalysis.path_homology; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_any_layout_of_the_arrays_will_do():
    n, arrows, weights = fcc_like(3, 3, 2, 0)
    expected = persistence(n, arrows, weights)
    frozen = arrows.copy()
    frozen.flags.writeable = False
    for variant in (frozen, np.asfortranarray(arrows), arrows.astype(np.int16), arrows[::-1][::-1]):
        assert_same(persistence(n, variant, weights), expected)
    assert_same(persistence(n, arrows.tolist(), weights.tolist()), expected)
    np.testing.assert_array_equal(betti_curves(expected, [0.0])[:, 0], [n, 0, 0])
