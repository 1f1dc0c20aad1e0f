"""Noise to trajectory and back, by the schedulers of diffusers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from vlakit.errors import ConfigError
from vlakit.models.schedules import built, noisy

SEED = 7  # of the noise that an answer, or a validation loss, begins with: the same picture, the same action


class Sampler:
    """A noise schedule, and the way back in `steps` steps. options: those of diffusers' scheduler."""

    def __init__(self, scheduler: str = "ddim", steps: int | None = None, **options: Any) -> None:
        self.scheduler = built(scheduler, {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100, **options})
        trained = int(self.scheduler.config["num_train_timesteps"])
        self.train_steps, self.steps = trained, trained if steps is None else steps
        if not 1 <= self.steps <= trained:
            raise ConfigError(
                f"{steps} steps of {trained}", where="model.network.sampler", do="1 <= steps <= num_train_timesteps"
            )
        self.predicts_noise = self.scheduler.config["prediction_type"] == "epsilon"

    def noisy(self, trajectory: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Trajectories (B, T, D) with so much noise as time steps (B,) stand for."""
        return noisy(self.scheduler, trajectory, noise, timesteps)

    def start(self, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, list[torch.Generator]]:
        """Noise (B, T, D), the same for each row, and a generator a row: no answer depends on its neighbours."""
        first = torch.randn(shape[1:], generator=torch.Generator().manual_seed(SEED)).to(device)
        return first.expand(shape), [torch.Generator().manual_seed(SEED + 1) for _ in range(shape[0])]

    def denoising(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        start: Tensor,
        generators: list[torch.Generator] | None = None,
        inpaint: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> Iterator[Tensor]:
        """(B, T, D) after each step; predict: (noisy (B, T, D), time steps (B,)) -> what the network says.

        inpaint: puts what is known into a trajectory, before each step.
        """
        self.scheduler.set_timesteps(self.steps)
        x = start
        for step in self.scheduler.timesteps.tolist():
            x = inpaint(x)
            said = predict(x, torch.full((len(x),), step, device=x.device)).float()
            x = self.scheduler.step(said, step, x, generator=generators).prev_sample
            yield x
