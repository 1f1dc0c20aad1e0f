"""What loading a checkpoint gives, how it was asked for, and what can be made of it: plain, larger, quantised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from vlakit.checkpoints.card import Card
from vlakit.checkpoints.file import load_strictly
from vlakit.checkpoints.weights import load_weights
from vlakit.errors import CheckpointMismatch
from vlakit.models.adapters import is_added, merge_in_place, merged_state_dict
from vlakit.models.network import Network, begin, build_empty, build_network
from vlakit.models.quantize import quantize
from vlakit.models.quantized_layers import NONE
from vlakit.processing.processor import Processor


@dataclass(frozen=True)
class Loaded:
    """A network, the processor that feeds it, and all that a checkpoint says of them."""

    network: Network
    processor: Processor
    card: Card


@dataclass(frozen=True)
class LoadOptions:
    """dtype: None keeps that of the file. base: the model under an adapter; None: where the adapter says it is.

    trusted: packages, modules or names (`package.module:thing`) outside vlakit that a checkpoint may choose. quantize:
    a scheme of models.quantize for the weights of linear layers; quantize_also: vision and lm_head, which it spares.
    cuda_graphs: replay answers on a GPU.
    """

    dtype: torch.dtype | None = None
    base: str | None = None
    trusted: tuple[str, ...] = ()
    quantize: str = NONE
    quantize_also: tuple[str, ...] = ()
    cuda_graphs: bool = False

    @property
    def under(self) -> LoadOptions:
        """Those for the model under an adapter."""
        return replace(self, base=None, quantize=NONE)


def quantized(loaded: Loaded, options: LoadOptions) -> Loaded:
    """The same with its adapters merged and its layers quantised, one by one, in place."""
    if loaded.card.adapter is not None:
        merge_in_place(loaded.network)
    said = quantize(loaded.network, options.quantize, options.quantize_also)
    return replace(loaded, card=replace(loaded.card, adapter=None, base=None, quantized=said))


def refuse_quantized(card: Card, *, where: str) -> None:
    """Raise CheckpointMismatch for weights that are quantised already."""
    if card.quantized is not None:
        raise CheckpointMismatch(
            f"the weights are quantised already: {card.quantized.get('scheme')}",
            where=where,
            do="evaluate, score or serve it with quantize=none; all else takes the checkpoint before it was quantised",
        )


def plain_network(loaded: Loaded, *, where: str) -> Network:
    """The network without adapter layers: as loaded, or rebuilt with its adapters merged into the weights.

    Raises CheckpointMismatch for quantised weights, on which nothing is built.
    """
    refuse_quantized(loaded.card, where=where)
    if loaded.card.adapter is None:
        return loaded.network
    plain = build_empty(loaded.network.description, loaded.processor)
    load_strictly(plain, merged_state_dict(loaded.network), where=where)
    return plain


def grown(
    network: Network, before: Processor, description: Mapping[str, Any], processor: Processor, *, where: str
) -> Network:
    """The network with what a run adds to it: head, further senses. Raises CheckpointMismatch for another network."""
    goal = build_network(description, processor, device="meta")
    wanted = {name: tensor.shape for name, tensor in goal.state_dict().items()}
    present = {name: tensor.shape for name, tensor in network.state_dict().items()}
    other = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if any(name in present or not is_added(name, goal) for name in other):
        raise CheckpointMismatch(
            f"the checkpoint is of {_short(network.description)}, this run builds {_short(description)};"
            f" {len(other)} tensors differ, e.g. {other[0]}",
            where=where,
            do="choose the checkpoint's model with model=NAME, or another checkpoint in model.weights",
        )
    kept = {key: value for key, value in network.description.items() if key not in network.of_the_run}
    new = {**kept, **{key: description[key] for key in goal.of_the_run if key in description}}
    if not other and new == network.description and _senses(before) == _senses(processor):
        return network
    larger = build_empty(new, processor)
    load_weights(larger, network.state_dict().items(), where=where, added=other)
    begin(larger, other, like=next(network.parameters()))
    return larger


def _senses(processor: Processor) -> tuple[object, ...]:
    return len(processor.settings.cameras), processor.settings.proprio


def _short(description: Mapping[str, Any]) -> str:
    names = [value for key, value in description.items() if isinstance(value, str) and key != "kind"]
    return " + ".join(names) or str(description.get("kind"))
