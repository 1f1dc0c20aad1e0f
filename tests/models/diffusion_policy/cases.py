"""Small policies of every backbone and condition, and batches for them, without pictures on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vlakit.models.diffusion_policy.policy import DiffusionPolicy
from vlakit.models.network import build_network
from vlakit.processing.diffusion import DiffusionProcessor, DiffusionSettings
from vlakit.processing.tokens import padded_text
from vlakit.schema import Batch, DatasetStatistics

UNET = {"widths": [16, 32], "time_width": 16}
TRANSFORMER = {"width": 16, "heads": 2, "layers": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"options": UNET},
    "unet_local": {"options": UNET, "condition": "local"},
    "unet_inpaint": {"options": {**UNET, "scale": False}, "condition": "inpaint"},
    "transformer": {"backbone": "transformer", "options": TRANSFORMER},
    "transformer_encoder": {
        "backbone": "transformer", "options": {**TRANSFORMER, "time_as_token": True}, "condition": "inpaint",
    },
}  # fmt: skip


def statistics(size: int = 7, proprio: int = 7) -> DatasetStatistics:
    """One dataset, whose third column is constant."""
    low, high = np.linspace(-0.5, -0.1, size), np.linspace(0.2, 0.9, size)
    low[2] = high[2] = 0.3
    numbers = {"q01": low, "q99": high, "min": low, "max": high, "mean": (low + high) / 2, "std": (high - low) / 4}
    senses = {name: np.full(proprio, -1.0 if name in ("q01", "min") else 1.0) for name in numbers}
    return DatasetStatistics(
        **numbers, mask=np.arange(size) < size - 1, num_transitions=9, num_trajectories=1, proprio=senses
    )


def processor(**settings: Any) -> DiffusionProcessor:
    """Of two cameras at 32 px, unless told otherwise."""
    usual: dict[str, Any] = {"image_size": 32, "channel_statistics": ["imagenet_twice"], "cameras": ["left", "right"]}
    usual |= {"window": 2, "horizon": 8, "chunk": 4, "proprio": 7, "normalization": "limits"}
    return DiffusionProcessor(DiffusionSettings.from_dict(usual | settings), {"one": statistics()})


def policy(name: str = "unet", of: DiffusionProcessor | None = None, **options: Any) -> DiffusionPolicy:
    """A seeded policy; DDIM in four of ten steps."""
    torch.manual_seed(0)
    sampler = {"scheduler": "ddim", "num_train_timesteps": 10, "steps": 4}
    description = {"kind": "diffusion_policy", "vision": "small", "sampler": sampler, **NETWORKS[name], **options}
    network = build_network(description, of or processor())
    assert isinstance(network, DiffusionPolicy)
    return network


def batch(of: DiffusionProcessor, rows: int = 3, words: int = 2) -> Batch:
    """Noise for pictures, proprioception and actions; as many words as asked for."""
    generator = torch.Generator().manual_seed(1)
    blank = of.blank(rows)
    blank.pixels = {camera: torch.randn(x.shape, generator=generator) for camera, x in blank.pixels.items()}
    if blank.proprio is not None:
        blank.proprio = torch.rand(blank.proprio.shape, generator=generator) - 0.5
    blank.normalized = 0.5 * torch.randn(blank.normalized.shape, generator=generator)
    if of.settings.language is not None:
        blank.text = padded_text([(np.arange(5, 5 + words), np.zeros(0, np.int64))] * rows, 1472)
    blank.datasets = ["one"] * rows
    return blank
