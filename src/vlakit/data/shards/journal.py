"""The journal of a conversion: what was asked, and one record a finished shard, so that a killed run continues.

A shard's record is written before the shard gets its final name: a name without a record cannot happen.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlakit.data.shards.index import INDEX_NAME, JOURNAL_NAME, SPLITS, ShardEntry, load_index
from vlakit.errors import ConfigError, CorruptRecord
from vlakit.files import disk_full_as_error, publish, write_atomically


@dataclass(frozen=True, slots=True)
class FinishedShard:
    """A shard on the disk, the records of its split consumed up to its end, and those skipped since the one before."""

    entry: ShardEntry
    consumed: int
    skipped: dict[str, int]


class Journal:
    """The folder OUT/.conversion of a conversion under way."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / JOURNAL_NAME

    def start(self, plan: Mapping[str, Any]) -> None:
        """Begin, or continue what was begun with the same plan; ConfigError when it differs."""
        written = self.folder / "plan.json"
        if written.is_file():
            check_same_plan(json.loads(written.read_text(encoding="utf-8")), plan, self.out)
            return
        if any(self.out.glob("*.tar")):
            raise ConfigError(
                "the folder holds tars that no conversion of ours recorded",
                where=str(self.out),
                do="give an empty folder, or delete them",
            )
        with disk_full_as_error(self.folder):
            self.folder.mkdir(exist_ok=True)
        write_atomically(written, json.dumps(plan, indent=1) + "\n")

    def record(self, shard: FinishedShard) -> None:
        """File a shard that lies complete under its partial name, then give it its final name."""
        content = {"entry": shard.entry.to_json(), "consumed": shard.consumed, "skipped": shard.skipped}
        write_atomically(self._record_path(shard.entry.url), json.dumps(content))
        publish(self._partial(shard.entry.url), self.out / shard.entry.url)

    def is_recorded(self, name: str) -> bool:
        """Whether the shard NAME counts as finished, perhaps still under its partial name."""
        return self._record_path(name).is_file()

    def finished(self, split: str) -> list[FinishedShard]:
        """The finished shards of a split in order, completing a rename that was cut off.

        Raises CorruptRecord when one of them is gone or has another size: rewriting it would break its neighbours.
        """
        found = []
        for number in range(len(list(self.folder.glob(f"{split}-*.json")))):
            content = json.loads(self._record_path(f"{split}-{number:06d}.tar").read_text(encoding="utf-8"))
            entry = ShardEntry.from_json(content["entry"])
            final, partial = self.out / entry.url, self._partial(entry.url)
            if not final.is_file() and partial.is_file() and partial.stat().st_size == entry.filesize:
                publish(partial, final)
            if not final.is_file() or final.stat().st_size != entry.filesize:
                raise CorruptRecord(
                    "a shard that this conversion had finished is gone or was changed",
                    where=str(final),
                    do=f"delete {self.out} and convert again",
                )
            found.append(FinishedShard(entry, int(content["consumed"]), dict(content["skipped"])))
        return found

    def all_finished(self) -> list[FinishedShard]:
        """The finished shards of all splits."""
        return [shard for split in SPLITS for shard in self.finished(split)]

    def columns(self, kind: str, shards: list[FinishedShard]) -> list[Path]:
        """Files of (D, n) `action` or `proprio` values, one a shard."""
        return [self.folder / f"{Path(shard.entry.url).stem}.{kind}.npy" for shard in shards]

    def close(self) -> None:
        """Delete the journal of a finished folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record_path(self, url: str) -> Path:
        return self.folder / f"{Path(url).stem}.json"

    def _partial(self, url: str) -> Path:
        return self.folder / f"{url}.partial"


class FolderBusy(ConfigError):
    """A folder that another process is writing."""


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder alone for as long as this process lives; ConfigError when another conversion has it."""
    with disk_full_as_error(out):
        out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)  # the folder itself: a lock file could be deleted under a waiting process
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderBusy(
                "another conversion is writing this folder", where=str(out), do="wait for it, or give another folder"
            ) from error
        yield
    finally:
        os.close(descriptor)


def check_same_plan(written: Mapping[str, Any], asked: Mapping[str, Any], out: Path) -> None:
    """Raise ConfigError naming what differs between the plan of a folder and the one now asked for."""
    asked = json.loads(json.dumps(asked))
    differences = []
    before, now = _leaves(written), _leaves(asked)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            differences.append(f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}")
    if differences:
        state = "finished" if (out / INDEX_NAME).is_file() else "unfinished"
        raise ConfigError(
            f"this folder holds a{'n' * (state[0] == 'u')} {state} conversion of another kind: "
            + "; ".join(differences[:5]),
            where=str(out),
            do="give another folder, repeat the command that began this one, or delete it",
        )


def already_finished(out: Path, plan: Mapping[str, Any]) -> bool:
    """Whether this very conversion is done; ConfigError when another one is."""
    if not (out / INDEX_NAME).is_file():
        return False
    check_same_plan(load_index(out).plan, plan, out)
    return True


def _leaves(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, Mapping):
        return {prefix: content}
    found: dict[str, Any] = {}
    for key, value in content.items():
        found.update(_leaves(value, f"{prefix}.{key}" if prefix else str(key)))
    return found
