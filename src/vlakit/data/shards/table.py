"""One open shard: its columns mapped, its images still encoded on the disk, so windows and chunks are slices."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

import numpy as np

from vlakit.data.shards.columns import check_columns, corrupt, open_columns
from vlakit.data.shards.frames import frame_key
from vlakit.data.shards.index import ShardEntry, ShardIndex
from vlakit.errors import printable
from vlakit.files import content_hash
from vlakit.schema import Int64


def check_size(folder: Path, entry: ShardEntry) -> None:
    """Raise CorruptRecord where a shard is missing, no file, or of another size than the index says; opens nothing."""
    path = folder / entry.url
    try:
        status = path.stat()
    except OSError as error:
        raise corrupt(path, f"a shard of the index cannot be opened: {error.strerror}") from error
    if not S_ISREG(status.st_mode):
        raise corrupt(path, "a shard of the index is no file")
    if status.st_size != entry.filesize:
        raise corrupt(path, f"{status.st_size} bytes, the index says {entry.filesize}")


def check_content(folder: Path, entry: ShardEntry) -> None:
    """Raise CorruptRecord where a byte of a shard, or of its columns, is not what was written; reads all of it."""
    check_size(folder, entry)
    path = folder / entry.url
    if content_hash(path) != entry.sha256:
        raise corrupt(path, "its sha256 is not that of the index: at least one byte has changed")
    check_columns(folder, entry)


class ShardTable:
    """action (n, A), proprio (n, P). starts (E + 1,): first frame of each episode, and the number of frames."""

    def __init__(self, folder: Path, entry: ShardEntry, index: ShardIndex, stream: BinaryIO) -> None:
        """stream: the open tar, closed with the table. Raises CorruptRecord when the tar is not what the index says."""
        self._stream, self.path, self.entry = stream, folder / entry.url, entry
        self.starts: Int64 = np.cumsum([0, *(n_frames for _, n_frames in entry.episodes)])
        try:
            columns = open_columns(folder, entry, index.cameras, index.proprio)
        except BaseException:
            self.close()
            raise
        self.action, self.proprio, self._instructions = (columns[k] for k in ("action", "proprio", "instruction"))
        self._places = {camera: columns["places"][:, number] for number, camera in enumerate(index.cameras)}

    def __len__(self) -> int:
        return len(self.action)

    def episode_of(self, frame: int) -> tuple[int, int]:
        """First frame of the episode that holds `frame`, and the one after its last."""
        number = int(np.searchsorted(self.starts, frame, "right")) - 1
        return int(self.starts[number]), int(self.starts[number + 1])

    def key(self, frame: int) -> str:
        """Its name in the tar."""
        number = int(np.searchsorted(self.starts, frame, "right")) - 1
        return frame_key(self.entry.episodes[number][0], frame - int(self.starts[number]))

    def instruction(self, frame: int) -> str:
        """What the person said."""
        return printable(self._instructions[frame].decode())

    def image(self, camera: str, frame: int) -> bytes:
        """Encoded image of one frame; safe from several threads and after a fork."""
        offset, size = self._places[camera][frame].tolist()
        data = os.pread(self._stream.fileno(), size, offset)
        if len(data) != size or not data:
            raise corrupt(self.path, f"the tar ends inside the {size} bytes at byte {offset}")
        return data

    def close(self) -> None:
        """Give the file back; called when the table leaves the cache."""
        self._stream.close()

    def __del__(self) -> None:
        self.close()
