"""`Processor`: the one place where an observation becomes a network's inputs and a prediction becomes an action.

Training, evaluation and serving call it and nothing else, so what a policy was trained on is what it sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from vlakit.errors import ActionNotFinite, CheckpointMismatch, InvalidData, StatisticsMissing, nearest
from vlakit.processing.augment import ImageAugmentation
from vlakit.processing.images import decode_jpeg
from vlakit.processing.normalizer import normalize, normalize_proprio, unnormalize
from vlakit.processing.pixels import PictureChain, observed_frames
from vlakit.processing.settings import ProcessorSettings
from vlakit.registry import Registry
from vlakit.schema import Batch, DatasetStatistics, Example, Float32, Inputs, Int64, Observation, Sample, TextBatch

PROCESSORS: Registry[Processor] = Registry(
    "processor",
    {
        "images": "vlakit.processing.processor:Processor",
        "diffusion": "vlakit.processing.diffusion:DiffusionProcessor",
        "instructions": "vlakit.processing.instructions:InstructionProcessor",
        "rt1": "vlakit.processing.rt1:RT1Processor",
        "tokens": "vlakit.processing.tokens:TokenProcessor",
    },
)


class Processor(PictureChain):
    """Pictures, proprioception and actions to tensors, and normalised actions to physical units."""

    kind: ClassVar[str] = "images"
    settings_type: ClassVar[type[ProcessorSettings]] = ProcessorSettings

    def __init__(
        self,
        settings: ProcessorSettings,
        statistics: Mapping[str, DatasetStatistics] | None = None,
        augmentation: ImageAugmentation | None = None,
        seed: int = 0,
        *,
        observing: bool = False,
    ) -> None:
        """With `observing`, samples are prepared as observations are: what a policy will see, for validation."""
        super().__init__(settings, augmentation, seed)
        self.observing = observing
        self.statistics: dict[str, DatasetStatistics] = dict(statistics or {})

    @property
    def description(self) -> dict[str, Any]:
        """Plain values from which `build_processor` makes it again, without its statistics."""
        return {"kind": self.kind, **self.settings.to_dict()}

    def check_files(self) -> None:
        """Raise PartMissing now, not in the middle of a run, when a file that preparation needs is not here."""

    def check_instructions(self, instructions: Iterable[str]) -> None:
        """Of a dataset: raise InvalidData where the network could not tell two of them apart; it may read none."""

    def for_validation(self) -> Self:
        """The same processor, preparing samples as the policy will see them; statistics are shared."""
        return type(self)(self.settings, self.statistics, None, self.seed, observing=True)

    def for_training(self, statistics: Mapping[str, DatasetStatistics], augmentation: ImageAugmentation | None) -> Self:
        """The same processor for these datasets. Random crops in training mean a central one of that area in use."""
        settings = self.settings
        if augmentation is not None and settings.center_crop is None:
            settings = replace(settings, center_crop=augmentation.crop_area)
        return type(self)(settings, statistics, augmentation, self.seed)

    def statistics_of(self, dataset: str | None) -> DatasetStatistics:
        """Statistics of a dataset; None is allowed when there is only one. Raises StatisticsMissing."""
        if dataset is None and len(self.statistics) == 1:
            return next(iter(self.statistics.values()))
        if dataset is None or dataset not in self.statistics:
            request = "no dataset was named and there are several" if dataset is None else f"none for {dataset!r}"
            remedy = nearest(dataset or "", self.statistics)
            raise StatisticsMissing(
                f"no action statistics: {request}",
                where=f"statistics of: {', '.join(sorted(self.statistics)) or 'no dataset'}",
                do=f"{remedy} or build them: vlakit shards dataset={dataset or 'NAME'}",
            )
        return self.statistics[dataset]

    def encode(self, sample: Sample) -> Example:
        """One sample of the stream to what the network trains on; decoding happens here, in the loader's worker."""
        actions = sample.actions[: self.settings.trained]
        where = f"sample {sample.key}"
        if not np.isfinite(actions).all():
            raise ActionNotFinite("an action is not finite", where=where, do="run vlakit shards verify=DIR")
        return Example(
            key=sample.key,
            dataset=sample.dataset,
            pixels={camera: self._sample_pixels(sample, camera) for camera in self.settings.cameras},
            window_mask=sample.window_mask,
            actions=actions,
            normalized=self.normalized_actions(actions, sample.dataset),
            chunk_mask=sample.chunk_mask[: self.settings.trained],
            proprio=self._proprio(sample.proprio, sample.dataset, where=where),
            past=self._past(sample),
            position=sample.position,
            row=sample.row,
        )

    def _past(self, sample: Sample) -> Float32 | None:
        """(W - 1, A) normalised; None for a policy without a past."""
        past = sample.past
        return None if past is None or not len(past) else self.normalized_actions(past, sample.dataset)

    def _sample_pixels(self, sample: Sample, camera: str) -> Tensor:
        """(W, 3 k, S, S); the frames of a window are augmented alike."""
        where = f"sample {sample.key}"
        if camera not in sample.images:
            raise InvalidData(
                f"no camera {camera!r}",
                where=f"{where} has {', '.join(sample.images)}",
                do="convert the dataset again with this camera: vlakit shards cameras=[...]",
            )
        frames = [decode_jpeg(frame, where=where) for frame in sample.images[camera]]
        if self.observing:
            return torch.stack([self.observed_pixels(frame, where=where) for frame in frames])
        return torch.stack([self.pixels(frame, where=where, position=sample.position) for frame in frames])

    def _proprio(self, values: Float32 | None, dataset: str | None, *, where: str) -> Float32 | None:
        """(W, P) normalised; None for a policy that takes none."""
        if self.settings.proprio == 0:
            return None
        size = 0 if values is None else (values := np.atleast_1d(values)).shape[-1]
        if values is None or size != self.settings.proprio:
            raise InvalidData(
                f"proprio of {size} numbers, the policy takes {self.settings.proprio}",
                where=where,
                do="to act: an Observation.proprio so wide; to train: model.processor.proprio as in the data (0: none)",
            )
        if values.shape[:-1] != (self.settings.window,):
            raise InvalidData(
                f"proprio {values.shape}, the policy takes {(self.settings.window, self.settings.proprio)}",
                where=where,
                do="give one row for each frame of the window, oldest first",
            )
        if not np.isfinite(values).all():
            remedy = "mend the sensor or the recording: vlakit shards verify=DIR"
            raise InvalidData(f"proprio is not finite: {values.tolist()}", where=where, do=remedy)
        return normalize_proprio(values, self.statistics_of(dataset), self.settings.normalization)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """B examples to one batch."""
        first = examples[0]
        proprio = [example.proprio for example in examples if example.proprio is not None]
        past = [example.past for example in examples if example.past is not None]
        return Batch(
            pixels={camera: torch.stack([one.pixels[camera] for one in examples]) for camera in first.pixels},
            window_mask=torch.as_tensor(np.stack([example.window_mask for example in examples])),
            datasets=[example.dataset for example in examples],
            action_shape=(first.actions.shape[0], first.actions.shape[1]),
            proprio=torch.as_tensor(np.stack(proprio)) if proprio else None,
            actions=torch.as_tensor(np.stack([example.actions for example in examples])),
            normalized=torch.as_tensor(np.stack([example.normalized for example in examples])),
            chunk_mask=torch.as_tensor(np.stack([example.chunk_mask for example in examples])),
            past=torch.as_tensor(np.stack(past)) if past else None,
            keys=[example.key for example in examples],
            position=first.position,
            rows=[example.row for example in examples],
        )

    def observe(self, observations: Sequence[Observation], *, pad_to: int = 0) -> Inputs:
        """What the network sees of B observations; pad_to: the least width of its text, if it reads any.

        Raises InvalidData for a camera, a window or proprioception that is not as the policy takes it.
        """
        sizes = {len(self.statistics_of(one.dataset).q01) for one in observations}
        if len(sizes) != 1:
            raise InvalidData(
                f"a batch of {len(observations)} observations of datasets with {sorted(sizes)} action dimensions",
                where="observations",
                do="ask for datasets of the same action size together, and for at least one observation",
            )
        pixels = {
            camera: torch.stack([self._observed_window(one, camera) for one in observations])
            for camera in self.settings.cameras
        }
        proprio = [self._proprio(one.proprio, one.dataset, where="observation") for one in observations]
        proprio = [values for values in proprio if values is not None]
        return Inputs(
            pixels=pixels,
            window_mask=torch.as_tensor(np.stack([self._window_mask(one) for one in observations])),
            datasets=[one.dataset or next(iter(self.statistics)) for one in observations],
            action_shape=(self.settings.chunk, sizes.pop()),
            proprio=torch.as_tensor(np.stack(proprio)) if proprio else None,
        )

    def _observed_window(self, observation: Observation, camera: str) -> Tensor:
        """(W, 3 k, S, S)."""
        frames = observed_frames(observation.images, camera)
        if len(frames) != self.settings.window:
            raise InvalidData(
                f"camera {camera!r} shows {len(frames)} frames, the policy takes {self.settings.window}",
                where="observation",
                do="give its last frames, oldest first, the first one again where an episode has just begun",
            )
        return torch.stack([self.observed_pixels(frame) for frame in frames])

    def _window_mask(self, observation: Observation) -> np.ndarray:
        real = np.ones(self.settings.window, np.bool_)
        mask = real if observation.window_mask is None else observation.window_mask
        if mask.shape != real.shape:
            raise InvalidData(
                f"a window_mask {mask.shape}, the policy takes {real.shape}",
                where="observation",
                do="say of each frame of the window whether it is real, or leave the mask out",
            )
        return mask

    def blank(
        self,
        rows: int,
        *,
        action_size: int = 7,
        device: str = "cpu",
        prompt_tokens: int = 24,
        answer_tokens: int | None = None,
    ) -> Batch:
        """A batch in the shapes that the network will see, its pixels without content on `device`: to count and time.

        prompt_tokens and answer_tokens (None: those of the action and EOS) size the text, if the policy reads any.
        """
        settings = self.settings
        shape = (rows, settings.window, 3 * len(settings.channel_statistics), settings.image_size, settings.image_size)
        actions = torch.zeros(rows, settings.trained, action_size)
        return Batch(
            pixels={camera: torch.empty(shape, device=device) for camera in settings.cameras},
            window_mask=torch.ones(shape[:2], dtype=torch.bool),
            datasets=[""] * rows,
            action_shape=(settings.trained, action_size),
            proprio=torch.zeros(*shape[:2], settings.proprio) if settings.proprio else None,
            actions=actions,
            normalized=actions,
            chunk_mask=torch.ones(rows, settings.trained, dtype=torch.bool),
            keys=[""] * rows,
            text=self.blank_text(rows, settings.chunk * action_size, prompt_tokens, answer_tokens),
        )

    def blank_text(self, rows: int, action_ids: int, prompt_tokens: int, answer_tokens: int | None) -> TextBatch | None:
        """The text of a blank batch, of so many ids a row; None, because this processor reads none."""
        return None

    def text_width(self, instructions: Iterable[str]) -> int:
        """Least `pad_to` with which no instruction changes the shape of a batch; 0 for a policy that reads none."""
        return 0

    def physical(self, normalized: Float32, datasets: Sequence[str | None]) -> Float32:
        """Normalised actions (B, H, A) in the physical units of each row's dataset."""
        actions = np.stack([self.physical_actions(one, name) for one, name in zip(normalized, datasets, strict=True)])
        if not np.isfinite(actions).all():
            row = int(np.argwhere(~np.isfinite(actions))[0, 0])
            raise ActionNotFinite(
                f"the policy's answer is not a number: {actions[row].tolist()}",
                where=f"answer {row}, dataset {datasets[row] or next(iter(self.statistics))!r}",
                do="do not move the robot; check the weights and the statistics of the checkpoint",
            )
        return actions

    def spelled(self, normalized: Float32) -> dict[str, Any]:
        """An answer (H, A) in the policy's own form, where that is another; plain values for records."""
        return {}

    def from_ids(self, ids: Int64) -> Float32:
        """Normalised actions of ids, for policies that answer in ids. Raises InvalidData for others."""
        raise InvalidData(f"answers as ids of a processor of the kind {self.kind}", where="ids", do="store actions")

    def round_trip(self, actions: Float32, dataset: str) -> Float32:
        """Actions (T, A) as they come back from the form in which the policy learns them."""
        return self.physical_actions(self.normalized_actions(actions, dataset), dataset)

    def normalized_actions(self, actions: Float32, dataset: str | None) -> Float32:
        """Physical actions (..., A) as the network learns them."""
        return normalize(actions, self.statistics_of(dataset), self.settings.normalization)

    def physical_actions(self, normalized: Float32, dataset: str | None) -> Float32:
        """The opposite."""
        return unnormalize(normalized, self.statistics_of(dataset), self.settings.normalization)


def build_processor(
    description: Mapping[str, Any], statistics: Mapping[str, DatasetStatistics] | None = None, seed: int = 0
) -> Processor:
    """The processor that a configuration or a card describes. Raises UnknownName, CheckpointMismatch."""
    kind = PROCESSORS.get(str(description.get("kind", "tokens")))
    if not (isinstance(kind, type) and issubclass(kind, Processor)):
        what = f"{description['kind']} is no processor"
        raise CheckpointMismatch(what, where="processor.kind", do=f"one of {PROCESSORS.names()}")
    return kind(kind.settings_type.from_dict(description), statistics, None, seed)
