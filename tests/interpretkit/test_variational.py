from itertools import combinations

import numpy as np
import pytest
import torch

from interpretkit.errors import InputError
from interpretkit.variational import (
    DIPVAE,
    AnnealedVAE,
    BetaTCVAE,
    BetaVAE,
    FactorVAE,
    Posterior,
    State,
    decompose_divergence,
    draw_codes,
    gaussian_log_density,
    log_batch_weights,
    mean_divergence,
    permute_dimensions,
    prior_divergence,
    reconstruction_loss,
)


def some_posterior(size: int = 7, latent: int = 3, seed: int = 0, dtype=torch.float64) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    mean, noise, spread = torch.randn(3, size, latent, generator=generator, dtype=dtype)
    log_variance = 0.5 * spread - 1
    return Posterior(mean, log_variance, mean + (0.5 * log_variance).exp() * noise)


def gaussian_toy(n: int, seed: int = 0) -> tuple[Posterior, dict[str, float]]:
    """Return a posterior whose aggregate is a known Gaussian, and the exact parts of its divergence."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[1.0, 0.0], [0.9, 0.7]], dtype=torch.float64)
    variance = 0.4
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    mean = x @ mixing.T
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    log_variance = torch.full_like(mean, float(np.log(variance)))
    covariance = (mixing @ mixing.T).numpy() + variance * np.eye(2)
    log_det = np.linalg.slogdet(covariance)[1]
    variances = covariance.diagonal()
    exact = {
        "mutual_information": 0.5 * (log_det - 2 * np.log(variance)),
        "total_correlation": 0.5 * (np.log(variances).sum() - log_det),
        "dimension_wise": 0.5 * (variances - np.log(variances) - 1).sum(),
    }
    return Posterior(mean, log_variance, mean + variance**0.5 * noise), exact


@pytest.mark.parametrize("shape", [(4, 1, 3, 3), (4, 3, 2, 5)])
def test_reconstruction_loss_is_bernoulli(shape):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    images = torch.randint(2, shape, generator=generator).double()
    expected = -torch.distributions.Bernoulli(logits=logits).log_prob(images).sum((1, 2, 3))
    assert torch.allclose(reconstruction_loss(logits, images), expected)


def test_prior_divergence_and_density_are_those_of_torch():
    mean, log_variance, codes = some_posterior()
    gaussian = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    assert torch.allclose(
        prior_divergence(mean, log_variance), torch.distributions.kl_divergence(gaussian, standard)
    )
    assert torch.allclose(gaussian_log_density(codes, mean, log_variance), gaussian.log_prob(codes))


def test_draws_are_those_of_the_gaussians():
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]])
    given = draw_codes(mean, log_variance, torch.tensor([[2.0, -1.0]]))
    assert torch.allclose(given, torch.tensor([[3.0, -2.0 - np.e]]))
    torch.manual_seed(0)
    drawn = draw_codes(mean.expand(20_000, 2), log_variance.expand(20_000, 2))
    assert torch.allclose(drawn.mean(0), mean[0], atol=0.1)
    assert torch.allclose(drawn.std(0), (0.5 * log_variance[0]).exp(), atol=0.1)


def test_mean_divergence_sums_over_dimensions():
    mean, log_variance, _ = some_posterior()
    one_by_one = torch.stack(
        [mean_divergence(mean[:, j : j + 1], log_variance[:, j : j + 1]) for j in range(mean.shape[1])]
    )
    assert float(mean_divergence(mean, log_variance)) == pytest.approx(float(one_by_one.sum()))


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
@pytest.mark.parametrize("n_images", [7, 500])
def test_the_parts_sum_to_the_divergence(estimator, n_images):
    posterior = some_posterior()
    mean, log_variance, codes = posterior
    gaussian = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = (gaussian.log_prob(codes) - standard.log_prob(codes)).sum(1).mean()
    assert sum(decompose_divergence(posterior, n_images, estimator)) == pytest.approx(float(expected))


def test_parts_on_all_images_are_those_of_the_gaussian_toy():
    posterior, exact = gaussian_toy(2000)
    parts = decompose_divergence(posterior, 2000, "stratified")
    for name, value in exact.items():
        assert float(getattr(parts, name)) == pytest.approx(value, abs=0.06), name
    assert exact["total_correlation"] > 0.2


def test_parts_from_batches_are_near_those_of_the_gaussian_toy():
    posterior, exact = gaussian_toy(4000)
    batches = [Posterior(*(part[i : i + 400] for part in posterior)) for i in range(0, 4000, 400)]
    found = [float(decompose_divergence(batch, 4000, "stratified").total_correlation) for batch in batches]
    assert np.mean(found) == pytest.approx(exact["total_correlation"], abs=0.1)


def test_weighted_estimate_is_a_constant_above_the_exact_one_on_all_images():
    posterior, _ = gaussian_toy(300)
    exact = decompose_divergence(posterior, 300, "stratified").total_correlation
    weighted = decompose_divergence(posterior, 300, "weighted").total_correlation
    assert float(weighted - exact) == pytest.approx(np.log(300))  # (d − 1) log n, d = 2


def test_weighted_gradient_does_not_depend_on_the_number_of_images():
    gradients = []
    for n_images in (7, 10**6):
        mean, log_variance, codes = some_posterior()
        codes.requires_grad_()
        decompose_divergence(Posterior(mean, log_variance, codes), n_images).total_correlation.backward()
        gradients.append(codes.grad)
    assert torch.allclose(gradients[0], gradients[1])
    assert gradients[0].abs().max() > 0.01


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_stratified_weights_have_the_aggregate_as_their_mean(size):
    mean, log_variance, codes = some_posterior(6)
    densities = gaussian_log_density(codes[:1], mean, log_variance).sum(1).exp()
    estimates = []
    for others in combinations(range(1, 6), size - 1):
        weights = log_batch_weights(size, 6, "stratified", codes).exp()[0]
        estimates.append(float(weights @ densities[[0, *others]]))
    if size == 1:  # nothing is known of the other images
        assert estimates == [pytest.approx(float(densities[0]) / 6)]
    else:
        assert np.mean(estimates) == pytest.approx(float(densities.mean()))


def test_permuted_dimensions_keep_marginals_and_lose_correlation():
    torch.manual_seed(0)
    posterior, _ = gaussian_toy(4000)
    permuted = permute_dimensions(posterior.codes)
    assert torch.equal(permuted.sort(0).values, posterior.codes.sort(0).values)
    assert abs(np.corrcoef(posterior.codes.numpy(), rowvar=False)[0, 1]) > 0.5
    assert abs(np.corrcoef(permuted.numpy(), rowvar=False)[0, 1]) < 0.06


def penalty_of(objective, posterior: Posterior, step: int = 0, critic=None) -> dict[str, float]:
    parts = objective.penalty(posterior, State(step, 100, critic))
    return {name: float(value.detach()) for name, value in parts.items()}


def test_beta_weighs_the_divergence():
    posterior = some_posterior()
    divergence = float(prior_divergence(posterior.mean, posterior.log_variance).sum(1).mean())
    assert penalty_of(BetaVAE(1), posterior)["penalty"] == pytest.approx(divergence)
    assert penalty_of(BetaVAE(5), posterior)["penalty"] == pytest.approx(5 * divergence)
    assert penalty_of(BetaTCVAE(1), posterior)["penalty"] == pytest.approx(divergence)


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_tcvae_adds_total_correlations(estimator):
    posterior = some_posterior()
    parts = decompose_divergence(posterior, 100, estimator)
    found = penalty_of(BetaTCVAE(6, estimator), posterior)
    assert found["penalty"] - found["divergence"] == pytest.approx(5 * float(parts.total_correlation))


def test_capacity_grows_and_then_stays():
    posterior = some_posterior()
    divergence = penalty_of(BetaVAE(1), posterior)["divergence"]
    objective = AnnealedVAE(gamma=10, capacity=2, steps=50)
    for step, capacity in ((0, 0.0), (25, 1.0), (50, 2.0), (999, 2.0)):
        assert penalty_of(objective, posterior, step)["penalty"] == pytest.approx(
            10 * abs(divergence - capacity)
        )


@pytest.mark.parametrize("kind", ["I", "II"])
def test_dip_penalty_is_the_distance_of_the_covariance_from_the_identity(kind):
    posterior = some_posterior(size=9)
    covariance = np.cov(posterior.mean.numpy(), rowvar=False, bias=True)
    if kind == "II":
        covariance = covariance + np.diag(posterior.log_variance.exp().mean(0).numpy())
    difference = (covariance - np.eye(3)) ** 2
    expected = 7 * np.trace(difference) + 3 * (difference.sum() - np.trace(difference))
    found = penalty_of(DIPVAE(off_diagonal=3, diagonal=7, kind=kind), posterior)
    assert found["penalty"] - found["divergence"] == pytest.approx(expected)


def test_gradients_of_auto_encoder_and_critic_do_not_mix():
    torch.manual_seed(0)
    objective = FactorVAE(gamma=35, width=8, depth=3)
    critic = objective.critic(3).double()
    mean, log_variance, codes = some_posterior(size=12)
    codes.requires_grad_()
    torch.manual_seed(1)
    objective.penalty(Posterior(mean, log_variance, codes), State(0, 100, critic))["penalty"].backward()
    found = [weight.grad for weight in critic.parameters()]

    expected_codes = torch.autograd.grad(35 * critic(codes).mean(), codes)[0]
    assert codes.grad is not None
    assert torch.allclose(codes.grad, expected_codes)
    torch.manual_seed(1)
    both = torch.cat([codes.detach(), permute_dimensions(codes.detach())])
    labels = torch.cat([torch.ones(12, 1), torch.zeros(12, 1)]).double()
    mistaken = torch.nn.functional.binary_cross_entropy_with_logits(critic(both), labels)
    for gradient, expected in zip(
        found, torch.autograd.grad(mistaken, list(critic.parameters())), strict=True
    ):
        assert gradient is not None
        assert torch.allclose(gradient, expected)


def test_critic_learns_the_total_correlation_of_a_gaussian():
    torch.manual_seed(0)
    objective = FactorVAE(width=64, depth=3)
    critic = objective.critic(2)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    correlation = 0.9

    def draw(n: int) -> Posterior:
        first, second = torch.randn(2, n)
        codes = torch.stack([first, correlation * first + (1 - correlation**2) ** 0.5 * second], 1)
        return Posterior(torch.zeros(n, 2), torch.zeros(n, 2), codes)

    for _ in range(600):
        optimizer.zero_grad()
        objective.penalty(draw(512), State(0, 100, critic))["critic"].backward()
        optimizer.step()
    exact = -0.5 * np.log(1 - correlation**2)
    assert penalty_of(objective, draw(20_000), critic=critic)["total_correlation"] == pytest.approx(
        exact, abs=0.1
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BetaVAE(-1), "beta -1"),
        (lambda: BetaVAE(float("nan")), "beta nan"),
        (lambda: BetaTCVAE(6, "exact"), "expected one of weighted, stratified"),  # type: ignore[arg-type]
        (lambda: FactorVAE(gamma=-1), "gamma -1"),
        (lambda: FactorVAE(depth=0), "depth 0"),
        (lambda: AnnealedVAE(steps=0), "steps 0"),
        (lambda: DIPVAE(kind="III"), "kind 'III'"),  # type: ignore[arg-type]
        (lambda: decompose_divergence(some_posterior(7), 6), "6 images"),
        (lambda: decompose_divergence(some_posterior(7), 7, "exact"), "estimator 'exact'"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
