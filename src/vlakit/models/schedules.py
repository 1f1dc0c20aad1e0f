"""What diffusers' noise schedulers need to serve a network on any device."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def noisy(scheduler: Any, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Samples (B, ...) with so much noise as time steps (B,) stand for, by the scheduler's `add_noise`.

    That moves the scheduler's table to the samples' device for good, and an answer on another device then fails.
    """
    table = scheduler.alphas_cumprod
    try:
        return scheduler.add_noise(clean, noise, timesteps)
    finally:
        scheduler.alphas_cumprod = table
