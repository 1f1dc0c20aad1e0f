"""One training step on the meta device, with a ledger: what a step keeps is counted from its operators, not by formula.

The batch is a large prime: a tensor grows with the batch exactly when that prime divides its bytes, so one pass
answers for every batch size.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vlakit.accounting.meta import Valueless, check_meta
from vlakit.errors import ConfigError
from vlakit.models.network import Network
from vlakit.models.openvla.vla import OpenVLA, text_of
from vlakit.processing.processor import Processor
from vlakit.schema import Batch

BATCH = 1009  # a prime that divides no width, patch count or vocabulary of a model here
LOSS = "loss"  # what no child of the network keeps: the cross-entropy, with OpenVLA's logits


@dataclass(frozen=True)
class Workload:
    """Tokens of a sample beside its patches (`answer_tokens` of them carry labels), and what is kept or made again."""

    prompt_tokens: int = 24
    answer_tokens: int = 8  # seven dimensions and the end
    all_logits: bool = False  # the released code computes them at every position
    checkpointing: bool = False  # of the language model's layers, as the released code does

    def batch(self, processor: Processor, rows: int, device: str = "meta") -> Batch:
        """A batch of this shape, its pixels without content on `device`, all else with values."""
        return processor.blank(rows, device=device, prompt_tokens=self.prompt_tokens, answer_tokens=self.answer_tokens)


@dataclass(frozen=True)
class Numerics:
    """Dtype in which weights (with gradients and moments) rest, in which layers see them; whether autocast is on."""

    stored: torch.dtype
    computed: torch.dtype
    autocast: bool


@dataclass
class Bytes:
    """Bytes of a step: a fixed part and a part a sample."""

    fixed: int = 0
    per_sample: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.fixed + other.fixed, self.per_sample + other.per_sample)

    def at(self, batch_size: int) -> int:
        """Bytes at a batch size."""
        return self.fixed + self.per_sample * batch_size


@dataclass
class DryStep:
    """What one forward and backward pass showed.

    saved: part -> bytes that autograd keeps until the backward pass. fixed, per_sample, gradients: after each
    allocation or release, live bytes without weights and gradients, and elements of the gradients so far.
    reached: names of the parameters that got a gradient. flops: of one sample, both passes.
    """

    saved: dict[str, Bytes]
    fixed: Tensor
    per_sample: Tensor
    gradients: Tensor
    reached: set[str]
    flops: float

    def peak(self, batch_size: int, gradient_element: float) -> int:
        """Most bytes that live at once, gradients at `gradient_element` bytes each, weights not included."""
        live = self.fixed + self.per_sample * batch_size + self.gradients.double() * gradient_element
        return int(live.max())

    def saved_bytes(self, batch_size: int) -> dict[str, int]:
        """Part -> bytes of saved activations."""
        return {part: kept.at(batch_size) for part, kept in self.saved.items()}


def dry_step(model: Network, processor: Processor, numerics: Numerics, workload: Workload) -> DryStep:
    """Run a prepared network on the meta device forward and backward; its weights take `numerics.computed`."""
    check_meta(model)
    model.to(numerics.computed).train()
    ledger = Ledger(keep=[*model.parameters(), *model.buffers()])
    saved, values = SavedTensors(ledger), Valueless(autocast=numerics.autocast)
    reached: set[str] = set()
    batch = workload.batch(processor, BATCH)
    with checkpointed(model, workload.checkpointing, values), collected(model, ledger, reached), ledger:
        with values, saved.by_part(model):
            loss, held = _loss(model, batch, numerics.computed, all_logits=workload.all_logits)
        saved.seen.clear()
        loss.backward()
        del held
    fixed, per_sample, gradients = torch.tensor(ledger.timeline, dtype=torch.int64).unbind(1)
    flops = (ledger.flops + values.flops) / BATCH
    return DryStep(saved.parts, fixed, per_sample, gradients, reached, flops)


def _loss(model: Network, batch: Batch, dtype: torch.dtype, *, all_logits: bool) -> tuple[Tensor, Any]:
    """The loss of the network's own forward, and what its caller holds on to meanwhile; nobody else holds the batch."""
    batch = replace(batch, pixels={name: torch.empty_like(x, dtype=dtype) for name, x in batch.pixels.items()})
    if not all_logits:
        output = model(batch)
        return output.loss, output
    if not isinstance(model, OpenVLA):
        raise ConfigError(
            "logits at every position are OpenVLA's released code's way", where="logits", do="leave logits=all out"
        )
    text = text_of(batch)
    logits = model.all_logits(model.pixels(batch), text.ids, text.mask).float()
    counted = logits[:, :-1].contiguous().flatten(0, 1)
    return F.cross_entropy(counted, torch.zeros(len(counted), dtype=torch.int64, device="meta")), logits


class Ledger(TorchDispatchMode):
    """Books every new storage and its release; views and in-place results are known storages and cost nothing."""

    def __init__(self, keep: list[Tensor]) -> None:
        super().__init__()
        self.free_of_charge = {t.untyped_storage()._cdata for t in keep}
        self.booked: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.live, self.gradients, self.flops = Bytes(), 0, 0.0
        self.timeline: list[tuple[int, int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._book(tensor.untyped_storage())
        count = flop_registry.get(func._overloadpacket)
        self.flops += count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out

    def record(self) -> None:
        """Note the state after something changed."""
        self.timeline.append((self.live.fixed, self.live.per_sample, self.gradients))

    def _book(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.booked or key in self.free_of_charge:
            return
        cost = cost_of(storage)

        def release(_: object) -> None:
            del self.booked[key]
            self.live = Bytes(self.live.fixed - cost.fixed, self.live.per_sample - cost.per_sample)
            self.record()

        self.booked[key] = weakref.ref(storage, release)
        self.live = self.live + cost
        self.record()


def cost_of(storage: torch.UntypedStorage) -> Bytes:
    """Bytes of a storage, a sample's share when the batch divides them."""
    share, rest = divmod(storage.nbytes(), BATCH)
    return Bytes(rest + share * BATCH) if rest else Bytes(0, share)


@dataclass
class SavedTensors:
    """Which storages autograd keeps, each charged to the part that keeps it first; parameters are not activations."""

    ledger: Ledger
    parts: dict[str, Bytes] = field(default_factory=dict[str, Bytes])
    seen: dict[int, torch.UntypedStorage] = field(default_factory=dict)
    inside: list[str] = field(default_factory=lambda: [LOSS])  # the parts at work, the innermost last

    @contextmanager
    def by_part(self, model: nn.Module) -> Iterator[None]:
        """Charge what is saved inside to the child of the network that is at work, or to the loss."""
        self.parts = {part: Bytes() for part in [*(name for name, _ in model.named_children()), LOSS]}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.seen and storage._cdata not in self.ledger.free_of_charge:
                self.seen[storage._cdata] = storage
                self.parts[self.inside[-1]] += cost_of(storage)
            return tensor

        with ExitStack() as hooks:
            for name, module in model.named_modules():
                if part := name.partition(".")[0]:  # children of a child too: OpenVLA calls those of its language model
                    enter, leave = partial(self._enter, part), self._leave
                    hooks.callback(module.register_forward_pre_hook(enter).remove)
                    hooks.callback(module.register_forward_hook(leave).remove)
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                yield

    def _enter(self, part: str, *_: object) -> None:
        self.inside.append(part)

    def _leave(self, *_: object) -> None:
        self.inside.pop()


@contextmanager
def checkpointed(model: Network, enabled: bool, values: Valueless) -> Iterator[None]:
    """Keep only the inputs of the language model's layers meanwhile and compute the rest again, under `values`."""
    if not enabled:
        yield
        return
    set_checkpointing(model, context_fn=lambda: (nullcontext(), values), preserve_rng_state=False)
    try:
        yield
    finally:
        language_model = _checkpointing(model)
        getattr(language_model, "activation_checkpointing_disable", language_model.gradient_checkpointing_disable)()


def set_checkpointing(model: nn.Module, **options: Any) -> None:
    """Let the language model keep its layers' inputs only; `options` are those of torch.utils.checkpoint."""
    language_model = _checkpointing(model)
    name = "activation_checkpointing_enable"  # transformers 5 warns about the name it had before
    enable = getattr(language_model, name, language_model.gradient_checkpointing_enable)
    enable({"use_reentrant": False, **options})


def _checkpointing(model: nn.Module) -> Any:
    """The part of a network that transformers can checkpoint. Raises ConfigError where there is none."""
    for part in model.children():
        if hasattr(part, "gradient_checkpointing_enable"):
            return part
    raise ConfigError(
        f"{type(model).__name__} has no layers to checkpoint", where="checkpointing", do="leave checkpointing=true out"
    )


@contextmanager
def collected(model: nn.Module, ledger: Ledger, reached: set[str]) -> Iterator[None]:
    """Take each gradient from its parameter as soon as it is there, and note the parameter's name."""

    def collect(name: str, parameter: Tensor) -> None:
        reached.add(name)
        ledger.gradients += parameter.numel()
        parameter.grad = None
        ledger.record()

    handles = [
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: collect(name, p))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
