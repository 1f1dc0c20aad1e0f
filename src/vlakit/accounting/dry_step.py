"""One training step on the meta device, with a ledger: what a step keeps is counted from its operators, not by formula.

The batch is a large prime: a tensor grows with the batch exactly when that prime divides its bytes, so one pass
answers for every batch size. Fused attention is stood in for, as the meta device would take the path that keeps L x L.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vlakit.models.openvla.vla import OpenVLA

BATCH = 1009  # a prime that divides no width, patch count or vocabulary of a model here
PARTS = ("vision", "projector", "language model", "logits")


@dataclass(frozen=True)
class Workload:
    """Tokens of a sample beside its patches (`answer_tokens` of them carry labels), and what is kept or made again."""

    prompt_tokens: int = 24
    answer_tokens: int = 8  # seven dimensions and the end
    all_logits: bool = False  # the released code computes them at every position
    checkpointing: bool = False  # of the language model's layers, as the released code does


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


def dry_step(model: OpenVLA, numerics: Numerics, workload: Workload) -> DryStep:
    """Run a prepared model on the meta device forward and backward; its weights take `numerics.computed`."""
    if any(p.device.type != "meta" for p in model.parameters()):
        raise ValueError("dry_step needs a model on the meta device: build_vla(names, device='meta')")
    model.to(numerics.computed).train()
    ledger = Ledger(keep=[*model.parameters(), *model.buffers()])
    saved, flops = SavedTensors(ledger), Functions(numerics.autocast, ledger)
    reached: set[str] = set()
    with checkpointed(model, workload.checkpointing, flops), collected(model, ledger, reached), ledger:
        with flops:
            loss, held = _forward(model, workload, saved)
        saved.seen.clear()
        loss.backward()
        del held
    fixed, per_sample, gradients = torch.tensor(ledger.timeline, dtype=torch.int64).unbind(1)
    return DryStep(saved.parts, fixed, per_sample, gradients, reached, ledger.flops / BATCH)


def _forward(model: OpenVLA, workload: Workload, saved: SavedTensors) -> tuple[Tensor, Tensor]:
    """The loss as OpenVLA.forward takes it, one part after the other, and what the caller holds on to meanwhile."""
    vision, dtype = model.vision_backbone, model.projector.fc1.weight.dtype
    shape = (BATCH, 3 * len(vision.towers), vision.image_size, vision.image_size)
    ids = torch.zeros(BATCH, workload.prompt_tokens + workload.answer_tokens, dtype=torch.int64, device="meta")
    with saved.of("vision"):
        features = vision(torch.empty(shape, dtype=dtype, device="meta"))
    with saved.of("projector"):
        patches = model.projector(features)
    del features
    with saved.of("language model"):
        sequence = model.splice(patches, ids)
        n_patches, n = patches.shape[1], sequence.shape[1]
        del patches
        # A mask of our own: transformers would look into the values of its own, and meta tensors have none.
        mask = torch.ones(1, 1, n, n, dtype=torch.bool, device="meta")
        hidden = model.hidden_states(sequence, mask)
        del sequence, mask
    with saved.of("logits"):
        if workload.all_logits:
            logits = model.language_model.lm_head(hidden).float()
            counted = logits[:, :-1].contiguous().flatten(0, 1)
        else:
            rows = torch.zeros(BATCH * workload.answer_tokens, dtype=torch.int64, device="meta")
            counted = logits = model.language_model.lm_head(hidden[:, n_patches:-1][rows, rows])
        targets = torch.zeros(len(counted), dtype=torch.int64, device="meta")
        return F.cross_entropy(counted.float(), targets), logits


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
    parts: dict[str, Bytes] = field(default_factory=lambda: {part: Bytes() for part in PARTS})
    seen: dict[int, torch.UntypedStorage] = field(default_factory=dict)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Charge what is saved inside to `part`."""

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.seen and storage._cdata not in self.ledger.free_of_charge:
                self.seen[storage._cdata] = storage
                self.parts[part] = self.parts[part] + cost_of(storage)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield


class Functions(TorchFunctionMode):
    """Stands in for fused attention, and for CUDA's autocast, which knows no meta tensors."""

    def __init__(self, autocast: bool, ledger: Ledger) -> None:
        super().__init__()
        self.autocast, self.ledger = autocast, ledger

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self.autocast and (func in IN_BFLOAT16 or func in IN_FLOAT32):
            dtype = torch.bfloat16 if func in IN_BFLOAT16 else torch.float32
            args = tuple(_cast(a, dtype) for a in args)
            kwargs = {key: _cast(a, dtype) for key, a in kwargs.items()}
        if func is F.scaled_dot_product_attention:
            query, key, value = [*args[:3], *(kwargs[k] for k in ("query", "key", "value")[len(args) :])]
            # Two products of L x L x width forward, five backward (one is made again): Dao 2023.
            self.ledger.flops += (4 + 10) * query.numel() * key.shape[-2]
            return FusedAttention.apply(query, key, value)
        return func(*args, **kwargs)


# The part of CUDA's autocast lists that occurs here (torch's documentation of autocast, "CUDA ops that ...").
PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__}
IN_BFLOAT16 = {F.linear, F.conv2d, F.scaled_dot_product_attention, *PRODUCTS}
IN_FLOAT32 = {F.layer_norm, F.group_norm, F.softmax, F.cross_entropy}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class FusedAttention(torch.autograd.Function):
    """Shapes of flash attention: it keeps query, key, value, output and a logarithm a row, never L x L."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        out = torch.empty_like(query)
        row = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, out, row)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class Uninitialised(TorchFunctionMode):
    """Skips filling new tensors: on the meta device nobody sees the numbers, and adapters spend seconds on them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in {Tensor.zero_, Tensor.normal_, Tensor.uniform_} and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def checkpointed(model: OpenVLA, enabled: bool, functions: Functions) -> Iterator[None]:
    """Keep only the inputs of the language model's layers meanwhile and compute the rest again, under `functions`."""
    if not enabled:
        yield
        return
    set_checkpointing(model, context_fn=lambda: (nullcontext(), functions), preserve_rng_state=False)
    try:
        yield
    finally:
        language_model = model.language_model
        getattr(language_model, "activation_checkpointing_disable", language_model.gradient_checkpointing_disable)()


def set_checkpointing(model: OpenVLA, **options: Any) -> None:
    """Let the language model keep its layers' inputs only; `options` are those of torch.utils.checkpoint."""
    language_model = model.language_model
    name = "activation_checkpointing_enable"  # transformers 5 warns about the name it had before
    enable = getattr(language_model, name, language_model.gradient_checkpointing_enable)
    enable({"use_reentrant": False, **options})


@contextmanager
def collected(model: OpenVLA, ledger: Ledger, reached: set[str]) -> Iterator[None]:
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
