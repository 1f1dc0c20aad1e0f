"""Parallel decoding: all of an answer in one pass, from slots that hold nothing. Source: Kim et al. 2025 (OpenVLA-OFT).

Attention goes both ways over the whole sequence, prompt and pictures included; only padding is hidden.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.errors import CheckpointMismatch
from vlakit.models.network import Drawn
from vlakit.models.openvla.decoding import Choice, log_probs_of
from vlakit.models.openvla.heads import Answers
from vlakit.models.openvla.trunk import Trunk, behind_bos, check_ids, text_of
from vlakit.models.openvla.vla import TokenTrunk
from vlakit.schema import NO_LOSS, Inputs, TextBatch

PLACEHOLDER, STOP = 1, 2  # ids of an empty slot and of the end of an answer


class Parallel(Trunk):
    """What the parallel heads share: slots, and the states from which they are answered."""

    action_size: int | None = None  # A, of heads that are built for one

    def slots(self, text: TextBatch) -> Tensor:
        """(B, T) bool: where the label is an action's id; the stop behind the answer is none and keeps its word."""
        return (text.labels >= self.tokens.begin) & (text.labels < self.tokens.padding_id)

    def heard(self, text: TextBatch) -> Tensor:
        """(B, D) that conditions FiLM in training: the mean of all that is no slot, stop and padding included."""
        return self.mean_embedding(text.ids, ~self.slots(text))

    def asked(self, inputs: Inputs) -> tuple[TextBatch, Tensor]:
        """The prompts with empty slots and a stop, and the context (B, N, D) for them, in which no padding counts."""
        chunk, size = self._checked(inputs.action_shape)
        text = with_slots(text_of(inputs), chunk * size, self.tokens.begin, self.tokens.padding_id)
        heard = None
        if self.senses.film:
            heard = self.mean_embedding(text.ids, ~self.slots(text) & (text.mask > 0))
        return text, self.context(inputs, heard)

    def states(self, context: Tensor, text: TextBatch, filling: Tensor | None = None) -> Tensor:
        """(B, T-1, D): behind each position of the text but the last, what is to be read one place left of a slot.

        filling (B, n, D): what stands in the slots; None: zeros, so that no recorded action leaks into its own answer.
        """
        slots, embedded = self.slots(text), self.embed(text.ids)
        if filling is None:
            embedded = embedded.masked_fill(slots[..., None], 0)
        else:
            filled = slots.any(dim=1)
            embedded = embedded.masked_scatter(slots[..., None], filling[filled].to(embedded.dtype))
        hidden = self.hidden_states(behind_bos(context, embedded), two_way(text.mask, context.shape[1]))
        return hidden[:, context.shape[1] : -1]

    def slot_states(self, context: Tensor, text: TextBatch, filling: Tensor | None = None) -> Tensor:
        """(R, n, D) for the R rows that have slots: the state one place left of each."""
        slots = self.slots(text)
        chosen = self.states(context, text, filling)[slots[:, 1:]]  # (R n, D)
        return chosen.view(int(slots.any(dim=1).sum()), -1, chosen.shape[-1])

    def _checked(self, shape: tuple[int, int]) -> tuple[int, int]:
        if self.action_size not in (None, shape[1]):
            raise CheckpointMismatch(
                f"the head answers with {self.action_size} numbers an action, the data has {shape[1]}",
                where="model.network.head_options.action_size",
                do=f"set it to that: +model.network.head_options.action_size={shape[1]} on the command line",
            )
        return shape


class ParallelTokens(Parallel, TokenTrunk):
    """Ids of the vocabulary, all chosen at once, each without knowing the others."""

    def answers(self, batch: Inputs) -> Answers:
        """What is predicted at the labels of rows with an action: others hold their answer in plain sight."""
        text = text_of(batch)
        states = self.states(self.context(batch), text)
        labels = text.labels[:, 1:]
        supervised = (labels != NO_LOSS) & self.slots(text).any(dim=1, keepdim=True)
        logits = self.language_model.lm_head(states[supervised])  # (M, V)
        targets = labels[supervised]
        return Answers(F.cross_entropy(logits.float(), targets), logits, targets, supervised.nonzero()[:, 0])

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, H, A) float32: the bin centres of the likeliest ids."""
        return self.actions(self._log_probs(inputs).argmax(dim=-1) + self.decodable[0], inputs)

    @torch.no_grad()
    def sample(self, inputs: Inputs, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Drawn:
        """Actions drawn at random; the recorded log-probabilities are those that `log_prob` computes again."""
        log_probs = self._log_probs(inputs)  # (B, n, V)
        choice = Choice(self.allowed, temperature, generator)
        columns = choice(log_probs.flatten(0, 1)).view(log_probs.shape[:2])
        ids = columns + self.decodable[0]
        return Drawn(self.actions(ids, inputs), ids, log_probs.gather(2, columns[..., None])[..., 0])

    def log_prob(self, inputs: Inputs, ids: Tensor) -> Tensor:
        """(B, n) log-probability of each of the ids (B, n), which do not depend on each other; gradients flow."""
        chunk, size = inputs.action_shape
        check_ids(ids, len(inputs), self.decodable, width=chunk * size)
        columns = ids.to(next(self.parameters()).device) - self.decodable[0]
        return self._log_probs(inputs).gather(2, columns[..., None])[..., 0]

    def distribution(self, inputs: Inputs, ids: Tensor) -> Tensor:
        """(B, n, C) log-probability of every allowed id; those before it do not matter. Gradients flow."""
        return self._log_probs(inputs)

    def _log_probs(self, inputs: Inputs) -> Tensor:
        text, context = self.asked(inputs)
        return log_probs_of(self.language_model.lm_head, self.slot_states(context, text), self.allowed)


def two_way(mask: Tensor, context: int) -> Tensor:
    """(B, 1, L, L) bool from the text's mask (B, T): every position sees every one that is no padding."""
    seen = torch.cat([mask[:, :1], mask.new_ones(len(mask), context), mask[:, 1:]], dim=1) > 0  # (B, L)
    return seen[:, None, None].expand(-1, 1, seen.shape[1], -1)


def with_slots(text: TextBatch, n: int, slot: int, padding: int) -> TextBatch:
    """Prompts (B, T) with n empty slots and a stop behind each; slot: an action's id, as the label that marks them."""
    prompts = (text.mask > 0) & (text.labels == NO_LOSS)
    lengths = prompts.sum(dim=1, keepdim=True)  # (B, 1)
    width = text.ids.shape[1] + n + 1
    place = torch.arange(width, device=text.ids.device)[None]
    is_slot = (place >= lengths) & (place < lengths + n)
    ids = F.pad(text.ids, (0, n + 1), value=padding)
    ids = ids.masked_fill(is_slot, PLACEHOLDER).masked_fill(place == lengths + n, STOP)
    ids = ids.masked_fill(place > lengths + n, padding)
    labels = torch.full_like(ids, NO_LOSS).masked_fill(is_slot, slot)
    return replace(text, ids=ids, mask=(place <= lengths + n).long(), labels=labels)
