"""The journal of a conversion: what was asked, how large each episode is, and which shards exist.

A shard's record is written before the shard gets its final name: a name without a record cannot happen.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.shards.index import INDEX_NAME, JOURNAL_NAME, ShardEntry, load_index
from vlakit.errors import ConfigError, CorruptRecord
from vlakit.files import atomic_writer, disk_full_as_error, publish, write_atomically
from vlakit.schema import Int64
from vlakit.trees import changes, flat

VERSION = 2  # counts changes of the journal itself; one begun by another version is not continued


class Journal:
    """The folder OUT/.conversion of a conversion under way."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / JOURNAL_NAME

    def start(self, plan: Mapping[str, Any]) -> None:
        """Begin, or continue what was begun with the same plan; ConfigError when it differs and has a finished shard.

        One without is begun anew: most often it ended at an error whose remedy is another spec or option.
        """
        path, plan = self.folder / "plan.json", {**plan, "journal": VERSION}
        if path.is_file():
            try:
                check_same_plan(json.loads(path.read_text(encoding="utf-8")), plan, self.out)
            except ConfigError:
                if any(self.folder.glob("*-*.json")):
                    raise
                self.close()
            else:
                return
        if any(self.out.glob("*.tar")):
            raise ConfigError(
                "the folder holds tars that no conversion of ours recorded",
                where=str(self.out),
                do="give an empty folder, or delete them",
            )
        with disk_full_as_error(self.folder):
            self.folder.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(plan, indent=1) + "\n")

    def sizes(self, split: str) -> Int64 | None:
        """What `keep_sizes` kept, None before."""
        path = self._sizes_path(split)
        return np.load(path) if path.is_file() else None

    def keep_sizes(self, split: str, sizes: Int64) -> None:
        """Keep frames and bytes (n, 2) of each episode of a split, so that a killed run need not measure them again."""
        with atomic_writer(self._sizes_path(split)) as stream:
            np.save(stream, sizes)

    def partial(self, name: str) -> Path:
        """Where the tar of shard NAME is written."""
        return self.folder / f"{name}.tar.partial"

    def record(self, entry: ShardEntry) -> None:
        """File a shard that lies complete under its partial name, then give it its final name."""
        write_atomically(self.folder / f"{entry.name}.json", json.dumps(asdict(entry)))
        publish(self.partial(entry.name), self.out / entry.url)

    def finished(self) -> dict[str, ShardEntry]:
        """The finished shards by name, completing a rename that was cut off.

        Raises CorruptRecord when one of them is gone or has another size.
        """
        entries: dict[str, ShardEntry] = {}
        for path in self.folder.glob("*-*.json"):
            entry = ShardEntry.from_json(json.loads(path.read_text(encoding="utf-8")))
            final, partial = self.out / entry.url, self.partial(entry.name)
            if not final.is_file() and partial.is_file() and partial.stat().st_size == entry.filesize:
                publish(partial, final)
            if not final.is_file() or final.stat().st_size != entry.filesize:
                raise CorruptRecord(
                    "a shard that this conversion had finished is gone or was changed",
                    where=str(final),
                    do=f"delete {self.out} and convert again",
                )
            entries[entry.name] = entry
        return entries

    def close(self) -> None:
        """Delete the journal of a finished folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sizes_path(self, split: str) -> Path:
        return self.folder / f"{split}.sizes.npy"


def check_same_plan(written: Mapping[str, Any], requested: Mapping[str, Any], out: Path) -> None:
    """Raise ConfigError naming what differs between a folder's plan and the one asked for; null counts as absent."""
    pairs = changes(flat(written), flat(json.loads(json.dumps(requested))))
    nothing = (None, "absent")
    differences = [
        f"{key} was {was}, is {now}" for key, (was, now) in pairs.items() if was not in nothing or now not in nothing
    ]
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
