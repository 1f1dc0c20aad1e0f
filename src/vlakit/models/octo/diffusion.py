"""The diffusion head: one pass of the transformer, then a small network takes the noise out of the chunk step by step.

Not diffusers' DDPM: samples are clipped after each step, not the clean action that is foreseen in them, and the noise
that is added has the variance beta.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.models.octo.heads import ActionHead
from vlakit.models.octo.transformer import EPSILON, dense

SEED = 7  # of the noise that an answer, or a validation loss, is made of: the same picture, the same action


class NoiseBlock(nn.Module):
    """x + Linear(swish(Linear(LayerNorm(x)))), four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPSILON)
        self.expand, self.contract = dense(width, 4 * width), dense(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.contract(F.silu(self.expand(self.norm(x))))


class NoiseNetwork(nn.Module):
    """The noise (..., n) in a flat chunk (..., n) at a time step (..., 1), seen an embedding (..., D)."""

    def __init__(self, width: int, numbers: int, time_width: int, blocks: int, hidden: int) -> None:
        super().__init__()
        self.frequencies = nn.Linear(1, time_width // 2, bias=False)
        nn.init.normal_(self.frequencies.weight, std=0.2)
        self.time_expand, self.time_contract = dense(time_width, 2 * time_width), dense(2 * time_width, time_width)
        self.enter = dense(time_width + width + numbers, hidden)
        self.blocks = nn.ModuleList(NoiseBlock(hidden) for _ in range(blocks))
        self.leave = dense(hidden, numbers)

    def forward(self, embedding: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        angles = 2 * math.pi * self.frequencies(time.to(embedding.dtype))
        code = self.time_contract(F.silu(self.time_expand(torch.cat([angles.cos(), angles.sin()], dim=-1))))
        x = self.enter(torch.cat([code, embedding.expand(*code.shape[:-1], -1), noisy.to(code.dtype)], dim=-1))
        for block in self.blocks:
            x = block(x)
        return self.leave(F.silu(x)).float()


class Diffusion(ActionHead):
    """Mean squared error of the noise, times the action's size, at `samples` time steps of every timestep's chunk.

    A whole chunk is one vector. steps: of the schedule, all of which an answer takes.
    """

    at_once = False
    max_action = 5.0  # beyond which actions are cut, in training and after each step

    def __init__(
        self,
        width: int,
        shape: tuple[int, int],
        pooling: str = "mean",
        time_width: int = 32,
        blocks: int = 3,
        hidden: int = 256,
        steps: int = 20,
        samples: int = 1,
    ) -> None:
        super().__init__(width, shape, pooling=pooling)
        if steps < 1 or samples < 1 or time_width % 2:
            raise ConfigError(
                f"steps {steps}, samples {samples}, time_width {time_width}",
                where="model.network.head_options",
                do="steps and samples are 1 or more, time_width even",
            )
        self.steps, self.samples = steps, samples
        self.noise_network = NoiseNetwork(width, shape[0] * shape[1], time_width, blocks, hidden)
        with torch.device("cpu"):  # no buffers: numbers that a network in bf16 would round
            self.betas = cosine_betas(steps)
            self.kept = torch.cumprod(1 - self.betas, dim=0)  # alpha hat: the share of the action's variance

    def noise(self, readouts: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """(..., B, W, H A) float32: the noise in flat chunks at time steps (..., B, W, 1)."""
        return self.noise_network(self.embeddings(readouts)[:, :, 0], noisy, time)

    def errors(self, readouts: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """In evaluation the noise is always the same."""
        generator = None if self.training else torch.Generator().manual_seed(SEED)
        flat = (self.samples, *actions.shape[:2], actions.shape[2] * actions.shape[3])
        time = torch.randint(self.steps, (*flat[:-1], 1), generator=generator)
        noise = torch.randn(flat, generator=generator)
        return self.errors_at(readouts, actions, time, noise)

    def errors_at(self, readouts: Tensor, actions: Tensor, time: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The errors (B, W, H, A) at these time steps (S, B, W, 1), for this noise (S, B, W, H A)."""
        kept, noise = self.kept[time.cpu()].to(actions.device), noise.to(actions.device)
        clipped = actions.flatten(2).clamp(-self.max_action, self.max_action)
        noisy = kept.sqrt() * clipped + (1 - kept).sqrt() * noise
        squares = (self.noise(readouts, noisy, time.to(actions.device)) - noise) ** 2
        squares = squares.mean(dim=0).unflatten(-1, self.shape) * self.shape[1]
        return {"loss": squares, "mse": squares.detach()}

    def act(self, readouts: Tensor) -> Tensor:
        """Each row begins with the same noise, so that no answer depends on its neighbours."""
        drawn = torch.randn(
            self.steps + 1, 1, self.shape[0] * self.shape[1], generator=torch.Generator().manual_seed(SEED)
        )
        return self.denoised(readouts, drawn.expand(-1, len(readouts), -1))

    def denoised(self, readouts: Tensor, drawn: Tensor, dimensions: int | None = None) -> Tensor:
        """(B, H, A) from the noise (steps + 1, B, H A): the start, then that of each step, the largest time first.

        dimensions: how many numbers of an action the robot has; the others stay the noise that training showed there.
        """
        last, drawn = readouts[:, -1:], drawn.to(readouts.device)
        exists = torch.ones(self.shape, dtype=torch.bool, device=drawn.device)
        exists[:, dimensions:] = dimensions is None
        x = drawn[0]
        for time, z in zip(reversed(range(self.steps)), drawn[1:], strict=True):
            beta, kept = float(self.betas[time]), float(self.kept[time])
            at = torch.full((len(last), 1, 1), time, device=drawn.device)
            noise = self.noise(last, x[:, None], at)[:, 0]
            x = (x - beta / math.sqrt(1 - kept) * noise) / math.sqrt(1 - beta)
            x = (x + (time > 0) * math.sqrt(beta) * z).clamp(-self.max_action, self.max_action)
            x = x.where(exists.flatten(), math.sqrt(1 - kept) * z)
        return x.unflatten(-1, self.shape)


def cosine_betas(steps: int, offset: float = 0.008) -> Tensor:
    """(steps,) float32: variances under which what is left of the action falls like a squared cosine; at most 0.999."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    kept = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(0, 0.999).float()
