"""Batched decoding: rows are padded on the left, so that prompts of mixed lengths end together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from vlakit.models.cpu import PLAIN

if TYPE_CHECKING:
    from vlakit.models.openvla.vla import OpenVLA

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
def generate(
    model: OpenVLA,
    patches: Tensor,
    prompt_ids: Ids,
    n_tokens: int,
    choice: Choice,
    *,
    pad_to: int = 0,
    stop: int | None = None,
) -> Decoded:
    """The n_tokens ids that follow patches (B, N, D) and each prompt; a row's result does not depend on the other rows.

    Prompts are padded to `pad_to` ids or the longest. Padding changes a result in its last bits (1e-6), as the number
    of rows does: who needs the same bits keeps both. stop: an id with which an answer ends; fewer than n_tokens follow
    where each row has given it.
    """
    sequence, mask = left_padded(model, patches, prompt_ids, pad_to)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return decode_on(model, sequence, positions, whole_mask(mask), n_tokens, choice, stop=stop)


def decode_on(
    model: OpenVLA,
    sequence: Tensor,
    positions: Tensor,
    seen: Tensor | None,
    n_tokens: int,
    choice: Choice,
    *,
    stop: int | None = None,
) -> Decoded:
    """The same behind embeddings (B, L, D) at positions (B, L) that see `seen`; without `stop` no GPU is waited for."""
    cache = DynamicCache()
    ids: list[Tensor] = []
    log_probs: list[Tensor] = []
    for _ in range(n_tokens):
        hidden = model.language_model.model(
            inputs_embeds=sequence, attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        row_log_probs = log_probs_of(model.language_model.lm_head, hidden[:, -1], choice.allowed)
        column = choice(row_log_probs)
        log_probs.append(row_log_probs.gather(1, column[:, None])[:, 0])
        ids.append(column + (choice.allowed[0] if choice.allowed else 0))
        if stop is not None and bool((torch.stack(ids) == stop).any(dim=0).all()):
            break
        sequence = model.language_model.get_input_embeddings()(ids[-1][:, None])  # (B, 1, D)
        if seen is not None:
            seen = torch.cat([seen[:, :, -1:], seen.new_ones(len(seen), 1, 1, 1)], dim=3)  # (B, 1, 1, L + n)
        positions = positions[:, -1:] + 1
    return Decoded(torch.stack(ids, dim=1), torch.stack(log_probs, dim=1))


def whole_mask(mask: Tensor) -> Tensor | None:
    """Who sees whom (B, 1, L, L) bool from a mask (B, L) of real positions; None, which is causal, without padding.

    Made once, where transformers would make it at every step: at one row a third of a decoding step.
    """
    real = mask.bool()
    return None if bool(real.all()) else seeing(real)


def seeing(real: Tensor) -> Tensor:
    """The same (B, 1, L, L) of any real (B, L) bool. Padding sees itself, because a softmax over nothing is NaN."""
    square = torch.ones(real.shape[1], real.shape[1], dtype=torch.bool, device=real.device)
    return ((square.tril() & real[:, None]) | square.diag().diag())[:, None]


def answer_log_probs(
    model: OpenVLA, patches: Tensor, prompt_ids: Ids, answers: Tensor, allowed: tuple[int, int] | None
) -> Tensor:
    """Log-probabilities (B, n) of given answers (B, n) int64 after each prompt, in one forward; gradients flow."""
    log_probs = answer_distribution(model, patches, prompt_ids, answers, allowed)
    columns = answers - (allowed[0] if allowed else 0)
    return log_probs.gather(2, columns.to(log_probs.device)[..., None])[..., 0]


def answer_distribution(
    model: OpenVLA, patches: Tensor, prompt_ids: Ids, answers: Tensor, allowed: tuple[int, int] | None
) -> Tensor:
    """Log-probabilities (B, n, V) of every allowed id at each position of given answers (B, n) int64."""
    rows = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompt_ids, answers.tolist(), strict=True)]
    hidden = after_prompts(model, patches, rows)
    return log_probs_of(model.language_model.lm_head, hidden[:, -answers.shape[1] :], allowed)


def after_prompts(model: OpenVLA, patches: Tensor, prompt_ids: Ids) -> Tensor:
    """States (B, L, D) behind patches (B, N, D) and each prompt; the last column is that of each prompt's last id."""
    sequence, mask = left_padded(model, patches, prompt_ids)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return model.language_model.model(
        inputs_embeds=sequence, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state


def log_probs_of(head: nn.Module, hidden: Tensor, allowed: tuple[int, int] | None) -> Tensor:
    """(..., D) -> log-probabilities (..., V) float32 among the allowed ids, whose rows of the head alone are run."""
    logits = head(hidden) if allowed is None else head_rows(head, hidden, *allowed)
    return F.log_softmax(logits.float(), dim=-1)


def head_rows(head: nn.Module, hidden: Tensor, first: int, last: int) -> Tensor:
    """Columns first to last of head(hidden): 256 of 32,064 when only actions are allowed."""
    if isinstance(head, PLAIN) and type(head) in PLAIN:
        return F.linear(hidden, head.weight[first:last], None if head.bias is None else head.bias[first:last])
    from peft.tuners.lora import Linear as LoraLinear  # here: models.adapters says why

    if isinstance(head, LoraLinear) and not head.merged and not head.disable_adapters:
        logits = head_rows(head.base_layer, hidden, first, last)
        for name in head.active_adapters:
            down, up = cast(nn.Linear, head.lora_A[name]), cast(nn.Linear, head.lora_B[name])
            low_rank = down(hidden.to(down.weight.dtype))
            logits = logits + F.linear(low_rank, up.weight[first:last]) * head.scaling[name]
        return logits
    return head(hidden)[..., first:last]  # quantised, or otherwise wrapped


def left_padded(model: OpenVLA, patches: Tensor, prompt_ids: Ids, pad_to: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings (B, L, D) of BOS, image, prompt, with zeros in front of shorter rows; mask (B, L), 1 where real."""
    by_length: dict[int, list[int]] = {}
    for row, ids in enumerate(prompt_ids):
        by_length.setdefault(len(ids), []).append(row)
    longest = max(pad_to, *by_length)
    parts = []
    for length, rows in by_length.items():
        ids = torch.tensor([list(prompt_ids[row]) for row in rows], device=patches.device)
        images = patches if len(by_length) == 1 else patches[rows]
        parts.append(F.pad(model.splice(images, ids), (0, 0, longest - length, 0)))  # (b, L, D)
    order = torch.tensor([row for rows in by_length.values() for row in rows]).argsort().to(patches.device)
    sequence = parts[0] if len(parts) == 1 else torch.cat(parts)[order]
    padding = torch.tensor([longest - len(ids) for ids in prompt_ids], device=patches.device)
    mask = torch.arange(sequence.shape[1], device=patches.device) >= padding[:, None]
    return sequence, mask.long()
