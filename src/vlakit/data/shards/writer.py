"""One tar under construction: it has its final name only once it is complete and on the disk.

Times, owners and modes are fixed, so the same episodes make the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from vlakit.data.shards.index import ShardEntry
from vlakit.files import disk_full_as_error, flush_to_disk


class _HashingStream:
    """A write-only stream that knows the sha256 of what went through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.digest, self.size = stream, sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.stream.write(data)

    def tell(self) -> int:
        return self.size


class ShardWriter:
    """Collects episodes into one tar; only `finish` keeps anything."""

    def __init__(self, partial: Path, url: str, split: str) -> None:
        """`partial` is where it is written, `url` the name that it will have."""
        self.partial, self.url, self.split = partial, url, split
        self.episodes: list[tuple[str, int]] = []
        with disk_full_as_error(partial):
            self._file = partial.open("wb")
        self._stream = _HashingStream(self._file)
        self._tar = tarfile.open(fileobj=self._stream, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]  # noqa: SIM115

    def add(self, episode: str, n_frames: int, members: Sequence[tuple[str, bytes]]) -> None:
        """Append the members of one episode; raises DiskFull."""
        with disk_full_as_error(self.partial):
            for name, data in members:
                self._tar.addfile(_tar_info(name, len(data)), io.BytesIO(data))
        self.episodes.append((episode, n_frames))

    def finish(self) -> ShardEntry:
        """Flush the tar to the disk; it still has its partial name."""
        with disk_full_as_error(self.partial):
            self._tar.close()
            self._file.flush()
            flush_to_disk(self._file.fileno())
            self._file.close()
        n_frames = sum(n_frames for _, n_frames in self.episodes)
        content_hash = self._stream.digest.hexdigest()
        return ShardEntry(self.url, n_frames, self._stream.size, content_hash, self.split, tuple(self.episodes))

    def abandon(self) -> None:
        """Delete the partial file; what was written to it before counts for nothing."""
        with suppress(OSError):  # the bytes that found no room are wanted no more
            self._file.close()
        self.partial.unlink(missing_ok=True)


def _tar_info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o444, 0
    info.uid = info.gid = 0
    info.uname = info.gname = "vlakit"
    return info
