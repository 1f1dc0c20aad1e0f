"""Small RT-1 networks and batches of noise for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlakit.models.network import build_network
from vlakit.models.rt1.rt1 import RT1
from vlakit.processing.processor import build_processor
from vlakit.processing.rt1 import RT1Processor
from vlakit.schema import Batch, DatasetStatistics, Observation

WINDOW = 3
ENCODER = {"width": 0.25, "depth": 0.1, "strides": [1, 2, 2, 2, 1, 1, 1], "padding": "same", "channels": 32}
ENCODER |= {"drop_path": 0.0}
TRANSFORMER = {"width": 32, "layers": 2, "heads": 2, "head_width": 8, "dropout": 0.0}
SMALL: dict[str, Any] = {"kind": "rt1", "encoder": ENCODER, "transformer": TRANSFORMER, "image_tokens": 4}
SMALL |= {"text_width": 16}
INSTRUCTIONS = ("lift the pot", "put the carrot on the plate", "put the plate on the carrot", "close the drawer")


def processor_of(statistics: DatasetStatistics, **more: Any) -> RT1Processor:
    settings = {"kind": "rt1", "image_size": 64, "channel_statistics": ["imagenet"], "tokenizer": "words"}
    processor = build_processor({**settings, "window": WINDOW, **more}, {"bridge_orig": statistics})
    assert isinstance(processor, RT1Processor)
    return processor


def network_of(processor: RT1Processor, *, seed: int = 0, **more: Any) -> RT1:
    """With random weights in FiLM too, which begins with zeros."""
    torch.manual_seed(seed)
    network = build_network({**SMALL, **more}, processor).eval()
    assert isinstance(network, RT1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".films." in name or ".film_top." in name:
                parameter.normal_(std=0.1)
    return network


def observations(n: int = 4, window: int = WINDOW, seed: int = 0) -> list[Observation]:
    pictures = np.random.default_rng(seed).integers(0, 256, (n, window, 64, 64, 3), dtype=np.uint8)
    return [Observation({"primary": pictures[i]}, INSTRUCTIONS[i % 4], "bridge_orig") for i in range(n)]


def batch_of(processor: RT1Processor, normalized: Tensor) -> Batch:
    """The observations above, and these actions (B, 1, A)."""
    seen = processor.observe(observations(len(normalized)))
    mask = torch.ones(len(normalized), 1, dtype=torch.bool)
    return Batch(
        **{name: getattr(seen, name) for name in ("pixels", "window_mask", "datasets", "action_shape", "text")},
        actions=normalized, normalized=normalized, chunk_mask=mask, keys=[str(i) for i in range(len(normalized))],
    )  # fmt: skip


def with_actions(batch: Batch, normalized: Tensor) -> Batch:
    return replace(batch, actions=normalized, normalized=normalized)
