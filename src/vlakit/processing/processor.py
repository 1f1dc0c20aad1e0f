"""`VLAProcessor`: the one place where an observation becomes model inputs and token ids become an action.

Training, evaluation and serving call it and nothing else, so what a policy was trained on is what it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
import torch

from vlakit.errors import ActionNotFinite, CheckpointMismatch, ConfigError, InvalidData, StatisticsMissing, nearest
from vlakit.processing.action_tokenizer import ActionTokenizer
from vlakit.processing.augment import ImageAugmentation
from vlakit.processing.images import (
    GREY,
    channel_tables,
    check_image,
    crop_and_resize,
    decode_jpeg,
    jpeg_round_trip,
    letterbox_fill,
    resizer,
)
from vlakit.processing.normalizer import normalize, unnormalize
from vlakit.processing.prompts import prompt_builder
from vlakit.processing.text import TextTokenizer, build_tokenizer
from vlakit.schema import NO_LOSS, DatasetStatistics, Example, Float32, Int64, Observation, Sample, UInt8

ImageChange: TypeAlias = Callable[[UInt8], UInt8]


@dataclass(frozen=True)
class ProcessorNames:
    """The names and numbers a checkpoint stores of its processor; from them it is rebuilt without Hydra."""

    image_size: int
    channel_statistics: tuple[str, ...]  # one a tower, DINOv2 first
    tokenizer: str
    tokenizer_path: str | None = None
    prompt: str = "openvla"
    resize: str = "resize-naive"
    n_bins: int = 256
    chunk: int = 1
    camera: str = "primary"
    padding_id: int | None = None  # first id past the actions; None: the tokenizer's
    jpeg: bool = False  # observations pass through JPEG before the resize, as in the peers' evaluation
    center_crop: float | None = None  # area cut from observations; 0.9 where training cropped at random

    def __post_init__(self) -> None:
        if self.center_crop is not None and not 0 < self.center_crop <= 1:
            raise ConfigError(
                f"center_crop is {self.center_crop}",
                where="processor.center_crop",
                do="give the share of the area to keep, such as 0.9, or null",
            )

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> ProcessorNames:
        """Names from plain values, as a configuration or a checkpoint holds them."""
        values: dict[str, Any] = {**numbers}
        try:
            values["channel_statistics"] = tuple(values["channel_statistics"])
            return cls(**values)
        except (TypeError, KeyError) as error:
            raise CheckpointMismatch(
                f"the processor cannot be rebuilt: {error}",
                where=f"processor keys {sorted(numbers)}",
                do="load the checkpoint with the vlakit version that wrote it",
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The opposite of from_dict: plain values only."""
        return {**asdict(self), "channel_statistics": list(self.channel_statistics)}


class VLAProcessor:
    """Images, instructions and actions to tensors, and token ids to actions in physical units."""

    def __init__(
        self,
        names: ProcessorNames,
        statistics: Mapping[str, DatasetStatistics] | None = None,
        augmentation: ImageAugmentation | None = None,
        seed: int = 0,
        *,
        observing: bool = False,
    ) -> None:
        """With `observing`, samples are prepared as observations are: what a policy will see, for validation."""
        self.names, self.augmentation, self.seed, self.observing = names, augmentation, seed, observing
        self.statistics: dict[str, DatasetStatistics] = dict(statistics or {})
        self.build_prompt = prompt_builder(names.prompt)
        self.resize = resizer(names.resize)
        self.scale, self.shift = channel_tables(names.channel_statistics)  # (k, 3)
        # The letterbox of two towers pads with two colours; whatever fills no border needs one square for all.
        fills = [letterbox_fill(tower) for tower in names.channel_statistics]
        self.fills = fills if names.resize == "letterbox" and len(set(fills)) > 1 else fills[-1:] or [GREY]
        self.before_resize: list[ImageChange] = [jpeg_round_trip] if names.jpeg else []
        self.after_resize: list[ImageChange] = []
        if names.center_crop is not None:
            self.after_resize.append(partial(crop_and_resize, area=names.center_crop))
        self._prompt_ids: dict[str, list[int]] = {}

    @cached_property
    def text(self) -> TextTokenizer:
        """The text tokenizer; its files are looked for on first use, so that counting needs none."""
        return build_tokenizer(self.names.tokenizer, self.names.tokenizer_path)

    @cached_property
    def actions(self) -> ActionTokenizer:
        """The action tokenizer, whose ids end at the text tokenizer's padding."""
        return ActionTokenizer(self.names.n_bins, self.names.padding_id or self.text.padding_id)

    def for_validation(self) -> VLAProcessor:
        """The same processor, preparing samples as the policy will see them; statistics are shared."""
        return VLAProcessor(self.names, self.statistics, None, self.seed, observing=True)

    def for_training(
        self, statistics: Mapping[str, DatasetStatistics], augmentation: ImageAugmentation | None
    ) -> VLAProcessor:
        """The same processor for these datasets. Random crops in training mean a central one of that area in use."""
        names = self.names
        if augmentation is not None and names.center_crop is None:
            names = replace(names, center_crop=augmentation.crop_area)
        return VLAProcessor(names, statistics, augmentation, self.seed)

    def statistics_of(self, dataset: str | None) -> DatasetStatistics:
        """Statistics of a dataset; None is allowed when there is only one. Raises StatisticsMissing."""
        if dataset is None and len(self.statistics) == 1:
            return next(iter(self.statistics.values()))
        if dataset is None or dataset not in self.statistics:
            asked = "no dataset was named and there are several" if dataset is None else f"none for {dataset!r}"
            remedy = nearest(dataset or "", self.statistics)
            raise StatisticsMissing(
                f"no action statistics: {asked}",
                where=f"statistics of: {', '.join(sorted(self.statistics)) or 'no dataset'}",
                do=f"{remedy} or build them: vlakit shards dataset={dataset or 'NAME'}",
            )
        return self.statistics[dataset]

    def prompt_ids(self, instruction: str) -> list[int]:
        """BOS, the prompt, and the lone space before the first action: the ids that inference starts from."""
        if instruction not in self._prompt_ids:
            if len(self._prompt_ids) > 100_000:  # a bound for endless streams of new instructions
                self._prompt_ids.clear()
            ids = [self.text.bos_id, *self.text.encode(self.build_prompt(instruction)), self.text.empty_id]
            self._prompt_ids[instruction] = ids
        return self._prompt_ids[instruction]

    def pixels(self, image: UInt8, *, where: str = "observation", position: int | None = None) -> torch.Tensor:
        """(H, W, 3) uint8 to (3 k, S, S) float32; a `position` in the stream asks for augmentation."""
        changes: list[ImageChange] = []
        if self.augmentation is not None and position is not None:
            changes.append(partial(self.augmentation, seed=self.seed, position=position))
        return self._towers(check_image(image, where=where), changes)

    def observed_pixels(self, image: UInt8, *, where: str = "observation") -> torch.Tensor:
        """`pixels` of what a policy sees: JPEG and centre crop where the names ask for them, never augmented."""
        check_image(image, where=where)
        for change in self.before_resize:
            image = change(image)
        return self._towers(image, self.after_resize)

    def _towers(self, image: UInt8, changes: Sequence[ImageChange]) -> torch.Tensor:
        squares = [self.resize(image, self.names.image_size, fill) for fill in self.fills]
        for change in changes:
            squares = [change(square) for square in squares]
        planes = np.ascontiguousarray(np.stack(squares).transpose(0, 3, 1, 2))  # (k or 1, 3, S, S)
        towers = planes * self.scale[:, :, None, None]
        towers += self.shift[:, :, None, None]
        return torch.as_tensor(towers).flatten(0, 1)  # (3 k, S, S)

    def encode(self, sample: Sample) -> Example:
        """One sample of the stream to what the model trains on; decoding happens here, in the loader's worker."""
        if self.names.camera not in sample.images:
            raise InvalidData(
                f"no camera {self.names.camera!r}",
                where=f"sample {sample.key} has {', '.join(sample.images)}",
                do="convert the dataset again with this camera: vlakit shards cameras=[...]",
            )
        image = decode_jpeg(sample.images[self.names.camera][-1], where=f"sample {sample.key}")
        actions = sample.actions[: self.names.chunk]
        if not np.isfinite(actions).all():
            raise ActionNotFinite(
                "an action is not finite", where=f"sample {sample.key}", do="run vlakit shards verify=DIR"
            )
        normalized = normalize(actions, self.statistics_of(sample.dataset))
        answer = self.actions.encode(normalized).ravel()
        input_ids, labels = self.sequence(sample.instruction, answer)
        return Example(
            key=sample.key,
            dataset=sample.dataset,
            pixel_values=self._sample_pixels(image, sample),
            input_ids=input_ids,
            labels=labels,
            actions=actions,
            normalized=normalized,
            chunk_mask=sample.chunk_mask[: self.names.chunk],
            position=sample.position,
            row=sample.row,
        )

    def _sample_pixels(self, image: UInt8, sample: Sample) -> torch.Tensor:
        where = f"sample {sample.key}"
        if self.observing:
            return self.observed_pixels(image, where=where)
        return self.pixels(image, where=where, position=sample.position)

    def sequence(self, instruction: str, answer: Int64) -> tuple[Int64, Int64]:
        """Input ids and labels (T,): BOS, prompt, space, action ids, EOS; only the action ids and EOS carry a loss.

        Ids are built directly: to tokenize the action's text again, as the released code does, depends on the
        tokenizer's version.
        """
        prompt = self.prompt_ids(instruction)
        input_ids = np.array([*prompt, *answer, self.text.eos_id], dtype=np.int64)
        labels = input_ids.copy()
        labels[: len(prompt)] = NO_LOSS
        return input_ids, labels

    def encode_observations(self, observations: Sequence[Observation]) -> tuple[torch.Tensor, list[list[int]]]:
        """pixel_values (B, 3 k, S, S) float32 and one list of prompt ids a row, of mixed lengths."""
        pixels = torch.stack([self.observed_pixels(observation.image) for observation in observations])
        return pixels, [self.prompt_ids(observation.instruction) for observation in observations]

    def decode_actions(self, ids: Int64, dataset: str | None, *, strict: bool = True) -> Float32:
        """Token ids (B, H * A) to actions (B, H, A) in physical units of `dataset`."""
        statistics = self.statistics_of(dataset)
        centers = self.actions.decode(ids, strict=strict)
        return unnormalize(centers.reshape(len(ids), -1, len(statistics.q01)), statistics)
