"""The heads by name, and what those share that answer in ids: a loss, normalised actions and their marks.

A new head is a class that a line of HEADS names, or `package.module:Class`: a Trunk whose constructor takes towers,
language model, action tokens, senses, and head_options by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.models.network import Output, row_means
from vlakit.processing.action_tokenizer import ActionTokenizer
from vlakit.registry import Registry
from vlakit.schema import Batch

if TYPE_CHECKING:
    from vlakit.models.openvla.trunk import Trunk

HEADS: Registry[Trunk] = Registry(
    "head",
    {
        "discrete": "vlakit.models.openvla.vla:OpenVLA",
        "parallel": "vlakit.models.openvla.parallel:ParallelTokens",
        "l1": "vlakit.models.openvla.regression:Regression",
        "diffusion": "vlakit.models.openvla.diffusion:Diffusion",
    },
)


@dataclass
class Answers:
    """Loss (scalar); at the M supervised positions of the batch: logits (M, V), targets (M,) and their row (M,)."""

    loss: Tensor
    logits: Tensor
    targets: Tensor
    rows: Tensor

    @torch.no_grad()
    def row_losses(self, n_rows: int) -> Tensor:
        """Mean loss (B,) of each row of the batch, which may hold several datasets."""
        losses = F.cross_entropy(self.logits.float(), self.targets, reduction="none")
        counts = torch.bincount(self.rows, minlength=n_rows).clamp(min=1)
        return losses.new_zeros(n_rows).index_add_(0, self.rows, losses) / counts


class TokenHead:
    """Actions are ids of the vocabulary; each stands for the centre of a bin."""

    def __init__(self, tokens: ActionTokenizer) -> None:
        self.tokens = tokens
        self.centers = torch.as_tensor(tokens.centers)  # float64, and no buffer: a module in bf16 would round them

    @torch.no_grad()
    def _marks(self, answers: Answers, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predicted actions (B, H, A) and whether each id is the right one (B, H, A); zeros in rows without action."""
        acting = batch.chunk_mask.any(dim=1)  # (B,)
        is_action = (answers.targets >= self.tokens.begin) & (answers.targets < self.tokens.padding_id)
        is_action &= acting[answers.rows]
        shape = (int(acting.sum()), *batch.actions.shape[1:])
        ids = answers.logits[is_action].argmax(dim=-1).view(shape)
        right = ids == answers.targets[is_action].view(shape)
        bins = (self.tokens.padding_id - ids - 1).clamp(0, len(self.centers) - 1)
        self.centers = self.centers.to(ids.device)
        predicted = self.centers.new_zeros(batch.actions.shape)
        predicted[acting] = self.centers[bins]
        correct = self.centers.new_zeros(batch.actions.shape)
        correct[acting] = right.to(correct.dtype)
        return predicted, correct

    @torch.no_grad()
    def _in_words(self, answers: Answers, batch: Batch) -> Tensor:
        """(B,): 1 where an answer in words is right to its last id, so that decoding gives it; NaN in other rows."""
        wrong = answers.logits.argmax(dim=-1) != answers.targets
        counts, wrongs = (torch.bincount(rows, minlength=len(batch)) for rows in (answers.rows, answers.rows[wrong]))
        asked = ~batch.chunk_mask.any(dim=1) & (counts > 0)
        return (wrongs == 0).double().where(asked, torch.nan)

    def output(self, answers: Answers, batch: Batch) -> Output:
        """The answers as every network's output."""
        predicted, right = self._marks(answers, batch)
        scores = {"token_accuracy": row_means(right, batch.chunk_mask)}
        answered = None if batch.chunk_mask.any(dim=1).all() else self._in_words(answers, batch)
        return Output(answers.loss, answers.row_losses(len(batch)), predicted, scores, answered)
