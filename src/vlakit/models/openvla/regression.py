"""The L1 head: actions as numbers, in one pass. Source: Kim et al. 2025 (OpenVLA-OFT), Section IV."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vlakit.models.network import Output
from vlakit.models.openvla.layers import ActionMlp
from vlakit.models.openvla.parallel import Parallel
from vlakit.models.openvla.trunk import text_of
from vlakit.schema import Batch, Inputs


class Regression(Parallel):
    """Predicts normalised actions, which nothing clips; the loss is their mean L1 over the actions that exist."""

    added_parts = ("action_head",)

    def __init__(self, *parts: Any, action_size: int = 7) -> None:
        super().__init__(*parts)
        self.action_size = action_size
        self.action_head = nn.ModuleDict({"model": ActionMlp(self.hidden_size, action_size)})

    def forward(self, batch: Batch) -> Output:
        """Mean L1; the predicted actions."""
        self._checked(batch.action_shape)
        predicted = self.action_head["model"](self.slot_states(self.context(batch), text_of(batch)))
        return masked_output(predicted, batch.normalized, batch, torch.abs)

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, H, A) float32."""
        text, context = self.asked(inputs)
        return self.action_head["model"](self.slot_states(context, text))


def masked_output(predicted: Tensor, target: Tensor, batch: Batch, error: Any) -> Output:
    """predicted (R, H, A) for the rows with an action against target (B, H, A): the loss over actions that exist."""
    acting = batch.chunk_mask.any(dim=1)
    weight = batch.chunk_mask[acting].to(predicted.dtype)  # (R, H)
    errors = error(predicted - target[acting].to(predicted.dtype)).mean(dim=-1) * weight
    rows = torch.full((len(batch),), torch.nan, dtype=errors.dtype, device=errors.device)
    rows[acting] = errors.detach().sum(dim=1) / weight.sum(dim=1)
    answers = torch.zeros(target.shape, dtype=predicted.dtype, device=predicted.device)
    answers[acting] = predicted.detach()
    return Output(errors.sum() / weight.sum().clamp(min=1), rows, answers)
