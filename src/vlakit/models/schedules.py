"""Diffusers' noise schedulers, for a network on any device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vlakit.errors import ConfigError, PartMissing, nearest

SCHEDULERS = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler"}
TARGETS = ("epsilon", "sample")  # what the network says: the noise, or the sample itself


def noisy(scheduler: Any, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Samples (B, ...) with so much noise as time steps (B,) stand for, by the scheduler's `add_noise`.

    That moves the scheduler's table to the samples' device for good, and an answer on another device then fails.
    """
    table = scheduler.alphas_cumprod
    try:
        return scheduler.add_noise(clean, noise, timesteps)
    finally:
        scheduler.alphas_cumprod = table


def built(name: str, options: Mapping[str, Any], *, where: str = "model.network.sampler") -> Any:
    """A scheduler with these keys of diffusers' own, on the CPU. Raises ConfigError, PartMissing."""
    if name not in SCHEDULERS:
        raise ConfigError(f"no scheduler called {name!r}", where=where, do=nearest(name, SCHEDULERS))
    try:
        import diffusers.schedulers as schedulers
    except ImportError as error:
        raise PartMissing(
            f"diffusion needs diffusers: {error}", where=where, do="pip install 'vlakit[diffusion]'"
        ) from error
    target = options.get("prediction_type", "epsilon")
    if target not in TARGETS:
        raise ConfigError(f"prediction_type is {target!r}", where=where, do=nearest(str(target), TARGETS))
    try:
        with torch.device("cpu"):  # its numbers are none of the network's: on the meta device they would be lost
            return getattr(schedulers, SCHEDULERS[name])(**options)
    except (TypeError, NotImplementedError) as error:
        raise ConfigError(
            f"diffusers' {SCHEDULERS[name]} does not take this: {error}",
            where=where,
            do="its own keys: num_train_timesteps, beta_schedule, prediction_type, clip_sample, ...",
        ) from error
