"""The order of training as explicit data: every batch is a pure function of the seed and a few cursors.

Frames are shuffled within groups of shards read together, so a resumed, a sharded or a many-worker run draws the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from vlakit.data.questions import QuestionFolder
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.stream.later import Later
from vlakit.errors import CheckpointMismatch, ConfigError, InvalidData
from vlakit.schema import Int64

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class MixtureEntry:
    """One dataset of a mixture. shards: (number in its index, frames); hash: of the data, empty when unknown."""

    dataset: str
    shards: tuple[tuple[int, int], ...]
    weight: float = 1.0
    hash: str = ""

    @property
    def n_frames(self) -> int:
        """Transitions of the split."""
        return sum(n_frames for _, n_frames in self.shards)


def mixture_entry(folder: ShardFolder | QuestionFolder, weight: float = 1.0, split: str = "train") -> MixtureEntry:
    """The entry of a folder; raises InvalidData when the split is empty."""
    return MixtureEntry(folder.dataset, tuple(folder.shards(split)), weight, folder.content_hash)


def with_share(entries: Sequence[MixtureEntry], others: Sequence[MixtureEntry], share: float) -> list[MixtureEntry]:
    """One mixture in which `entries` make up `share` of the rows; within either part all is as it was.

    A share of 1 leaves the entries as they are, and so the order that they are drawn in; 0 leaves the others alone.
    """
    if share in (0, 1):
        return list(entries if share else others)
    own, further = (sum(one.weight * one.n_frames for one in part) for part in (entries, others))
    factor = own * (1 - share) / (share * further)
    return [*entries, *(replace(one, weight=one.weight * factor) for one in others)]


def _generator(*names: object) -> np.random.Generator:
    """A generator that is a pure function of `names`, on every machine and in every process."""
    key = np.frombuffer(sha256("/".join(map(str, names)).encode()).digest()[:16], "<u8")
    return np.random.Generator(np.random.Philox(key=key))


class EndlessFrames:
    """One dataset's frames for ever: each epoch visits each frame once, groups of `shuffle_shards` shards at a time."""

    def __init__(self, entry: MixtureEntry, seed: int, shuffle_shards: int) -> None:
        self.entry, self.seed, self.shuffle_shards = entry, seed, shuffle_shards
        self._sizes: Int64 = np.array([n_frames for _, n_frames in entry.shards], np.int64)
        self._epoch: tuple[int, Int64, Int64] | None = None  # epoch, shards in order, first offset of each group
        self._group: tuple[tuple[int, int], npt.NDArray[np.int32]] | None = None  # (epoch, group), (n, 2) shard, frame

    def at(self, cursor: int) -> tuple[int, int]:
        """(shard, frame) of the cursor-th draw."""
        epoch, offset = divmod(cursor, self.entry.n_frames)
        _, order, bounds = self._epoch_order(epoch)
        group = int(np.searchsorted(bounds, offset, "right")) - 1
        shard, frame = self._group_frames(epoch, group, order)[offset - int(bounds[group])]
        return int(shard), int(frame)

    def _epoch_order(self, epoch: int) -> tuple[int, Int64, Int64]:
        if self._epoch is None or self._epoch[0] != epoch:
            order = _generator("shards", self.seed, self.entry.dataset, epoch).permutation(len(self._sizes))
            starts = np.cumsum([0, *self._sizes[order]])[:-1]
            self._epoch = epoch, order, starts[:: self.shuffle_shards]
        return self._epoch

    def _group_frames(self, epoch: int, group: int, order: Int64) -> npt.NDArray[np.int32]:
        if self._group is None or self._group[0] != (epoch, group):
            members = order[group * self.shuffle_shards : (group + 1) * self.shuffle_shards]
            shards = np.repeat([self.entry.shards[member][0] for member in members], self._sizes[members])
            frames = np.concatenate([np.arange(size) for size in self._sizes[members]])
            shuffled = _generator("frames", self.seed, self.entry.dataset, epoch, group).permutation(len(frames))
            self._group = (epoch, group), np.stack([shards, frames], axis=1).astype(np.int32)[shuffled]
        return self._group[1]


class MixtureOrder:
    """Endless batches of frames from several datasets, dataset i with probability ~ weight_i * its transitions.

    batch_size is that of all ranks together; rank r of world_size gets the r-th slice of each batch.
    """

    def __init__(
        self,
        entries: Sequence[MixtureEntry],
        *,
        seed: int,
        batch_size: int,
        shuffle_shards: int = 16,
        rank: int = 0,
        world_size: int = 1,
        later: Later | None = None,
    ) -> None:
        """Raises ConfigError for datasets named twice, weights or sizes below 1; InvalidData for an empty split."""
        _check_entries(entries)
        if batch_size < 1 or shuffle_shards < 1 or batch_size % world_size:
            raise ConfigError(
                f"batch_size {batch_size}, shuffle_shards {shuffle_shards}, world_size {world_size} do not go together",
                do="both must be above 0, and batch_size a multiple of world_size",
            )
        self.entries, self.seed, self.batch_size, self.shuffle_shards = list(entries), seed, batch_size, shuffle_shards
        rows = batch_size // world_size
        self._rows = slice(rank * rows, (rank + 1) * rows)
        shares = np.array([entry.weight * entry.n_frames for entry in entries], np.float64)
        self.probabilities = shares / shares.sum()  # (number of datasets,)
        self._bounds = np.cumsum(self.probabilities)[:-1]
        self.later = later
        self._later_bounds = later.bounds({entry.dataset: entry.n_frames for entry in entries}) if later else None
        self._frames = [EndlessFrames(entry, seed, shuffle_shards) for entry in entries]
        self._batch = 0
        self._cursors = [0] * len(entries)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of all that the order depends on: data, weights, seed, sizes; not of rank or world size."""
        content = [[asdict(entry) for entry in self.entries], self.seed, self.batch_size, self.shuffle_shards]
        content += [asdict(self.later)] if self.later else []
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def choices(self, batch: int) -> Int64:
        """Which dataset each row of a batch is drawn from, (batch_size,) indices into entries."""
        key = np.frombuffer(sha256(f"choices/{self.seed}".encode()).digest()[:16], "<u8")
        # The batch number goes into the second counter word: draws within a batch count up the first.
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, batch, 0, 0]))
        changed = self.later is not None and batch >= self.later.first
        bounds = self._later_bounds if changed and self._later_bounds is not None else self._bounds
        return np.searchsorted(bounds, generator.random(self.batch_size), "right")

    def __iter__(self) -> Iterator[list[SampleRef]]:
        """Go on from the current state, without end."""
        while True:
            yield self.next_batch()

    def next_batch(self) -> list[SampleRef]:
        """This rank's rows of the next batch."""
        first = self._batch * self.batch_size
        refs = []
        for row, chosen in enumerate(self.choices(self._batch).tolist()):
            if self._rows.start <= row < self._rows.stop:
                shard, frame = self._frames[chosen].at(self._cursors[chosen])
                refs.append(SampleRef(self.entries[chosen].dataset, shard, frame, first + row))
            self._cursors[chosen] += 1
        self._batch += 1
        return refs

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on from here, as plain JSON values."""
        cursors = {entry.dataset: cursor for entry, cursor in zip(self.entries, self._cursors, strict=True)}
        return {
            "version": STATE_VERSION,
            "seed": self.seed,
            "batch": self._batch,
            "cursors": cursors,
            "fingerprint": self.fingerprint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; CheckpointMismatch when data, weights, seed or sizes differ."""
        if state.get("version") != STATE_VERSION or state.get("fingerprint") != self.fingerprint:
            before, now = sorted(state.get("cursors", {})), sorted(entry.dataset for entry in self.entries)
            detail = f"datasets {before} became {now}" if before != now else "shards, weights, seed or sizes changed"
            raise CheckpointMismatch(
                f"the saved position in the data belongs to another mixture: {detail}",
                do="resume with the data, weights, seed and batch size of the run, or start a new one",
            )
        self._batch = int(state["batch"])
        self._cursors = [int(state["cursors"][entry.dataset]) for entry in self.entries]

    def epochs(self) -> dict[str, float]:
        """How often each dataset has been visited so far."""
        pairs = zip(self.entries, self._cursors, strict=True)
        return {entry.dataset: cursor / entry.n_frames for entry, cursor in pairs}


class SequentialOrder:
    """Every frame of a split once and in order, for validation; rank r takes each world_size-th frame from r on."""

    def __init__(self, entries: Sequence[MixtureEntry], *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        _check_entries(entries)
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size} must be above 0")
        self.entries, self.batch_size, self.rank, self.world_size = list(entries), batch_size, rank, world_size

    def __len__(self) -> int:
        n_frames = sum(entry.n_frames for entry in self.entries)
        return -(-len(range(self.rank, n_frames, self.world_size)) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleRef]]:
        batch: list[SampleRef] = []
        for ref in self._refs():
            if ref.position % self.world_size == self.rank:
                batch.append(ref)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _refs(self) -> Iterator[SampleRef]:
        position = 0
        for entry in self.entries:
            for shard, n_frames in entry.shards:
                for frame in range(n_frames):
                    yield SampleRef(entry.dataset, shard, frame, position)
                    position += 1


def _check_entries(entries: Sequence[MixtureEntry]) -> None:
    counts = Counter(entry.dataset for entry in entries)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice or not entries:
        what = f"dataset {', '.join(twice)} named twice" if twice else "no dataset"
        raise ConfigError(f"{what} in a mixture", do="name each dataset once and give it one weight")
    for entry in entries:
        if not 0 < entry.weight < float("inf"):
            raise ConfigError(f"weight {entry.weight} of {entry.dataset!r} is not above 0", do="leave the dataset out")
        if not entry.n_frames:
            raise InvalidData(
                f"dataset {entry.dataset!r} has an empty split", do="convert it with another val_fraction"
            )
