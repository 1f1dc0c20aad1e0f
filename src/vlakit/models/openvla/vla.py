"""The policy network: towers -> projector -> spliced behind BOS -> language model -> cross-entropy on the answer.

Module names are those of the released checkpoints, so state dicts need no translation but LayerScale's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from vlakit.errors import CheckpointMismatch
from vlakit.models.attention import quick_attention
from vlakit.models.cpu import use_onednn
from vlakit.models.openvla.backbones import LANGUAGE, VISION
from vlakit.models.openvla.projector import Projector
from vlakit.models.openvla.vision import VisionBackbone
from vlakit.schema import NO_LOSS, Batch


@dataclass(frozen=True)
class ModelNames:
    """Registered names, with numbers for those that take some, from which a checkpoint's model is rebuilt."""

    vision: str
    llm: str
    vision_options: dict[str, Any] = field(default_factory=dict[str, Any])
    llm_options: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def from_dict(cls, names: Mapping[str, Any]) -> ModelNames:
        """Names from plain values; a missing or unknown key raises CheckpointMismatch."""
        try:
            return cls(**names)
        except TypeError as error:
            raise CheckpointMismatch(
                f"the model cannot be rebuilt: {error}",
                where=f"model keys {sorted(names)}",
                do="load the checkpoint with the vlakit version that wrote it",
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)


@dataclass
class VLAOutput:
    """Loss (scalar); at the M supervised positions of the batch: logits (M, V), targets (M,) and their row (M,)."""

    loss: Tensor
    logits: Tensor
    targets: Tensor
    rows: Tensor

    def row_losses(self, n_rows: int) -> Tensor:
        """Mean loss (B,) of each row of the batch, which may hold several datasets."""
        losses = F.cross_entropy(self.logits.float(), self.targets, reduction="none")
        counts = torch.bincount(self.rows, minlength=n_rows).clamp(min=1)
        return losses.new_zeros(n_rows).index_add_(0, self.rows, losses) / counts


class OpenVLA(nn.Module):
    """A vision-language-action model of the OpenVLA family. Source: Kim et al. 2024, Section 3."""

    def __init__(self, vision_backbone: VisionBackbone, language_model: LlamaForCausalLM) -> None:
        super().__init__()
        self.vision_backbone = vision_backbone
        hidden_size = language_model.config.hidden_size
        self.projector = Projector(vision_backbone.width, hidden_size, fused=len(vision_backbone.towers) > 1)
        self.language_model = language_model
        use_onednn(self)

    def forward(self, batch: Batch) -> VLAOutput:
        """Loss over the ids that carry a label (-100: none); logits are computed for those alone."""
        known = batch.features
        patches = self.encode_image(batch.pixel_values) if known is None else self.projector(known)  # (B, N, D)
        hidden = self.hidden_states(self.splice(patches, batch.input_ids))  # (B, N+T, D)
        n_patches = patches.shape[1]
        labels = batch.labels[:, 1:]  # (B, T-1)
        supervised = labels != NO_LOSS
        answering = hidden[:, n_patches:-1][supervised]  # (M, D): each state predicts the id after it
        logits = self.language_model.lm_head(answering)  # (M, V)
        targets = labels[supervised]
        return VLAOutput(
            loss=F.cross_entropy(logits.float(), targets),
            logits=logits,
            targets=targets,
            rows=supervised.nonzero()[:, 0],
        )

    def all_logits(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, N+T, V) logits of every position, padding hidden from all others: for analysis, not for training."""
        real = torch.cat([attention_mask[:, :1], attention_mask.new_ones(len(input_ids), self.n_patches)], dim=1)
        real = torch.cat([real, attention_mask[:, 1:]], dim=1).bool()  # (B, N+T)
        length = real.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
        mask = (causal & real[:, None])[:, None]  # (B, 1, N+T, N+T)
        return self.language_model.lm_head(
            self.hidden_states(self.splice(self.encode_image(pixel_values), input_ids), mask)
        )

    @property
    def n_patches(self) -> int:
        """N, positions that an image takes in the sequence."""
        return self.vision_backbone.n_patches

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """(B, 3 k, S, S) -> (B, N, D)."""
        return self.projector(self.vision_backbone(pixel_values))

    def splice(self, patches: Tensor, input_ids: Tensor) -> Tensor:
        """(B, N, D) and ids (B, T) -> (B, N+T, D): BOS, image, prompt and what follows."""
        text = self.language_model.get_input_embeddings()(input_ids)  # (B, T, D)
        return torch.cat([text[:, :1], patches.to(text.dtype), text[:, 1:]], dim=1)

    def hidden_states(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D) after the final norm, for right-padded rows; `mask` (B, 1, L, L) bool if not causal.

        Without a mask attention is causal, so no real position ever sees the padding behind it, and SDPA keeps its fast
        path.
        """
        model = self.language_model.model
        with quick_attention():
            return model(inputs_embeds=sequence, attention_mask=mask, use_cache=False).last_hidden_state


def build_vla(names: ModelNames, device: torch.device | str | None = None) -> OpenVLA:
    """A model with random weights; `device='meta'` takes seconds and no memory at any size. Raises UnknownName."""
    with torch.device(device or "cpu"):
        return OpenVLA(
            VISION.build(names.vision, **names.vision_options), LANGUAGE.build(names.llm, **names.llm_options)
        )


def build_empty(names: ModelNames) -> OpenVLA:
    """A model whose parameters await loading: they take no memory, while computed buffers (rotary tables) are real."""
    with init_empty_weights(include_buffers=False):
        return build_vla(names)
