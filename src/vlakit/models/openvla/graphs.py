"""Decoding as one CUDA graph: at one row the kernels of a token take less time than Python needs to start them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vlakit.errors import PartMissing
from vlakit.models.openvla.decoding import Choice, Decoded, decode_on
from vlakit.models.openvla.trunk import text_of
from vlakit.models.quantized_layers import Int8Linear
from vlakit.schema import Inputs

if TYPE_CHECKING:
    from vlakit.models.openvla.vla import OpenVLA

KEPT = 16  # graphs, one a length of prompt; each holds the memory of an answer
WARM_UP = 3  # answers before one is recorded: libraries choose their kernels in the first


class Shape(NamedTuple):
    """What one graph is good for. pixels, proprio, features: shapes; ids: rows and length of the prompts."""

    pixels: tuple[tuple[str, torch.Size], ...]
    proprio: torch.Size | None
    features: torch.Size | None
    ids: torch.Size
    n_tokens: int
    allowed: tuple[int, int] | None


@dataclass(frozen=True)
class Recorded:
    """A graph, what it reads and what it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    answer: Decoded


class Graphs:
    """Greedy answers of one network, replayed: towers, prompt and every token in one launch, to the same bits.

    A graph is recorded when a shape is first met (a second or so) and holds for prompts of one length. Rows whose
    prompts differ in length are not recorded: see `fits`.
    """

    def __init__(self) -> None:
        self.recorded: OrderedDict[Shape, Recorded] = OrderedDict()

    @classmethod
    def of(cls, model: OpenVLA) -> Graphs:
        """For a model. Raises PartMissing where nothing can be recorded."""
        device = next(model.parameters()).device
        if device.type != "cuda":
            raise PartMissing(f"no CUDA graphs on {device}", where="cuda_graphs", do="device=cuda, or leave it out")
        if any(isinstance(layer, Int8Linear) for layer in model.modules()):
            what = "LLM.int8 looks for outliers in each answer, and a graph cannot wait for what it finds"
            raise PartMissing(what, where="cuda_graphs", do="quantize=int4 or none, or cuda_graphs=false")
        return cls()

    @staticmethod
    def fits(inputs: Inputs, prompts: list[list[int]], pad_to: int) -> bool:
        """Whether no row is padded, on a GPU."""
        return text_of(inputs).ids.is_cuda and {len(prompt) for prompt in prompts} == {pad_to}

    def __call__(self, model: OpenVLA, inputs: Inputs, n_tokens: int, choice: Choice) -> Decoded:
        """As `generate` of prompts without padding."""
        shape = _shape(inputs, n_tokens, choice.allowed)
        known = self.recorded.get(shape)
        if known is None:
            known = self.recorded[shape] = _record(model, inputs, n_tokens, choice)
            if len(self.recorded) > KEPT:
                self.recorded.popitem(last=False)
        self.recorded.move_to_end(shape)
        for into, value in zip(_tensors(known.inputs), _tensors(inputs), strict=True):
            into.copy_(value)
        known.graph.replay()
        return Decoded(known.answer.ids.clone(), known.answer.log_probs.clone())


def _tensors(inputs: Inputs) -> list[Tensor]:
    """All that a graph reads."""
    behind = [tensor for tensor in (inputs.proprio, inputs.features) if tensor is not None]
    return [*inputs.pixels.values(), text_of(inputs).ids, *behind]


def _shape(inputs: Inputs, n_tokens: int, allowed: tuple[int, int] | None) -> Shape:
    pixels = tuple((name, frames.shape) for name, frames in inputs.pixels.items())
    proprio, features = (None if tensor is None else tensor.shape for tensor in (inputs.proprio, inputs.features))
    return Shape(pixels, proprio, features, text_of(inputs).ids.shape, n_tokens, allowed)


def _record(model: OpenVLA, inputs: Inputs, n_tokens: int, choice: Choice) -> Recorded:
    text = text_of(inputs)
    held = replace(
        inputs,
        pixels={name: frames.clone() for name, frames in inputs.pixels.items()},
        proprio=None if inputs.proprio is None else inputs.proprio.clone(),
        features=None if inputs.features is None else inputs.features.clone(),
        text=replace(text, ids=text.ids.clone()),
    )
    ids = text_of(held).ids

    def answer() -> Decoded:
        sequence = model.splice(model.context(held), ids)
        positions = torch.arange(sequence.shape[1], device=ids.device).expand(len(ids), -1)
        return decode_on(model, sequence, positions, None, n_tokens, choice)

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            answer()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answered = answer()
    return Recorded(graph, held, answered)
