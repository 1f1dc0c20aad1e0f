"""Tiny networks under every head, and batches of two cameras, proprioception and chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import simplejpeg
import torch
from tiny_runs import TINY

from vlakit.models.network import build_network
from vlakit.processing.images import decode_jpeg
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch, DatasetStatistics, Observation, Sample

HEADS = ("discrete", "parallel", "l1", "diffusion")
ONE_PASS = HEADS[1:]
CHUNK, PROPRIO = 3, 8
INSTRUCTIONS = ("lift the pot", "put the carrot on the plate", "close the drawer")


def with_proprio(statistics: DatasetStatistics) -> DatasetStatistics:
    ones = np.ones(PROPRIO)
    table = {"q01": -ones, "q99": ones, "min": -2 * ones, "max": 2 * ones, "mean": 0 * ones, "std": ones}
    return replace(statistics, proprio=table)


def processor_of(statistics: DatasetStatistics, **more: Any) -> TokenProcessor:
    """Two cameras, proprioception, chunks of three, unless `more` says otherwise."""
    names: dict[str, Any] = {"image_size": 64, "channel_statistics": ("imagenet", "half"), "tokenizer": "words"}
    names |= {"cameras": ("primary", "wrist"), "proprio": PROPRIO, "chunk": CHUNK}
    return TokenProcessor(TokenSettings(**{**names, **more}), {"bridge_orig": with_proprio(statistics)})


def options_of(head: str) -> dict[str, Any]:
    return {"train_steps": 10, "steps": 3} if head == "diffusion" else {}


def network_of(head: str, processor: TokenProcessor, *, film: bool = False, seed: int = 0) -> Any:
    """The tiny network under a head, with random weights in FiLM too, which begins with zeros."""
    torch.manual_seed(seed)
    description = {**TINY, "head": head, "head_options": options_of(head), "film": film}
    network = build_network(description, processor).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".scale." in name or ".shift." in name:
                parameter.normal_(std=0.1)
    return network


def samples_of(statistics: DatasetStatistics, n: int = 3) -> list[Sample]:
    """Frames of noise by two cameras; their instructions differ in length."""
    rng = np.random.default_rng(0)
    jpegs = [simplejpeg.encode_jpeg(one) for one in rng.integers(0, 256, (2 * n, 64, 64, 3), dtype=np.uint8)]
    actions = rng.uniform(statistics.q01, statistics.q99, (n, CHUNK, 7)).astype(np.float32)
    proprio = rng.uniform(-1, 1, (n, 1, PROPRIO)).astype(np.float32)
    return [
        Sample(
            f"noise_{i}", "bridge_orig", INSTRUCTIONS[i], {"primary": [jpegs[2 * i]], "wrist": [jpegs[2 * i + 1]]},
            actions[i], np.ones(1, bool), np.ones(CHUNK, bool), proprio=proprio[i], position=i,
        )
        for i in range(n)
    ]  # fmt: skip


def batch_of(processor: TokenProcessor, samples: Sequence[Sample]) -> Batch:
    return processor.collate([processor.encode(sample) for sample in samples])


def seen(sample: Sample) -> Observation:
    """The frame as a policy sees it."""
    images = {
        camera: np.stack([decode_jpeg(one, where="test") for one in window]) for camera, window in sample.images.items()
    }
    return Observation(images, sample.instruction, sample.dataset, sample.proprio)
