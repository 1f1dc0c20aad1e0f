"""Linear layers on oneDNN: on AMD faster than MKL, torch's choice; bfloat16 without AVX-512 is widened, 4 to 7 x."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_ROWS = {torch.float32: 16, torch.bfloat16: 48}  # fewer read (or widen) the weight for little arithmetic
LEAST_PRODUCTS = 2**23  # smaller matrix products are over before oneDNN has begun


class Linear(nn.Linear):
    """nn.Linear with the same parameters; large products on a CPU take oneDNN, all others torch's way."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  nn.Linear's name for it
        """(..., in) -> (..., out)."""
        if runs_on_onednn(input, self.weight):
            return _OneDnnLinear.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]  untyped
        return F.linear(input, self.weight, self.bias)


PLAIN = (nn.Linear, Linear)  # layers that are their weight and bias and nothing else


def use_onednn(model: nn.Module) -> None:
    """Let every plain nn.Linear of `model` be a Linear; parameters, hooks and names stay. Adapters stay as they are."""
    for name, module in model.named_modules():
        if type(module) is nn.Linear and ".lora_" not in name:
            module.__class__ = Linear


def runs_on_onednn(input: Tensor, weight: Tensor) -> bool:  # noqa: A002
    """Whether the product of (..., in) and (out, in) takes oneDNN; decided by kind and shape alone, never by timing.

    torch.backends.mkldnn.flags(enabled=False) turns it off.
    """
    rows = input.numel() // max(input.shape[-1], 1)
    return (
        input.dtype == weight.dtype
        and input.dtype in LEAST_ROWS
        and rows >= LEAST_ROWS[input.dtype]
        and rows * weight.numel() >= LEAST_PRODUCTS
        and type(input) in (Tensor, nn.Parameter)
        and input.device.type == weight.device.type == "cpu"
        and _machine_gains(input.dtype)
        and not torch.compiler.is_compiling()  # the compiler packs weights itself
        and not torch.is_autocast_enabled("cpu")
    )


def _machine_gains(dtype: torch.dtype) -> bool:
    available = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    flag = torch._C._get_mkldnn_enabled()  # what torch.backends.mkldnn.flags sets
    gain = {"AVX512": (torch.float32,), "AVX2": (torch.float32, torch.bfloat16)}
    return available and flag and dtype in gain.get(torch.backends.cpu.get_cpu_capability(), ())


def _product(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
    wide = input.float(), weight.float(), None if bias is None else bias.float()  # float32 stays as it is, uncopied
    return torch.ops.mkldnn._linear_pointwise(*wide, "none", [], "").to(input.dtype)


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        # A frozen layer's input is of no use to its backward: kept, it would cost last_layer and sandwich their memory.
        of_input, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(input if of_weight else None, weight if of_input else None)
        return _product(input, weight, bias)

    @staticmethod
    @once_differentiable  # its wrapper is untyped, so the override seems to take other arguments
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors  # noqa: A001
        (gradient,) = grad_outputs
        rows = gradient.flatten(0, -2)  # (R, out)
        of_input, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if of_input else None,
            _product(rows.t(), input.flatten(0, -2).t()) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )
