"""Shards of a remote folder as local files: brought when they are read, checked against the index, the oldest dropped.

Several folders, workers and runs share one cache. A shard in use is held by a lock on its file (flock), so that none of
them takes it from another. The reader in front of it sees a folder like any other: order and resume do not differ.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from re import fullmatch
from typing import BinaryIO, TypeVar

from vlakit.data.shards.columns import columns_path, corrupt
from vlakit.data.shards.index import INDEX_NAME, STATISTICS_NAME, ShardEntry
from vlakit.data.shards.remote import Remote
from vlakit.data.shards.table import check_content
from vlakit.errors import ConfigError, CorruptRecord, InvalidData, NotAShardFolder
from vlakit.files import disk_full_as_error, flush_to_disk, locked, write_atomically

BLOCK = 8 << 20  # bytes of one read
Made = TypeVar("Made")
AT_ONCE = 16  # small reads side by side
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheOptions:
    """Where copies lie, how many GB of shards stay; attempts at a read, and the silence after which one has failed."""

    cache: str = "~/.cache/vlakit/shards"
    cache_gb: float = 50.0
    attempts: int = 6
    timeout_s: float = 60.0


@dataclass
class ShardCache:
    """The copies of one remote folder, in a folder of their own below `root`; `limit`: bytes of all tars below it.

    Columns (one or two thousandths of the tars) and indexes stay, and do not count.
    """

    remote: Remote
    root: Path
    limit: int
    folder: Path
    _sound: set[str] = field(default_factory=set[str])  # shards whose copy this process has hashed
    _warned: bool = False

    @classmethod
    def open(cls, url: str, options: CacheOptions) -> ShardCache:
        """Fetch index and statistics. Raises NotAShardFolder, Unreachable, ConfigError, and DiskFull.

        Another index is another folder of the cache: shards of two conversions are never mixed.
        """
        remote = Remote(url, options.attempts, options.timeout_s)
        index, statistics = (_essential(remote, name) for name in (INDEX_NAME, STATISTICS_NAME))
        root = Path(options.cache).expanduser()
        name = f"{url.rpartition('/')[2]}-{sha256(url.encode() + index + statistics).hexdigest()[:16]}"
        folder = root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file, content in ((INDEX_NAME, index), (STATISTICS_NAME, statistics)):
                if not (folder / file).is_file():
                    with locked(folder, wait=True):
                        write_atomically(folder / file, content)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            what = f"the cache of remote shards cannot be written: {error.strerror}"
            raise ConfigError(what, where=str(folder), do="data.remote.cache=DIR") from error
        return cls(remote, root, int(options.cache_gb * 1e9), folder)

    @property
    def place(self) -> str:
        """Its URL."""
        return self.remote.url

    def check_index(self, shards: Sequence[ShardEntry]) -> None:
        """Raise InvalidData where names or hashes of a stranger's index would lead out of the cache's folder."""
        for entry in shards:
            if not fullmatch(r"\w[\w.-]*\.tar", entry.url) or not fullmatch(r"[0-9a-f]{64}", entry.sha256):
                what = f"a shard {entry.url!r} with sha256 {entry.sha256[:70]!r}"
                raise InvalidData(what, where=f"{self.remote.url}/{INDEX_NAME}", do="convert the source again")

    def check_room(self, shards: Sequence[ShardEntry], n_open: int) -> None:
        """Raise ConfigError for a limit below what is open at a time: each frame would fetch a shard again."""
        needed = sum(sorted((entry.filesize for entry in shards), reverse=True)[:n_open])
        if needed > self.limit:
            raise ConfigError(
                f"{n_open} shards are open at a time, {needed / 1e9:.3g} GB, the cache holds {self.limit / 1e9:.3g}",
                where=self.remote.url,
                do=f"data.remote.cache_gb={needed / 1e9 * 1.1:.2g}, or a smaller data.shuffle_shards",
            )

    def check(self, shards: Sequence[ShardEntry]) -> None:
        """Raise CorruptRecord where a shard is missing there or has another size; each is hashed when it is brought."""
        listed = self.remote.sizes()
        sizes = [listed.get(entry.url, -1) for entry in shards] if listed else _at_once(self._size, shards)
        for entry, size in zip(shards, sizes, strict=True):
            if size is not None and size != entry.filesize:
                said = "is not there" if size < 0 else f"has {size} bytes, the index says {entry.filesize}"
                raise self._corrupt(entry, f"a shard of the index {said}")

    def bring(self, entry: ShardEntry) -> BinaryIO:
        """A shard's copy, whole and hashed; it stays for as long as what is returned is open.

        Raises CorruptRecord where what comes is not what the index says, Unreachable, DiskFull.
        """
        while True:
            lease = self._lease(entry)
            if lease is not None:
                return lease
            self._fetch(entry)

    def bring_columns(self, shards: Sequence[ShardEntry]) -> None:
        """The columns of these shards, from beside the tars or made of them. Raises as `bring`."""
        _at_once(self._columns, [entry for entry in shards if not columns_path(self.folder, entry).is_file()])

    def _columns(self, entry: ShardEntry) -> None:
        """Take them only with the hash that lies beside them; whoever opens them makes those that are not there."""
        path = columns_path(self.folder, entry)
        with suppress(FileNotFoundError):
            content = self.remote.read(path.name)
            digest = self.remote.read(f"{path.name}.sha256")
            if sha256(content).hexdigest().encode() == digest.strip():
                partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
                with disk_full_as_error(path):
                    partial.write_bytes(content)
                    partial.rename(path)

    def _size(self, entry: ShardEntry) -> int | None:
        try:
            return self.remote.size(entry.url)
        except FileNotFoundError:
            return -1

    def _lease(self, entry: ShardEntry) -> BinaryIO | None:
        """The copy, held; None where there is none, or a spoilt one, which goes."""
        path = self.folder / entry.url
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            return None
        fcntl.flock(stream, fcntl.LOCK_SH)
        if os.fstat(stream.fileno()).st_nlink:  # else it was dropped between the two lines above
            try:
                if entry.url not in self._sound:
                    check_content(self.folder, entry)
                    self._sound.add(entry.url)
                os.utime(stream.fileno())
                return stream
            except CorruptRecord as error:
                log.warning("%s is fetched again: %s", path, error.what)
                for spoilt in (path, *self.folder.glob(f"{columns_path(self.folder, entry).name}*")):
                    spoilt.unlink(missing_ok=True)
        stream.close()
        return None

    def _fetch(self, entry: ShardEntry) -> None:
        path = self.folder / entry.url
        partial = path.with_name(f"{path.name}.partial")
        with _alone(path.with_name(f"{path.name}.lock")), disk_full_as_error(path):
            if path.is_file():  # another process brought it meanwhile
                return
            with self._reserved(partial, entry.filesize) as stream:
                if not any(self._copy(entry, stream) == entry.sha256 for _ in range(2)):
                    raise self._corrupt(entry, "its sha256 is not that of the index, twice: a byte changed there")
                stream.flush()
                flush_to_disk(stream.fileno())
                self._sound.add(entry.url)
                partial.rename(path)

    def _copy(self, entry: ShardEntry, stream: BinaryIO) -> str:
        """Write a shard's bytes; their sha256 (hex)."""
        digest, at = sha256(), 0
        stream.seek(0)
        while at < entry.filesize:
            try:
                block = self.remote.read(entry.url, at, min(at + BLOCK, entry.filesize))
            except FileNotFoundError as error:
                raise self._corrupt(entry, "a shard of the index is not there") from error
            block = block[: entry.filesize - at] if at == 0 else block[:BLOCK]
            digest.update(block)
            stream.write(block)
            at += len(block)
        return digest.hexdigest()

    @contextmanager
    def _reserved(self, partial: Path, size: int) -> Iterator[BinaryIO]:
        """A file of that size, for which shards that nobody uses make room, those first that were used longest ago."""
        with partial.open("wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                with locked(self.root, wait=True):
                    self._make_room(size)
                    stream.truncate(size)
                yield stream
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    def _make_room(self, size: int) -> None:
        held = [(path, path.stat()) for path in [*self.root.glob("*/*.tar"), *self.root.glob("*/*.tar.partial")]]
        used = sum(status.st_size for _, status in held)
        for path, status in sorted(held, key=lambda one: one[1].st_mtime_ns):
            if used + size <= self.limit:
                return
            used -= status.st_size if _dropped(path) else 0
        if used + size > self.limit and not self._warned:
            self._warned = True
            log.warning("shards in use fill the cache: %.3g GB of %.3g", (used + size) / 1e9, self.limit / 1e9)

    def _corrupt(self, entry: ShardEntry, what: str) -> CorruptRecord:
        error = corrupt(Path(entry.url), what)
        return CorruptRecord(what, where=f"{self.remote.url}/{entry.url}", do=error.do)


def _dropped(path: Path) -> bool:
    """Remove a file that nobody holds."""
    with suppress(OSError), path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    return False


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _essential(remote: Remote, name: str) -> bytes:
    try:
        content = remote.read(name)
        if name == INDEX_NAME:
            json.loads(content)  # a page that says "not found" with status 200 is no index
        return content
    except (FileNotFoundError, ValueError) as error:
        lacking = "bucket" if "bucket does not exist" in str(error) else name
        remedy = "convert a dataset with vlakit shards, and copy the finished folder there"
        raise NotAShardFolder(f"there is no such {lacking}", where=remote.url, do=remedy) from error


def _at_once(call: Callable[[ShardEntry], Made], given: Sequence[ShardEntry]) -> list[Made]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(call, given))
