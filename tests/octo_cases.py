"""Small Octos and what they see, for the tests of several packages."""

from __future__ import annotations

from typing import Any

import torch

from vlakit.models.network import build_network
from vlakit.models.octo.trunk import Seen, Trunk, TrunkSettings
from vlakit.processing.instructions import InstructionProcessor
from vlakit.processing.settings import InstructionSettings
from vlakit.schema import Batch, DatasetStatistics, Sample

SMALL: dict[str, Any] = {"kind": "octo", "width": 16, "layers": 2, "heads": 2, "mlp": 32, "stem": [32, 32, 32, 32]}
SMALL |= {"stem_width": 24, "positions": 3, "text_width": 12, "goals": False}
HEADS: dict[str, dict[str, Any]] = {
    "diffusion": {"hidden": 16, "blocks": 1, "steps": 4, "time_width": 8},
    "mse": {},
    "l1": {},
    "discrete": {"n_bins": 8},
}


def processor_of(statistics: DatasetStatistics, **more: Any) -> InstructionProcessor:
    """One camera, a window of two, chunks of three, unless `more` says otherwise."""
    names: dict[str, Any] = {"image_size": 64, "channel_statistics": ("half",), "tokenizer": "words"}
    names |= {"window": 2, "chunk": 3, "text_tokens": 8, "normalization": "normal"}
    return InstructionProcessor(InstructionSettings(**{**names, **more}), {"bridge_orig": statistics})


def octo_of(processor: InstructionProcessor, head: str = "mse", *, seed: int = 0, **more: Any) -> Any:
    torch.manual_seed(seed)
    return build_network({**SMALL, "head": head, "head_options": HEADS[head], **more}, processor).eval()


def batch_of(processor: InstructionProcessor, samples: list[Sample]) -> Batch:
    return processor.collate([processor.encode(sample) for sample in samples])


def trunk_of(**more: Any) -> Trunk:
    """Two cameras of sizes of their own, proprioception and two readouts."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "mlp": 32, "cameras": {"primary": 32, "wrist": 16}}
    sizes |= {"language": (3, 8), "proprio": 2, "readouts": {"action": 2, "value": 1}, "positions": 4}
    return Trunk(TrunkSettings(**{**sizes, "stem": (32, 32), "stem_width": 8, **more})).eval()


def seen_of(rows: int = 2, window: int = 2, seed: int = 0) -> Seen:
    """What that trunk sees, drawn."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=rng) * 2 - 1

    images = {camera: draw(rows, window, 3, size, size) for camera, size in (("primary", 32), ("wrist", 16))}
    frames = torch.ones(rows, window, dtype=torch.bool)
    return Seen(frames, images, proprio=draw(rows, window, 2), language=draw(rows, 3, 8))
