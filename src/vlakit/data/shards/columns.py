"""Everything of one shard but its images: one row a frame in an .npy beside the tar, mapped into memory, not loaded.

Columns are made from the tar alone; shards without them, as vlakit 0.1.0 wrote them, get them when first read.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vlakit.data.shards.frames import (
    LOWDIM,
    LOWDIM_ERRORS,
    META,
    frame_key,
    image_member,
    parse_instruction,
    parse_lowdim,
)
from vlakit.data.shards.index import ShardEntry
from vlakit.data.shards.statistics import proprio_columns
from vlakit.errors import CorruptRecord
from vlakit.files import content_hash, write_atomically
from vlakit.schema import Float32

NAMES = ("action", "proprio", "places", "instruction")
Columns = npt.NDArray[Any]  # (n,) of action (A,), proprio (P,), places (C, 2): offset and size, instruction: UTF-8


def columns_path(folder: Path, entry: ShardEntry) -> Path:
    """The name says of which tar they are: those of another one are not found."""
    return folder / f"{entry.name}.{entry.sha256[:16]}.npy"


def open_columns(folder: Path, entry: ShardEntry, cameras: Sequence[str], proprio: Sequence[str | None]) -> Columns:
    """The columns of a shard, read-only; made, and kept, where they are missing. Raises CorruptRecord as `scan`."""
    columns = load_columns(folder, entry)
    if columns is None:
        columns = scan(folder / entry.url, entry, cameras, proprio)
        partial = folder / f"{entry.name}.{os.getpid()}.partial.npy"  # several workers may come here at the same time
        with suppress(OSError):  # a folder that cannot be written: they are made each time
            np.save(partial, columns)
            _digest_path(folder, entry).unlink(missing_ok=True)
            partial.rename(columns_path(folder, entry))
            keep_digest(folder, entry)
    return columns


def keep_digest(folder: Path, entry: ShardEntry) -> None:
    """Write the sha256 of the columns beside them, by which `check_columns` knows them again."""
    write_atomically(_digest_path(folder, entry), content_hash(columns_path(folder, entry)) + "\n")


def check_columns(folder: Path, entry: ShardEntry) -> None:
    """Raise CorruptRecord where columns are not those that were written; older ones have no hash and pass."""
    path, digest = columns_path(folder, entry), _digest_path(folder, entry)
    if path.is_file() and digest.is_file() and content_hash(path) != digest.read_text().strip():
        raise CorruptRecord(
            "its sha256 is not that beside it: at least one byte has changed",
            where=str(path),
            do="delete it and the .sha256 beside it: both are made again from the tar",
        )


def _digest_path(folder: Path, entry: ShardEntry) -> Path:
    return columns_path(folder, entry).with_suffix(".npy.sha256")


def load_columns(folder: Path, entry: ShardEntry) -> Columns | None:
    """The columns beside a tar; None where there are none, or a broken file."""
    path = columns_path(folder, entry)
    with suppress(OSError, ValueError):
        columns = np.load(path, mmap_mode="r").view(np.ndarray) if path.is_file() else np.zeros(0)
        return columns if len(columns) == entry.nsamples and columns.dtype.names == NAMES else None
    return None


def scan(tar: Path, entry: ShardEntry, cameras: Sequence[str], proprio: Sequence[str | None]) -> Columns:
    """Make the columns from the tar. Raises CorruptRecord when it does not hold the frames of its entry."""
    try:
        with tar.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as members:
            return _scanned(stream, {info.name: info for info in members}, entry, cameras, proprio)
    except (tarfile.TarError, TypeError, *LOWDIM_ERRORS) as error:
        what = f"its frames are not the {entry.nsamples} of the index: {type(error).__name__} {error}"
        raise corrupt(tar, what) from error


def _scanned(
    tar: BinaryIO,
    members: Mapping[str, tarfile.TarInfo],
    entry: ShardEntry,
    cameras: Sequence[str],
    proprio: Sequence[str | None],
) -> Columns:
    def content(name: str) -> bytes:
        tar.seek(members[name].offset_data)
        return tar.read(members[name].size)

    keys = [frame_key(episode, step) for episode, n_frames in entry.episodes for step in range(n_frames)]
    lowdim = [parse_lowdim(content(f"{key}.{LOWDIM}")) for key in keys]
    action = np.stack([arrays["action"] for arrays in lowdim])
    values = np.concatenate([proprio_row(arrays, proprio) for arrays in lowdim])
    texts = [parse_instruction(content(f"{key}.{META}")).encode() for key in keys]
    places = [[members[f"{key}.{image_member(camera)}"] for camera in cameras] for key in keys]
    columns = np.empty(
        len(keys),
        [
            ("action", np.float32, action.shape[1:]),
            ("proprio", np.float32, values.shape[1:]),
            ("places", np.int64, (len(cameras), 2)),
            ("instruction", f"S{max(map(len, texts))}"),
        ],
    )
    columns["action"], columns["proprio"], columns["instruction"] = action, values, texts
    columns["places"] = [[(info.offset_data, info.size) for info in row] for row in places]
    return columns


def proprio_row(arrays: Mapping[str, Float32], order: Sequence[str | None]) -> Float32:
    """(1, P) of one frame's `.lowdim.npz`."""
    named = {name.removeprefix("proprio."): values[None] for name, values in arrays.items()}
    return proprio_columns(named, order, 1)


def corrupt(shard: Path, what: str) -> CorruptRecord:
    """The error of a damaged tar."""
    remedy = "run the verification to see all that is wrong, then convert the source again"
    return CorruptRecord(what, where=str(shard), do=remedy)
