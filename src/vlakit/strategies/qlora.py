"""QLoRA: LoRA over a base whose linear layers are stored in 4 bits (nf4); it saves memory and costs accuracy."""

from __future__ import annotations

from typing import Any

import torch

from vlakit.errors import PartMissing
from vlakit.models.network import Network
from vlakit.models.quantize import quantize
from vlakit.models.quantized_layers import check_kernel
from vlakit.strategies.lora import Lora


class Qlora(Lora):
    """LoRA with the base in nf4; checkpoints hold the adapters and name the base. Needs CUDA and bitsandbytes."""

    name = "qlora"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "adapter_only": True})

    def prepare(self, model: Network) -> None:
        check_bitsandbytes()
        quantize(model, "int4", also=("vision",))  # all but lm_head, as transformers leaves output embeddings whole
        super().prepare(model)


def check_bitsandbytes() -> None:
    """Raise PartMissing where nf4 cannot run."""
    if not torch.cuda.is_available():
        raise PartMissing("nf4 needs a CUDA device, and there is none", where="strategy=qlora", do="use strategy=lora")
    check_kernel("int4", "cuda")
