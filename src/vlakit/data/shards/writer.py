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

import numpy as np

from vlakit.data.shards.index import ShardEntry
from vlakit.errors import InvalidData
from vlakit.files import disk_full_as_error, flush_to_disk
from vlakit.schema import Float32

_BLOCK = 512


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
    """Collects episodes into NAME.tar.partial of the journal, and their actions in memory for the statistics."""

    def __init__(self, journal: Path, name: str, split: str) -> None:
        self.name, self.split = name, split
        self.partial = journal / f"{name}.tar.partial"
        self.episodes: list[tuple[str, int]] = []
        self.actions: list[Float32] = []
        self.proprio: list[Float32] = []
        with disk_full_as_error(self.partial):
            self._file = self.partial.open("wb")
        self._stream = _HashingStream(self._file)
        self._tar = tarfile.open(fileobj=self._stream, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]  # noqa: SIM115

    @property
    def n_frames(self) -> int:
        """Frames so far."""
        return sum(n_frames for _, n_frames in self.episodes)

    def has_room(self, n_frames: int, n_bytes: int, max_frames: int, max_bytes: int) -> bool:
        """Whether an episode still fits; the first always does, since an episode is never split."""
        if not self.episodes:
            return True
        return self.n_frames + n_frames <= max_frames and self._stream.size + n_bytes <= max_bytes

    def add(self, episode: str, action: Float32, proprio: Float32, members: Sequence[tuple[str, bytes]]) -> None:
        """Append one episode with its action (T, A) and proprio (T, P); raises DiskFull and InvalidData."""
        if self.proprio and self.proprio[-1].shape[1] != proprio.shape[1]:
            raise InvalidData(f"proprio of {proprio.shape[1]} values after {self.proprio[-1].shape[1]}", where=episode)
        with disk_full_as_error(self.partial):
            for name, data in members:
                self._tar.addfile(_tar_info(name, len(data)), io.BytesIO(data))
        self.episodes.append((episode, len(action)))
        self.actions.append(np.asarray(action, np.float32))
        self.proprio.append(proprio)

    def finish(self) -> ShardEntry:
        """Flush tar and actions to the disk; the tar still has its partial name."""
        with disk_full_as_error(self.partial):
            self._tar.close()
            self._file.flush()
            flush_to_disk(self._file.fileno())
            self._file.close()
        for kind, blocks in (("action", self.actions), ("proprio", self.proprio)):
            path = self.partial.with_name(f"{self.name}.{kind}.npy")
            with disk_full_as_error(path), path.open("wb") as stream:
                np.save(stream, np.ascontiguousarray(np.concatenate(blocks).T))  # (D, n): a column is contiguous
                stream.flush()
                flush_to_disk(stream.fileno())
        size, digest = self._stream.size, self._stream.digest.hexdigest()
        return ShardEntry(f"{self.name}.tar", self.n_frames, size, digest, self.split, tuple(self.episodes))

    def abandon(self) -> None:
        """Delete the partial file; what was written to it before counts for nothing."""
        with suppress(OSError):  # the bytes that found no room are wanted no more
            self._file.close()
        self.partial.unlink(missing_ok=True)


def tar_bytes(members: Sequence[tuple[str, bytes]]) -> int:
    """Bytes that members will take in a tar: a header each, contents padded to blocks."""
    return sum(_BLOCK + -(-len(data) // _BLOCK) * _BLOCK for _, data in members)


def _tar_info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o444, 0
    info.uid = info.gid = 0
    info.uname = info.gname = "vlakit"
    return info
