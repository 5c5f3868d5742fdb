"""Barcodes behave as sequences; curves count half-open bars."""

import numpy as np

from catalysis.path_homology import betti_curves, persistence


def test_bars_are_half_open():
    curves = betti_curves([np.array([[0.0, 2.0], [1.0, np.inf]])], [-1.0, 0.0, 1.0, 1.5, 2.0, 9.0])
    np.testing.assert_array_equal(curves, [[0, 1, 2, 2, 1, 1]])


def test_the_grid_may_come_in_any_order_and_dimensions_may_be_empty():
    curves = betti_curves([np.array([[0.0, 2.0]]), np.zeros((0, 2)), []], [3.0, 1.0])
    np.testing.assert_array_equal(curves, [[0, 1], [0, 0], [0, 0]])
    assert betti_curves([np.zeros((0, 2))], []).shape == (1, 0)


def test_a_barcode_reads_as_a_sequence():
    barcodes = persistence(3, [[0, 1], [1, 2], [2, 0]], [1.0, 2.0, 3.0])
    assert len(barcodes) == 3
    assert [bars.shape for bars in barcodes] == [(3, 2), (1, 2), (0, 2)]
    np.testing.assert_array_equal(barcodes[-2], [[3, np.inf]])
    assert len(barcodes[:2]) == 2
    assert "H1: 1" in repr(barcodes)
    np.testing.assert_array_equal(betti_curves(barcodes, [0, 1, 2, 3]), [[3, 2, 1, 1], [0, 0, 0, 1], [0] * 4])


def test_sorted_by_birth_then_death_without_bars_of_no_length():
    barcodes = persistence(5, [[0, 1], [2, 3]], [2.0, 0.0])
    np.testing.assert_array_equal(barcodes[0], [[0, 2], [0, np.inf], [0, np.inf], [0, np.inf]])
