"""Random access to the frames of a shard folder; history windows and action chunks are made here, at load time.

Past the end of an episode a relative action is zero and an absolute one, the gripper, repeats, as OpenVLA pads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vlakit.data.rlds.images import decode_image
from vlakit.data.shards.cache import CacheOptions
from vlakit.data.shards.columns import load_columns, open_columns
from vlakit.data.shards.home import Home, LocalHome, home_of
from vlakit.data.shards.index import STATISTICS_NAME, ShardIndex, load_index
from vlakit.data.shards.statistics import load_statistics
from vlakit.data.shards.table import ShardTable
from vlakit.errors import ConfigError, InvalidData, StatisticsMissing, UnknownName, nearest, printable
from vlakit.schema import DatasetStatistics, Float32, Int64, Sample

FOLDER = TypeVar("FOLDER")
OPEN_SHARDS = 24  # 1.5 shuffle groups of 16; each costs a file descriptor and 0.3 MB per 2,000 frames


class SampleRef(NamedTuple):
    """One frame by place: dataset, number of the shard in its index, frame in that shard; position in the stream."""

    dataset: str
    shard: int
    frame: int
    position: int = 0


class EpisodeRow(NamedTuple):
    """Where one demonstration lies."""

    episode: str
    shard: int
    first_frame: int
    n_frames: int


class ShardFolder:
    """One finished dataset on disk; cheap to open, and to send to a worker process, which opens its own files."""

    def __init__(
        self,
        path: Path,
        index: ShardIndex,
        statistics: DatasetStatistics,
        open_shards: int = OPEN_SHARDS,
        home: Home | None = None,
    ) -> None:
        self.path, self.index, self.statistics, self.open_shards = path, index, statistics, open_shards
        self.home = home or LocalHome(path)
        self._tables: OrderedDict[int, ShardTable] = OrderedDict()

    @classmethod
    def open(
        cls, path: str | Path, *, open_shards: int = OPEN_SHARDS, remote: CacheOptions | None = None
    ) -> ShardFolder:
        """Read index and statistics of a folder that `convert` wrote; at most `open_shards` tars stay open a process.

        A URL (s3://, https://) is read through a local cache, as `remote` says; its shards come when they are read.

        Fewer open shards than a shuffle group has make every read scan a tar again. Each shard has the size that the
        index says; its hash is checked when it is first read, or by `check`.
        Raises NotAShardFolder (an unfinished one says so), InvalidData, StatisticsMissing, CorruptRecord, Unreachable.
        """
        home = home_of(path, remote)
        index = load_index(home.folder)
        statistics = load_statistics(home.folder / STATISTICS_NAME)
        if index.dataset not in statistics:
            raise StatisticsMissing(
                f"no action statistics for dataset {index.dataset!r}",
                where=f"{home.folder / STATISTICS_NAME} (has: {', '.join(statistics) or 'none'})",
                do="convert the dataset again",
            )
        home.check_index(index.shards)
        return cls(home.folder, index, statistics[index.dataset], open_shards, home)

    @property
    def place(self) -> str:
        """The folder, or its URL."""
        return self.home.place

    def check(self) -> None:
        """Hash all shards that lie here; of remote ones, which are hashed when they come, look at the sizes.

        Raises CorruptRecord: a flipped byte is known before training.
        """
        self.home.check(self.index.shards)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.index.dataset

    @property
    def splits(self) -> list[str]:
        """Splits that hold at least one frame."""
        return self.index.splits

    @property
    def content_hash(self) -> str:
        """sha256 (hex) over the hashes of all shards: the same data, in the same order."""
        return sha256("\n".join(shard.sha256 for shard in self.index.shards).encode()).hexdigest()

    @cached_property
    def first_rows(self) -> list[int]:
        """Frames in front of each shard, in the order of the index, and all frames at the end."""
        return [0, *accumulate(shard.nsamples for shard in self.index.shards)]

    def shards(self, split: str) -> list[tuple[int, int]]:
        """(number in the index, frames) of each shard of a split, in order; InvalidData when there is none."""
        shards = [(number, shard.nsamples) for number, shard in enumerate(self.index.shards) if shard.split == split]
        if not sum(n_frames for _, n_frames in shards):
            raise InvalidData(
                f"dataset {self.dataset!r} has no {split} frames",
                where=str(self.path),
                do=f"it has {', '.join(self.splits)}; convert again with another val_fraction (to train on too few"
                " episodes to hold one out: trainer.limit_val_batches=0)",
            )
        return shards

    def episodes(self, split: str) -> list[EpisodeRow]:
        """All demonstrations of a split, in order."""
        rows = []
        for number, shard in enumerate(self.index.shards):
            first = 0
            for episode, n_frames in shard.episodes if shard.split == split else ():
                rows.append(EpisodeRow(episode, number, first, n_frames))
                first += n_frames
        return rows

    def picture_size(self, camera: str) -> list[int] | None:
        """Width and height of a camera's pictures, by the first; None where the conversion made them square."""
        if self.index.plan.get("options", {}).get("image_size") is not None:
            return None
        first = next(number for number, shard in enumerate(self.index.shards) if shard.nsamples)
        height, width, _ = decode_image(self._table(first).image(camera, 0)).shape
        return [width, height]

    def instructions(self) -> set[str]:
        """All that differ, of all splits."""
        index, texts = self.index, set[bytes]()
        self.home.bring_columns(index.shards)
        for entry in index.shards:
            with self.home.bring(entry) if load_columns(self.path, entry) is None else nullcontext():
                texts |= set(open_columns(self.path, entry, index.cameras, index.proprio)["instruction"].tolist())
        return {printable(text.decode()) for text in texts}

    def read_sample(
        self, ref: SampleRef, *, window: int = 1, chunk: int = 1, cameras: Sequence[str] | None = None
    ) -> Sample:
        """The frame `ref` with the window - 1 frames before it and the chunk of actions from it on; still encoded.

        cameras: those to read, all by default. Raises InvalidData for a frame that the shard lacks, UnknownName for
        such a camera, CorruptRecord when the shard is damaged.
        """
        table = self._table(ref.shard)
        if not 0 <= ref.frame < len(table):
            raise InvalidData(f"no frame {ref.frame}, it has {len(table)}", where=str(table.path))
        if window < 1 or chunk < 1:
            raise ConfigError(f"window {window} and chunk {chunk} must be at least 1")
        first, end = table.episode_of(ref.frame)
        wanted = np.arange(ref.frame - window + 1, ref.frame + 1)
        frames = np.maximum(wanted, first)
        ahead = ref.frame + np.arange(chunk)
        return Sample(
            key=table.key(ref.frame),
            dataset=self.dataset,
            instruction=table.instruction(ref.frame),
            images={camera: _images(table, camera, frames) for camera in self._cameras(cameras)},
            actions=self._chunk(table.action, ahead, end),
            window_mask=wanted >= first,
            chunk_mask=ahead < end,
            previous_action=table.action[ref.frame - 1].copy() if ref.frame > first else None,
            past=table.action[frames[:-1]].astype(np.float32, copy=False),
            proprio=table.proprio[frames] if any(self.index.proprio) else None,
            position=ref.position,
            row=self.first_rows[ref.shard] + ref.frame,
        )

    def close(self) -> None:
        """Close all open shards."""
        while self._tables:
            self._tables.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": OrderedDict()}

    def _cameras(self, cameras: Sequence[str] | None) -> Sequence[str]:
        unknown = set(cameras or ()) - set(self.index.cameras)
        if unknown:
            what = f"the shards have no camera {min(unknown)!r}"
            remedy = f"{nearest(min(unknown), self.index.cameras)} or convert again with cameras=[...]"
            raise UnknownName(what, where=str(self.path), do=remedy)
        return self.index.cameras if cameras is None else cameras

    def _chunk(self, action: Float32, ahead: np.ndarray, end: int) -> Float32:
        actions = action[np.minimum(ahead, end - 1)]  # (H, A)
        neutral = np.where(np.array(self.index.absolute_action_mask), action[end - 1], 0)
        actions[ahead >= end] = neutral
        return actions.astype(np.float32, copy=False)

    def _table(self, shard: int) -> ShardTable:
        table = self._tables.get(shard)
        if table is not None:
            self._tables.move_to_end(shard)
            return table
        if not 0 <= shard < len(self.index.shards):
            raise InvalidData(f"no shard {shard}, there are {len(self.index.shards)}", where=str(self.path))
        while len(self._tables) >= max(self.open_shards, 1):
            self._tables.popitem(last=False)[1].close()
        entry = self.index.shards[shard]
        self.home.bring_columns([entry])
        table = self._tables[shard] = ShardTable(self.path, entry, self.index, self.home.bring(entry))
        return table


def _images(table: ShardTable, camera: str, frames: Int64) -> list[bytes]:
    encoded = {frame: table.image(camera, frame) for frame in set(frames.tolist())}
    return [encoded[frame] for frame in frames.tolist()]


def folder_of(folders: Mapping[str, FOLDER], dataset: str) -> FOLDER:
    """The folder of a dataset; UnknownName with the nearest names."""
    if dataset not in folders:
        raise UnknownName(f"no shard folder holds dataset {dataset!r}", do=nearest(dataset, folders))
    return folders[dataset]
