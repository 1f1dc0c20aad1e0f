"""Batched decoding: rows are padded on the left, so that prompts of mixed lengths end together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers import DynamicCache

from vlakit.models.linear import PLAIN
from vlakit.models.vla import OpenVLA

Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Choice:
    """How the next id is chosen. allowed: (first, past the last) id, None = any; temperature 0 = the largest logit."""

    allowed: tuple[int, int] | None = None
    temperature: float = 0.0
    generator: torch.Generator | None = None

    def __call__(self, log_probs: Tensor) -> Tensor:
        """Column numbers (B,) of log-probabilities (B, V)."""
        if self.temperature == 0:
            return log_probs.argmax(dim=-1)
        weights = torch.softmax(log_probs / self.temperature, dim=-1)
        return torch.multinomial(weights, 1, generator=self.generator)[:, 0]


@dataclass(frozen=True)
class Decoded:
    """ids (B, n) int64 and their log-probabilities (B, n) float32 at temperature 1, among the allowed ids."""

    ids: Tensor
    log_probs: Tensor


@torch.inference_mode()
def generate(model: OpenVLA, pixel_values: Tensor, prompt_ids: Ids, n_tokens: int, choice: Choice) -> Decoded:
    """The n_tokens ids that follow each prompt; a row's result does not depend on the other rows."""
    sequence, mask = left_padded(model, pixel_values, prompt_ids)
    cache = DynamicCache()
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    ids: list[Tensor] = []
    log_probs: list[Tensor] = []
    for _ in range(n_tokens):
        hidden = model.language_model.model(
            inputs_embeds=sequence, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        row_log_probs = log_probs_of(model, hidden[:, -1], choice.allowed)
        column = choice(row_log_probs)
        log_probs.append(row_log_probs.gather(1, column[:, None])[:, 0])
        ids.append(column + (choice.allowed[0] if choice.allowed else 0))
        sequence = model.language_model.get_input_embeddings()(ids[-1][:, None])  # (B, 1, D)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return Decoded(torch.stack(ids, dim=1), torch.stack(log_probs, dim=1))


def answer_log_probs(
    model: OpenVLA, pixel_values: Tensor, prompt_ids: Ids, answers: Tensor, allowed: tuple[int, int] | None
) -> Tensor:
    """Log-probabilities (B, n) of given answers (B, n) int64 after each prompt, in one forward; gradients flow."""
    rows = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompt_ids, answers.tolist(), strict=True)]
    sequence, mask = left_padded(model, pixel_values, rows)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    hidden = model.language_model.model(
        inputs_embeds=sequence, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    log_probs = log_probs_of(model, hidden[:, -answers.shape[1] :], allowed)  # (B, n, V)
    columns = answers - (allowed[0] if allowed else 0)
    return log_probs.gather(2, columns.to(log_probs.device)[..., None])[..., 0]


def log_probs_of(model: OpenVLA, hidden: Tensor, allowed: tuple[int, int] | None) -> Tensor:
    """(..., D) -> log-probabilities (..., V) float32 among the allowed ids, whose rows of the head alone are run."""
    head = model.language_model.lm_head
    logits = head(hidden) if allowed is None else head_rows(head, hidden, *allowed)
    return F.log_softmax(logits.float(), dim=-1)


def head_rows(head: nn.Module, hidden: Tensor, first: int, last: int) -> Tensor:
    """Columns first to last of head(hidden): 256 of 32,064 when only actions are allowed."""
    if isinstance(head, PLAIN) and type(head) in PLAIN:
        return F.linear(hidden, head.weight[first:last], None if head.bias is None else head.bias[first:last])
    if isinstance(head, LoraLinear) and not head.merged and not head.disable_adapters:
        logits = head_rows(head.base_layer, hidden, first, last)
        for name in head.active_adapters:
            down, up = cast(nn.Linear, head.lora_A[name]), cast(nn.Linear, head.lora_B[name])
            low_rank = down(hidden.to(down.weight.dtype))
            logits = logits + F.linear(low_rank, up.weight[first:last]) * head.scaling[name]
        return logits
    return head(hidden)[..., first:last]  # quantised, or otherwise wrapped


def left_padded(model: OpenVLA, pixel_values: Tensor, prompt_ids: Ids) -> tuple[Tensor, Tensor]:
    """Embeddings (B, L, D) of BOS, image, prompt, with zeros in front of shorter rows; mask (B, L), 1 where real."""
    patches = model.encode_image(pixel_values)  # (B, N, D)
    rows = [
        model.splice(image[None], torch.tensor([list(ids)], device=patches.device))[0]
        for image, ids in zip(patches, prompt_ids, strict=True)
    ]
    longest = max(len(row) for row in rows)
    sequence = torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in rows])  # (B, L, D)
    lengths = torch.tensor([len(row) for row in rows], device=patches.device)
    mask = torch.arange(longest, device=patches.device) >= longest - lengths[:, None]
    return sequence, mask.long()
