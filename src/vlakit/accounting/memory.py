"""How much memory a training run takes, before it starts: counted by a dry step, plus four named overheads.

A step peaks either in its backward pass, while activations are at their most, or in the optimizer, when all gradients
are there and AdamW, unless it is fused, makes one more tensor the size of a moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch.optim import Optimizer

from vlakit.accounting.dry_step import DryStep, Numerics, Workload, dry_step
from vlakit.errors import ConfigError, nearest
from vlakit.models.network import Network
from vlakit.processing.processor import Processor
from vlakit.schema import Batch

# Named as Lightning names them. With FSDP, bf16-mixed gathers weights in bf16 instead of casting float32 ones.
PRECISIONS = {
    "bf16-true": Numerics(torch.bfloat16, torch.bfloat16, autocast=False),
    "bf16-mixed": Numerics(torch.float32, torch.float32, autocast=True),
    "32-true": Numerics(torch.float32, torch.float32, autocast=False),
}
FSDP_MIXED = Numerics(torch.float32, torch.bfloat16, autocast=True)

CUDA_CONTEXT = 800_000_000  # driver, kernels of torch and cuBLAS: an H200 with torch 2.11 (experiments/speed/plan)
LIBRARY_WORKSPACE = 100_000_000  # cuBLAS: 8 MiB (A100) or 32 MiB (H100) a handle; cuDNN's for the patch embedding
NCCL_BUFFERS = 500_000_000  # 4 MiB a channel and direction, tens of channels; only with more than one GPU
FRAGMENTATION = 0.05  # share of what comes and goes that the caching allocator holds in pieces it cannot use: assumed
GATHERED_UNITS = 2  # FSDP's limit_all_gathers: the unit at work and the one fetched meanwhile

# Bytes that CUDA says a card has, GiB, the least of its kind: A10G/L4, A100 40, A100/H100 80, H200.
CARDS = {24: int(22.0 * 2**30), 40: int(39.3 * 2**30), 80: int(79.1 * 2**30), 141: int(139.7 * 2**30)}
MOST = 1 << 16  # batch sizes are searched up to here


@dataclass(frozen=True)
class Setup:
    """How the run is laid out over GPUs: `gpus` share weights, gradients and moments (FSDP, full shard).

    fsdp: units are gathered in the layers' dtype even on one GPU. half_frozen_vision: towers that do not train rest in
    the layers' dtype. fused: the optimizer updates in one kernel (conf/optimizer), without tensors of its own.
    """

    numerics: Numerics
    gpus: int = 1
    fsdp: bool = False
    half_frozen_vision: bool = False
    fused: bool = True

    @classmethod
    def of(cls, precision: str, gpus: int = 1, *, fused: bool = True) -> Setup:
        """The layout for a precision by name; ConfigError for an unknown one or for no GPU."""
        if precision not in PRECISIONS:
            raise ConfigError(
                f"precision={precision} cannot be planned", where="precision", do=nearest(precision, PRECISIONS)
            )
        if gpus < 1:
            raise ConfigError(f"sharding={gpus} is no number of GPUs", where="sharding", do="1 or more")
        mixed = gpus > 1 and precision == "bf16-mixed"
        return cls(FSDP_MIXED if mixed else PRECISIONS[precision], gpus, fsdp=gpus > 1, fused=fused)


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at one batch size. activations: part -> what autograd keeps; transient: beyond that at the peak.

    peak is what the allocator hands out at most, in the backward pass or in the optimizer (`peak_in`); overhead is what
    comes on top; total is what the card must have.
    """

    batch_size: int
    weights: int
    gradients: int
    optimizer: int
    activations: Mapping[str, int]
    unsharded: int
    peak: int
    peak_in: str
    overhead: int

    @property
    def total(self) -> int:
        """Bytes that the card must have."""
        return self.peak + self.overhead

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {**asdict(self), "activations": dict(self.activations), "total": self.total}


@dataclass(frozen=True)
class Estimate:
    """A strategy's memory at every batch size, from one dry step."""

    step: DryStep
    setup: Setup
    all_weights: int  # bytes over all GPUs
    all_gradients: int
    unsharded: int  # bytes of gathered units and their gradients on each GPU

    @property
    def weights(self) -> int:
        """Bytes of weights on one GPU."""
        return -(-self.all_weights // self.setup.gpus)

    @property
    def gradients(self) -> int:
        """Bytes of gradients on one GPU."""
        return -(-self.all_gradients // self.setup.gpus)

    @property
    def optimizer(self) -> int:
        """Bytes of AdamW's two moments on one GPU; torch gives them the weights' dtype."""
        return 2 * self.gradients

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint on disk, weights and moments of all GPUs."""
        return self.all_weights + 2 * self.all_gradients

    def at(self, batch_size: int) -> Memory:
        """Memory with `batch_size` samples on each GPU."""
        element = self.setup.numerics.stored.itemsize / self.setup.gpus
        backward = self.step.peak(batch_size, element) + self.unsharded
        roots = 0 if self.setup.fused else self.optimizer // 2  # of the second moments, all at once (foreach AdamW)
        update = self.gradients + roots
        moving = max(backward, update)
        peak_in = "backward" if backward >= update else "optimizer"
        overhead = CUDA_CONTEXT + LIBRARY_WORKSPACE + int(FRAGMENTATION * moving)
        overhead += NCCL_BUFFERS if self.setup.gpus > 1 else 0
        return Memory(
            batch_size=batch_size,
            weights=self.weights,
            gradients=self.gradients,
            optimizer=self.optimizer,
            activations=self.step.saved_bytes(batch_size),
            unsharded=self.unsharded,
            peak=self.weights + self.optimizer + moving,
            peak_in=peak_in,
            overhead=overhead,
        )

    def largest_batch(self, card_bytes: int) -> int:
        """The most samples a GPU that fit; 0 when not even one does."""
        low, high = 0, MOST
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.at(middle).total <= card_bytes else (low, middle - 1)
        return low

    def step_seconds(self, batch_size: int, tflops: float, mfu: float) -> float:
        """Seconds of a step at a share `mfu` of the peak rate."""
        return self.step.flops * batch_size / (tflops * 1e12 * mfu)


def estimate(model: Network, processor: Processor, setup: Setup, workload: Workload) -> Estimate:
    """Count one step of a prepared model on the meta device; its parameters change dtype."""
    step = dry_step(model, processor, setup.numerics, workload)
    stored, computed = setup.numerics.stored.itemsize, setup.numerics.computed.itemsize
    weights = gradients = 0
    for name, parameter in model.named_parameters():
        half = setup.half_frozen_vision and name.startswith("vision_backbone.") and not parameter.requires_grad
        weights += parameter.numel() * (computed if half else stored)
        gradients += parameter.numel() * stored * (name in step.reached)
    return Estimate(step, setup, weights, gradients, unsharded_bytes(model, setup, step.reached) if setup.fsdp else 0)


def unsharded_bytes(model: Network, setup: Setup, reached: set[str]) -> int:
    """Bytes FSDP holds whole on each GPU: the root, the largest units in flight, and the gradients of one unit.

    Gradients of a unit exist twice for a moment: as the layers make them, and in the dtype in which they are summed.
    """
    units = units_of(name for name, _ in model.named_parameters())
    sizes: dict[str, int] = {}
    trained: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        unit = units[name]
        sizes[unit] = sizes.get(unit, 0) + parameter.numel()
        trained[unit] = trained.get(unit, 0) + parameter.numel() * (name in reached)
    root = sizes.pop("root", 0)
    stored, computed = setup.numerics.stored.itemsize, setup.numerics.computed.itemsize
    gathered = computed * (root + GATHERED_UNITS * max(sizes.values(), default=0))
    return gathered + (computed + stored) * max(trained.values())


def units_of(names: Iterable[str]) -> dict[str, str]:
    """Parameter -> its FSDP unit: a layer, a child of the network that has no layers as a whole, else the root.

    >>> list(units_of(["tower.blocks.0.fc.weight", "tower.norm.weight", "projector.fc1.weight"]).values())
    ['tower.blocks.0', 'root', 'projector']
    """
    layers = {name: re.match(r".*?\.(?:layers|blocks)\.\d+(?=\.)", name) for name in names}
    layered = {name.partition(".")[0] for name, layer in layers.items() if layer}
    whole = {name: name.partition(".")[0] for name in layers}
    return {
        name: layer.group(0) if layer else "root" if whole[name] in layered else whole[name]
        for name, layer in layers.items()
    }


def measured_peak(model: Network, optimizer: Optimizer, batch: Batch, *, autocast: bool) -> dict[str, int]:
    """Two steps on the GPU that holds the model: bytes `allocated` at most, `reserved` by torch, `used` on the card."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):  # the optimizer makes its state in the first
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            loss = model(batch).loss
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize()
    free, card = torch.cuda.mem_get_info()
    return {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "used": card - free,
    }
