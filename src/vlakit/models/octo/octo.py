"""Octo as a policy: what it reads, the loss of every timestep of its window, the chunk of the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vlakit.errors import CheckpointMismatch, ConfigError, InvalidData
from vlakit.models.network import Drawn, Network, Output
from vlakit.models.octo.heads import HEADS, ActionHead, Discrete, masked_mean
from vlakit.models.octo.text import FrozenT5, Words
from vlakit.models.octo.trunk import Seen, Trunk, TrunkSettings
from vlakit.models.sizes import check_action_size, check_sizes
from vlakit.processing.instructions import InstructionProcessor
from vlakit.processing.processor import Processor
from vlakit.processing.settings import InstructionSettings
from vlakit.schema import Batch, Inputs, TextBatch

READOUT = "action"


class Octo(Network):
    """A trunk and a head. Source: Octo Model Team 2024 (arXiv 2405.12213)."""

    def __init__(self, trunk: Trunk, head: ActionHead, encoder: Words | FrozenT5) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        self.words = encoder if isinstance(encoder, Words) else None
        self.t5 = encoder if isinstance(encoder, FrozenT5) else None

    def readouts(self, inputs: Inputs) -> Tensor:
        """(B, W, n, D)."""
        if inputs.text is None:
            raise InvalidData("Octo reads an instruction", where="inputs", do="set model.processor.kind=instructions")
        language, told = self._heard(inputs.text)
        seen = Seen(inputs.window_mask, inputs.pixels, proprio=inputs.proprio, language=language, told=told)
        return self.trunk(seen).readouts[READOUT]

    def _heard(self, text: TextBatch) -> tuple[Tensor, Tensor]:
        if self.words is not None:
            return self.words(text)
        if self.t5 is None:
            raise TypeError("no encoder")
        return self.t5(text, next(self.parameters()).device)

    def forward(self, batch: Batch) -> Output:
        """The head's loss over all timesteps of the window: each answers with the chunk that was done from there on.

        predicted: the last one's, where it costs no more passes or nothing is trained.
        """
        check_action_size(batch, self.head.shape[1])
        actions, mask = targets(batch)
        readouts = self.readouts(batch)
        errors = self.head.errors(readouts[:, -actions.shape[1] :], actions)
        every = mask[..., None].expand_as(actions)
        rows = {name: _row_means(one.detach(), every) for name, one in errors.items()}
        there = batch.chunk_mask.any(dim=1)
        scores = {name: one.where(there, torch.nan) for name, one in rows.items() if name == "token_accuracy"}
        predicted = None
        if self.head.at_once or not self.training:
            with torch.no_grad():
                predicted = self.head.act(readouts)
        return Output(masked_mean(errors["loss"], every), rows["loss"], predicted, scores)

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, H, A) float32 normalised."""
        return self.head.act(self.readouts(inputs)).float()

    @property
    def parts(self) -> Mapping[str, str]:
        """For tables of counts."""
        return {
            "stems": "trunk.stems",
            "transformer": "trunk.transformer",
            "projections and places": "trunk",
            "words": "words",
            "head": "head",
        }


class DiscreteOcto(Octo):
    """With bins there is a likelihood: the numbers of a chunk are drawn each by itself, the ids are their bins."""

    head: Discrete

    def log_prob(self, inputs: Inputs, ids: Tensor) -> Tensor:
        """(B, H A) log-probability of each of the ids (B, H A); gradients flow. Raises InvalidData."""
        log_probs = self.head.log_probs(self.readouts(inputs))
        known = bool(((ids >= 0) & (ids < self.head.bins.n)).all())
        if ids.shape != log_probs.shape[:2] or not known:
            raise InvalidData(
                f"ids {tuple(ids.shape)}, of which {'all' if known else 'not all'} are bins",
                where="ids",
                do=f"give {tuple(log_probs.shape[:2])} ids from 0 to {self.head.bins.n - 1}, as sample returned them",
            )
        return log_probs.gather(-1, ids[..., None])[..., 0]

    @torch.inference_mode()
    def sample(self, inputs: Inputs, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Drawn:
        """Chunks drawn at random; the log-probabilities are those without temperature, which log_prob gives again."""
        log_probs = self.head.log_probs(self.readouts(inputs))
        shares = (log_probs / temperature).softmax(dim=-1)
        ids = torch.multinomial(shares.flatten(0, 1).cpu(), 1, generator=generator).view(shares.shape[:2])
        ids = ids.to(log_probs.device)
        actions = self.head.bins.decode(ids).unflatten(1, self.head.shape)
        return Drawn(actions, ids, log_probs.gather(-1, ids[..., None])[..., 0])


@dataclass(frozen=True, kw_only=True)
class OctoSettings:
    """What a card or conf/model says of the network; cameras, their sizes, chunk and proprio are the processor's.

    text: words (learned) or t5 (frozen, from processor.tokenizer_path). stem to off_by_one: see TrunkSettings.
    """

    width: int
    layers: int
    heads: int
    mlp: int
    stem: Sequence[int] = (32, 96, 192, 384)
    stem_width: int = 512
    goals: bool = True
    positions: int = 10
    readout_tokens: int = 1
    repeat_task: bool = True
    off_by_one: bool = False
    text: str = "words"
    text_width: int = 768
    head: str = "diffusion"
    head_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    action_size: int = 7

    def trunk(self, seen: InstructionSettings) -> TrunkSettings:
        """For what a processor shows. Raises ConfigError for a longer window than there are places."""
        if seen.window > self.positions or len(seen.channel_statistics) != 1:
            raise ConfigError(
                f"window {seen.window}, channel_statistics {list(seen.channel_statistics)}",
                where="model.processor",
                do=f"Octo sees a window of at most {self.positions} (network.positions), and each picture once",
            )
        sizes = {"layers": self.layers, "heads": self.heads, "positions": self.positions, "width": self.width}
        check_sizes({**sizes, "readout_tokens": self.readout_tokens}, where="model.network")
        shared = TrunkSettings.__dataclass_fields__.keys() & OctoSettings.__dataclass_fields__.keys()
        return TrunkSettings(
            **{name: getattr(self, name) for name in shared},
            cameras={camera: seen.camera_sizes.get(camera, seen.image_size) for camera in seen.cameras},
            language=(seen.text_tokens, self.text_width),
            proprio=seen.proprio,
            readouts={READOUT: self.readout_tokens},
        )

    def encoder(self, processor: InstructionProcessor) -> Words | FrozenT5:
        """Of the instructions that a processor gives as ids. Raises ConfigError where they are not the encoder's."""
        tokenizer = processor.settings.tokenizer
        if self.text not in ("words", "t5") or (self.text == "t5") != (tokenizer == "t5"):
            raise ConfigError(
                f"text is {self.text!r} under the tokenizer {tokenizer!r}",
                where="model.network.text",
                do="words learns a vector of each id; t5 goes with processor.tokenizer=t5 and its tokenizer_path",
            )
        if self.text == "t5":
            return FrozenT5(processor.settings.tokenizer_path, self.text_width)
        return Words(processor.text.vocab_size, self.text_width)


def octo(processor: Processor, **names: Any) -> Octo:
    """The network that a card or conf/model describes by the names of OctoSettings. Raises CheckpointMismatch."""
    try:
        settings = OctoSettings(**names)
    except TypeError as error:
        raise CheckpointMismatch(
            f"the network octo cannot be built: {error}",
            where=f"network keys {sorted(names)}",
            do="load the checkpoint with the vlakit version that wrote it, or mend model.network",
        ) from error
    if not isinstance(processor, InstructionProcessor):
        raise CheckpointMismatch(
            f"Octo reads instructions, and the processor is of the kind {processor.kind!r}",
            where="model.processor.kind",
            do="set it to instructions, with the keys of conf/model/octo_tiny.yaml",
        )
    trunk, shape = Trunk(settings.trunk(processor.settings)), (processor.settings.chunk, settings.action_size)
    head = HEADS.fitted(settings.head, settings.head_options, settings.width, shape, where="model.network.head")
    kind = DiscreteOcto if isinstance(head, Discrete) else Octo
    return kind(trunk, head, settings.encoder(processor))


def targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Chunks (B, W, H, A) from every timestep of the window on, and which actions exist (B, W, H).

    Where the past is not known, those of the last timestep alone: W is 1 then.
    """
    chunk = batch.normalized.shape[1]
    steps, there = batch.normalized, batch.chunk_mask
    frames = batch.window_mask[:, -1:]
    if batch.past is not None:
        frames = batch.window_mask
        steps = torch.cat([batch.past, steps], dim=1)  # (B, W - 1 + H, A)
        there = torch.cat([frames[:, :-1], there], dim=1)
    mask = there.unfold(1, chunk, 1) & frames[..., None] & batch.chunk_mask.any(dim=1)[:, None, None]
    return steps.unfold(1, chunk, 1).transpose(2, 3), mask


def _row_means(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) float64 of (B, W, H, A) over what exists; 0 where nothing does."""
    weight = mask.double()
    return (values * weight).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp(min=1)
