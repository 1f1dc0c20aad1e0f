"""Where the shards of a folder lie: on this machine's disk, or elsewhere with copies here. The reader knows neither."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from vlakit.data.shards.cache import CacheOptions, ShardCache
from vlakit.data.shards.columns import corrupt
from vlakit.data.shards.index import ShardEntry
from vlakit.data.shards.remote import url_of
from vlakit.data.shards.table import check_content, check_size


@dataclass
class LocalHome:
    """A folder that `convert` wrote. It answers what a ShardCache answers; of what is elsewhere nothing is to do."""

    folder: Path
    _sound: set[str] = field(default_factory=set[str])  # shards whose hash was checked; worker processes are told

    @property
    def place(self) -> str:
        return str(self.folder)

    def check_index(self, shards: Sequence[ShardEntry]) -> None:
        """Each shard has the size that the index says."""
        for entry in shards:
            check_size(self.folder, entry)

    def check_room(self, shards: Sequence[ShardEntry], n_open: int) -> None:
        """All are here."""

    def check(self, shards: Sequence[ShardEntry]) -> None:
        """Hash all, several at a time, so that a flipped byte is known before training."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._check, shards))

    def bring(self, entry: ShardEntry) -> BinaryIO:
        self._check(entry)
        path = self.folder / entry.url
        try:
            return path.open("rb", buffering=0)
        except OSError as error:
            raise corrupt(path, f"a shard of the index cannot be opened: {error.strerror}") from error

    def bring_columns(self, shards: Sequence[ShardEntry]) -> None:
        """Those that lack are made when they are opened."""

    def _check(self, entry: ShardEntry) -> None:
        (check_size if entry.url in self._sound else check_content)(self.folder, entry)
        self._sound.add(entry.url)


Home = LocalHome | ShardCache


def home_of(path: str | Path, remote: CacheOptions | None = None) -> Home:
    """Of a local path, or of a URL (s3://, https://) behind a cache as `remote` says. Raises as ShardCache.open."""
    url = url_of(path)
    return LocalHome(Path(path)) if url is None else ShardCache.open(url, remote or CacheOptions())
