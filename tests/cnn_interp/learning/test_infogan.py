"""InfoGAN: bounds, players that keep out of each other's way, codes that find planted categories, and resumption."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cnn_interp.learning.infogan import (
    Codes,
    InfoGAN,
    InfoGANConfig,
    Schedule,
    Told,
    _Trained,
    best_assignment,
    code_columns,
    code_log_density,
    information,
    load_infogan,
    mode_coverage,
    paired_codes,
    paired_information,
    save_infogan,
    train_infogan,
    traversals,
)
from interpretkit.errors import InputError

TINY = InfoGANConfig(side=8, categories=3, continuous=1, noise=4, width=4, units=16)


def quarters(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images with one of three quarters bright, a little more or less."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    images = torch.zeros(count, 8, 8, dtype=torch.uint8)
    bright = torch.randint(200, 256, (count,), generator=generator).to(torch.uint8)
    for row, label in enumerate(labels):
        top, left = divmod(int(label), 2)
        images[row, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] = bright[row]
    return images, labels


def test_the_bound_is_that_of_the_article() -> None:
    codes = Codes(torch.tensor([0, 2]), torch.tensor([[0.5], [-1.0]]), torch.zeros(2, 4))
    sure = Told(
        torch.tensor([[50.0, 0, 0], [0, 0, 50.0]]), torch.tensor([[0.5], [0.0]]), torch.tensor([[0.0], [1.0]])
    )
    category, continuous = code_log_density(codes, sure)
    torch.testing.assert_close(category, torch.zeros(2))
    normal = torch.distributions.Normal(sure.mean, (0.5 * sure.log_variance).exp())
    torch.testing.assert_close(continuous, normal.log_prob(codes.continuous))
    # A head that knows nothing has the bound of no information at all.
    torch.manual_seed(0)
    model = InfoGAN(TINY).eval()
    for weight in [*model.critic.head[-1].parameters(), *model.critic.spread.parameters()]:
        torch.nn.init.zeros_(weight)
    found = information(model, count=4000)
    assert found.category == pytest.approx(0.0, abs=1e-6)
    assert found.category_entropy == pytest.approx(math.log(3))
    # E log N(c; 0, 1) + log 2 for c even over −1 … 1.
    assert found.continuous[0] == pytest.approx(math.log(2) - 0.5 * math.log(2 * math.pi) - 1 / 6, abs=0.01)


def test_each_player_is_moved_by_its_own_loss_alone() -> None:
    torch.manual_seed(0)
    model = InfoGAN(TINY)
    images, _ = quarters(16)
    trained = _Trained(model, Schedule(batch_size=16, affine=0, pairing=0))
    torch.manual_seed(1)
    trained(images)["loss"].backward()
    got = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad(set_to_none=True)

    # The article's two losses, one after the other, with the same codes.
    torch.manual_seed(1)
    softplus = torch.nn.functional.softplus
    real, _ = model.critic(images[:, None].float() / 255)
    codes = model.codes(16)
    drawn = model.generator(codes)

    def missed(told: Told) -> torch.Tensor:
        category, _ = code_log_density(codes, told)
        squares = (codes.continuous - told.mean).square().sum(1).mean()
        return squares / 2 - category.mean()

    def spread(told: Told) -> torch.Tensor:
        normal = torch.distributions.Normal(told.mean.detach(), (0.5 * told.log_variance).exp())
        return -normal.log_prob(codes.continuous).sum(1).mean()

    seen, told = model.critic(drawn.detach())
    of_critic = softplus(-real).mean() + softplus(seen).mean() + missed(told) + spread(told)
    critic = torch.autograd.grad(of_critic, list(model.critic.parameters()))
    seen, told = model.critic(drawn)
    of_generator = softplus(-seen).mean() + missed(told)
    generator = torch.autograd.grad(of_generator, list(model.generator.parameters()))
    expected = dict(zip([f"critic.{n}" for n, _ in model.critic.named_parameters()], critic, strict=True))
    expected |= zip([f"generator.{n}" for n, _ in model.generator.named_parameters()], generator, strict=True)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_pairs_have_one_code_in_common_and_telling_it_moves_no_critic() -> None:
    torch.manual_seed(2)
    model = InfoGAN(replace(TINY, continuous=2))
    first, second, shared = paired_codes(model, 300)
    assert (torch.bincount(shared, minlength=3) > 60).all()
    same = first.continuous == second.continuous
    assert torch.equal(same, shared[:, None] == torch.tensor([1, 2]))
    assert (first.category == second.category)[shared == 0].all()
    # The others are drawn anew, and fall together as often as chance has it.
    assert 0.15 < float((first.category == second.category)[shared != 0].double().mean()) < 0.5
    assert not (first.noise == second.noise).any()

    images, _ = quarters(16)
    gradients = []
    for contrast in (0.0, 1.0):
        trained = _Trained(model, Schedule(affine=0, pairing=0, contrast=contrast))
        model.zero_grad(set_to_none=True)
        torch.manual_seed(3)
        losses = trained(images)
        losses["loss"].backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    assert losses["missed_contrast"].item() == pytest.approx(math.log(3), abs=0.2)
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, rtol=1e-4, atol=1e-7) == name.startswith(
            "critic"
        ), name


def test_paired_information_is_what_two_views_share() -> None:
    rng = np.random.default_rng(0)
    same = torch.from_numpy(1e3 * np.eye(4)[rng.permutation(np.arange(400) % 4)]).float()
    torch.testing.assert_close(paired_information(same, same), torch.tensor(math.log(4)))
    # Categories exchanged in one view tell as much only where both ways count alike; independent views tell nothing.
    pairs = torch.from_numpy(1e3 * np.eye(4)).float()
    first, second = pairs.repeat_interleave(4, 0), pairs.repeat(4, 1)
    torch.testing.assert_close(paired_information(first, second), torch.tensor(0.0), atol=1e-6, rtol=0)
    # One category for all, and no idea of any, are worth nothing either.
    assert abs(float(paired_information(same[:1].repeat(9, 1), same[:1].repeat(9, 1)))) < 1e-6
    assert abs(float(paired_information(0 * same, 0 * same))) < 1e-6
    # From counts, for soft views: the information of the symmetric joint table.
    logits = torch.from_numpy(rng.normal(size=(2, 50, 3)))
    first, second = logits.softmax(2).numpy()
    joint = np.einsum("ni,nj->ij", first, second) / 50
    joint = (joint + joint.T) / 2
    expected = (joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)))).sum()
    assert float(paired_information(*logits)) == pytest.approx(expected, rel=1e-9)


def test_statistics_are_those_of_real_images() -> None:
    torch.manual_seed(0)
    model = InfoGAN(TINY)
    other = InfoGAN(TINY)
    other.load_state_dict(model.state_dict())
    images, _ = quarters(32)
    _Trained(model, Schedule(affine=0, pairing=0))(images)
    other.critic(images[:, None].float() / 255)
    for name, buffer in model.critic.named_buffers():
        assert torch.equal(buffer, dict(other.critic.named_buffers())[name]), name


def test_the_code_comes_to_be_told_from_drawn_images() -> None:
    images, _ = quarters(320)
    schedule = Schedule(epochs=8, batch_size=32, critic_rate=4e-3, generator_rate=4e-3)
    told = []
    for seed in (0, 1, 2):
        model, history = train_infogan(images, TINY, schedule, seed=seed, device="cpu", quiet=True)
        codes, discrete = code_columns(model.tell(images))
        assert codes.shape == (320, 2)
        assert discrete == [True, False]
        told.append(history.epochs[-1]["category_information"])
    # Of log 3 = 1.1 nats; the head knows nothing without training.
    torch.manual_seed(0)
    assert information(InfoGAN(TINY).eval(), count=300).category < 0.05
    assert np.mean(told) > 0.5


def test_a_killed_training_goes_on_with_both_players(tmp_path: Path) -> None:
    images, _ = quarters(96)
    schedule = Schedule(epochs=4, batch_size=32, contrast=0.5)
    whole, _ = train_infogan(images, TINY, schedule, seed=5, device="cpu", quiet=True)
    calls = 0
    forward = _Trained.forward

    class Killed(Exception):
        pass

    def failing(self, batch):
        nonlocal calls
        calls += 1
        if calls == 8:  # within the third epoch
            raise Killed
        return forward(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Trained, "forward", failing)
        with pytest.raises(Killed):
            train_infogan(images, TINY, schedule, seed=5, device="cpu", checkpoint=tmp_path, quiet=True)
    resumed, history = train_infogan(
        images, TINY, schedule, seed=5, device="cpu", checkpoint=tmp_path, quiet=True
    )
    assert len(history.epochs) == 4
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    with pytest.raises(InputError, match="another model"):
        train_infogan(
            images, TINY, replace(schedule, weight=2.0), device="cpu", checkpoint=tmp_path, quiet=True
        )


def test_best_assignment_uses_every_label_once() -> None:
    # Greedily, code 0 would take label 0 and leave code 1 with nothing.
    codes = np.repeat([0, 0, 1], [5, 4, 6])
    labels = np.repeat([0, 1, 0], [5, 4, 6])
    found = best_assignment(codes, labels, 2, 2)
    assert found.label_of.tolist() == [1, 0]
    assert found.accuracy == pytest.approx(10 / 15)
    assert found.merged() == [1]
    assert found.read([0, 1, 1], [1, 0, 1]) == pytest.approx(2 / 3)
    more = best_assignment([0, 1, 2], [0, 0, 1], 4, 2)
    assert sorted(more.label_of.tolist()) == [-1, -1, 0, 1]
    with pytest.raises(InputError, match="codes"):
        best_assignment([0, 1], [0], 2, 2)


def test_coverage_counts_what_a_classifier_sees() -> None:
    torch.manual_seed(0)
    model = InfoGAN(TINY).eval()

    def classifier(images: torch.Tensor) -> np.ndarray:
        assert images.dtype == torch.uint8
        seen = np.zeros((len(images), 3))
        seen[::4, 2] = 1.0
        seen[np.arange(len(images)) % 4 != 0, 0] = 1.0
        return seen

    found = mode_coverage(model, classifier, [0, 0, 1, 2], count=400)
    np.testing.assert_allclose(found.shares, [0.75, 0, 0.25])
    assert found.covered == 2
    assert found.divergence == pytest.approx(0.75 * np.log(0.75 / 0.5))
    assert found.sure == 1.0
    assert 0.7 < found.purity < 0.85


def test_traversals_and_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = InfoGAN(TINY).eval()
    by_category, by_code = traversals(model, steps=(-1, 0, 1), rows=2)
    assert by_category.shape == (2, 3, 8, 8)
    assert by_code.shape == (1, 3, 3, 8, 8)
    # In the middle nothing is moved: the first row of categories is the same.
    np.testing.assert_array_equal(by_code[0, :, 1], by_category[0])
    save_infogan(tmp_path / "infogan.safetensors", model, {"seed": 0})
    loaded, about = load_infogan(tmp_path / "infogan.safetensors")
    assert about == {"seed": 0}
    images, _ = quarters(9)
    assert torch.equal(loaded.tell(images).logits, model.tell(images).logits)
    with pytest.raises(InputError, match="8 × 8"):
        model.tell(torch.zeros(2, 9, 9, dtype=torch.uint8))


def test_refusals() -> None:
    images, _ = quarters(40)
    for wrong, said in ((replace(TINY, side=10), "side 10"), (replace(TINY, categories=1), "categories 1")):
        with pytest.raises(InputError, match=said):
            InfoGAN(wrong)
    with pytest.raises(InputError, match="smoothing"):
        train_infogan(images, TINY, Schedule(batch_size=8, smoothing=0.7))
    with pytest.raises(InputError, match="at least a batch"):
        train_infogan(images, TINY, Schedule(batch_size=64))
    with pytest.raises(InputError, match="images"):
        train_infogan(images.float(), TINY, Schedule(batch_size=8))
