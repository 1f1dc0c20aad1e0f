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

from vlakit.data.shards.columns import Columns, columns_path
from vlakit.data.shards.frames import BLOCK, JPEG
from vlakit.data.shards.index import ShardEntry
from vlakit.errors import InvalidData
from vlakit.files import disk_full_as_error, flush_to_disk
from vlakit.schema import Float32, Trajectory


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
    """Collects episodes into one tar, and what is not an image into its columns; only `finish` keeps anything."""

    def __init__(self, out: Path, partial: Path, split: str) -> None:
        """`out` is the shard's final name, `partial` where it is written."""
        self.out, self.partial, self.split = out, partial, split
        self.episodes: list[tuple[str, int]] = []
        self.actions: list[Float32] = []
        self.proprio: list[Float32] = []
        self.places: list[tuple[int, int]] = []
        self.instructions: list[str] = []
        with disk_full_as_error(partial):
            self._file = partial.open("wb")
        self._stream = _HashingStream(self._file)
        self._tar = tarfile.open(fileobj=self._stream, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]  # noqa: SIM115

    def add(self, episode: str, trajectory: Trajectory, proprio: Float32, members: Sequence[tuple[str, bytes]]) -> None:
        """Append one episode with its proprio (T, P) and tar members; raises DiskFull and InvalidData."""
        if self.proprio and self.proprio[-1].shape[1] != proprio.shape[1]:
            raise InvalidData(f"proprio of {proprio.shape[1]} values after {self.proprio[-1].shape[1]}", where=episode)
        with disk_full_as_error(self.partial):
            for name, data in members:
                if name.endswith(JPEG):
                    self.places.append((self._stream.size + BLOCK, len(data)))
                self._tar.addfile(_tar_info(name, len(data)), io.BytesIO(data))
        self.episodes.append((episode, len(trajectory)))
        self.actions.append(np.asarray(trajectory.action, np.float32))
        self.proprio.append(proprio)
        self.instructions += trajectory.instructions

    def finish(self) -> ShardEntry:
        """Flush tar and columns to the disk; the tar still has its partial name."""
        with disk_full_as_error(self.partial):
            self._tar.close()
            self._file.flush()
            flush_to_disk(self._file.fileno())
            self._file.close()
        size, content_hash, n_frames = self._stream.size, self._stream.digest.hexdigest(), len(self.instructions)
        numbers = {text: number for number, text in enumerate(dict.fromkeys(self.instructions))}
        columns = Columns(
            action=np.concatenate(self.actions),
            proprio=np.concatenate(self.proprio),
            places=np.array(self.places, np.int64).reshape(n_frames, -1, 2),
            instructions=np.array([numbers[text] for text in self.instructions], np.int64),
            texts=tuple(numbers),
        )
        columns.save(columns_path(self.out), content_hash)
        return ShardEntry(self.out.name, n_frames, size, content_hash, self.split, tuple(self.episodes))

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
