"""The decoder: image tokens and action slots of T frames, step by step; all action tokens of a step come at once.

No slot sees a slot, itself included, but image tokens see earlier slots: their inputs are zeros, and yet they carry
what they saw of the pictures in the layer before. Source: robotics_transformer, transformer_network.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.models.rt1.vision import LAYER_NORM_EPS
from vlakit.models.sizes import check_sizes


def attention_allowed(steps: int, image_tokens: int, action_tokens: int) -> Tensor:
    """Who sees whom (L, L) bool, row = who looks; L = steps x (image_tokens + action_tokens)."""
    places = torch.arange(steps * (image_tokens + action_tokens))
    slot = places % (image_tokens + action_tokens) >= image_tokens
    return (places[:, None] >= places) & ~(slot[:, None] & slot)


def logit_positions(steps: int, image_tokens: int, action_tokens: int) -> Tensor:
    """(steps x action_tokens,): a token is read one place before its slot, the first one at the last image token."""
    first = torch.arange(steps) * (image_tokens + action_tokens) + image_tokens - 1
    return (first[:, None] + torch.arange(action_tokens)).flatten()


@dataclass(frozen=True)
class DecoderSizes:
    """Numbers of the original's configuration, `configs/transformer_mixin.gin`; head_width is its layer_size."""

    width: int = 512
    layers: int = 8
    heads: int = 8
    head_width: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = {"width": self.width, "layers": self.layers, "heads": self.heads, "head_width": self.head_width}
        check_sizes(sizes, where="model.network.transformer")


class Layer(nn.Module):
    """Attention, whose heads have a width of their own, and one linear layer; both behind a norm."""

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        self.heads, self.dropout, width = sizes.heads, sizes.dropout, sizes.width
        inner = sizes.heads * sizes.head_width
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=LAYER_NORM_EPS) for _ in range(2))
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.output, self.ff = nn.Linear(inner, width), nn.Linear(width, width)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        """(B, L, D) and (L, L) bool."""
        seen = self.norm1(x)
        query, key, value = (
            layer(seen).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # (B, heads, L, head_width)
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=rate)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        return x + F.dropout(self.ff(self.norm2(x)), rate)


class Places(nn.Linear):
    """A vector for every place: the original's layer of one-hot places, which are not multiplied."""

    def forward(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(L, width)."""
        return self.weight.T + self.bias


class Decoder(nn.Module):
    """Image tokens (B, T, n, d) to logits (B, L, V) at every place; there is no norm before the last layer."""

    def __init__(
        self, steps: int, image_tokens: int, action_tokens: int, vocabulary: int, sizes: DecoderSizes, token_width: int
    ) -> None:
        """token_width: d, that of the image tokens."""
        super().__init__()
        self.action_tokens, length = action_tokens, steps * (image_tokens + action_tokens)
        self.token_emb, self.position_emb = nn.Linear(token_width, sizes.width), Places(length, sizes.width)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.output_tokens = nn.Linear(sizes.width, vocabulary)
        allowed = attention_allowed(steps, image_tokens, action_tokens)
        self.register_buffer("allowed", allowed, persistent=False)
        self.register_buffer("read_at", logit_positions(steps, image_tokens, action_tokens), persistent=False)
        self.allowed: Tensor
        self.read_at: Tensor

    def forward(self, image_tokens: Tensor) -> Tensor:
        """(B, L, V)."""
        sequence = F.pad(image_tokens, (0, 0, 0, self.action_tokens)).flatten(1, 2)  # (B, L, d): slots are zeros
        x = self.token_emb(sequence) + self.position_emb()
        for layer in self.layers:
            x = layer(x, self.allowed)
        return self.output_tokens(x)

    def action_logits(self, image_tokens: Tensor) -> Tensor:
        """(B, T, A, V) of the A action tokens of each step."""
        logits = self(image_tokens)[:, self.read_at]
        return logits.unflatten(1, (-1, self.action_tokens))
