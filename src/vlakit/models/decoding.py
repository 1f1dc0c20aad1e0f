"""Batched greedy decoding: rows are padded on the left, so that prompts of mixed lengths end together."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from vlakit.models.vla import OpenVLA


@torch.inference_mode()
def generate_actions(
    model: OpenVLA,
    pixel_values: Tensor,
    prompt_ids: Sequence[Sequence[int]],
    n_tokens: int,
    allowed: tuple[int, int] | None,
) -> Tensor:
    """Ids (B, n_tokens) int64 that follow the prompts, one batch row each; the arg max at every step.

    `allowed` = (first, past the last) id restricts the choice to action ids; None leaves all ids open, as the released
    code does. A row's result does not depend on the other rows.
    """
    sequence, mask = left_padded(model, pixel_values, prompt_ids)
    cache = DynamicCache()
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    chosen: list[Tensor] = []
    for _ in range(n_tokens):
        hidden = model.language_model.model(
            inputs_embeds=sequence, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        chosen.append(_greedy(model.language_model.lm_head(hidden[:, -1]), allowed))
        sequence = model.language_model.get_input_embeddings()(chosen[-1][:, None])  # (B, 1, D)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return torch.stack(chosen, dim=1)


def _greedy(logits: Tensor, allowed: tuple[int, int] | None) -> Tensor:
    if allowed is None:
        return logits.argmax(dim=-1)
    first, last = allowed
    return logits[:, first:last].argmax(dim=-1) + first


def left_padded(model: OpenVLA, pixel_values: Tensor, prompt_ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Embeddings (B, L, D) of BOS, image, prompt, with zeros in front of shorter rows; mask (B, L), 1 where real."""
    patches = model.encode_image(pixel_values)  # (B, N, D)
    rows = [
        model.splice(image[None], torch.tensor([list(ids)], device=patches.device))[0]
        for image, ids in zip(patches, prompt_ids, strict=True)
    ]
    longest = max(len(row) for row in rows)
    sequence = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])  # (B, L, D)
    lengths = torch.tensor([len(row) for row in rows], device=patches.device)
    mask = torch.arange(longest, device=patches.device) >= longest - lengths[:, None]
    return sequence, mask.long()
