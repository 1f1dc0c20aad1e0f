"""The policy network: towers -> projector -> spliced behind BOS -> language model -> cross-entropy on the answer.

Module names are those of the released checkpoints, so state dicts need no translation but LayerScale's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from vlakit.errors import CheckpointMismatch, InvalidData
from vlakit.models.attention import quick_attention
from vlakit.models.network import Drawn, Network, Output
from vlakit.models.openvla.backbones import LANGUAGE, VISION
from vlakit.models.openvla.decoding import Choice, Decoded, answer_log_probs, generate
from vlakit.models.openvla.heads import Answers, TokenHead
from vlakit.models.openvla.projector import Projector
from vlakit.models.openvla.vision import VisionBackbone
from vlakit.processing.action_tokenizer import ActionTokenizer
from vlakit.processing.processor import Processor
from vlakit.processing.tokens import token_processor
from vlakit.schema import NO_LOSS, Batch, Inputs, TextBatch


@dataclass(frozen=True)
class VLASettings:
    """Registered names, with numbers for those that take some, from which a checkpoint's network is rebuilt."""

    vision: str
    llm: str
    vision_options: dict[str, Any] = field(default_factory=dict[str, Any])
    llm_options: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def from_dict(cls, names: Mapping[str, Any]) -> VLASettings:
        """Settings from plain values; a missing or unknown key raises CheckpointMismatch."""
        try:
            return cls(**names)
        except TypeError as error:
            raise CheckpointMismatch(
                f"the model cannot be rebuilt: {error}",
                where=f"model keys {sorted(names)}",
                do="load the checkpoint with the vlakit version that wrote it",
            ) from error

    @property
    def description(self) -> dict[str, Any]:
        """What a card says of the network."""
        return {"kind": "openvla", **asdict(self)}


class OpenVLA(Network):
    """A vision-language-action model of the OpenVLA family. Source: Kim et al. 2024, Section 3.

    constrain: decode action ids only (default); False leaves all ids open, as the released code does.
    """

    kind = "openvla"
    constrain = True

    def __init__(
        self, vision_backbone: VisionBackbone, language_model: LlamaForCausalLM, tokens: ActionTokenizer | None = None
    ) -> None:
        """tokens: which ids are actions; None: the 256 below the language model's padding id."""
        super().__init__()
        self.vision_backbone = vision_backbone
        hidden_size = language_model.config.hidden_size
        self.projector = Projector(vision_backbone.width, hidden_size, fused=len(vision_backbone.towers) > 1)
        self.language_model = language_model
        self.head = TokenHead(tokens or ActionTokenizer(padding_id=language_model.config.pad_token_id or 32000))

    def forward(self, batch: Batch) -> Output:
        """Cross-entropy over the ids that carry a label; the actions that the answered ids mean."""
        return self.head.output(self.answers(batch), batch)

    def answers(self, batch: Inputs) -> Answers:
        """What is predicted where a label is (NO_LOSS: none); logits are computed for those positions alone."""
        known, text = batch.features, text_of(batch)
        patches = self.encode_image(self.pixels(batch)) if known is None else self.projector(known)  # (B, N, D)
        hidden = self.hidden_states(self.splice(patches, text.ids))  # (B, N+T, D)
        labels = text.labels[:, 1:]  # (B, T-1)
        supervised = labels != NO_LOSS
        answering = hidden[:, patches.shape[1] : -1][supervised]  # (M, D): each state predicts the id after it
        logits = self.language_model.lm_head(answering)  # (M, V)
        targets = labels[supervised]
        return Answers(F.cross_entropy(logits.float(), targets), logits, targets, supervised.nonzero()[:, 0])

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, H, A) float32: the bin centres of the greedy ids."""
        return self._actions(self._decoded(inputs, Choice(self.allowed)).ids, inputs)

    def sample(self, inputs: Inputs, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Drawn:
        """Actions drawn at random; the recorded log-probabilities are those that `log_prob` computes again."""
        decoded = self._decoded(inputs, Choice(self.allowed, temperature, generator))
        return Drawn(self._actions(decoded.ids, inputs), decoded.ids, decoded.log_probs)

    def log_prob(self, inputs: Inputs, ids: Tensor) -> Tensor:
        """(B, n) log-probability of each of the ids (B, n), given those before it; gradients flow."""
        first, last = self.allowed or (0, self.language_model.config.vocab_size)
        shape_fits = ids.ndim == 2 and len(ids) == len(inputs) and ids.shape[1] > 0
        if not shape_fits or ((ids < first) | (ids >= last)).any():
            raise InvalidData(
                f"answers {tuple(ids.shape)} to {len(inputs)} observations, or an id outside {first}:{last}",
                where="ids",
                do="pass one row of ids an observation, as `sample` returns them",
            )
        return answer_log_probs(self, self.pixels(inputs), text_of(inputs).prompts(), ids, self.allowed)

    @property
    def encoder(self) -> nn.Module:
        """The vision towers."""
        return self.vision_backbone

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D_v)."""
        return self.n_patches, self.vision_backbone.width

    def features(self, inputs: Inputs) -> Tensor:
        """(B, N, D_v) patch features of the vision towers."""
        return self.vision_backbone(self.pixels(inputs))

    @property
    def placeholders(self) -> Mapping[str, str]:
        """`{last}`: the last language model layer."""
        return {"last": str(self.language_model.config.num_hidden_layers - 1)}

    @property
    def parts(self) -> Mapping[str, str]:
        """Towers and language model by their parts, the projector as one."""
        return {part: part for part in dict.fromkeys(_part_of(name) for name, _ in self.named_parameters())}

    @property
    def allowed(self) -> tuple[int, int] | None:
        """The ids that may be decoded, (first, past the last); None: all."""
        return (self.head.tokens.begin, self.head.tokens.padding_id) if self.constrain else None

    @property
    def n_patches(self) -> int:
        """N, positions that an image takes in the sequence."""
        return self.vision_backbone.n_patches

    def pixels(self, inputs: Inputs) -> Tensor:
        """(B, 3 k, S, S) in the towers' dtype: the present frame of the one camera."""
        (frames,) = inputs.pixels.values()  # (B, 1, 3 k, S, S)
        towers = self.vision_backbone
        needed = (3 * len(towers.towers), towers.image_size, towers.image_size)
        if frames.shape[2:] != needed:
            raise CheckpointMismatch(
                f"an image arrives as {tuple(frames.shape[2:])}, the towers need {needed}",
                where="processor: image_size, channel_statistics",
                do="set image_size to that of the towers, and one name of channel_statistics for each",
            )
        return frames[:, -1].to(next(self.vision_backbone.parameters()).dtype)

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

    def _decoded(self, inputs: Inputs, choice: Choice) -> Decoded:
        text, (chunk, size) = text_of(inputs), inputs.action_shape
        return generate(self, self.pixels(inputs), text.prompts(), chunk * size, choice, pad_to=text.ids.shape[1])

    def _actions(self, ids: Tensor, inputs: Inputs) -> Tensor:
        centers = self.head.tokens.decode(ids.cpu().numpy(), strict=self.constrain)
        return torch.from_numpy(centers).to(ids.device).view(len(ids), *inputs.action_shape)


def text_of(inputs: Inputs) -> TextBatch:
    """The text of a batch. Raises InvalidData where there is none."""
    if inputs.text is None:
        raise InvalidData("the batch has no text", where="OpenVLA", do="prepare it with a processor of the kind tokens")
    return inputs.text


def openvla(
    processor: Processor,
    vision: str,
    llm: str,
    vision_options: Mapping[str, Any] | None = None,
    llm_options: Mapping[str, Any] | None = None,
) -> OpenVLA:
    """The network that a card or conf/model describes; it sees one frame of one camera and no proprioception."""
    settings = token_processor(processor, purpose="OpenVLA").settings
    if len(settings.cameras) > 1 or settings.window > 1 or settings.proprio:
        raise CheckpointMismatch(
            f"OpenVLA sees one frame of one camera; {len(settings.cameras)} cameras, a window of {settings.window} and"
            f" {settings.proprio} numbers of proprio are set",
            where="model.processor",
            do="set cameras to one name, window=1 and proprio=0, or take a network that sees more",
        )
    names = VLASettings(vision, llm, dict(vision_options or {}), dict(llm_options or {}))
    return build_vla(names, tokens=token_processor(processor, purpose="OpenVLA").actions)


def build_vla(
    settings: VLASettings, device: torch.device | str | None = None, tokens: ActionTokenizer | None = None
) -> OpenVLA:
    """A model with random weights; `device='meta'` takes seconds and no memory at any size. Raises UnknownName."""
    with nullcontext() if device is None else torch.device(device):
        towers = VISION.build(settings.vision, **settings.vision_options)
        network = OpenVLA(towers, LANGUAGE.build(settings.llm, **settings.llm_options), tokens)
    network.settings = asdict(settings)
    return network


def _part_of(name: str) -> str:
    """One component of a parameter's name for the projector, two for the head, three elsewhere.

    >>> _part_of("language_model.model.layers.31.mlp.up_proj.weight"), _part_of("projector.fc1.bias")
    ('language_model.model.layers', 'projector')
    """
    depth = 1 if name.startswith("projector.") else 2 if name.startswith("language_model.lm_head") else 3
    return ".".join(name.split(".")[:depth])
