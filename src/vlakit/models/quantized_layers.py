"""Linear layers whose weights rest in 8 or 4 bits: for inference, and 4 bits under the adapters of QLoRA.

Both store two plain tensors, `weight` and `absmax`, which mean the same on every machine; what multiplies them is
decided where they run. Formats: Dettmers et al. 2022 (LLM.int8) and 2023 (nf4), as bitsandbytes has them.
"""

from __future__ import annotations

import ctypes
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.errors import InvalidData, PartMissing, UnknownName, nearest

NONE = "none"
BLOCK = 64  # neighbouring weights of nf4 that share an absmax
OUTLIER = 6.0  # LLM.int8: inputs beyond it are multiplied in fp16
_SLICE = 1 << 22  # weights packed at a time: packing makes several copies of them


class QuantizedLinear(nn.Linear):
    """weight, absmax: buffers; bias: a parameter in floating point, or None. Input and output keep the input's dtype.

    An nn.Linear, so that peft puts adapters on it. It is made without values; `of` packs those of a layer.
    """

    scheme: ClassVar[str]
    weight: Tensor  # pyright: ignore[reportIncompatibleVariableOverride]  a buffer: nothing trains it
    absmax: Tensor

    def __init__(self, in_features: int, out_features: int, bias: nn.Parameter | None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        self.register_parameter("bias", bias)
        (shape, dtype), blocks = self.stored()
        self.register_buffer("weight", torch.empty(shape, dtype=dtype, device="meta"))
        self.register_buffer("absmax", torch.empty(blocks, device="meta"))

    @classmethod
    def of(cls, layer: nn.Linear) -> Self:
        """The layer in this scheme, where it is; of a layer without values, a layer without values."""
        made = cls(layer.in_features, layer.out_features, layer.bias)
        if not layer.weight.is_meta:
            made.weight, made.absmax = made.packed(layer.weight.detach())
            give_back()
        return made

    def stored(self) -> tuple[tuple[tuple[int, ...], torch.dtype], int]:
        """Shape and dtype of `weight`, length of `absmax`."""
        raise NotImplementedError

    def packed(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(out, in) floating point -> weight and absmax as stored. Raises InvalidData for what is not finite."""
        raise NotImplementedError

    def dequantized(self) -> Tensor:
        """(out, in) float32: the weight that this layer stands for."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = self.absmax  # network.to(bfloat16) is about floating point weights, not about scales of others
        super()._apply(fn, recurse)
        if exact.dtype == torch.float32 != self.absmax.dtype:
            self.absmax = exact.to(self.absmax.device)
        return self


class Int8Linear(QuantizedLinear):
    """Rows of 127 w / absmax. Inputs are quantised row by row as well, so that no row's answer depends on another's.

    CPU: torch's own int8 kernel (fbgemm), without gradients. CUDA: LLM.int8 of bitsandbytes.
    """

    scheme = "int8"
    _kernel: Any = None  # the weight in fbgemm's order, instead of `weight`

    def stored(self) -> tuple[tuple[tuple[int, ...], torch.dtype], int]:
        return ((self.out_features, self.in_features), torch.int8), self.out_features

    def packed(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        half = weight.half().float()  # bitsandbytes reads fp16
        absmax = finite(half.abs().amax(dim=1), "fp16")
        return (half * (127 / absmax.clamp(min=1e-30))[:, None]).round_().to(torch.int8), absmax

    def dequantized(self) -> Tensor:
        self.unpack()
        return self.weight.float() * (self.absmax / 127)[:, None]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  nn.Linear's name for it
        """(..., in) -> (..., out)."""
        if input.is_meta:  # no whole weight is ever made
            return F.linear(input, input.new_empty(1).expand(self.out_features, self.in_features), self.bias)
        if torch.is_grad_enabled() and input.requires_grad:
            raise PartMissing("int8 layers have no gradients", where="quantize=int8", do="train with strategy=qlora")
        rows = input.reshape(-1, self.in_features)
        product = self._on_cuda(rows) if input.is_cuda else self._on_cpu(rows)
        return product.to(input.dtype).view(*input.shape[:-1], self.out_features)

    def _on_cpu(self, rows: Tensor) -> Tensor:
        if self._kernel is None:
            self.pack()
        rows = rows.float()
        absmax = rows.abs().amax(dim=1, keepdim=True).clamp_(min=1e-30)
        # Without VNNI two products are added in 16 bits: at 7 bits they cannot overflow.
        levels = 127 if torch.cpu._is_vnni_supported() else 63
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        out: Tensor = product(rows / absmax, 1 / levels, levels + 1, self._kernel).mul_(absmax)
        return out if self.bias is None else out.add_(self.bias)

    def _on_cuda(self, rows: Tensor) -> Tensor:
        bnb = bitsandbytes(self.scheme)
        state = bnb.MatmulLtState()
        state.CB, state.SCB, state.has_fp16_weights, state.is_training = self.weight, self.absmax, False, False
        bias = None if self.bias is None else self.bias.half()
        return bnb.matmul(rows.half(), self.weight, state=state, threshold=OUTLIER, bias=bias)

    def pack(self) -> None:
        """Keep the weight in the kernel's order and let the plain one go. Raises PartMissing without a kernel."""
        check_kernel(self.scheme, "cpu")
        scales, zeros = (self.absmax / 127).clamp(min=1e-30).double(), torch.zeros(self.out_features, dtype=torch.int64)
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor")  # torch means to move them elsewhere
            quantized = torch.ops.aten._make_per_channel_quantized_tensor(self.weight, scales, zeros, 0)
            self._kernel = torch.ops.quantized.linear_prepack(quantized, None)
        finally:
            torch.backends.quantized.engine = before
        self.weight = self.weight.new_empty(0)
        del quantized
        give_back()

    def unpack(self) -> None:
        """The plain weight again, for whoever wants to store, copy or move it."""
        if self._kernel is not None:
            self.weight = torch.ops.quantized.linear_unpack(self._kernel)[0].int_repr()
            self._kernel = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.unpack()
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.unpack()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        self.unpack()  # what fbgemm made does not go into a copy or another process
        return dict(self.__dict__)


class Int4Linear(QuantizedLinear):
    """nf4: two of 16 values in a byte, absmax of every 64 along the flattened rows. bitsandbytes multiplies."""

    scheme = "int4"

    def stored(self) -> tuple[tuple[tuple[int, ...], torch.dtype], int]:
        n = self.out_features * self.in_features
        return (((n + 1) // 2,), torch.uint8), math.ceil(n / BLOCK)

    def packed(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        quantize = bitsandbytes(self.scheme).functional.quantize_4bit
        there = "cuda" if torch.cuda.is_available() else weight.device  # where it takes no time
        slices = (part.to(there) for part in weight.reshape(-1).split(_SLICE))
        parts = [quantize(part, blocksize=BLOCK, quant_type="nf4") for part in slices]
        absmax = finite(torch.cat([state.absmax for _, state in parts]), "nf4").to(weight.device)
        return torch.cat([codes.view(-1) for codes, _ in parts]).to(weight.device), absmax

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(out, in) in `dtype`. As one row, whose length is even: for others bitsandbytes compiles a program first."""
        whole = self._state(torch.Size((1, 2 * len(self.weight))), dtype)
        flat = bitsandbytes(self.scheme).functional.dequantize_4bit(self.weight, whole).view(-1)
        return flat[: self.out_features * self.in_features].view(self.out_features, self.in_features)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  nn.Linear's name for it
        """(..., in) -> (..., out); gradients flow to the input."""
        if input.is_meta:
            whole = torch.empty(self.out_features, self.in_features, dtype=input.dtype, device="meta")
            return F.linear(input, whole, self.bias)
        dtype = computed(input)
        bias = None if self.bias is None else self.bias.to(dtype)
        if not input.is_cuda:
            return F.linear(input.to(dtype), self.dequantized(dtype), bias).to(input.dtype)
        state = self._state(torch.Size((self.out_features, self.in_features)), dtype)
        product = bitsandbytes(self.scheme).matmul_4bit(input.to(dtype), self.weight.view(-1, 1), state, bias=bias)
        return product.to(input.dtype)

    def _state(self, shape: torch.Size, dtype: torch.dtype) -> Any:
        functional = bitsandbytes(self.scheme).functional
        return functional.QuantState(self.absmax, shape, nf4_values(self.weight.device), BLOCK, "nf4", dtype)


SCHEMES: dict[str, type[QuantizedLinear]] = {kind.scheme: kind for kind in (Int8Linear, Int4Linear)}


@cache
def nf4_values(device: torch.device) -> Tensor:
    """The 16 values of nf4. Kept, as bitsandbytes copies them to the device at each call."""
    with torch.inference_mode(mode=False):  # training may ask for it later
        return bitsandbytes("int4").functional.get_4bit_type("nf4", device=device)


def computed(input: Tensor) -> torch.dtype:  # noqa: A002
    """The dtype to multiply in: the input's, but float32 on a CPU that has no instructions for bfloat16."""
    half = input.device.type == "cpu" and input.dtype != torch.float32 and not torch.cpu._is_avx512_bf16_supported()
    return torch.float32 if half else input.dtype


def finite(absmax: Tensor, form: str) -> Tensor:
    """The same. Raises InvalidData where a weight is not finite."""
    if not absmax.isfinite().all():
        raise InvalidData(f"weights that are not finite in {form}", where="quantize", do="use another checkpoint")
    return absmax


def check_kernel(scheme: str, device: str) -> None:
    """Raise UnknownName for no scheme, PartMissing where one cannot run: other arithmetic would be another policy."""
    if scheme not in SCHEMES:
        raise UnknownName(f"no quantisation {scheme!r}", where="quantize", do=nearest(scheme, [NONE, *SCHEMES]))
    if device not in ("cpu", "cuda"):
        raise PartMissing(f"no kernel of {scheme} for {device}", where=f"quantize={scheme}", do="device=cpu, or cuda")
    if scheme == "int8" and device == "cpu":
        if "fbgemm" not in torch.backends.quantized.supported_engines:
            what = "torch was built without fbgemm, its int8 kernel for x86"
            raise PartMissing(what, where="quantize=int8", do="quantize=int4, or a build of torch for x86")
    else:
        bitsandbytes(scheme)


def bitsandbytes(scheme: str) -> Any:
    """The package. Raises PartMissing without it.

    Its import asks the package `kernels`, where there is one, to download code; this import does not let it.
    """
    loaded = sys.modules.get("bitsandbytes")
    if loaded is not None:
        return loaded
    if find_spec("bitsandbytes") is None:
        raise PartMissing(f"{scheme} needs bitsandbytes", where=f"quantize={scheme}", do="pip install 'vlakit[quant]'")
    with _without("kernels"):
        import bitsandbytes

        return bitsandbytes


@contextmanager
def _without(name: str) -> Iterator[None]:
    """As if a package were not installed."""
    absent = object()
    before: Any = sys.modules.get(name, absent)
    sys.modules[name] = None  # pyright: ignore[reportArgumentType]  which is how Python says so
    level = logging.getLogger("bitsandbytes").level
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # that it was not loaded
    try:
        yield
    finally:
        logging.getLogger("bitsandbytes").setLevel(level)
        sys.modules.pop(name) if before is absent else sys.modules.update({name: before})


def give_back() -> None:
    """Let glibc return what was freed: packing leaves holes of a weight's size, in which no aligned one fits."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # of musl: nothing
