"""shardindex.json: the list of a folder's shards in the layout of wids, plus what vlakit must know to read them.

It is written last, so a folder that has one is finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlakit.errors import InvalidData, NotAShardFolder
from vlakit.files import write_atomically

INDEX_NAME = "shardindex.json"
STATISTICS_NAME = "statistics.json"
JOURNAL_NAME = ".conversion"
SPLITS = ("train", "val")
MEMBER_BYTES = 512  # the least that a member takes in a tar: its header


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One tar: its name, frames, bytes, sha256 (hex) of the file, and its episodes as (id, frames) in order."""

    url: str
    nsamples: int
    filesize: int
    sha256: str
    split: str
    episodes: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """The url without its ending."""
        return self.url.removesuffix(".tar")

    def check(self, n_cameras: int, where: Path) -> None:
        """Raise InvalidData where it claims more frames than its bytes can hold: before anything is made of them."""
        n_frames = [self.nsamples, *(n_frames for _, n_frames in self.episodes)]
        claimed = max(self.nsamples, sum(n_frames[1:]))
        if min(n_frames) < 0 or claimed * (n_cameras + 2) * MEMBER_BYTES > self.filesize:
            message = f"{self.url} claims {claimed:,} frames in {self.filesize:,} bytes, which cannot be"
            raise InvalidData(message, where=str(where), do="restore the file, or convert the source again")

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ShardEntry:
        """The opposite of asdict; KeyError, TypeError or ValueError when it is none."""
        episodes = tuple((str(name), int(n_frames)) for name, n_frames in entry["episodes"])
        numbers = int(entry["nsamples"]), int(entry["filesize"])
        return cls(str(entry["url"]), *numbers, str(entry["sha256"]), str(entry["split"]), episodes)


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """What one finished folder holds. plan: spec fingerprint, source files and options that it was made from."""

    dataset: str
    shards: tuple[ShardEntry, ...]
    vlakit_version: str
    cameras: tuple[str, ...]
    action_size: int
    absolute_action_mask: tuple[bool, ...]
    proprio: tuple[str | None, ...]  # the spec's order; null: one column of zeros in the statistics
    split_rule: str
    skipped: dict[str, int]
    plan: dict[str, Any]
    notes: tuple[str, ...] = ()  # what a person should know before training on it

    @property
    def splits(self) -> list[str]:
        """Splits that hold at least one shard."""
        return [split for split in SPLITS if any(shard.split == split for shard in self.shards)]

    def counts(self) -> dict[str, dict[str, int]]:
        """Shards, episodes and frames of each split."""
        counts = {}
        for split in SPLITS:
            shards = [shard for shard in self.shards if shard.split == split]
            episodes = sum(len(shard.episodes) for shard in shards)
            frames = sum(shard.nsamples for shard in shards)
            counts[split] = {"shards": len(shards), "episodes": episodes, "frames": frames}
        return counts

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order they are written."""
        return {
            "__kind__": "wids-shard-index-v1",
            "wids_version": 1,
            "name": self.dataset,
            "dataset": self.dataset,
            "spec_fingerprint": self.plan.get("spec", ""),
            "vlakit_version": self.vlakit_version,
            "cameras": list(self.cameras),
            "image_size": self.plan.get("options", {}).get("image_size"),
            "action_size": self.action_size,
            "absolute_action_mask": list(self.absolute_action_mask),
            "proprio": list(self.proprio),
            "split_rule": self.split_rule,
            "counts": self.counts(),
            "skipped": self.skipped,
            **({"notes": list(self.notes)} if self.notes else {}),
            "plan": self.plan,
            "shardlist": [asdict(shard) for shard in self.shards],
        }


def save_index(folder: Path, index: ShardIndex) -> None:
    """Write shardindex.json; from then on the folder is finished."""
    write_atomically(folder / INDEX_NAME, json.dumps(index.to_json(), indent=1) + "\n")


def load_index(folder: Path) -> ShardIndex:
    """Read shardindex.json.

    Raises NotAShardFolder when there is none, saying so where a conversion was cut off; InvalidData when it is garbled.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise _not_a_shard_folder(folder)
    try:
        index = _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"no shard index of this kit: {type(error).__name__} {error}"
        raise InvalidData(message, where=str(path), do="restore the file, or convert the source again") from error
    for entry in index.shards:
        entry.check(len(index.cameras), path)
    return index


def _not_a_shard_folder(folder: Path) -> NotAShardFolder:
    if (folder / JOURNAL_NAME).is_dir():
        return NotAShardFolder(
            "unfinished conversion", where=str(folder), do="run the same command again: it continues where it stopped"
        )
    what = f"no {INDEX_NAME}" if folder.is_dir() else "there is no such folder"
    return NotAShardFolder(what, where=str(folder), do="convert a dataset into it: vlakit shards")


def _from_json(content: Mapping[str, Any]) -> ShardIndex:
    return ShardIndex(
        dataset=str(content["dataset"]),
        shards=tuple(ShardEntry.from_json(entry) for entry in content["shardlist"]),
        vlakit_version=str(content["vlakit_version"]),
        cameras=tuple(content["cameras"]),
        action_size=int(content["action_size"]),
        absolute_action_mask=tuple(bool(value) for value in content["absolute_action_mask"]),
        proprio=tuple(content["proprio"]),
        split_rule=str(content["split_rule"]),
        skipped={str(reason): int(count) for reason, count in content["skipped"].items()},
        plan=dict(content["plan"]),
        notes=tuple(map(str, content.get("notes", ()))),
    )
