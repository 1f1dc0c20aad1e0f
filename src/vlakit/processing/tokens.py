"""`TokenProcessor`: instructions to prompts and actions to tokens, on top of what every processor does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from vlakit.errors import CheckpointMismatch, InvalidData
from vlakit.processing.action_tokenizer import ActionTokenizer
from vlakit.processing.images import decode_jpeg
from vlakit.processing.processor import Processor
from vlakit.processing.prompts import prompt_builder, question_builder
from vlakit.processing.reading import PROMPTS_KEPT, ReadingProcessor
from vlakit.processing.settings import ProcessorSettings, TokenSettings
from vlakit.schema import NO_LOSS, Batch, Example, Float32, Inputs, Int64, Observation, Sample, TextBatch

ACTION_SIZE = 7  # of a question's empty action, where no statistics say another


class TokenProcessor(ReadingProcessor):
    """OpenVLA's: the prompt `In: What action should the robot take to ...?`, the action as the last ids of the text."""

    kind: ClassVar[str] = "tokens"
    settings_type: ClassVar[type[ProcessorSettings]] = TokenSettings
    settings: TokenSettings

    def __init__(self, settings: TokenSettings, *further: Any, **options: Any) -> None:
        """As any processor."""
        super().__init__(settings, *further, **options)
        self.build_prompt = prompt_builder(settings.prompt)
        self._prompt_ids: dict[str, list[int]] = {}

    @cached_property
    def actions(self) -> ActionTokenizer:
        """The action tokenizer, whose ids end at the text tokenizer's padding."""
        return ActionTokenizer(self.settings.n_bins, self.settings.padding_id or self.text.padding_id)

    def blank_text(self, rows: int, action_ids: int, prompt_tokens: int, answer_tokens: int | None) -> TextBatch:
        """A prompt and an answer of action ids, with EOS behind them; no answer is shorter than its action."""
        ids = torch.zeros(rows, prompt_tokens + max(answer_tokens or 0, action_ids + 1), dtype=torch.int64)
        labels = torch.full_like(ids, NO_LOSS)
        labels[:, prompt_tokens:] = 0
        labels[:, prompt_tokens : prompt_tokens + action_ids] = self.actions.begin
        return TextBatch(ids, torch.ones_like(ids), labels)

    def prompt_ids(self, instruction: str) -> list[int]:
        """BOS, the prompt, and the lone space before the first action: the ids that inference starts from."""
        if instruction not in self._prompt_ids:
            if len(self._prompt_ids) > PROMPTS_KEPT:
                self._prompt_ids.clear()
            ids = [self.text.bos_id, *self.text.encode(self.build_prompt(instruction)), self.text.empty_id]
            self._prompt_ids[instruction] = ids
        return self._prompt_ids[instruction]

    def question_ids(self, question: str) -> list[int]:
        """BOS and the prompt of a question: the ids that its answer follows, without the space before an action."""
        return [self.text.bos_id, *self.text.encode(question_builder(self.settings.prompt)(question))]

    def check_answers(self, answers: Iterable[str], *, where: str) -> None:
        """Raise InvalidData for an answer in words that the tokenizer lacks: it could be neither learnt nor given."""
        for answer in dict.fromkeys(answers):
            unknown = self.text.unknown(answer)
            if unknown or not answer.strip():
                raise InvalidData(
                    f"the answer {answer!r} holds words that the tokenizer {self.settings.tokenizer} does not know: "
                    f"{', '.join(unknown) or 'it is empty'}",
                    where=where,
                    do="write the answer in words it knows, or take a model whose tokenizer knows these",
                )

    def text_width(self, instructions: Iterable[str]) -> int:
        """Ids of the longest prompt."""
        return max((len(self.prompt_ids(instruction)) for instruction in set(instructions)), default=0)

    def encode(self, sample: Sample) -> Example:
        """As any processor does, with the prompt and, as the answer, the action's ids and EOS.

        Ids are built directly: to tokenize the action's text again, as the released code does, depends on the
        tokenizer's version. Of a question: its prompt and its answer in words, and no action.
        """
        if sample.answer is not None:
            return self._asked_example(sample, sample.answer)
        example = super().encode(sample)
        answer = [*self.actions.encode(example.normalized).ravel(), self.text.eos_id]
        return replace(example, prompt=np.array(self.prompt_ids(sample.instruction)), answer=np.array(answer, np.int64))

    def _asked_example(self, sample: Sample, answer: str) -> Example:
        """Never augmented, since an answer may say where something is; zeros stand for the proprioception."""
        settings, where = self.settings, f"question {sample.key}"
        size = next((len(one.q01) for one in self.statistics.values()), ACTION_SIZE)
        frames = {
            camera: [decode_jpeg(frame, where=where) for frame in sample.images[camera]] for camera in settings.cameras
        }
        return Example(
            key=sample.key,
            dataset=sample.dataset,
            pixels={
                c: torch.stack([self.observed_pixels(one, where=where) for one in seen]) for c, seen in frames.items()
            },
            window_mask=sample.window_mask,
            actions=np.zeros((settings.chunk, size), np.float32),
            normalized=np.zeros((settings.chunk, size), np.float32),
            chunk_mask=np.zeros(settings.chunk, np.bool_),
            proprio=np.zeros((settings.window, settings.proprio), np.float32) if settings.proprio else None,
            prompt=np.array(self.question_ids(sample.instruction)),
            answer=np.array([*self.text.encode(answer), self.text.eos_id], np.int64),
            position=sample.position,
        )

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Text is padded on the right: attention is causal, so padding behind an answer changes nothing."""
        rows = [(one.prompt, one.answer) for one in examples if one.prompt is not None and one.answer is not None]
        return replace(super().collate(examples), text=padded_text(rows, self.text.padding_id))

    def observe(self, observations: Sequence[Observation], *, pad_to: int = 0) -> Inputs:
        """As any processor does, with the prompts."""
        for one in observations:
            self._check_asked(one.instruction)
        inputs, nothing = super().observe(observations), np.zeros(0, np.int64)
        rows = [(np.array(self.prompt_ids(one.instruction)), nothing) for one in observations]
        text = padded_text(rows, self.text.padding_id, width=pad_to)
        return replace(inputs, text=text)

    def ask(self, observations: Sequence[Observation]) -> Inputs:
        """What the network sees of questions, which stand in the place of instructions; no statistics are needed."""
        for one in observations:
            self._check_asked(one.instruction)
        settings, rows, nothing = self.settings, len(observations), np.zeros(0, np.int64)
        asked = [(np.array(self.question_ids(one.instruction)), nothing) for one in observations]
        return Inputs(
            pixels={c: torch.stack([self._observed_window(one, c) for one in observations]) for c in settings.cameras},
            window_mask=torch.as_tensor(np.stack([self._window_mask(one) for one in observations])),
            datasets=[one.dataset or "" for one in observations],
            action_shape=(settings.chunk, 0),
            proprio=torch.zeros(rows, settings.window, settings.proprio) if settings.proprio else None,
            text=padded_text(asked, self.text.padding_id),
        )

    def spelled(self, normalized: Float32) -> dict[str, Any]:
        """The ids of an answer (H, A)."""
        return {"ids": self.actions.encode(normalized).ravel().tolist()}

    def from_ids(self, ids: Int64) -> Float32:
        """Bin centres of ids (...)."""
        return self.actions.decode(ids)

    def round_trip(self, actions: Float32, dataset: str) -> Float32:
        """Actions (T, A) to token ids and back."""
        ids = self.actions.encode(self.normalized_actions(actions, dataset))
        return self.physical_actions(self.actions.decode(ids), dataset)


def padded_text(rows: Sequence[tuple[Int64, Int64]], padding_id: int, *, width: int = 0) -> TextBatch:
    """Prompts and answers as one text batch, at least `width` wide; only answers carry a loss."""
    lengths = np.array([len(prompt) + len(answer) for prompt, answer in rows])
    shape = (len(rows), max(width, int(lengths.max())))
    ids = np.full(shape, padding_id, dtype=np.int64)
    labels = np.full(shape, NO_LOSS, dtype=np.int64)
    for row, (prompt, answer) in enumerate(rows):
        ids[row, : lengths[row]] = [*prompt, *answer]
        labels[row, len(prompt) : lengths[row]] = answer
    mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
    return TextBatch(torch.as_tensor(ids), torch.as_tensor(mask), torch.as_tensor(labels))


def token_processor(processor: Processor, *, purpose: str) -> TokenProcessor:
    """The processor as one that reads text. Raises CheckpointMismatch where it is not."""
    if not isinstance(processor, TokenProcessor):
        raise CheckpointMismatch(
            f"{purpose} needs text and action tokens, and the processor is of the kind {processor.kind!r}",
            where="model.processor.kind",
            do="take a policy that answers in action tokens, such as model=tiny (model.processor.kind=tokens)",
        )
    return processor
