"""The transformer over time. Names of its tensors are those of Diffusion Policy's TransformerForDiffusion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.models.openvla.layers import time_embedding


class DiffusionTransformer(nn.Module):
    """Denoises (B, T, D), T <= horizon. seen: size of what each of `window` observed frames says; 0: nothing.

    With `seen` a decoder over the steps reads time and frames as its memory, through a small perceptron or, with
    condition_layers, through an encoder. Without, one encoder holds time and steps (`time_as_token`), or a decoder has
    time alone as its memory.
    """

    step = 1  # T is a multiple of it

    def __init__(  # noqa: PLR0913  a model YAML names each
        self,
        size: int,
        *,
        horizon: int,
        window: int = 1,
        seen: int = 0,
        width: int = 256,
        heads: int = 4,
        layers: int = 8,
        condition_layers: int = 0,
        dropout: float = 0.0,
        attention_dropout: float = 0.3,
        causal: bool = True,
        time_as_token: bool = False,
    ) -> None:
        super().__init__()
        if width % heads or width % 2 or (time_as_token and seen):
            raise ConfigError(
                f"a transformer of width {width} with {heads} heads, time_as_token {time_as_token}, seen {seen}",
                where="model.network.options",
                do="width is a multiple of heads; time_as_token goes with condition=inpaint alone",
            )
        self.width, self.time_as_token, self.horizon = width, time_as_token, horizon
        length, memory = horizon + time_as_token, 1 + (window if seen else 0)
        self.input_emb = nn.Linear(size, width)
        self.pos_emb = nn.Parameter(torch.empty(1, length, width))
        self.drop = nn.Dropout(dropout)
        options: dict[str, Any] = {
            "d_model": width, "nhead": heads, "dim_feedforward": 4 * width, "dropout": attention_dropout,
            "activation": "gelu", "batch_first": True, "norm_first": True,
        }  # fmt: skip
        self.cond_obs_emb = nn.Linear(seen, width) if seen else None
        if time_as_token:
            self.encoder = _encoder(options, layers)
        else:
            self.cond_pos_emb = nn.Parameter(torch.empty(1, memory, width))
            perceptron = nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width)
            self.encoder = _encoder(options, condition_layers) if condition_layers else nn.Sequential(*perceptron)
            self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**options), layers)
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, size)
        # True: may not be seen, as torch has it. A step sees those before it, and the frames up to its own.
        ahead = torch.arange(length)[None] > torch.arange(length)[:, None]
        unseen = torch.arange(memory)[None] - 1 > torch.arange(length)[:, None]
        self.register_buffer("mask", ahead if causal else None, persistent=False)
        self.register_buffer("memory_mask", unseen if causal and seen else None, persistent=False)
        self.mask: Tensor | None
        self.memory_mask: Tensor | None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small random weights, as in GPT: matrices and positions of deviation .02, biases 0. Also on part of them."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(
        self, noisy: Tensor, timesteps: Tensor, seen: Tensor | None = None, local: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) at time steps (B,); seen (B, W, F)."""
        time = time_embedding(timesteps, self.width)[:, None].to(noisy.dtype)  # (B, 1, D)
        steps = self.input_emb(noisy)
        if self.time_as_token:
            tokens = torch.cat([time, steps], dim=1)
            tokens = self.drop(tokens + self.pos_emb[:, : tokens.shape[1]])
            return self.head(self.ln_f(self.encoder(tokens, mask=self._cut(self.mask, tokens))[:, 1:]))
        memory = time if self.cond_obs_emb is None else torch.cat([time, self.cond_obs_emb(seen)], dim=1)
        memory = self.encoder(self.drop(memory + self.cond_pos_emb))
        tokens = self.drop(steps + self.pos_emb[:, : steps.shape[1]])
        unseen = None if self.memory_mask is None else self.memory_mask[: tokens.shape[1]]
        states = self.decoder(tokens, memory, tgt_mask=self._cut(self.mask, tokens), memory_mask=unseen)
        return self.head(self.ln_f(states))

    @staticmethod
    def _cut(mask: Tensor | None, tokens: Tensor) -> Tensor | None:
        return None if mask is None else mask[: tokens.shape[1], : tokens.shape[1]]


def _encoder(options: dict[str, Any], layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(**options)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
