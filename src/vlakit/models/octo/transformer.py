"""The transformer's blocks, and the pooling of its tokens by attention; sizes and epsilons are the original's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6  # of flax' norms
POOLING_HEADS = 8


class Learned(nn.Module):
    """A learned array. It is called bias, which weight decay spares: the original's decays nothing but kernels."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A normal of standard deviation 0.02."""
        nn.init.normal_(self.bias, std=0.02)


class Attention(nn.Module):
    """Scaled dot-product attention of `heads` heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (dense(width, width) for _ in range(4))

    def forward(self, asking: Tensor, asked: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, n, D) asks (B, m, D); allowed: (B or 1, 1, n, m) bool.

        A token that may see nothing sees everything alike, as in flax; what it becomes must then be seen by nobody.
        """
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, n, D / heads)
            for layer, x in ((self.query, asking), (self.key, asked), (self.value, asked))
        )
        weights = None
        if allowed is not None:
            hidden = torch.finfo(query.dtype).min
            weights = torch.zeros(allowed.shape, dtype=query.dtype, device=query.device).masked_fill(~allowed, hidden)
        return self.out(F.scaled_dot_product_attention(query, key, value, weights).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with the tanh approximation of GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand, self.contract = dense(width, hidden), dense(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.attention, self.mlp = Attention(width, heads), Mlp(width, hidden)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        normed = self.norm_attention(x)
        x = x + self.attention(normed, normed, allowed)
        return x + self.mlp(self.norm_mlp(x))


class Transformer(nn.Module):
    """Blocks and a last norm over (B, n, D)."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width, EPSILON)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, allowed)
        return self.norm(x)


class Pooling(nn.Module):
    """n tokens (..., m, D) to k (..., k, D): learned probes ask them. Only its MLP stands beside a residual."""

    def __init__(self, width: int, probes: int = 1, heads: int = POOLING_HEADS) -> None:
        super().__init__()
        self.probe = Learned(probes, width)
        self.attention, self.norm = Attention(width, heads), nn.LayerNorm(width, EPSILON)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        rows = tokens.flatten(0, -3)
        pooled = self.attention(self.probe.bias.expand(len(rows), -1, -1), rows)
        pooled = pooled + self.mlp(self.norm(pooled))
        return pooled.unflatten(0, tokens.shape[:-2])


def dense(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with Xavier's uniform weights and no bias at first."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
