"""Networks without memory: built on the meta device, and run there by their own forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from vlakit.models.network import Network


class Buildable(Protocol):
    """A strategy, which builds the network that it trains."""

    def built(self, device: torch.device | str | None = None) -> Network:
        """The network with random weights, prepared for training."""
        ...


def prepared(policy: Buildable) -> Network:
    """The strategy's own network, ready to train, on the meta device."""
    with torch.device("meta"), Uninitialised():  # adapters too are made there, not on the CPU and then moved
        return policy.built("meta")


def check_meta(model: Network) -> None:
    """Raise ValueError for a network that has memory."""
    if any(p.device.type != "meta" for p in model.parameters()):
        raise ValueError("counting needs a network on the meta device: prepared(policy), policy.built('meta')")


FILLING = {Tensor.zero_, Tensor.fill_, Tensor.normal_, Tensor.uniform_}
FILLING |= {Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_}  # these four are how a normal is cut off
INIT = {init.uniform_, init.normal_, init.constant_, init.kaiming_uniform_}  # their insides do not ask the mode


class Uninitialised(TorchFunctionMode):
    """Skips filling new tensors: on the meta device nobody sees the numbers, and adapters spend seconds on them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FILLING and args[0].is_meta:
            return args[0]
        if func in INIT and kwargs["tensor"].is_meta:
            return kwargs["tensor"]
        return func(*args, **kwargs)


INDEXING = {Tensor.__getitem__, Tensor.__setitem__}


class Valueless(TorchFunctionMode):
    """Lets a forward pass run on parameters and pixels without values, in a batch whose masks and labels have some.

    A tensor with values joins one without on the meta device, unless it is an index: how many rows a mask takes must
    be known. A question about a tensor without values is answered yes: transformers asks whether positions run on.
    Stands in for fused attention, for which the meta device would take the path that keeps L x L, and for CUDA's
    autocast, which knows no meta tensors.
    """

    def __init__(self, *, autocast: bool = False) -> None:
        super().__init__()
        self.autocast, self.flops = autocast, 0.0  # flops: of attention alone, both passes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.__bool__ and args[0].is_meta:
            return True
        if func not in INDEXING and len({t.is_meta for t in _tensors((*args, *kwargs.values()))}) > 1:
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        if self.autocast and (func in IN_BFLOAT16 or func in IN_FLOAT32):
            dtype = torch.bfloat16 if func in IN_BFLOAT16 else torch.float32
            args = tuple(_cast(a, dtype) for a in args)
            kwargs = {key: _cast(a, dtype) for key, a in kwargs.items()}
        if func is F.scaled_dot_product_attention:
            query, key, value = [*args[:3], *(kwargs[k] for k in ("query", "key", "value")[len(args) :])]
            # Two products of L x L x width forward, five backward (one is made again): Dao 2023.
            self.flops += (4 + 10) * query.numel() * key.shape[-2]
            return FusedAttention.apply(query, key, value)
        return func(*args, **kwargs)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


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
