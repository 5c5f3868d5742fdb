"""Each bar is carried by a cycle that is born with it and bounds no earlier than it dies."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalysis.path_homology import persistence


def boundary(cycle, field, regular):
    total = {}
    for path, coefficient in zip(cycle.paths.tolist(), cycle.coefficients.tolist(), strict=True):
        for q in range(len(path) if len(path) > 1 else 0):
            face = (*path[:q], *path[q + 1 :])
            if not regular or all(a != b for a, b in pairwise(face)):
                total[face] = (total.get(face, 0) + (-1) ** q * coefficient) % field
    return {face: c for face, c in total.items() if c}


@st.composite
def weighted_digraphs(draw):
    n = draw(st.integers(1, 6))
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    arrows = [pair for pair in pairs if draw(st.integers(0, 2))]
    return n, np.array(arrows, dtype=int).reshape(-1, 2), [float(draw(st.integers(1, 5))) for _ in arrows]


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize("field", [2, 3])
@given(digraph=weighted_digraphs())
@settings(max_examples=30, deadline=None)
def test_representatives_are_cycles_born_with_their_bars(regular, field, digraph):
    n, arrows, weights = digraph
    barcodes = persistence(n, arrows, weights, regular=regular, field=field, representatives=True)
    plain = persistence(n, arrows, weights, regular=regular, field=field)
    weight = dict(zip(map(tuple, arrows.tolist()), weights, strict=True))
    assert barcodes.representatives is not None
    assert plain.representatives is None
    for p in range(3):
        np.testing.assert_array_equal(barcodes[p], plain[p])
        assert len(barcodes.representatives[p]) == len(barcodes[p])
        for (birth, _), cycle in zip(barcodes[p], barcodes.representatives[p], strict=True):
            assert cycle.paths.shape == (len(cycle.coefficients), p + 1)
            assert ((cycle.coefficients > 0) & (cycle.coefficients < field)).all()
            assert not boundary(cycle, field, regular)
            latest = max((weight[tuple(arrow)] for arrow in cycle.arrows.tolist()), default=0.0)
            assert latest == birth


def test_a_loop_is_carried_by_its_arrows():
    square = [(0, 1), (1, 2), (2, 3), (3, 0)]
    barcodes = persistence(6, [*square, (4, 0), (4, 5)], [1, 2, 3, 4, 1, 1], representatives=True)
    assert barcodes.representatives is not None
    (loop,) = barcodes.representatives[1]
    assert sorted(map(tuple, loop.arrows.tolist())) == sorted(square)
    assert loop.vertices.tolist() == [0, 1, 2, 3]
    for component in barcodes.representatives[0]:
        assert component.arrows.shape == (0, 2)


def test_a_dying_class_is_carried_by_the_boundary_that_kills_it():
    # Two loops share the arrow 0→1; the square through 2 dies when 0→3→1 … closes it.
    arrows = [(0, 1), (1, 2), (0, 3), (3, 2)]
    barcodes = persistence(4, [*arrows, (2, 0)], [1, 1, 2, 2, 5], representatives=True)
    assert barcodes.representatives is not None
    np.testing.assert_array_equal(barcodes[1], [[5, np.inf]])
    (loop,) = barcodes.representatives[1]
    assert (2, 0) in set(map(tuple, loop.arrows.tolist()))
