"""What OpenVLA-OFT adds to the network, under the names of its files. Source: Kim et al. 2025 (arXiv 2502.19645)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESIDUAL_BLOCKS = 2


class ScalarProjector(nn.Module):
    """(B, n, k) -> (B, n, D): proprioception to one token, a noisy action's every number to one of its own."""

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(numbers.to(self.fc1.weight.dtype))))


class ResidualBlock(nn.Module):
    """x + ReLU(Linear(LayerNorm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.ffn(hidden)


class ActionMlp(nn.Module):
    """Last states of the slots (B, H A, D) -> (B, H, A) float32: an action's A states side by side go in at once."""

    def __init__(self, hidden_size: int, action_size: int) -> None:
        super().__init__()
        width = hidden_size * action_size
        self.action_size = action_size
        self.layer_norm1 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden_size)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(hidden_size) for _ in range(RESIDUAL_BLOCKS))
        self.layer_norm2 = nn.LayerNorm(hidden_size)
        self.fc2 = nn.Linear(hidden_size, action_size)

    def forward(self, states: Tensor) -> Tensor:
        rows, n, width = states.shape
        hidden = states.reshape(rows, n // self.action_size, self.action_size * width)
        hidden = F.relu(self.fc1(self.layer_norm1(hidden)))
        for block in self.mlp_resnet_blocks:
            hidden = block(hidden)
        return self.fc2(self.layer_norm2(hidden)).float()


def time_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Time steps (B,) -> (B, D) float32: sines, then cosines, whose last frequency is exactly 1 / 10000."""
    half = width // 2
    exponents = torch.arange(half, device=timesteps.device, dtype=torch.float32) / (half - 1)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
