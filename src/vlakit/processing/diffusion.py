"""`DiffusionProcessor`: trajectories that begin with the window's earlier actions, and instructions as plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from tokenizers import Tokenizer

from vlakit.errors import ConfigError
from vlakit.processing.reading import ReadingProcessor
from vlakit.processing.settings import ProcessorSettings
from vlakit.processing.text import TABLE, TextTokenizer, check_folder, words
from vlakit.processing.tokens import padded_text
from vlakit.schema import NO_LOSS, Batch, Example, Inputs, Observation, Sample, TextBatch

_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings(ProcessorSettings):
    """Of a policy that learns `horizon` actions (Tp), the first `window` - 1 of them past, and answers `chunk` (Ta).

    language: `table`, words that are learned; the folder of a frozen text encoder; None: it reads nothing.
    """

    horizon: int = 16
    language: str | None = TABLE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon < self.window:
            raise ConfigError(
                f"a horizon of {self.horizon} actions with a window of {self.window} frames",
                where="processor.horizon",
                do="the horizon begins with the window's first frame: make it as long as the window, or longer",
            )

    @property
    def trained(self) -> int:
        return self.horizon

    @property
    def ahead(self) -> int:
        return self.horizon - self.window + 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """As any settings; `chunk` is at most what the horizon leaves from the present on."""
        settings = super().from_dict(values)
        return replace(settings, chunk=min(settings.chunk, settings.ahead))


class DiffusionProcessor(ReadingProcessor):
    """Diffusion Policy's; without a language it reads nothing."""

    kind: ClassVar[str] = "diffusion"
    settings_type: ClassVar[type[ProcessorSettings]] = DiffusionSettings
    settings: DiffusionSettings

    @property
    def reads_with(self) -> str:
        """The language of the settings."""
        return f"language {self.settings.language}"

    @cached_property
    def text(self) -> TextTokenizer:
        """Words that are learned, or the text encoder's tokenizer."""
        language = str(self.settings.language)
        if language == TABLE:
            return words()
        check_folder(language)
        tokenizer = Tokenizer.from_file(str(Path(language).expanduser() / "tokenizer.json"))
        tokenizer.no_padding()
        return TextTokenizer(lambda: tokenizer, padding_id=0, vocab_size=tokenizer.get_vocab_size(), empty_id=0)

    def check_files(self) -> None:
        """The text encoder's, if there is one."""
        if self.settings.language is not None:
            super().check_files()

    def check_instructions(self, instructions: Iterable[str]) -> None:
        """As of any policy that reads."""
        if self.settings.language is not None:
            super().check_instructions(instructions)

    def prompt_ids(self, instruction: str) -> list[int]:
        """All ids, with an encoder's own first and last one; an empty instruction is one id."""
        special = self.settings.language != TABLE
        return self.text.tokenizer.encode(instruction, add_special_tokens=special).ids or [0]

    def _ids(self, instruction: str) -> np.ndarray:
        return np.array(self.prompt_ids(instruction), np.int64)

    def encode(self, sample: Sample) -> Example:
        """As any processor does, with the past actions in front. Before the episode, and behind its end, is no loss."""
        past = np.zeros((0, sample.actions.shape[1]), np.float32) if sample.past is None else sample.past
        actions = np.concatenate([past, sample.actions[: self.settings.ahead]])
        mask = np.concatenate([sample.window_mask[:-1], sample.chunk_mask[: self.settings.ahead]])
        example = super().encode(replace(sample, actions=actions, chunk_mask=mask, past=None))
        return example if self.settings.language is None else replace(example, prompt=self._ids(sample.instruction))

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Text is padded on the right."""
        batch = super().collate(examples)
        rows = [(example.prompt, _NOTHING) for example in examples if example.prompt is not None]
        return replace(batch, text=padded_text(rows, self.text.padding_id)) if rows else batch

    def observe(self, observations: Sequence[Observation], *, pad_to: int = 0) -> Inputs:
        """As any processor does, with the instructions."""
        inputs = super().observe(observations)
        if self.settings.language is None:
            return inputs
        for one in observations:
            self._check_asked(one.instruction)
        rows = [(self._ids(one.instruction), _NOTHING) for one in observations]
        return replace(inputs, text=padded_text(rows, self.text.padding_id, width=pad_to))

    def text_width(self, instructions: Iterable[str]) -> int:
        """Ids of the longest instruction."""
        if self.settings.language is None:
            return 0
        return max((len(self._ids(instruction)) for instruction in set(instructions)), default=0)

    def blank_text(self, rows: int, action_ids: int, prompt_tokens: int, answer_tokens: int | None) -> TextBatch | None:
        """An instruction of so many ids; there is no answer in text."""
        if self.settings.language is None:
            return None
        ids = torch.zeros(rows, prompt_tokens, dtype=torch.int64)
        return TextBatch(ids, torch.ones_like(ids), torch.full_like(ids, NO_LOSS))
