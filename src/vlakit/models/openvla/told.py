"""States behind many prompts about one picture, which the language model reads once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

if TYPE_CHECKING:
    from vlakit.models.openvla.trunk import Trunk


def states_behind(model: Trunk, context: Tensor, prompts: Sequence[Sequence[int]], at_once: int = 64) -> Tensor:
    """(B, N, D): the state of each prompt's last id behind contexts (B, P, D); prompts begin with BOS.

    What BOS and context make of themselves does not depend on what follows: it is computed once, and kept for N.
    """
    rows, reader = len(context), model.language_model.model
    bos = torch.full((rows, 1), prompts[0][0], device=context.device)
    read = DynamicCache()
    reader(inputs_embeds=model.splice(context, bos), past_key_values=read, use_cache=True)
    parts: list[Tensor] = []
    for first in range(0, len(prompts), at_once):
        some = [torch.tensor(prompt[1:], device=context.device) for prompt in prompts[first : first + at_once]]
        kept = copy.deepcopy(read)
        kept.batch_repeat_interleave(len(some))
        words = model.embed(pad_sequence(some, batch_first=True)).repeat(rows, 1, 1)  # (B N, T, D)
        hidden = reader(inputs_embeds=words, past_key_values=kept, use_cache=True).last_hidden_state
        last = torch.tensor([len(one) - 1 for one in some] * rows, device=context.device)
        parts.append(hidden[torch.arange(len(hidden), device=context.device), last].view(rows, len(some), -1))
    return torch.cat(parts, dim=1)
