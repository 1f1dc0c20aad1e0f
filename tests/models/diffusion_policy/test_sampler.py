"""Noise and the way back: closed forms, exact oracles, and two modes that a mean would lose."""

from __future__ import annotations

import pytest
import torch
from models.diffusion_policy.cases import batch, policy, processor
from torch import Tensor

from vlakit.models.diffusion_policy.sampler import Sampler


def test_noise_is_added_in_closed_form() -> None:
    sampler = Sampler("ddpm")
    x, noise, steps = torch.randn(3, 4, 2), torch.randn(3, 4, 2), torch.tensor([0, 50, 99])
    kept = sampler.scheduler.alphas_cumprod[steps][:, None, None]
    torch.testing.assert_close(sampler.noisy(x, noise, steps), kept.sqrt() * x + (1 - kept).sqrt() * noise)
    betas = sampler.scheduler.betas
    t = torch.arange(101, dtype=torch.float64) / 100
    bars = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
    torch.testing.assert_close(betas.double(), (1 - bars[1:] / bars[:-1]).clamp(max=0.999), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("scheduler", "steps"), [("ddpm", 100), ("ddim", 100), ("ddim", 10)])
@pytest.mark.parametrize("target", ["epsilon", "sample"])
def test_an_exact_oracle_of_one_point_leads_to_it(scheduler: str, steps: int, target: str) -> None:
    sampler = Sampler(scheduler, steps, prediction_type=target)
    point = torch.tensor([0.3, -0.7])

    def oracle(x: Tensor, t: Tensor) -> Tensor:
        kept = sampler.scheduler.alphas_cumprod[t][:, None, None]
        return (x - kept.sqrt() * point) / (1 - kept).sqrt() if target == "epsilon" else point.expand_as(x)

    start, generators = sampler.start((2, 4, 2), torch.device("cpu"))
    after = list(sampler.denoising(oracle, start, generators))
    assert len(after) == steps
    torch.testing.assert_close(after[-1], point.expand(2, 4, 2), atol=1e-3, rtol=0)


def test_a_step_of_training_on_another_device_leaves_answers_on_this_one() -> None:
    sampler = Sampler("ddim", 4)
    elsewhere = torch.zeros(2, 4, 2, device="meta")
    assert sampler.noisy(elsewhere, elsewhere, torch.zeros(2, dtype=torch.long, device="meta")).device.type == "meta"
    start, generators = sampler.start((2, 4, 2), torch.device("cpu"))
    assert len(list(sampler.denoising(lambda x, _: x, start, generators))) == 4


def test_every_row_begins_with_the_same_noise_and_draws_the_same() -> None:
    sampler = Sampler("ddpm", num_train_timesteps=20)
    start, generators = sampler.start((3, 4, 2), torch.device("cpu"))
    last = list(sampler.denoising(lambda x, t: 0.1 * x, start, generators))[-1]
    assert torch.equal(last[0], last[2])
    alone, generators = sampler.start((1, 4, 2), torch.device("cpu"))
    assert torch.equal(list(sampler.denoising(lambda x, t: 0.1 * x, alone, generators))[-1][0], last[0])


def test_inpainting_keeps_what_is_known() -> None:
    network, given = policy("unet_inpaint").eval(), batch(processor())
    with torch.no_grad():
        seen = network.seen(given)
        trajectory = network.sampled(seen)
    assert torch.equal(trajectory[:, :2, 7:], seen)


@pytest.mark.slow
def test_two_modes_stay_two_where_a_mean_would_be_neither() -> None:
    of = processor(cameras=[], window=1, horizon=4, chunk=4, proprio=7, language=None)
    sampler = {"scheduler": "ddim", "num_train_timesteps": 50, "steps": 25}
    network = policy(of=of, sampler=sampler, action_size=1, options={"widths": [16, 32], "time_width": 16})
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    given = of.blank(64, action_size=1)
    side = torch.where(torch.arange(64) % 2 == 0, 0.8, -0.8)
    given.normalized, given.datasets = side[:, None, None].expand(-1, 4, 1), ["one"] * 64
    for _ in range(300):
        optimizer.zero_grad()
        network(given).loss.backward()
        optimizer.step()
    with torch.no_grad():
        seen = network.eval().seen(given)[:1].expand(256, -1, -1)
        generator = torch.Generator().manual_seed(0)
        end = network.denoised(seen, torch.randn(256, network.length, 1, generator=generator))[-1].mean(dim=(1, 2))
    assert 0.4 < float((end > 0).float().mean()) < 0.6
    assert float((end.abs() - 0.8).abs().median()) < 0.1  # the mean of the data, 0, is what no answer is near
