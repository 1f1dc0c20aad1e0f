"""Read a whole shard folder again and say all that is wrong with it; every image is decoded.

The bytes are compared with the index, the frames with the episodes it lists, the statistics with the actions.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from vlakit.data.rlds.images import decode_image
from vlakit.data.shards.cache import CacheOptions, ShardCache
from vlakit.data.shards.columns import columns_path, load_columns, proprio_row, scan
from vlakit.data.shards.frames import LOWDIM, LOWDIM_ERRORS, META, frame_key, image_member, parse_lowdim
from vlakit.data.shards.index import INDEX_NAME, STATISTICS_NAME, ShardEntry, ShardIndex, load_index
from vlakit.data.shards.remote import url_of
from vlakit.data.shards.statistics import NAMES, compute_statistics, load_statistics
from vlakit.errors import CorruptRecord, VlakitError
from vlakit.files import content_hash
from vlakit.schema import DatasetStatistics, Float32

Frame = tuple[str, dict[str, bytes]]  # key, ending -> content


def verify(folder: Path) -> list[str]:
    """All problems of a shard folder as `file, key: what is wrong`; an empty list when there is none.

    One behind a URL is read through the usual cache, shard by shard. Raises Unreachable, NotAShardFolder for that.
    """
    url = url_of(folder)
    cache = None if url is None else ShardCache.open(url, CacheOptions())
    folder = folder if cache is None else cache.folder
    try:
        index = load_index(folder)
        if cache is not None:
            cache.check_index(index.shards)
    except VlakitError as error:
        return [f"{INDEX_NAME}: {error.what}"]
    problems = _stray_files(folder, index)
    actions: list[Float32] = []
    proprio: list[Float32] = []
    for shard in index.shards:
        check = _ShardCheck(folder / shard.url, shard, index)
        try:
            with nullcontext() if cache is None else cache.bring(shard):
                problems += check.run()
        except CorruptRecord as error:
            problems.append(f"{shard.url}: {error.what}")
        actions += check.actions
        proprio += check.proprio
    complete = sum(block.shape[1] for block in actions) == sum(shard.nsamples for shard in index.shards)
    if complete:
        problems += _check_statistics(folder / STATISTICS_NAME, index, actions, proprio)
    elif not (folder / STATISTICS_NAME).is_file():
        problems.append(f"{STATISTICS_NAME}: missing")
    return problems


class _ShardCheck:
    """All checks of one tar; actions and proprio of its sound frames are collected as (D, 1) columns side by side."""

    def __init__(self, path: Path, shard: ShardEntry, index: ShardIndex) -> None:
        self.path, self.shard, self.index = path, shard, index
        self.problems: list[str] = []
        self.actions: list[Float32] = []
        self.proprio: list[Float32] = []
        self._rows: list[tuple[Float32, Float32]] = []

    def run(self) -> list[str]:
        if not self.path.is_file():
            return [f"{self.shard.url}: missing"]
        self._check_bytes()
        try:  # before a list is made of what is claimed
            replace(self.shard, filesize=self.path.stat().st_size).check(len(self.index.cameras), self.path)
        except VlakitError as error:
            return [*self.problems, error.what]
        keys = []
        steps = self._expected()
        try:
            for key, members in _frames(self.path):
                keys.append(key)
                self._check_frame(key, members, steps.get(key))
        except (tarfile.TarError, OSError, EOFError) as error:
            self._report(f"the tar is broken after {keys[-1] if keys else 'its start'}: {error}")
        self._check_order(keys, list(steps))
        if self._rows:
            self.actions.append(np.stack([action for action, _ in self._rows], axis=1))
            self.proprio.append(np.stack([values for _, values in self._rows], axis=1))
        if not self.problems:
            self._check_columns()
        return self.problems

    def _check_columns(self) -> None:
        """Columns that are missing, or of another tar, are made again when they are read: that is no problem."""
        kept = load_columns(self.path.parent, self.shard)
        made = scan(self.path, self.shard, self.index.cameras, self.index.proprio)
        if kept is not None and kept.tobytes() != made.tobytes():
            self._report(f"{columns_path(self.path.parent, self.shard).name} is not what the tar holds: delete it")

    def _report(self, what: str, key: str = "") -> None:
        self.problems.append(f"{self.shard.url}, {key}: {what}" if key else f"{self.shard.url}: {what}")

    def _expected(self) -> dict[str, tuple[str, int, int]]:
        """Key -> (episode, step, number of steps), in the order that the index promises."""
        return {
            frame_key(episode, step): (episode, step, n_frames)
            for episode, n_frames in self.shard.episodes
            for step in range(n_frames)
        }

    def _check_bytes(self) -> None:
        size = self.path.stat().st_size
        if size != self.shard.filesize:
            self._report(f"{size} bytes, the index says {self.shard.filesize}")
        if content_hash(self.path) != self.shard.sha256:
            self._report("its sha256 is not that of the index")

    def _check_order(self, keys: list[str], expected: list[str]) -> None:
        if len(expected) != self.shard.nsamples:
            self._report(f"the index counts {self.shard.nsamples} samples, its episodes {len(expected)}")
        if keys == expected:
            return
        counts, known = Counter(keys), set(expected)
        findings = {key: "this frame is missing" for key in expected if key not in counts}
        findings |= {key: "its members are not adjacent" for key, count in counts.items() if count > 1}
        findings |= {key: "the index knows no such frame" for key in counts if key not in known}
        if not findings:
            misplaced = next(key for key, wanted in zip(keys, expected, strict=True) if key != wanted)
            findings = {misplaced: "the frames of its episodes are not in order from here on"}
        for key, what in findings.items():
            self._report(what, key)

    def _check_frame(self, key: str, members: dict[str, bytes], place: tuple[str, int, int] | None) -> None:
        endings = [*(image_member(camera) for camera in self.index.cameras), LOWDIM, META]
        for ending in endings:
            if ending not in members:
                self._report(f"no {ending}", key)
        for ending in members.keys() - set(endings):
            self._report(f"an unknown member {ending}", key)
        for camera in self.index.cameras:
            self._check_image(key, image_member(camera), members.get(image_member(camera)))
        if LOWDIM in members:
            self._check_lowdim(key, members[LOWDIM])
        if META in members:
            self._check_meta(key, members[META], place)

    def _check_image(self, key: str, ending: str, data: bytes | None) -> None:
        if data is None:
            return
        try:
            height, width, _ = decode_image(data).shape
        except VlakitError as error:
            self._report(f"{ending}: {error.what}", key)
            return
        side = self.index.plan.get("options", {}).get("image_size")
        if side is not None and (height, width) != (side, side):
            self._report(f"{ending} is {width} x {height}, not {side} x {side}", key)

    def _check_lowdim(self, key: str, data: bytes) -> None:
        try:
            arrays = parse_lowdim(data)
            action = arrays["action"]
            proprio = proprio_row(arrays, self.index.proprio)[0]
        except LOWDIM_ERRORS as error:
            self._report(f"{LOWDIM} is not readable: {type(error).__name__} {error}", key)
            return
        if action.shape != (self.index.action_size,):
            self._report(f"action of shape {action.shape}, not ({self.index.action_size},)", key)
        elif not np.isfinite(action).all():
            self._report(f"action holds NaN or infinity: {action.tolist()}", key)
        elif not np.isfinite(proprio).all():
            self._report(f"proprio holds NaN or infinity: {proprio.tolist()}", key)
        else:
            self._rows.append((action, proprio))

    def _check_meta(self, key: str, data: bytes, place: tuple[str, int, int] | None) -> None:
        try:
            content = json.loads(data)
            recorded = content["episode"], content["step"], content["n_steps"]
            named, dataset = isinstance(content["instruction"], str), content["dataset"]
        except (ValueError, KeyError, TypeError) as error:
            self._report(f"{META} is not readable: {type(error).__name__} {error}", key)
            return
        if place is not None and recorded != place:
            episode, step, n_steps = recorded
            self._report(f"{META} says episode {episode}, step {step} of {n_steps}; the index {place}", key)
        if not named or dataset != self.index.dataset:
            self._report(f"{META} has no instruction, or another dataset: {dataset!r}", key)


def _frames(path: Path) -> Iterator[Frame]:
    """Adjacent members of one key as one frame."""
    key, members = "", dict[str, bytes]()
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            stream = tar.extractfile(info)
            if stream is None:
                continue
            current, _, ending = info.name.partition(".")
            if current != key:
                if members:
                    yield key, members
                key, members = current, {}
            members[ending] = stream.read()
    if members:
        yield key, members


def _stray_files(folder: Path, index: ShardIndex) -> list[str]:
    known = {shard.url for shard in index.shards}
    return [
        f"{path.name}: the index knows no such shard" for path in sorted(folder.glob("*.tar")) if path.name not in known
    ]


def _check_statistics(path: Path, index: ShardIndex, actions: list[Float32], proprio: list[Float32]) -> list[str]:
    try:
        written = load_statistics(path)[index.dataset]
    except VlakitError as error:
        return [f"{path.name}: {error.what}"]
    except KeyError:
        return [f"{path.name}: no entry for dataset {index.dataset!r}"]
    n_episodes = sum(len(shard.episodes) for shard in index.shards)
    computed = compute_statistics(actions, proprio, n_episodes, written.mask)
    problems = [
        f"{path.name}, {name}: {getattr(written, name)}, the data gives {getattr(computed, name)}"
        for name in ("num_transitions", "num_trajectories")
        if getattr(written, name) != getattr(computed, name)
    ]
    for name in NAMES:
        problems += _compare(f"{path.name}, action {name}", getattr(written, name), getattr(computed, name))
        problems += _compare(f"{path.name}, proprio {name}", _proprio(written, name), _proprio(computed, name))
    return problems


def _proprio(statistics: DatasetStatistics, name: str) -> np.ndarray:
    return statistics.proprio[name] if statistics.proprio else np.zeros(0)


def _compare(where: str, written: np.ndarray, computed: np.ndarray) -> list[str]:
    if written.shape != computed.shape:
        return [f"{where}: {len(written)} values, the data gives {len(computed)}"]
    wrong = np.flatnonzero(~np.isclose(written, computed, rtol=1e-9, atol=1e-12))
    return [f"{where}, dimension {i}: {written[i]}, the data gives {computed[i]}" for i in wrong]
