"""OpenVLA: one action id after the other. What a checkpoint says of any head, and how a network is built from it.

Module names are those of the released checkpoints, so state dicts need no translation but LayerScale's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.errors import CheckpointMismatch, PartMissing
from vlakit.models.network import Drawn, Output
from vlakit.models.openvla.backbones import LANGUAGE, VISION
from vlakit.models.openvla.decoding import (
    Choice,
    Decoded,
    after_prompts,
    answer_distribution,
    answer_log_probs,
    generate,
)
from vlakit.models.openvla.graphs import Graphs, Read
from vlakit.models.openvla.heads import HEADS, Answers, TokenHead
from vlakit.models.openvla.told import states_behind
from vlakit.models.openvla.trunk import Senses, Trunk, check_ids, text_of
from vlakit.processing.action_tokenizer import ActionTokenizer
from vlakit.processing.processor import Processor
from vlakit.processing.tokens import token_processor
from vlakit.schema import NO_LOSS, Batch, Inputs


@dataclass(frozen=True)
class VLASettings:
    """Registered names, with numbers for those that take some, from which a checkpoint's network is rebuilt."""

    vision: str
    llm: str
    vision_options: dict[str, Any] = field(default_factory=dict[str, Any])
    llm_options: dict[str, Any] = field(default_factory=dict[str, Any])
    head: str = "discrete"
    head_options: dict[str, Any] = field(default_factory=dict[str, Any])
    film: bool = False

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values; of the head only what is not as in OpenVLA, whose cards know nothing of heads."""
        usual = {"head": "discrete", "head_options": {}, "film": False}
        return {key: value for key, value in asdict(self).items() if key not in usual or value != usual[key]}

    @property
    def description(self) -> dict[str, Any]:
        """What a card says of the network."""
        return {"kind": "openvla", **self.to_dict()}


class TokenTrunk(Trunk):
    """What the heads share that answer in ids of the vocabulary."""

    constrain = True  # decode action ids only; False leaves all ids open, as the released code does

    @cached_property
    def head(self) -> TokenHead:
        """What the ids of an answer mean."""
        return TokenHead(self.tokens)

    @property
    def allowed(self) -> tuple[int, int] | None:
        """The ids that may be decoded, (first, past the last); None: all."""
        return (self.tokens.begin, self.tokens.padding_id) if self.constrain else None

    @property
    def decodable(self) -> tuple[int, int]:
        """`allowed`, all ids being those of the vocabulary."""
        return self.allowed or (0, self.language_model.config.vocab_size)

    def forward(self, batch: Batch) -> Output:
        """Cross-entropy over the ids that carry a label; the actions that the likeliest ids mean."""
        return self.head.output(self.answers(batch), batch)

    @abstractmethod
    def answers(self, batch: Inputs) -> Answers:
        """What is predicted where a label is."""

    def actions(self, ids: Tensor, inputs: Inputs) -> Tensor:
        """Ids (B, n) -> (B, H, A) float32: the centres of their bins."""
        centers = self.tokens.decode(ids.cpu().numpy(), strict=self.constrain)
        return torch.from_numpy(centers).to(ids.device).view(len(ids), *inputs.action_shape)


class OpenVLA(TokenTrunk):
    """Answers one id after the other. Source: Kim et al. 2024, Section 3. graphs: see `record`."""

    graphs: Graphs | None = None

    def answers(self, batch: Inputs) -> Answers:
        """What is predicted where a label is (NO_LOSS: none); logits are computed for those positions alone."""
        text, patches = text_of(batch), self.context(batch)  # (B, N, D)
        hidden = self.hidden_states(self.splice(patches, text.ids))  # (B, N+T, D)
        labels = text.labels[:, 1:]  # (B, T-1)
        supervised = labels != NO_LOSS
        answering = hidden[:, patches.shape[1] : -1][supervised]  # (M, D): each state predicts the id after it
        logits = self.language_model.lm_head(answering)  # (M, V)
        targets = labels[supervised]
        if text.weights is None:
            loss = F.cross_entropy(logits.float(), targets)
        else:
            losses = F.cross_entropy(logits.float(), targets, reduction="none")
            loss = (losses * text.weights[:, 1:][supervised]).sum()
        return Answers(loss, logits, targets, supervised.nonzero()[:, 0])

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, H, A) float32: the bin centres of the greedy ids."""
        return self.actions(self._decoded(inputs, Choice(self.allowed)).ids, inputs)

    def sample(self, inputs: Inputs, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Drawn:
        """Actions drawn at random; the recorded log-probabilities are those that `log_prob` computes again."""
        decoded = self._decoded(inputs, Choice(self.allowed, temperature, generator))
        return Drawn(self.actions(decoded.ids, inputs), decoded.ids, decoded.log_probs)

    def record(self) -> None:
        """Greedy answers, one CUDA graph a shape of batch, until the network is moved. Raises PartMissing off a GPU."""
        self.graphs = Graphs.of(self)

    @torch.inference_mode()
    def answer(self, inputs: Inputs, *, stop: int, longest: int) -> Tensor:
        """(B, n) ids of an answer in words, n <= longest: free, where an action is decoded among its ids alone."""
        text = text_of(inputs)
        return generate(self, self.context(inputs), text.prompts(), longest, Choice(), stop=stop).ids

    def log_prob(self, inputs: Inputs, ids: Tensor) -> Tensor:
        """(B, n) log-probability of each of the ids (B, n), given those before it; gradients flow."""
        check_ids(ids, len(inputs), self.decodable)
        return answer_log_probs(self, self.context(inputs), text_of(inputs).prompts(), ids, self.allowed)

    def distribution(self, inputs: Inputs, ids: Tensor) -> Tensor:
        """(B, n, C) log-probability of every allowed id, given the ids (B, n) before it; gradients flow."""
        check_ids(ids, len(inputs), self.decodable)
        return answer_distribution(self, self.context(inputs), text_of(inputs).prompts(), ids, self.allowed)

    def representations(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """vision: mean of the projected patches; language: of the prompt's embeddings; fused: its last id's state."""
        context, text = self.context(inputs), text_of(inputs)
        fused = after_prompts(self, context, text.prompts())[:, -1]
        return {"vision": context[:, : self.n_patches].mean(dim=1), "language": self.heard(text), "fused": fused}

    def told(self, inputs: Inputs, prompts: Sequence[Sequence[int]]) -> Tensor:
        """(B, N, D): `fused` of each prompt, at the cost of one picture. Raises PartMissing under FiLM."""
        if self.senses.film:
            what = "towers under FiLM see another picture for each prompt"
            raise PartMissing(what, where="network openvla", do="look at patches, or take a network without FiLM")
        return states_behind(self, self.context(inputs), prompts)

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

    @torch.inference_mode()
    def _decoded(self, inputs: Inputs, choice: Choice) -> Decoded:
        text, (chunk, size) = text_of(inputs), inputs.action_shape
        prompts, pad_to, n_tokens = text.prompts(), text.ids.shape[1], chunk * size
        if self.graphs is not None and choice.temperature == 0:
            replayed = self.graphs(self, Read.of(inputs, prompts, pad_to), n_tokens, choice)
            if replayed is not None:
                return replayed
        return generate(self, self.context(inputs), prompts, n_tokens, choice, pad_to=pad_to)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.graphs = None  # they read the weights where those were
        return super()._apply(fn, recurse)


def openvla(
    processor: Processor,
    vision: str,
    llm: str,
    vision_options: Mapping[str, Any] | None = None,
    llm_options: Mapping[str, Any] | None = None,
    head: str = "discrete",
    head_options: Mapping[str, Any] | None = None,
    film: bool = False,
) -> Trunk:
    """The network that a card or conf/model describes: names and numbers as VLASettings has them.

    How many cameras it sees, and how many numbers of proprioception, is the processor's to say.
    """
    reading = token_processor(processor, purpose="OpenVLA")
    if reading.settings.window > 1:
        raise CheckpointMismatch(
            f"OpenVLA sees one frame of each camera, and a window of {reading.settings.window} is set",
            where="model.processor",
            do="set window=1, or take a network that sees more",
        )
    towers, language, answering = (dict(one or {}) for one in (vision_options, llm_options, head_options))
    settings = VLASettings(vision, llm, towers, language, head, answering, film)
    senses = Senses(len(reading.settings.cameras), reading.settings.proprio, settings.film)
    return build_vla(settings, tokens=reading.actions, senses=senses)


def build_vla(
    settings: VLASettings,
    device: torch.device | str | None = None,
    tokens: ActionTokenizer | None = None,
    senses: Senses | None = None,
) -> Trunk:
    """A model with random weights; `device='meta'` takes seconds and no memory at any size. Raises UnknownName."""
    with nullcontext() if device is None else torch.device(device):
        towers = VISION.build(settings.vision, **settings.vision_options)
        language_model = LANGUAGE.build(settings.llm, **settings.llm_options)
        parts = towers, language_model, tokens, senses
        network = HEADS.fitted(settings.head, settings.head_options, *parts, where="model.network.head")
    network.settings = settings.to_dict()
    return network
