"""`InstructionProcessor`: the instruction as a few ids, the action as numbers, each camera at a size of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vlakit.processing.processor import Processor
from vlakit.processing.reading import PROMPTS_KEPT, ReadingProcessor
from vlakit.processing.settings import InstructionSettings, ProcessorSettings
from vlakit.schema import NO_LOSS, Batch, Example, Inputs, Observation, Sample, TextBatch


class InstructionProcessor(ReadingProcessor):
    """Text is always `text_tokens` wide, the end of the sentence included; nothing in it carries a loss."""

    kind: ClassVar[str] = "instructions"
    settings_type: ClassVar[type[ProcessorSettings]] = InstructionSettings
    settings: InstructionSettings

    def __init__(self, settings: InstructionSettings, *further: Any, **options: Any) -> None:
        """As any processor."""
        super().__init__(settings, *further, **options)
        self._ids: dict[str, list[int]] = {}
        self._chains = {  # of cameras with another size
            camera: Processor(replace(_plain(settings), image_size=size), {}, self.augmentation, self.seed, **options)
            for camera, size in settings.camera_sizes.items()
        }

    def prompt_ids(self, instruction: str) -> list[int]:
        """At most `text_tokens` ids, the last of them the sentence's end."""
        if instruction not in self._ids:
            if len(self._ids) > PROMPTS_KEPT:
                self._ids.clear()
            words = self.text.encode(instruction)[: self.settings.text_tokens - 1]
            self._ids[instruction] = [*words, self.text.eos_id]
        return self._ids[instruction]

    def shortened(self, instruction: str) -> bool:
        """Whether words at the instruction's end are not read."""
        return len(self.text.encode(instruction)) >= self.settings.text_tokens

    def encode(self, sample: Sample) -> Example:
        """As any processor does, with the instruction."""
        return replace(super().encode(sample), prompt=np.array(self.prompt_ids(sample.instruction), np.int64))

    def collate(self, examples: Sequence[Example]) -> Batch:
        """As any processor does, with the instructions."""
        rows: list[list[int]] = [[] if one.prompt is None else one.prompt.tolist() for one in examples]
        return replace(super().collate(examples), text=self._text(rows))

    def observe(self, observations: Sequence[Observation], *, pad_to: int = 0) -> Inputs:
        """As any processor does, with the instructions; pad_to changes nothing, as they have one width."""
        for one in observations:
            self._check_asked(one.instruction)
        rows = [self.prompt_ids(one.instruction) for one in observations]
        return replace(super().observe(observations), text=self._text(rows))

    def blank(self, rows: int, *, device: str = "cpu", **options: Any) -> Batch:
        """As any processor's, with each camera's own size."""
        batch = super().blank(rows, device=device, **options)
        for camera, size in self.settings.camera_sizes.items():
            batch.pixels[camera] = torch.empty(*batch.pixels[camera].shape[:3], size, size, device=device)
        past = batch.normalized.new_zeros(rows, self.settings.window - 1, batch.normalized.shape[2])
        return replace(batch, past=past if past.shape[1] else None)

    def blank_text(self, rows: int, action_ids: int, prompt_tokens: int, answer_tokens: int | None) -> TextBatch:
        """Instructions of full length, whatever is asked for."""
        return self._text([[self.text.eos_id] * self.settings.text_tokens] * rows)

    def _sample_pixels(self, sample: Sample, camera: str) -> Tensor:
        chain = self._chains.get(camera)
        return super()._sample_pixels(sample, camera) if chain is None else chain._sample_pixels(sample, camera)

    def _observed_window(self, observation: Observation, camera: str) -> Tensor:
        chain = self._chains.get(camera)
        if chain is None:
            return super()._observed_window(observation, camera)
        return chain._observed_window(observation, camera)

    def _text(self, rows: Sequence[Sequence[int]]) -> TextBatch:
        ids = np.full((len(rows), self.settings.text_tokens), self.text.padding_id, np.int64)
        lengths = np.array([len(row) for row in rows])
        for row, words in enumerate(rows):
            ids[row, : len(words)] = words
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        return TextBatch(torch.as_tensor(ids), torch.as_tensor(mask), torch.full(ids.shape, NO_LOSS))


def _plain(settings: InstructionSettings) -> ProcessorSettings:
    """What any processor has of these settings."""
    known = ProcessorSettings.__dataclass_fields__
    return ProcessorSettings(**{name: getattr(settings, name) for name in known})
