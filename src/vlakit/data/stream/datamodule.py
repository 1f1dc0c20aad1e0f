"""`VLADataModule`: shard folders to batches, and the stream's position into every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from vlakit.data.questions import QuestionFolder
from vlakit.data.shards.cache import CacheOptions
from vlakit.data.shards.convert import ensure
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.shards.remote import url_of
from vlakit.data.source import source_folder
from vlakit.data.specs.spec import DatasetSpec, load_mixture, load_spec, spec_names
from vlakit.data.stream.later import chosen
from vlakit.data.stream.loading import Collate, MixtureSampler, SampleDataset, deaf
from vlakit.data.stream.mixture import MixtureEntry, MixtureOrder, SequentialOrder, mixture_entry, with_share
from vlakit.errors import ConfigError, InvalidData
from vlakit.processing.augment import augmentation
from vlakit.processing.processor import Processor
from vlakit.processing.tokens import token_processor
from vlakit.schema import Batch, Sample

LOSSES = ("example", "token")


@dataclass(frozen=True)
class LoadOptions:
    """How samples are made at load time: augmentation, shards shuffled together; the processor says window and chunk.

    augment: a name of processing/augment.py; true means OpenVLA's. val_fraction is for a dataset that is converted on
    the way; made_by: the command that makes its source, for those who lack it. questions: name -> folder or file of
    questions about pictures (data/questions.py); mix: as `Mix` has it. later: {mixture: NAME or weights, step: N}, from
    optimizer step N on. remote: as `CacheOptions` has it.
    """

    augment: bool | str | None = False
    shuffle_shards: int = 16
    val_fraction: float = 0.05
    made_by: str | None = None
    questions: Mapping[str, str] | None = None
    mix: Mapping[str, Any] = field(default_factory=dict[str, Any])
    later: Mapping[str, Any] = field(default_factory=dict[str, Any])
    remote: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Mix:
    """robot: which share of the rows are robot data, 0 to 1; the others are questions, by their numbers.

    loss: "example", each row weighs the same, so that the share is one of the loss too; "token", each id does.
    """

    robot: float = 1.0
    loss: str = "example"

    def __post_init__(self) -> None:
        if not 0 <= self.robot <= 1 or self.loss not in LOSSES:
            do = f"robot is from 0 to 1, loss one of {', '.join(LOSSES)}"
            raise ConfigError(f"robot {self.robot}, loss {self.loss!r}", where="data.mix", do=do)


class VLADataModule(LightningDataModule):
    """Batches of a mixture: {dataset: weight}, or the name of one in conf/mixture, under `root`, one folder a dataset.

    A dataset that is not there yet is converted from `sources[dataset]` if that names a dataset, as its spec says:
    the file `specs[dataset]`, else the one of its name in conf/dataset. batch_size counts the samples of one device.
    `processor` leaves with the datasets' statistics: take `self.processor` from here on. `root` may be a URL (s3://,
    https://) of finished folders, where nothing is converted.
    """

    def __init__(
        self,
        processor: Processor,
        mixture: str | Mapping[str, float],
        root: str,
        *,
        batch_size: int,
        seed: int,
        num_workers: int = 0,
        sources: Mapping[str, str] | None = None,
        specs: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = LoadOptions(**options)
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        weights = load_mixture(mixture).datasets if isinstance(mixture, str) else dict(mixture)
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.specs = dict(specs or {})
        cameras = processor.settings.cameras
        # Before the shards, which may take hours to make: what is wrong with questions is known in seconds.
        asked = self.options.questions or {}
        self.questions = {name: self._asked(processor, name, place) for name, place in asked.items()}
        self.mix = Mix(**self.options.mix)
        if self.mix.robot < 1 and not self.questions:
            what = f"data.mix.robot is {self.mix.robot}, and there are no questions to mix in"
            raise ConfigError(what, where="data.questions", do="data.questions={NAME: DIR}, or data.mix.robot=1")
        self.shards = {name: self._open(Path(root) / name, name, sources or {}, cameras) for name in self.weights}
        statistics = {name: s.statistics for name, s in self.shards.items()}
        self.processor = processor.for_training(statistics, augmentation(self.options.augment))
        self.processor.check_instructions(text for folder in self.shards.values() for text in folder.instructions())
        self._sampler: MixtureSampler | None = None
        self._restored: dict[str, Any] | None = None
        self._first_step = 0

    @property
    def hashes(self) -> dict[str, str]:
        """Dataset -> sha256 over its shards, or its questions."""
        return {name: folder.content_hash for name, folder in self._folders.items()}

    @property
    def folders(self) -> dict[str, str]:
        """Dataset -> its shard folder."""
        return {name: folder.place for name, folder in self.shards.items()}

    @property
    def surroundings(self) -> dict[str, dict[str, Any]]:
        """Dataset -> which camera the policy sees, how large it is and, where the spec says it, the control rate."""
        specified = {*self.specs, *spec_names()} & self.shards.keys()
        rates = {name: self._spec(name).control_hz for name in specified}
        camera = self.processor.settings.cameras[0]
        known = {
            name: {"camera": camera, "picture": folder.picture_size(camera), "control_hz": rates.get(name)}
            for name, folder in self.shards.items()
        }
        return {name: {key: value for key, value in one.items() if value is not None} for name, one in known.items()}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless shuffled batches, from the position of the checkpoint that was restored, if any."""
        world_size, rank = self._world()
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        order = MixtureOrder(
            self._entries(self.weights),
            later=chosen(self.options.later, self._entries, accumulated),
            seed=self.seed,
            batch_size=self.batch_size * world_size,
            shuffle_shards=self.options.shuffle_shards,
            rank=rank,
            world_size=world_size,
        )
        self._sampler = MixtureSampler(order)
        if self._restored is not None:
            self._sampler.load_state_dict(self._restored)
        self._first_step = self.trainer.global_step if self.trainer else 0
        return self._loader(self.processor, self._sampler)

    def _entries(self, weights: Mapping[str, float]) -> list[MixtureEntry]:
        own = [mixture_entry(self.shards[name], weight) for name, weight in weights.items() if name in self.shards]
        return with_share(own, [mixture_entry(folder) for folder in self.questions.values()], self.mix.robot)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every held-out frame once, in order, never augmented; then every held-out question, mixed in or not."""
        world_size, rank = self._world()
        entries = [mixture_entry(folder, split="val") for folder in self._folders.values()]
        order = SequentialOrder(entries, batch_size=self.batch_size, rank=rank, world_size=world_size)
        return self._loader(self.processor.for_validation(), order)

    def golden_samples(self, n_samples: int) -> list[Sample]:
        """Frames spread evenly over the held-out ones, for a checkpoint's contract; over training ones without any."""
        episodes = [
            (folder, row)
            for folder in self.shards.values()
            for row in folder.episodes("val" if "val" in folder.splits else "train")
        ]
        n_samples = min(n_samples, len(episodes))
        chosen = [episodes[i * len(episodes) // n_samples] for i in range(n_samples)]
        frames = [(folder, row.shard, row.first_frame + row.n_frames // 2) for folder, row in chosen]
        return [
            folder.read_sample(SampleRef(folder.dataset, shard, frame), window=self.processor.settings.window)
            for folder, shard, frame in frames
        ]

    def state_dict(self) -> dict[str, Any]:
        """The stream's state behind the last batch that an optimizer step used, though workers have read further."""
        if self._sampler is None or self.trainer is None:
            return {}
        steps = self.trainer.global_step - self._first_step
        return self._sampler.state_after(steps * self.trainer.accumulate_grad_batches)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember where to go on; applied when the loader is built."""
        self._restored = state_dict or None

    def _loader(self, processor: Processor, order: MixtureSampler | SequentialOrder) -> DataLoader[Batch]:
        # torch's types know neither references in place of row numbers nor that collate changes the type of a batch.
        settings = processor.settings
        dataset: Any = SampleDataset(
            self._folders, processor.encode, window=settings.window, chunk=settings.ahead, cameras=settings.cameras
        )
        sampler: Any = order
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=Collate(processor.collate, balanced=self.mix.robot < 1 and self.mix.loss == "example"),
            num_workers=self.num_workers,
            worker_init_fn=deaf,
            # Of its own: a loader draws a seed whenever its workers begin, and a resumed run begins them once more.
            generator=torch.Generator().manual_seed(self.seed),
            persistent_workers=self.num_workers > 0,
        )

    @property
    def _folders(self) -> dict[str, ShardFolder | QuestionFolder]:
        return {**self.shards, **self.questions}

    def _asked(self, processor: Processor, name: str, place: str) -> QuestionFolder:
        if name in self.weights:
            raise ConfigError(f"questions and shards of one name, {name!r}", where="data.questions", do="rename one")
        reading = token_processor(processor, purpose="data.questions")
        folder = QuestionFolder.open(place, name, val_fraction=self.options.val_fraction)
        reading.check_answers((one.answer for one in folder.texts()), where=str(folder.file))
        reading.check_instructions(one.question for one in folder.texts())
        return folder

    def _world(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _spec(self, dataset: str) -> DatasetSpec:
        return load_spec(self.specs.get(dataset, dataset))

    def _check_source(self, source: Path, shards: Path) -> None:
        if self.options.made_by and not source.exists() and not shards.exists():
            raise InvalidData("its source is not there yet", where=str(source), do=self.options.made_by)

    def _open(self, folder: Path, dataset: str, sources: Mapping[str, str], cameras: Sequence[str]) -> ShardFolder:
        fraction = self.options.val_fraction
        if url_of(folder) is not None:
            return self._checked(self._open_remote(folder), dataset, cameras)
        if dataset in sources:
            self._check_source(source_folder(sources[dataset]), folder)
            options = {"val_fraction": fraction, "cameras": cameras}
            ensure(source_folder(sources[dataset]), folder, self._spec(dataset), **options)
        shards = ShardFolder.open(folder)
        held_out = shards.index.plan.get("options", {}).get("val_fraction", fraction)
        if dataset in sources and held_out != fraction:
            what = f"data.val_fraction is {fraction}, the shards that are there were made with {held_out}"
            do = f"set data.val_fraction={held_out}, or paths.data to another folder"
            raise ConfigError(what, where=str(folder), do=do)
        return self._checked(shards, dataset, cameras)

    def _open_remote(self, url: Path) -> ShardFolder:
        """With as many open shards as a group that is shuffled needs, and half of the next, for which there is room."""
        n_open = -(-3 * self.options.shuffle_shards // 2)
        shards = ShardFolder.open(url, open_shards=n_open, remote=CacheOptions(**self.options.remote))
        shards.home.check_room(shards.index.shards, n_open)
        return shards

    def _checked(self, shards: ShardFolder, dataset: str, cameras: Sequence[str]) -> ShardFolder:
        shards.check()
        missing = [camera for camera in cameras if camera not in shards.index.cameras]
        if missing:
            raise InvalidData(
                f"no camera {missing[0]!r} in dataset {dataset!r}: its shards hold {', '.join(shards.index.cameras)}",
                where=shards.place,
                do=f"remove it, or name another paths.data; by hand: vlakit shards ... cameras=[{','.join(cameras)}]",
            )
        return shards
