"""QLoRA: LoRA over a base whose linear layers are stored in 4 bits (nf4); it saves memory and costs accuracy."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from vlakit.errors import PartMissing
from vlakit.models.adapters import is_added
from vlakit.models.cpu import PLAIN
from vlakit.models.network import Network
from vlakit.strategies.lora import Lora


class Qlora(Lora):
    """LoRA with the base in nf4; checkpoints hold the adapters and name the base. Needs CUDA and bitsandbytes."""

    name = "qlora"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "adapter_only": True})

    def prepare(self, model: Network) -> None:
        check_bitsandbytes()
        quantize_nf4(model)
        super().prepare(model)


def check_bitsandbytes() -> None:
    """Raise PartMissing where nf4 cannot run."""
    if not torch.cuda.is_available():
        raise PartMissing("nf4 needs a CUDA device, and there is none", where="strategy=qlora", do="use strategy=lora")
    if find_spec("bitsandbytes") is None:
        raise PartMissing(
            "nf4 needs bitsandbytes", where="strategy=qlora", do="pip install 'vlakit[quant]', or use strategy=lora"
        )


def quantize_nf4(model: Network) -> None:
    """Replace every linear layer but lm_head by a 4-bit one; packing happens when the model moves to the GPU.

    The head stays whole, as transformers leaves output embeddings.
    """
    import bitsandbytes as bnb  # pyright: ignore[reportMissingImports]  only where CUDA is

    for name, module in list(model.named_modules()):
        if type(module) not in PLAIN or name.endswith("lm_head") or is_added(f"{name}.weight", model):
            continue
        packed = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
        )
        packed.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, quant_type="nf4")
        packed.bias = module.bias
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, packed)
