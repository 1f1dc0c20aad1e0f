"""Where everything in one tar lies, found in one pass over its headers: images stay encoded on the disk.

Actions and instructions are small and kept in memory, so windows and chunks are slices.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlakit.data.shards.frames import LOWDIM, LOWDIM_ERRORS, META, image_member, parse_lowdim
from vlakit.data.shards.index import ShardEntry
from vlakit.errors import CorruptRecord
from vlakit.schema import Float32, Int64

_BLOCK = 512


class ShardTable:
    """One open tar. action (n, A), proprio key -> (n, P), instructions n strings, starts (E + 1,) first frames."""

    def __init__(self, path: Path, entry: ShardEntry, cameras: tuple[str, ...]) -> None:
        """Scan the headers; raises CorruptRecord when the tar is not what the index says."""
        self.path, self.entry = path, entry
        self.starts: Int64 = np.cumsum([0, *(n_frames for _, n_frames in entry.episodes)])
        self._descriptor = _open(path)
        try:
            members = {image_member(camera): camera for camera in cameras}
            self._places = {camera: np.zeros((entry.nsamples, 2), np.int64) for camera in cameras}
            lowdim: list[dict[str, Float32]] = []
            self.instructions: list[str] = []
            self.keys: list[str] = []
            for name, offset, size in self._headers():
                key, _, ending = name.partition(".")
                if not self.keys or self.keys[-1] != key:
                    self.keys.append(key)
                if ending in members and len(self.keys) <= entry.nsamples:
                    self._places[members[ending]][len(self.keys) - 1] = offset, size
                elif ending == LOWDIM:
                    lowdim.append(self._lowdim(name, offset, size))
                elif ending == META:
                    self.instructions.append(self._instruction(name, offset, size))
            self._check(len(lowdim))
            self.action: Float32 = np.stack([arrays["action"] for arrays in lowdim])
            names = [name for name in lowdim[0] if name.startswith("proprio.")]
            self.proprio: dict[str, Float32] = {
                name.removeprefix("proprio."): np.stack([arrays[name] for arrays in lowdim]) for name in names
            }
        except BaseException:
            self.close()
            raise

    def episode_of(self, frame: int) -> tuple[int, int]:
        """First frame of the episode that holds `frame`, and the one after its last."""
        number = int(np.searchsorted(self.starts, frame, "right")) - 1
        return int(self.starts[number]), int(self.starts[number + 1])

    def image(self, camera: str, frame: int) -> bytes:
        """Encoded image of one frame; safe from several threads and after a fork."""
        offset, size = self._places[camera][frame]
        return self._read(int(offset), int(size))

    def close(self) -> None:
        """Give the file back; called when the table leaves the cache."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()

    def _headers(self) -> Iterator[tuple[str, int, int]]:
        """Name, offset and size of each member; the tars are ours, so plain USTAR headers are all there is."""
        offset = 0
        while (header := self._read(offset, _BLOCK))[0]:
            try:
                name = header[:100].rstrip(b"\0").decode()
                prefix = header[345:500].rstrip(b"\0").decode()
                size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
            except ValueError as error:
                raise self._corrupt(f"no tar header at byte {offset}") from error
            yield (f"{prefix}/{name}" if prefix else name), offset + _BLOCK, size
            offset += _BLOCK + -(-size // _BLOCK) * _BLOCK

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size or not data:
            raise self._corrupt(f"the tar ends inside the {size} bytes at byte {offset}")
        return data

    def _lowdim(self, name: str, offset: int, size: int) -> dict[str, Float32]:
        try:
            arrays = parse_lowdim(self._read(offset, size))
            if "action" not in arrays:
                raise KeyError("action")
            return arrays
        except LOWDIM_ERRORS as error:
            raise self._corrupt(f"{name} holds no action: {error}") from error

    def _instruction(self, name: str, offset: int, size: int) -> str:
        try:
            return sys.intern(str(json.loads(self._read(offset, size))["instruction"]))
        except (ValueError, KeyError, TypeError) as error:
            raise self._corrupt(f"{name} holds no instruction: {error}") from error

    def _check(self, n_lowdim: int) -> None:
        counts = {len(self.keys), n_lowdim, len(self.instructions), int(self.starts[-1]), self.entry.nsamples}
        complete = all(places[:, 1].all() for places in self._places.values())
        if len(counts) > 1 or not complete:
            raise self._corrupt(f"its frames are not the {self.entry.nsamples} of the index")

    def _corrupt(self, what: str) -> CorruptRecord:
        remedy = "run the verification to see all that is wrong, then convert the source again"
        return CorruptRecord(what, where=str(self.path), do=remedy)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CorruptRecord(
            f"a shard of the index cannot be opened: {error.strerror}",
            where=str(path),
            do="restore it or convert again",
        ) from error
