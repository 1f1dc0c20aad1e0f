"""RLDS to WebDataset shards: one episode in memory at a time, and a killed run continues after its last shard.

An episode is never split over two shards, its frames are adjacent and in order, actions keep their physical units.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from vlakit import __version__
from vlakit.data.rlds.reader import RecordHeader, RldsFolder, open_rlds, parse_episode, read_record
from vlakit.data.shards.splits import SplitPlan, survey
from vlakit.data.shards.frames import episode_id, episode_members
from vlakit.data.shards.index import SPLITS, STATISTICS_NAME, ShardIndex, load_index, save_index
from vlakit.data.shards.journal import FinishedShard, Journal, already_finished, locked
from vlakit.data.shards.statistics import compute_statistics, default_mask, proprio_columns, save_statistics
from vlakit.data.shards.writer import ShardWriter, tar_bytes
from vlakit.data.specs.spec import DatasetSpec, fingerprint
from vlakit.data.specs.standardize import standardize
from vlakit.errors import ConfigError, InvalidData
from vlakit.schema import Trajectory

log = logging.getLogger(__name__)
LAYOUT = 1  # counts changes of what convert writes; a folder begun with another layout is not continued
UNLABELED, EMPTY = "no instruction", "no step"


class OptionKeywords(TypedDict, total=False):
    """The keyword arguments of `convert` that change what it writes; defaults are those of `ConversionOptions`."""

    max_frames_per_shard: int
    max_bytes_per_shard: int
    val_fraction: float
    cameras: tuple[str, ...]
    image_size: int | None


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """Shard limits, share of episodes held out for val, cameras to keep, square image side in px (None: as stored)."""

    max_frames_per_shard: int = 2000
    max_bytes_per_shard: int = 500_000_000
    val_fraction: float = 0.05
    cameras: tuple[str, ...] = ("primary",)
    image_size: int | None = None

    def check(self, spec: DatasetSpec) -> None:
        """Raise ConfigError for a value that cannot be used with `spec`."""
        sizes = self.max_frames_per_shard, self.max_bytes_per_shard, 1 if self.image_size is None else self.image_size
        if min(sizes) < 1:
            raise ConfigError("shard limits and image_size must be above 0", where=f"dataset {spec.name}")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction {self.val_fraction} is not in [0, 1)", where=f"dataset {spec.name}")
        known = [camera for camera, key in spec.images.items() if key]
        missing = [camera for camera in self.cameras if camera not in known]
        if missing or not self.cameras:
            raise ConfigError(
                f"cameras {list(self.cameras)} cannot be kept", where=f"dataset {spec.name}", do=f"choose from {known}"
            )


@dataclass(slots=True)
class _Conversion:
    """What every step of one conversion needs."""

    source: RldsFolder
    spec: DatasetSpec
    options: ConversionOptions
    journal: Journal
    splits: SplitPlan
    progress: Callable[[int, int], None] | None
    skipped_last: dict[str, int] = field(default_factory=dict)  # after the last shard of a split
    n_done: int = 0

    def advance(self, n_episodes: int = 1) -> None:
        self.n_done += n_episodes
        if self.progress:
            self.progress(self.n_done, sum(self.splits.n_records.values()))


def convert(
    source: Path,
    out: Path,
    spec: DatasetSpec,
    *,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[OptionKeywords],
) -> ShardIndex:
    """Write train and val shards, statistics.json and, last, shardindex.json to `out`; returns that index.

    The same call again continues after the last finished shard, or does nothing when all is done. progress is called
    with (episodes done, episodes in all). Raises ConfigError when `out` holds a conversion with other options, spec
    or source, or is being written; DiskFull; and what reading the source raises.
    """
    chosen = ConversionOptions(**{**options, "cameras": tuple(options.get("cameras", ("primary",)))})
    chosen.check(spec)
    folder = open_rlds(source)
    plan = _plan(folder, spec, chosen)
    with locked(out):
        journal = Journal(out)
        if already_finished(out, plan):
            journal.close()  # a run killed between its last two steps left one
            log.info("%s is already finished: nothing to do", out)
            return load_index(out)
        journal.start(plan)
        splits = survey(folder, chosen.val_fraction)
        conversion = _Conversion(folder, spec, chosen, journal, splits, progress)
        for split in SPLITS:
            _write_split(conversion, split)
        return _finish(conversion, plan)


def _plan(source: RldsFolder, spec: DatasetSpec, options: ConversionOptions) -> dict[str, Any]:
    files = {file.name: file.stat().st_size for files in source.splits.values() for file in files}
    settings = {**asdict(options), "cameras": list(options.cameras)}
    return {
        "layout": LAYOUT,
        "dataset": spec.name,
        "spec": fingerprint(spec),
        "source": {"name": source.name, "file_sizes": files},
        "options": settings,
    }


def _write_split(conversion: _Conversion, split: str) -> None:
    finished = conversion.journal.finished(split)
    consumed = finished[-1].consumed if finished else 0
    if consumed:
        log.info("%s: %d finished shards kept, continuing at record %d", split, len(finished), consumed)
        conversion.advance(consumed)
    number = sum(len(shard.entry.episodes) for shard in finished)
    headers = islice(conversion.splits.records(conversion.source, split), consumed, None)
    shard = _OpenShard(conversion, split, len(finished), consumed)
    try:
        for header in headers:
            trajectory = _read_trajectory(conversion, header)
            reason = _skip_reason(trajectory)
            if reason:
                shard.skip(reason)
            else:
                shard.add(trajectory, episode_id(conversion.spec.name, split, number), str(header))
                number += 1
            conversion.advance()
        shard.close()
    finally:
        shard.abandon()
    for reason, count in shard.skipped.items():
        conversion.skipped_last[reason] = conversion.skipped_last.get(reason, 0) + count


class _OpenShard:
    """The shard that a split's next episode goes to, and how far the source has been consumed."""

    def __init__(self, conversion: _Conversion, split: str, number: int, consumed: int) -> None:
        self.conversion, self.split, self.number, self.consumed = conversion, split, number, consumed
        self.skipped: dict[str, int] = {}
        self.writer: ShardWriter | None = None

    def skip(self, reason: str) -> None:
        self.consumed += 1
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def add(self, trajectory: Trajectory, episode: str, where: str) -> None:
        options = self.conversion.options
        members = episode_members(trajectory, episode, options.cameras, options.image_size, where)
        limits = options.max_frames_per_shard, options.max_bytes_per_shard
        if self.writer and not self.writer.has_room(len(trajectory), tar_bytes(members), *limits):
            self.close()
        if self.writer is None:
            name = f"{self.split}-{self.number:06d}"
            self.writer = ShardWriter(self.conversion.journal.folder, name, self.split)
        proprio = proprio_columns(trajectory.proprio, self.conversion.spec.proprio, len(trajectory))
        self.writer.add(episode, trajectory.action, proprio, members)
        self.consumed += 1

    def close(self) -> None:
        """File the open shard, if there is one."""
        if self.writer is None:
            return
        entry = self.writer.finish()
        self.conversion.journal.record(FinishedShard(entry, self.consumed, self.skipped))
        self.writer, self.skipped, self.number = None, {}, self.number + 1

    def abandon(self) -> None:
        """Delete what an error left half written, but never a shard that was already filed."""
        if self.writer is not None and not self.conversion.journal.is_recorded(self.writer.name):
            self.writer.abandon()


def _read_trajectory(conversion: _Conversion, header: RecordHeader) -> Trajectory:
    spec, where = conversion.spec, str(header)
    payload = read_record(header)
    episode = parse_episode(payload, conversion.source.features, where=where, only=spec.keys())
    metadata = {"source_file": header.file.name, "source_record": header.index}
    return standardize(episode.steps, spec, where=where, metadata=metadata, cameras=conversion.options.cameras)


def _skip_reason(trajectory: Trajectory) -> str | None:
    if not len(trajectory):
        return EMPTY
    return None if any(text.strip() for text in trajectory.instructions) else UNLABELED


def _finish(conversion: _Conversion, plan: dict[str, Any]) -> ShardIndex:
    journal, spec = conversion.journal, conversion.spec
    shards = journal.all_finished()
    if not any(shard.entry.split == "train" for shard in shards):
        raise InvalidData("every train episode was skipped", where=str(conversion.source.path), do=_why(conversion))
    blocks = {kind: list(_mapped(journal.columns(kind, shards))) for kind in ("action", "proprio")}
    action_size = len(blocks["action"][0])
    _check_columns(blocks, shards)
    n_episodes = sum(len(shard.entry.episodes) for shard in shards)
    mask = np.array(spec.mask) if spec.mask else default_mask(action_size)
    statistics = compute_statistics(blocks["action"], blocks["proprio"], n_episodes, mask)
    skipped = dict(conversion.skipped_last)
    for reason, count in (pair for shard in shards for pair in shard.skipped.items()):
        skipped[reason] = skipped.get(reason, 0) + count
    index = ShardIndex(
        dataset=spec.name,
        shards=tuple(shard.entry for shard in shards),
        vlakit_version=__version__,
        cameras=conversion.options.cameras,
        action_size=action_size,
        absolute_action_mask=tuple(spec.absolute_action_mask or (not bool(value) for value in mask)),
        split_rule=conversion.splits.rule,
        proprio=spec.proprio,
        skipped=dict(sorted(skipped.items())),
        plan=plan,
    )
    save_statistics(journal.out / STATISTICS_NAME, {spec.name: statistics})
    save_index(journal.out, index)
    journal.close()
    return index


def _mapped(paths: list[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        rows = np.load(path, mmap_mode=None if path.stat().st_size < 4096 else "r")  # an empty file cannot be mapped
        yield rows


def _check_columns(blocks: dict[str, list[np.ndarray]], shards: list[FinishedShard]) -> None:
    for kind, found in blocks.items():
        for block, shard in zip(found, shards, strict=True):
            if len(block) != len(found[0]):
                message = f"{kind} of {len(block)} values where the first shard has {len(found[0])}"
                raise InvalidData(message, where=shard.entry.url, do="check the dataset's spec")


def _why(conversion: _Conversion) -> str:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in conversion.skipped_last.items())
    return f"check the spec's language and frame filter (skipped: {reasons})"
