"""Instructions as one vector: a learned table of words, or a frozen text encoder from a local Hugging Face folder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vlakit.errors import ConfigError, nearest
from vlakit.processing.text import check_folder
from vlakit.schema import TextBatch

POOLS = ("mean", "sum", "sum_padded")  # sum_padded: over padding, too, as DROID trains: the same words, other vectors


def pooled(states: Tensor, mask: Tensor, pool: str) -> Tensor:
    """States (B, T, D) of text whose mask (B, T) is 1 where real, as (B, D); padding counts in `sum_padded` alone."""
    if pool == "sum_padded":
        return states.sum(dim=1)
    real = mask[..., None].to(states.dtype)
    summed = (states * real).sum(dim=1)
    return summed if pool == "sum" else summed / real.sum(dim=1).clamp(min=1)


class WordTable(nn.Module):
    """A vector a word, learned with the policy."""

    def __init__(self, words: int, width: int, pool: str = "mean") -> None:
        super().__init__()
        self.width, self.pool = width, _known(pool)
        self.words = nn.Embedding(words, width)

    def forward(self, text: TextBatch) -> Tensor:
        """(B, D)."""
        return pooled(self.words(text.ids), text.mask, self.pool)


class FrozenEncoder(nn.Module):
    """A text encoder that never learns, such as DistilBERT; a checkpoint holds its weights and needs its folder."""

    def __init__(self, folder: str, pool: str = "mean") -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        check_folder(folder)
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
        self.pool, self.width = _known(pool), int(config.hidden_size)
        if nn.Linear(1, 1).weight.is_meta:  # to be counted, or to be loaded from a checkpoint
            encoder = AutoModel.from_config(config)
        else:
            encoder = AutoModel.from_pretrained(folder, local_files_only=True)
        self.encoder = encoder.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Without dropout in training, too."""
        return super().train(False)

    def forward(self, text: TextBatch) -> Tensor:
        """(B, D)."""
        with torch.no_grad():
            states = self.encoder(input_ids=text.ids, attention_mask=text.mask).last_hidden_state
        return pooled(states, text.mask, self.pool)


def _known(pool: str) -> str:
    if pool not in POOLS:
        raise ConfigError(f"pool is {pool!r}", where="model.network.pool", do=nearest(pool, POOLS))
    return pool
