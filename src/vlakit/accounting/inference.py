"""How much memory answering takes, before weights are read: counted by a dry forward pass without gradients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from vlakit.accounting.dry_step import BATCH, Ledger, Workload
from vlakit.accounting.meta import Valueless, check_meta
from vlakit.models.network import Network
from vlakit.models.quantize import quantize, weight_bytes
from vlakit.models.quantized_layers import NONE
from vlakit.processing.processor import Processor


@dataclass(frozen=True)
class Inference:
    """Bytes of weights, of the keys and values of a row that decodes, and of what comes and goes, a row at a time."""

    weights: int
    cache_per_row: int
    fixed: int
    per_row: int

    def at(self, rows: int) -> int:
        """Bytes that tensors take at most while `rows` observations are answered."""
        return self.weights + self.fixed + (self.cache_per_row + self.per_row) * rows


def inference(
    model: Network,
    processor: Processor,
    dtype: torch.dtype,
    scheme: str = NONE,
    also: Collection[str] = (),
    workload: Workload | None = None,
) -> Inference:
    """Count the answer of a network on the meta device, which changes dtype and is quantised.

    The pass is teacher-forced over all tokens at once, which is what decoding takes but for its cache. Raises
    PartMissing where there is nothing to quantise.
    """
    check_meta(model)
    workload = workload or Workload()
    model.to(dtype).eval().requires_grad_(False)
    if scheme != NONE:
        quantize(model, scheme, also)
    ledger = Ledger(keep=[*model.parameters(), *model.buffers()])
    batch = workload.batch(processor, BATCH)
    with torch.no_grad(), Valueless(), ledger:
        model(batch)
    fixed, per_row = max(((fixed, row) for fixed, row, _ in ledger.timeline), key=sum, default=(0, 0))
    return Inference(weight_bytes(model), _cache(model, dtype, workload), fixed, per_row)


def _cache(model: Network, dtype: torch.dtype, workload: Workload) -> int:
    """Keys and values of every layer for patches and text; 0 for a network that has no language model."""
    config = getattr(getattr(model, "language_model", None), "config", None)
    if config is None:
        return 0
    width = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    length = getattr(model, "n_patches", 0) + workload.prompt_tokens + workload.answer_tokens
    return 2 * config.num_hidden_layers * width * length * dtype.itemsize
