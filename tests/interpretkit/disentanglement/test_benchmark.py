import numpy as np
import pytest

from interpretkit.disentanglement import mig
from interpretkit.disentanglement.anchors import anchor_codes


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("disentanglement")


@pytest.mark.parametrize("data", ["dsprites", "shapes3d"])
@pytest.mark.parametrize("kind", ["perfect", "rotated", "noise"])
@pytest.mark.parametrize("bins", [10, 20, 100])
def test_mig_equals_the_loop(benchmark, data, kind, bins):
    codes, factors = anchor_codes(data, kind, seed=1, rows=2000)
    expected = benchmark.mig_by_loops(codes, factors, bins)
    assert mig(codes, factors, bins=bins, bounds=False).value == pytest.approx(expected, abs=1e-9)


def test_mig_is_much_faster_than_the_loop(benchmark):
    codes, factors = anchor_codes("dsprites", "rotated", seed=0, rows=10_000)
    fast, slow = benchmark.interleaved(
        lambda: mig(codes, factors, bounds=False), lambda: benchmark.mig_by_loops(codes, factors), rounds=3
    )
    # Half of what is claimed, for a test may share the machine with others.
    assert slow / fast > 10


def test_rows_of_known_values(benchmark):
    rows = benchmark.ceilings({})
    assert {row.name for row in rows} >= {"mig", "sap", "dci disentanglement", "factor_vae"}
    mig_rows = [row.value for row in rows if row.name == "mig"]
    assert np.allclose(mig_rows, [0.896, 0.996], atol=0.02)
