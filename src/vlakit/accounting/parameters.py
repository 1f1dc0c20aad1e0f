"""Who trains and who learns: a parameter may be trainable and yet out of every gradient's reach.

Features leave each tower before its last block, so that block, the norm and the pooling head never learn, though the
paper counts them. Everything here runs on the meta device: no memory, seconds at 7B.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from vlakit.accounting.meta import Valueless, check_meta
from vlakit.models.network import Network
from vlakit.schema import Batch

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


def reached_names(model: Network, batch: Batch) -> set[str]:
    """Names of the trainable parameters that a gradient reaches: those at the ends of the loss's graph.

    batch: Processor.blank of one row, pixels on the meta device. No backward pass runs: half of the time.
    """
    check_meta(model)
    with Valueless():
        loss = model(batch).loss
    nodes, seen = [loss.grad_fn], set[Any]()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
    leaves = {id(node.variable) for node in seen if hasattr(node, "variable")}
    return {name for name, parameter in model.named_parameters() if id(parameter) in leaves}


def explain(model: Network, reached: Collection[str]) -> list[ModuleCount]:
    """One row a part of a prepared network, and the sum of all in the last row, `model`."""
    parts = model.parts
    rows: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        row = rows.setdefault(part_of(name, parts), [0, 0, 0])
        row[0] += parameter.numel()
        row[1] += parameter.numel() * parameter.requires_grad
        row[2] += parameter.numel() * (name in reached)
    counts = [ModuleCount(part, *row) for part, row in rows.items()]
    return [*counts, _sum("model", counts)]


def unreached_adapters(model: Network, reached: Collection[str]) -> tuple[int, int]:
    """(adapters that never get a gradient, all adapters) of a LoRA network."""
    adapters = {name for name, _ in model.named_parameters() if ".lora_B." in name}
    return len(adapters - set(reached)), len(adapters)


def part_of(name: str, parts: Mapping[str, str]) -> str:
    """The part a parameter is counted under: the one with the longest prefix of its name, else its first component.

    >>> part_of("trunk.layers.3.weight", {"layers": "trunk.layers", "trunk": "trunk"}), part_of("head.fc.bias", {})
    ('layers', 'head')
    """
    fitting = [part for part, prefix in parts.items() if f"{name}.".startswith(f"{prefix}.")]
    return max(fitting, key=lambda part: len(parts[part]), default=name.partition(".")[0])


def _sum(module: str, parts: Iterable[ModuleCount]) -> ModuleCount:
    parts = list(parts)
    return ModuleCount(
        module, sum(p.total for p in parts), sum(p.trainable for p in parts), sum(p.reachable for p in parts)
    )
