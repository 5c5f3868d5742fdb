import pytest

from interpretkit.variational import BetaVAE


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("disentangled_training")


def test_pairs_are_those_published_clearly_apart(benchmark):
    pairs = benchmark.clear_pairs()
    assert len(pairs) == 13
    assert ("MIG", "VAE", "β-TCVAE") in pairs
    assert ("DCI disentanglement", "β-TCVAE", "β-VAE") in pairs
    assert not {("MIG", "FactorVAE", "β-TCVAE"), ("FactorVAE score", "β-TCVAE", "VAE")} & set(pairs)


def test_order_counts_pairs_of_means(benchmark):
    published = {name: [dict(scores)] for name, scores in benchmark.PUBLISHED.items()}
    assert benchmark.order_row(published, "data", 0).value == 13
    reverse = {
        name: [{score: -value for score, value in scores.items()}]
        for name, scores in benchmark.PUBLISHED.items()
    }
    assert benchmark.order_row(reverse, "data", 0).value == 0
    # The mean over seeds decides: one better seed of the plain VAE does not turn its pairs.
    published["VAE"] = [{"MIG": m, "DCI disentanglement": 0.3, "FactorVAE score": 0.63} for m in (0.3, 0, 0)]
    assert benchmark.order_row(published, "data", 0).value == 13


def test_separation_counts_pairs_beyond_the_scatter(benchmark):
    published = {
        name: [{score: value + shift for score, value in scores.items()} for shift in (-0.01, 0.0, 0.01)]
        for name, scores in benchmark.PUBLISHED.items()
    }
    assert benchmark.separation_row(published, "data", 0).value == 13
    # With β-TCVAE far above on DCI, its two clear pairs there stand the other way round.
    for number, found in enumerate(published["β-TCVAE"]):
        found["DCI disentanglement"] = 0.9 + 0.01 * number
    row = benchmark.separation_row(published, "data", 0)
    assert row.value == 11
    assert "β-TCVAE before FactorVAE on DCI disentanglement" in row.notes
    scattered = {name: [*found, dict.fromkeys(found[0], -9.0)] for name, found in published.items()}
    assert benchmark.separation_row(scattered, "data", 0).value == 0


def test_a_tiny_training_is_scored_on_every_score(benchmark):
    size = benchmark.Size({"VAE": BetaVAE(1)}, 256, 1, 64, 1e-3, "coarse", 1, "none")
    found = benchmark.train_and_score(size, BetaVAE(1), 3, "cpu", None, None)
    assert set(found) == set(benchmark.PUBLISHED["VAE"])
    assert all(0 <= value <= 1 for value in found.values())
    rows = benchmark.method_rows(size, {"VAE": [found]}, "data", 3, True)
    assert [row.value for row in rows] == list(found.values())
    assert all(row.stand_in and row.interval is None for row in rows)
