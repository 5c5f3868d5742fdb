"""What variational networks are trained by: draws of codes, the divergence from the prior, its parts, the penalties.

Every loss is in nats per sample (an image, a site). With q(z|x) the encoder's Gaussian, q(z) its mean over the samples
and p(z) the standard Gaussian, the divergence from the prior has three parts (Chen et al. 2018):

    E KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ Π q(z_j)) + Σ KL(q(z_j) ‖ p(z_j)),

the mutual information, the total correlation and the dimension-wise divergence.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from interpretkit.errors import InputError

Estimator = Literal["weighted", "stratified"]


class Posterior(NamedTuple):
    """The encoder's Gaussians and a draw from each.

    `mean`, `log_variance`, `codes`: (n, d).
    """

    mean: Tensor
    log_variance: Tensor
    codes: Tensor


class Divergence(NamedTuple):
    """The parts of the divergence from the prior, in nats per image, each a scalar."""

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise: Tensor


def reconstruction_loss(logits: Tensor, images: Tensor) -> Tensor:
    """Return −log p(x|z) of pixels between 0 and 1 under Bernoulli distributions, (n,), from shapes (n, ...)."""
    loss = functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    return loss.flatten(1).sum(1)


def draw_codes(mean: Tensor, log_variance: Tensor, noise: Tensor | None = None) -> Tensor:
    """Return a draw from each Gaussian, (n, d), with gradients to both arguments.

    Parameters
    ----------
    mean, log_variance : Tensor, (n, d)
        Mean and log variance of the Gaussians.
    noise : Tensor, (n, d), optional
        Standard normal numbers; by default new ones from torch's global generator.
    """
    noise = torch.randn_like(mean) if noise is None else noise
    return mean + (0.5 * log_variance).exp() * noise


def prior_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(q(z_j|x) ‖ N(0, 1)) by dimension, (n, d)."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)


def mean_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(q(z|x) ‖ N(0, 1)), the sum over the dimensions, as a mean over the batch: a scalar."""
    return prior_divergence(mean, log_variance).sum(1).mean()


def gaussian_log_density(values: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the log density of Gaussians; the arguments are broadcast against each other."""
    return -0.5 * ((values - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))


def log_batch_weights(size: int, n_images: int, estimator: Estimator, like: Tensor) -> Tensor:
    """Return log w (size, size), with which q(z_i) ≈ Σ_j w_ij q(z_i|x_j) from a batch alone.

    Parameters
    ----------
    size : int
        The number of images in the batch, m.
    n_images : int
        The number of images in the data, n.
    estimator : {"weighted", "stratified"}
        ``weighted``: 1 / (n m) for all pairs, a lower bound in the mean of the logarithm. ``stratified``: 1 / n for
        the image itself and (n − 1) / (n (m − 1)) for each of the others, with which the sum has the mean q(z_i) over
        all batches that hold the image (the article gives one of the others a weight of its own instead).
    like : Tensor
        Gives the device and the type.

    References
    ----------
    R. T. Q. Chen, X. Li, R. Grosse and D. Duvenaud, "Isolating sources of disentanglement in variational
    autoencoders", NeurIPS 2018, section 4.1 and appendix C.
    """
    if estimator not in get_args(Estimator):
        raise InputError(f"estimator {estimator!r}: expected one of {', '.join(get_args(Estimator))}")
    if estimator == "weighted" or size == 1:
        return torch.full((size, size), -math.log(n_images * size), device=like.device, dtype=like.dtype)
    others = (n_images - 1) / (n_images * (size - 1))
    weights = torch.full((size, size), others, device=like.device, dtype=like.dtype)
    return weights.fill_diagonal_(1 / n_images).log()


def decompose_divergence(
    posterior: Posterior, n_images: int, estimator: Estimator = "weighted"
) -> Divergence:
    """Estimate the parts of the divergence from the prior on a batch.

    Parameters
    ----------
    posterior : Posterior
        Posterior of the batch's m images.
    n_images : int
        The number of images that the batch was drawn from, at least m.
    estimator : {"weighted", "stratified"}
        How q(z) and its marginals are estimated; see :func:`log_batch_weights`.

    Returns
    -------
    Divergence
        Their sum is the mean of log q(z|x) − log p(z) over the batch, whatever the estimator.

    Raises
    ------
    InputError
        If the estimator is unknown or there are fewer images than in the batch.
    """
    mean, log_variance, codes = posterior
    size = len(codes)
    if n_images < size:
        raise InputError(f"{n_images} images: expected at least as many as the batch has, {size}")
    own = gaussian_log_density(codes, mean, log_variance).sum(1)
    prior = gaussian_log_density(codes, torch.zeros_like(codes), torch.zeros_like(codes)).sum(1)
    pairs = gaussian_log_density(codes[:, None], mean[None], log_variance[None])
    weights = log_batch_weights(size, n_images, estimator, codes)
    joint = torch.logsumexp(weights + pairs.sum(2), 1)
    marginals = torch.logsumexp(weights[..., None] + pairs, 1).sum(1)
    return Divergence((own - joint).mean(), (joint - marginals).mean(), (marginals - prior).mean())


def permute_dimensions(codes: Tensor) -> Tensor:
    """Return codes (n, d) with every column in a random order of its own: draws from the product of marginals."""
    orders = torch.rand(codes.shape, device=codes.device).argsort(0)
    return codes.gather(0, orders)


class State(NamedTuple):
    """What a penalty may depend on besides the batch: the step from 0, the number of images, and the critic."""

    step: int
    n_images: int
    critic: nn.Module | None


@dataclass(frozen=True)
class Objective(ABC):
    """What is minimised besides the reconstruction loss.

    Attributes of the subclasses are named as in the articles.
    """

    name: ClassVar[str] = ""

    def critic(self, latent: int) -> nn.Module | None:
        """Return a new network that the penalty needs beside the auto-encoder; None for most."""
        return None

    @abstractmethod
    def penalty(self, posterior: Posterior, state: State) -> Mapping[str, Tensor]:
        """Return named scalars in nats: ``penalty`` is added to the loss, the others are reported."""


def _check(name: str, value: float, least: float = 0.0) -> None:
    if not (math.isfinite(value) and value >= least):
        raise InputError(f"{name} {value!r}: expected a number of at least {least:g}")


@dataclass(frozen=True)
class BetaVAE(Objective):
    """β times the divergence from the prior; the plain auto-encoder at β = 1.

    References
    ----------
    I. Higgins et al., "β-VAE: Learning basic visual concepts with a constrained variational framework", ICLR 2017.
    D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014, for β = 1.
    """

    beta: float = 4.0
    name: ClassVar[str] = "β-VAE"

    def __post_init__(self) -> None:
        _check("beta", self.beta)

    def penalty(self, posterior: Posterior, state: State) -> Mapping[str, Tensor]:
        """Return β times the divergence, and the divergence."""
        divergence = mean_divergence(posterior.mean, posterior.log_variance)
        return {"penalty": self.beta * divergence, "divergence": divergence}


@dataclass(frozen=True)
class AnnealedVAE(Objective):
    """γ times the distance of the divergence from a capacity that grows from 0.

    Attributes
    ----------
    gamma : float
        The weight.
    capacity : float
        The final capacity in nats.
    steps : int
        After how many steps it is reached.

    References
    ----------
    C. P. Burgess et al., "Understanding disentangling in β-VAE", arXiv:1804.03599 (2018).
    """

    gamma: float = 1000.0
    capacity: float = 25.0
    steps: int = 100_000
    name: ClassVar[str] = "annealed VAE"

    def __post_init__(self) -> None:
        _check("gamma", self.gamma)
        _check("capacity", self.capacity)
        _check("steps", self.steps, 1)

    def penalty(self, posterior: Posterior, state: State) -> Mapping[str, Tensor]:
        """Return γ times the distance, and the divergence."""
        divergence = mean_divergence(posterior.mean, posterior.log_variance)
        capacity = self.capacity * min(1.0, state.step / self.steps)
        return {"penalty": self.gamma * (divergence - capacity).abs(), "divergence": divergence}


@dataclass(frozen=True)
class BetaTCVAE(Objective):
    """The divergence from the prior, with its total correlation weighted by β.

    The divergence itself is exact, and only the β − 1 additional total correlations are estimated from the batch.

    Attributes
    ----------
    beta : float
        The weight of the total correlation.
    estimator : {"weighted", "stratified"}
        See :func:`log_batch_weights`.

    References
    ----------
    R. T. Q. Chen, X. Li, R. Grosse and D. Duvenaud, "Isolating sources of disentanglement in variational
    autoencoders", NeurIPS 2018.
    """

    beta: float = 6.0
    estimator: Estimator = "weighted"
    name: ClassVar[str] = "β-TCVAE"

    def __post_init__(self) -> None:
        _check("beta", self.beta)
        if self.estimator not in get_args(Estimator):
            raise InputError(
                f"estimator {self.estimator!r}: expected one of {', '.join(get_args(Estimator))}"
            )

    def penalty(self, posterior: Posterior, state: State) -> Mapping[str, Tensor]:
        """Return the weighted divergence, the divergence and the total correlation."""
        divergence = mean_divergence(posterior.mean, posterior.log_variance)
        correlation = decompose_divergence(posterior, state.n_images, self.estimator).total_correlation
        return {
            "penalty": divergence + (self.beta - 1) * correlation,
            "divergence": divergence,
            "total_correlation": correlation,
        }


@dataclass(frozen=True)
class FactorVAE(Objective):
    """The divergence from the prior, and γ times the total correlation as a critic sees it.

    The critic tells codes from codes whose dimensions were permuted over the batch; its logit is the log of the ratio
    of q(z) to the product of its marginals. Auto-encoder and critic are trained in the same step: the critic's weights
    are held fixed in the one loss, the codes in the other, so that their gradients never mix.

    Attributes
    ----------
    gamma : float
        The weight.
    width, depth : int
        Width and depth of the critic: the units of a hidden layer, and the number of layers.
    learning_rate : float
        Learning rate of the critic.

    References
    ----------
    H. Kim and A. Mnih, "Disentangling by factorising", ICML 2018. There the permuted codes come from a second batch;
    here they come from the same one.
    """

    gamma: float = 35.0
    width: int = 1000
    depth: int = 6
    learning_rate: float = 1e-4
    name: ClassVar[str] = "FactorVAE"

    def __post_init__(self) -> None:
        _check("gamma", self.gamma)
        _check("width", self.width, 1)
        _check("depth", self.depth, 1)
        _check("learning_rate", self.learning_rate)

    def critic(self, latent: int) -> nn.Module:
        """Return the network from codes (n, d) to logits (n, 1)."""
        layers: list[nn.Module] = []
        units = latent
        for _ in range(self.depth - 1):
            layers += [nn.Linear(units, self.width), nn.LeakyReLU(0.2)]
            units = self.width
        return nn.Sequential(*layers, nn.Linear(units, 1))

    def penalty(self, posterior: Posterior, state: State) -> Mapping[str, Tensor]:
        """Return the weighted divergence with the critic's own loss, and all parts."""
        critic = state.critic
        if critic is None:
            raise ValueError("FactorVAE needs its critic in the state")
        codes = posterior.codes
        fixed = {name: weight.detach() for name, weight in critic.named_parameters()}
        correlation = functional_call(critic, fixed, (codes,)).mean()
        divergence = mean_divergence(posterior.mean, posterior.log_variance)
        # A logit is positive for codes of the encoder.
        drawn, permuted = critic(torch.cat([codes, permute_dimensions(codes)]).detach()).chunk(2)
        mistaken = 0.5 * (functional.softplus(-drawn).mean() + functional.softplus(permuted).mean())
        return {
            "penalty": divergence + self.gamma * correlation + mistaken,
            "divergence": divergence,
            "total_correlation": correlation,
            "critic": mistaken,
        }


@dataclass(frozen=True)
class DIPVAE(Objective):
    """The divergence from the prior, and the distance of the codes' covariance from the identity.

    Attributes
    ----------
    off_diagonal, diagonal : float
        The weights λ_od and λ_d of the squared distances.
    kind : {"I", "II"}
        The covariance of the posterior means, or that of the drawn codes (the mean variance of the posteriors added).

    References
    ----------
    A. Kumar, P. Sattigeri and A. Balakrishnan, "Variational inference of disentangled latent concepts from unlabeled
    observations", ICLR 2018.
    """

    off_diagonal: float = 10.0
    diagonal: float = 10.0
    kind: Literal["I", "II"] = "II"
    name: ClassVar[str] = "DIP-VAE"

    def __post_init__(self) -> None:
        _check("off_diagonal", self.off_diagonal)
        _check("diagonal", self.diagonal)
        if self.kind not in ("I", "II"):
            raise InputError(f"kind {self.kind!r}: expected I or II")

    def penalty(self, posterior: Posterior, state: State) -> Mapping[str, Tensor]:
        """Return the divergence with the weighted distance, and the divergence."""
        divergence = mean_divergence(posterior.mean, posterior.log_variance)
        centred = posterior.mean - posterior.mean.mean(0)
        covariance = centred.T @ centred / len(centred)
        if self.kind == "II":
            covariance = covariance + posterior.log_variance.exp().mean(0).diag()
        variances = covariance.diagonal()
        outside = covariance.square().sum() - variances.square().sum()
        distance = self.off_diagonal * outside + self.diagonal * (variances - 1).square().sum()
        return {"penalty": divergence + distance, "divergence": divergence}
