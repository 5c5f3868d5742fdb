"""Auto-encoders trained on rendered sprites: how well each method's codes separate the factors, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np

from interpretkit.bench.evidence import Row, mean_interval
from interpretkit.disentanglement.autoencoders import Network, train_autoencoder
from interpretkit.disentanglement.datasets import SPRITES, Images, read_dsprites, render_sprites
from interpretkit.disentanglement.table import score_table
from interpretkit.runs.progress import track
from interpretkit.training import derive_seed, resolve_device
from interpretkit.variational import BetaTCVAE, BetaVAE, FactorVAE, Objective

# The best reported scores on dSprites, from different implementations.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "VAE": {"MIG": 0.10, "DCI disentanglement": 0.30, "FactorVAE score": 0.63},
    "β-VAE": {"MIG": 0.21, "DCI disentanglement": 0.41, "FactorVAE score": 0.63},
    "β-TCVAE": {"MIG": 0.45, "DCI disentanglement": 0.29, "FactorVAE score": 0.62},
    "FactorVAE": {"MIG": 0.40, "DCI disentanglement": 0.70, "FactorVAE score": 0.83},
}
SOURCE = "collected in Lin, Thekumparampil, Fanti and Oh, InfoGAN-CR and ModelCentrality, ICML 2020, table 1"
# Published scores that lie closer together than this say nothing about an order.
CLEAR = 0.05
EVALUATED = 10_000


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes
    ----------
    methods : mapping of str to Objective
        By the names of ``PUBLISHED``.
    images : int
        Drawn from the grid for each seed; all of the grid if it has no more.
    epochs, batch_size, learning_rate, network
        As for :func:`~interpretkit.disentanglement.autoencoders.train_autoencoder`.
    seeds : int
        How many.
    weights : str
        Where the methods' weights come from.
    """

    methods: Mapping[str, Objective]
    images: int
    epochs: int
    batch_size: int
    learning_rate: float
    network: Network
    seeds: int
    weights: str


# Chosen by MIG, never on the seeds that are reported. On seed 100, with 3000 to 6000 steps: β-VAE's weight of 8 and 16,
# β-TCVAE's of 6 and 10, FactorVAE's of 6, 10, 20, 35 and 100, its critic, and the batch; on seed 101 too, FactorVAE's
# of 10 and 20. Its critic is smaller and learns faster than the article's and than the encoder, and even so lags behind
# it; FactorVAE did better in batches of 128 than of 64 or 256, so all methods have them.
METHODS: Mapping[str, Objective] = {
    "VAE": BetaVAE(1),
    "β-VAE": BetaVAE(8),
    "β-TCVAE": BetaTCVAE(10),
    "FactorVAE": FactorVAE(10, width=128, depth=4, learning_rate=4e-3),
}
CHOSEN = "weights chosen by MIG on seed 100, those of FactorVAE also on 101"
QUICK = Size(METHODS, 16_000, 14, 128, 1e-3, "coarse", 1, CHOSEN)
SMALL = Size(METHODS, 32_000, 80, 128, 1e-3, "coarse", 3, CHOSEN)
# As in the articles: 300 000 steps over all images. The weights are the published ones.
FULL = Size(
    {"VAE": BetaVAE(1), "β-VAE": BetaVAE(4), "β-TCVAE": BetaTCVAE(6), "FactorVAE": FactorVAE(35)},
    len(SPRITES),
    26,
    64,
    1e-4,
    "published",
    3,
    "published weights",
)


def run(
    quick: bool = True,
    data: Mapping[str, Path] | None = None,
    seed: int = 0,
    device: str = "auto",
    checkpoints: Path | None = None,
) -> list[Row]:
    """Return the rows of evidence.

    Parameters
    ----------
    quick : bool
        One seed and little training.
    data : mapping of str to path, optional
        ``dsprites``, the published file; its factors are rendered here if it is absent.
    seed : int
        The first seed.
    device : str
        On a GPU, what is not quick has the size of the articles.
    checkpoints : path, optional
        A folder in which every training is kept, and from which it goes on.
    """
    kind = resolve_device(device).type
    size = QUICK if quick else FULL if kind == "cuda" else SMALL
    given = (data or {}).get("dsprites")
    seeds = list(range(seed, seed + size.seeds))
    tasks = [(name, number) for number in seeds for name in size.methods]
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in size.methods}
    for name, number in track(tasks, "Auto-encoders"):
        folder = None if checkpoints is None else checkpoints / f"{name}-{number}"
        scores[name].append(train_and_score(size, size.methods[name], number, kind, given, folder))
    on = f"{'rendered sprites' if given is None else 'dSprites'}, {EVALUATED // 1000} 000 drawn anew"
    rows = [*method_rows(size, scores, on, seed, given is None), order_row(scores, on, seed)]
    return [*rows, separation_row(scores, on, seed)] if size.seeds > 1 else rows


def train_and_score(
    size: Size, objective: Objective, seed: int, device: str, given: Path | None, checkpoint: Path | None
) -> dict[str, float]:
    """Train one auto-encoder and return the scores of its codes, by the names of ``PUBLISHED``."""
    images, fresh, factors = drawn(size.images, seed, given)
    model = train_autoencoder(
        images,
        objective,
        network=size.network,
        epochs=size.epochs,
        batch_size=size.batch_size,
        learning_rate=size.learning_rate,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
        quiet=True,
    )
    table = score_table(
        model.codes(fresh),
        factors,
        ["mig", "dci", "factor_vae"],
        discrete=True,
        bootstrap=0,
        bounds=False,
        seed=seed,
    )
    return {
        "MIG": table["mig"].value,
        "DCI disentanglement": table["dci"].value,
        "FactorVAE score": table["factor_vae"].value,
    }


# All methods of a seed see the same images, whose drawing takes as long as a short training.
@lru_cache(maxsize=1)
def drawn(n_images: int, seed: int, given: Path | None) -> tuple[Images, Images, np.ndarray]:
    """Return the images to train on, and those to score with their factors (EVALUATED, 5)."""
    if n_images >= len(SPRITES):
        index = np.arange(len(SPRITES))
    else:
        index = np.random.default_rng(derive_seed(seed, "images")).choice(len(SPRITES), n_images, False)
    fresh = np.random.default_rng(derive_seed(seed, "evaluation")).choice(len(SPRITES), EVALUATED, False)
    fresh.sort()
    return sprites(np.sort(index), given), sprites(fresh, given), SPRITES.at(fresh)


def sprites(index: np.ndarray, given: Path | None) -> Images:
    """Return the images at places of the grid, (n, 64, 64)."""
    return render_sprites(SPRITES.at(index)) if given is None else read_dsprites(given, rows=index).images


def method_rows(
    size: Size, scores: Mapping[str, list[dict[str, float]]], on: str, seed: int, rendered: bool
) -> list[Row]:
    """Return a row for each method and score, with the mean over seeds and its interval."""
    steps = size.epochs * -(-size.images // size.batch_size)
    seeds = f"{size.seeds} seeds" if size.seeds > 1 else "one seed"
    notes = (
        f"{seeds}, {size.weights}, network '{size.network}', {steps} steps of {size.batch_size} images; DCI by extra "
        "trees; the baseline is the plain VAE; reference: the best reported by any implementation"
        f"{' on the published images' if rendered else ''}, with hundreds of thousands of steps"
    )
    rows = []
    for name, objective in size.methods.items():
        for score, published in PUBLISHED[name].items():
            values = [found[score] for found in scores[name]]
            rows.append(
                Row(
                    system=f"{name}, {settings(objective)}",
                    data=on,
                    name=score,
                    value=float(np.mean(values)),
                    interval=mean_interval(values),
                    baseline=None if name == "VAE" else float(np.mean([f[score] for f in scores["VAE"]])),
                    reference=published,
                    source=SOURCE,
                    seed=seed,
                    stand_in=True,
                    notes=notes,
                )
            )
    return rows


def settings(objective: Objective) -> str:
    """Return the weight of an objective as the articles write it."""
    if isinstance(objective, FactorVAE):
        return f"γ = {objective.gamma:g}"
    if isinstance(objective, (BetaVAE, BetaTCVAE)):
        return f"β = {objective.beta:g}"
    raise TypeError(f"no weight is known of {objective!r}")


def order_row(scores: Mapping[str, list[dict[str, float]]], on: str, seed: int) -> Row:
    """Count the pairs of methods that stand in the published order, over all three scores."""
    kept, reversed_pairs = 0, []
    pairs = clear_pairs()
    for score, worse, better in pairs:
        means = [float(np.mean([found[score] for found in scores[name]])) for name in (worse, better)]
        if means[0] < means[1]:
            kept += 1
        else:
            reversed_pairs.append(f"{worse} before {better} on {score}")
    return Row(
        system="VAE, β-VAE, β-TCVAE, FactorVAE",
        data=on,
        name=f"pairs of methods in the published order, of {len(pairs)}",
        value=kept,
        baseline=len(pairs) / 2,
        reference=len(pairs),
        source=SOURCE,
        seed=seed,
        stand_in=True,
        notes=f"pairs whose published scores differ by more than {CLEAR}, by means over seeds; the baseline is chance; "
        f"reversed: {'; '.join(reversed_pairs) or 'none'}",
    )


def separation_row(scores: Mapping[str, list[dict[str, float]]], on: str, seed: int) -> Row:
    """Count the pairs in the published order that the seeds' scatter does not explain, by Welch's test."""
    from scipy.stats import ttest_ind

    kept, opposite = 0, []
    pairs = clear_pairs()
    for score, worse, better in pairs:
        samples = [[found[score] for found in scores[name]] for name in (better, worse)]
        difference, chance = np.asarray(ttest_ind(*samples, equal_var=False))
        if chance < 0.05:
            if difference > 0:
                kept += 1
            else:
                opposite.append(f"{worse} before {better} on {score}")
    return Row(
        system="VAE, β-VAE, β-TCVAE, FactorVAE",
        data=on,
        name=f"pairs of methods in the published order beyond the scatter of seeds, of {len(pairs)}",
        value=kept,
        baseline=0.025 * len(pairs),
        reference=len(pairs),
        source=SOURCE,
        seed=seed,
        stand_in=True,
        notes="the same pairs, of which Welch's test at 5 % sees a difference; the baseline is chance; "
        f"reversed beyond the scatter: {'; '.join(opposite) or 'none'}",
    )


def clear_pairs() -> list[tuple[str, str, str]]:
    """Return score, worse and better method of all pairs that are clearly apart in ``PUBLISHED``."""
    found = []
    for score in PUBLISHED["VAE"]:
        for pair in combinations(PUBLISHED, 2):
            worse, better = sorted(pair, key=lambda name: PUBLISHED[name][score])
            # Scores have two digits; without rounding 0.45 − 0.40 would exceed 0.05.
            if round(PUBLISHED[better][score] - PUBLISHED[worse][score], 6) > CLEAR:
                found.append((score, worse, better))
    return found
