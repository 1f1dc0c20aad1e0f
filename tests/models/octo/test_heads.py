"""Bins, losses and noise: closed forms, exact oracles, and what two answers to one picture become."""

from itertools import pairwise

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from vlakit.errors import CheckpointMismatch, ConfigError, UnknownName
from vlakit.models.octo.bins import Bins
from vlakit.models.octo.diffusion import Diffusion, cosine_betas
from vlakit.models.octo.heads import HEADS, ActionHead, Discrete, masked_mean
from vlakit.models.octo.stem import StandardConv, Stem

WIDTH, SHAPE = 16, (2, 3)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_bins_return_what_they_were_given_to_half_a_bin_and_never_turn_a_sign(kind: str) -> None:
    bins = Bins(64, kind)
    values = torch.linspace(-6, 6, 241)
    decoded = bins.decode(bins.encode(values))
    inside = (values > bins.edges[0]) & (values < bins.edges[-1])
    widest = float((bins.edges[1:] - bins.edges[:-1]).max())
    assert float((decoded - values)[inside].abs().max()) <= widest / 2 + 1e-5
    assert bool((decoded * values >= -1e-6).all())
    assert all(a <= b for a, b in pairwise(bins.encode(values).tolist()))


def test_the_original_takes_a_large_number_for_the_smallest() -> None:
    five = torch.tensor([5.0])
    assert Bins(256, clip=False).encode(five).item() == 0
    assert Bins(256).encode(five).item() == 255


@pytest.mark.parametrize(
    ("n", "value", "token"), [(60, 0.75, 44), (120, 0.375, 44), (240, 0.9375, 224), (1000, 0.875, 874), (64, 0.75, 48)]
)
def test_a_value_on_an_edge_falls_where_the_original_lets_it_fall(n: int, value: float, token: int) -> None:
    """Of the original's thresholds, computed by jax 0.4.20."""
    bins = Bins(n, "uniform", 0.0, 1.0, clip=False)
    assert bins.encode(torch.tensor([value])).item() == token
    assert bins.edges[-1] == 1


def test_a_kernel_that_is_scaled_and_shifted_is_the_same_kernel() -> None:
    torch.manual_seed(0)
    convolution, pictures = StandardConv(3, 32, 3, 2, 1), torch.randn(1, 3, 8, 8)
    before = convolution(pictures)
    with torch.no_grad():
        convolution.weight.copy_(convolution.weight * 3 + 1)
    torch.testing.assert_close(convolution(pictures), before, rtol=1e-3, atol=1e-3)


def test_a_stem_says_how_many_tokens_it_makes() -> None:
    for size, patch in ((64, 1), (50, 1), (64, 2)):
        stem = Stem(3, (32, 32, 32), 8, patch=patch)
        assert stem(torch.zeros(1, 3, size, size)).shape == (1, stem.tokens(size), 8)
    with pytest.raises(ConfigError, match="widths"):
        Stem(3, (30,))
    with pytest.raises(ConfigError, match="no token"):
        Stem(3, (32,), patch=9).tokens(16)


def test_betas_are_the_squared_cosine_of_diffusers() -> None:
    for steps in (10, 20, 100):
        theirs = DDPMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2").betas
        torch.testing.assert_close(cosine_betas(steps), theirs, rtol=1e-5, atol=1e-6)


class Oracle(Diffusion):
    """Knows the noise in chunks whose numbers are all normal with this mean and deviation."""

    mean, deviation = 0.0, 1.0

    def noise(self, readouts: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        kept = self.kept[time]
        expected = noisy - kept.sqrt() * self.mean
        return (1 - kept).sqrt() * expected / (kept * self.deviation**2 + 1 - kept)


@pytest.mark.parametrize(("mean", "deviation"), [(1.5, 0.0), (-0.7, 0.0), (0.8, 0.5)])
def test_with_the_exact_noise_the_sampler_returns_the_actions_that_there_are(mean: float, deviation: float) -> None:
    head = Oracle(WIDTH, (1, 1), steps=100)
    head.mean, head.deviation = mean, deviation
    drawn = torch.randn(101, 4000, 1, generator=torch.Generator().manual_seed(0))
    actions = head.denoised(torch.zeros(4000, 1, 1, WIDTH), drawn)
    assert abs(float(actions.mean()) - mean) < 0.03
    assert abs(float(actions.std()) - deviation) < (1e-3 if deviation == 0 else 0.03)


def test_numbers_that_a_robot_lacks_stay_noise_and_change_no_other_by_themselves() -> None:
    torch.manual_seed(0)
    head = Diffusion(WIDTH, SHAPE, hidden=16, steps=5)
    drawn = torch.randn(6, 2, 6)
    actions = head.denoised(torch.randn(2, 1, 1, WIDTH), drawn, dimensions=2)
    last = (1 - head.kept[0]).sqrt() * drawn[-1].unflatten(-1, SHAPE)
    torch.testing.assert_close(actions[..., 2], last[..., 2])


def test_samples_of_one_loss_are_the_mean_of_single_losses() -> None:
    torch.manual_seed(0)
    head, readouts, actions = Diffusion(WIDTH, SHAPE, hidden=16), torch.randn(2, 2, 1, WIDTH), torch.randn(2, 2, *SHAPE)
    time, noise = torch.randint(20, (4, 2, 2, 1)), torch.randn(4, 2, 2, 6)
    whole = head.errors_at(readouts, actions, time, noise)["loss"]
    singles = [head.errors_at(readouts, actions, time[i : i + 1], noise[i : i + 1])["loss"] for i in range(4)]
    torch.testing.assert_close(whole, torch.stack(singles).mean(dim=0))


def test_a_mean_counts_what_exists_alone() -> None:
    values = torch.arange(8.0).view(1, 2, 2, 2)
    mask = values >= 6
    assert float(masked_mean(values, mask)) == 6.5
    assert float(masked_mean(values, mask & False)) == 0


def answers(head: ActionHead, n: int) -> Tensor:
    """(n,) of a trained head on the one picture."""
    readouts = torch.zeros(n, 1, 1, WIDTH)
    rng = torch.Generator().manual_seed(1)
    if isinstance(head, Diffusion):
        return head.denoised(readouts, torch.randn(head.steps + 1, n, 1, generator=rng)).flatten()
    if isinstance(head, Discrete):
        shares = head.log_probs(readouts[:1])[0, 0].exp()
        return head.bins.decode(torch.multinomial(shares, n, replacement=True, generator=rng))
    return head.act(readouts).flatten()


@pytest.mark.parametrize("name", ["diffusion", "discrete", "mse"])
def test_noise_and_tokens_keep_both_ways_round_an_obstacle_and_the_mean_runs_into_it(name: str) -> None:
    torch.manual_seed(0)
    options = {"diffusion": {"hidden": 64, "blocks": 2}, "discrete": {"n_bins": 32}, "mse": {}}[name]
    head = HEADS.fitted(name, options, WIDTH, (1, 1), where="model.network.head").train()
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    readouts, ways = torch.zeros(256, 1, 1, WIDTH), torch.tensor([-1.0, 1.0]).repeat(128).view(256, 1, 1, 1)
    for _ in range(300 if name == "diffusion" else 100):
        optimizer.zero_grad()
        head.errors(readouts, ways)["loss"].mean().backward()
        optimizer.step()
    with torch.no_grad():
        chosen = answers(head.eval(), 1000)
    if name == "mse":
        assert float(chosen.abs().max()) < 0.1
        return
    assert float(((chosen.abs() - 1).abs() < 0.3).float().mean()) > 0.9
    assert 0.4 < float((chosen > 0).float().mean()) < 0.6


def test_what_no_head_is_or_takes_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="diffusoin") as caught:
        HEADS.fitted("diffusoin", {}, WIDTH, SHAPE, where="model.network.head")
    assert "diffusion" in caught.value.do
    with pytest.raises(CheckpointMismatch, match="bins"):
        HEADS.fitted("mse", {"bins": "normal"}, WIDTH, SHAPE, where="model.network.head")
    for name, options in (
        ("discrete", {"token_per": "word"}),
        ("discrete", {"bins": "even"}),
        ("diffusion", {"steps": 0}),
        ("mse", {"pooling": "max"}),
    ):
        with pytest.raises(ConfigError):
            HEADS.fitted(name, options, WIDTH, SHAPE, where="model.network.head")
    with pytest.raises(ConfigError, match="readout tokens"):
        HEADS.fitted("discrete", {"pooling": "mean"}, WIDTH, SHAPE, where="model.network.head").act(
            torch.zeros(1, 1, 2, WIDTH)
        )
