"""Who trains and who learns: a parameter may be trainable and yet out of every gradient's reach.

Features leave each tower before its last block, so that block, the norm and the pooling head never learn, though the
paper counts them. Everything here runs on the meta device: no memory, seconds at 7B.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from vlakit.models.openvla.vla import OpenVLA

ADAM_BYTES = 8  # two float32 moments a parameter; torch makes them only for parameters that get a gradient


@dataclass(frozen=True)
class ModuleCount:
    """Parameters of one part: all, trainable, reachable by the loss's gradient, and AdamW's state in bytes."""

    module: str
    total: int
    trainable: int
    reachable: int

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of AdamW's two moments."""
        return ADAM_BYTES * self.reachable

    def to_dict(self) -> dict[str, int | str]:
        """Plain values."""
        return {**asdict(self), "optimizer_bytes": self.optimizer_bytes}


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


def reached_names(model: OpenVLA) -> set[str]:
    """Names of the trainable parameters that a gradient reaches, found by one backward pass on the meta device."""
    if any(p.device.type != "meta" for p in model.parameters()):
        raise ValueError("reached_names needs a model on the meta device: build_vla(names, device='meta')")
    vision = model.vision_backbone
    pixel_values = torch.empty(1, 3 * len(vision.towers), vision.image_size, vision.image_size, device="meta")
    input_ids = torch.zeros(1, 4, dtype=torch.int64, device="meta")
    sequence = model.splice(model.encode_image(pixel_values), input_ids)
    n = sequence.shape[1]
    # A mask of our own: transformers looks into the values of the one it would make, and meta tensors have none.
    hidden = model.hidden_states(sequence, torch.ones(1, 1, n, n, dtype=torch.bool, device="meta"))
    model.language_model.lm_head(hidden).sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return reached


def explain(model: OpenVLA) -> list[ModuleCount]:
    """One row a part of a prepared model on the meta device, and the sum of all in the last row, `model`."""
    reached = reached_names(model)
    rows: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        row = rows.setdefault(part_of(name), [0, 0, 0])
        row[0] += parameter.numel()
        row[1] += parameter.numel() * parameter.requires_grad
        row[2] += parameter.numel() * (name in reached)
    parts = [ModuleCount(part, *row) for part, row in rows.items()]
    return [*parts, _sum("model", parts)]


def unreached_adapters(model: OpenVLA) -> tuple[int, int]:
    """(adapters that never get a gradient, all adapters) of a LoRA model on the meta device."""
    adapters = {name for name, _ in model.named_parameters() if ".lora_B." in name}
    if not adapters:
        return 0, 0
    return len(adapters - reached_names(model)), len(adapters)


def part_of(name: str) -> str:
    """The part of the model a parameter is counted under: two components of its name, three inside the language model.

    >>> part_of("language_model.model.layers.31.mlp.up_proj.weight"), part_of("projector.fc1.bias")
    ('language_model.model.layers', 'projector')
    """
    depth = {"projector": 1, "vision_backbone": 3}.get(name.split(".")[0], 3)
    if name.startswith("language_model.lm_head"):
        depth = 2
    return ".".join(name.split(".")[:depth])


def _sum(module: str, parts: Iterable[ModuleCount]) -> ModuleCount:
    parts = list(parts)
    return ModuleCount(
        module, sum(p.total for p in parts), sum(p.trainable for p in parts), sum(p.reachable for p in parts)
    )
