"""Decoding as one CUDA graph: at one row the kernels of a token take less time than Python needs to start them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from vlakit.errors import PartMissing
from vlakit.models.openvla.decoding import Choice, Decoded, decode_on, seeing
from vlakit.models.openvla.trunk import text_of
from vlakit.models.quantized_layers import Int8Linear
from vlakit.schema import Inputs

if TYPE_CHECKING:
    from vlakit.models.openvla.vla import OpenVLA

log = logging.getLogger(__name__)
KEPT = 32  # graphs, which share the memory of one answer
WARM_UP = 3  # answers before one is recorded: libraries choose their kernels in the first


class Shape(NamedTuple):
    """What one graph is good for: shapes and dtypes of all that it reads, whether a row is padded, what is decoded."""

    read: tuple[tuple[torch.Size, torch.dtype], ...]
    padded: bool
    n_tokens: int
    allowed: tuple[int, int] | None


@dataclass(frozen=True)
class Read:
    """What a graph reads: observations, their prompts (B, T) int64 behind `padding` (B, 1) places of zeros."""

    inputs: Inputs
    prompts: Tensor
    padding: Tensor
    padded: bool

    @classmethod
    def of(cls, inputs: Inputs, prompts: Sequence[Sequence[int]], pad_to: int) -> Read:
        """From ids of each row. BOS stays in front of the image, so rows are padded behind and turned in the graph."""
        width, device = max(pad_to, *map(len, prompts)), text_of(inputs).ids.device
        lacking = [width - len(row) for row in prompts]
        ids = [[*row, *[0] * n] for row, n in zip(prompts, lacking, strict=True)]
        padding = torch.tensor(lacking, device=device)[:, None]
        return cls(inputs, torch.tensor(ids, device=device), padding, any(lacking))

    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        behind = [tensor for tensor in (self.inputs.proprio, self.inputs.features) if tensor is not None]
        return [*self.inputs.pixels.values(), self.prompts, self.padding, *behind]

    def held(self) -> Read:
        """A copy in places of its own."""
        own = {name: frames.clone() for name, frames in self.inputs.pixels.items()}
        known = {name: getattr(self.inputs, name) for name in ("proprio", "features")}
        known = {name: None if tensor is None else tensor.clone() for name, tensor in known.items()}
        inputs = replace(self.inputs, pixels=own, **known)
        return replace(self, inputs=inputs, prompts=self.prompts.clone(), padding=self.padding.clone())

    def answered(self, model: OpenVLA, n_tokens: int, choice: Choice) -> Decoded:
        """What `generate` answers, to the bit, without waiting for a GPU."""
        sequence = model.splice(model.context(self.inputs), self.prompts)  # (B, L, D)
        place = torch.arange(sequence.shape[1], device=sequence.device) - self.padding  # (B, L)
        seen = None
        if self.padded:
            real = place >= 0
            turned = sequence.gather(1, place.clamp(min=0)[..., None].expand_as(sequence))
            sequence, seen = torch.where(real[..., None], turned, 0), seeing(real)
        return decode_on(model, sequence, place.clamp(min=0), seen, n_tokens, choice)


@dataclass(frozen=True)
class Recorded:
    """A graph, what it reads and what it writes."""

    graph: torch.cuda.CUDAGraph
    read: Read
    answer: Decoded


class Graphs:
    """Greedy answers of one network, replayed: towers, prompt and every token in one launch.

    A shape is answered kernel by kernel when first met and recorded (a second or so) when met again. The weights must
    stay where they are: OpenVLA forgets what was recorded when it is moved.
    """

    def __init__(self) -> None:
        self.recorded: OrderedDict[Shape, Recorded | None] = OrderedDict()  # None: met once
        self.full = False  # whether memory was too short for another
        self.stream: torch.cuda.Stream | None = None  # on which all are recorded: only so do they share memory
        self.one_at_a_time = Lock()

    def __reduce__(self) -> tuple[type[Graphs], tuple[()]]:
        return Graphs, ()  # a copy of the network has weights elsewhere

    @classmethod
    def of(cls, model: OpenVLA) -> Graphs:
        """For a model. Raises PartMissing where nothing can be recorded."""
        device = next(model.parameters()).device
        if device.type != "cuda":
            raise PartMissing(f"no CUDA graphs on {device}", where="cuda_graphs", do="device=cuda, or leave it out")
        if any(isinstance(layer, Int8Linear) for layer in model.modules()):
            what = "LLM.int8 looks for outliers in each answer, and a graph cannot wait for what it finds"
            raise PartMissing(what, where="cuda_graphs", do="quantize=none, or cuda_graphs=false")
        return cls()

    def __call__(self, model: OpenVLA, read: Read, n_tokens: int, choice: Choice) -> Decoded | None:
        """The answer; None where there is no graph for it."""
        shape = Shape(tuple((t.shape, t.dtype) for t in read.tensors()), read.padded, n_tokens, choice.allowed)
        with self.one_at_a_time:
            known = self._known(model, shape, read, n_tokens, choice)
            if known is None:
                return None
            for into, value in zip(known.read.tensors(), read.tensors(), strict=True):
                into.copy_(value)
            known.graph.replay()
            return Decoded(known.answer.ids.clone(), known.answer.log_probs.clone())

    def _known(self, model: OpenVLA, shape: Shape, read: Read, n_tokens: int, choice: Choice) -> Recorded | None:
        """The graph of a shape that was met before, made if need be."""
        met = shape in self.recorded
        known = self.recorded.setdefault(shape, None)
        self.recorded.move_to_end(shape)
        if known is None and met and not self.full:
            try:
                with torch.cuda.device(read.prompts.device):
                    self.stream = self.stream or torch.cuda.Stream()
                    known = self.recorded[shape] = record(model, read, n_tokens, choice, self.stream, self._pool())
            except torch.OutOfMemoryError:
                self.full = True
                log.warning("no memory for another CUDA graph: other shapes are answered kernel by kernel")
        if len(self.recorded) > KEPT:
            self.recorded.popitem(last=False)
        return known

    def _pool(self) -> Any:
        """Memory that the first graph took: they are replayed one at a time, and answers are copied out."""
        return next((known.graph.pool() for known in self.recorded.values() if known is not None), None)


def record(model: OpenVLA, read: Read, n_tokens: int, choice: Choice, stream: torch.cuda.Stream, pool: Any) -> Recorded:
    """Answer a few times, then once more into a graph."""
    held = read.held()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            held.answered(model, n_tokens, choice)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        answered = held.answered(model, n_tokens, choice)
    return Recorded(graph, held, answered)
