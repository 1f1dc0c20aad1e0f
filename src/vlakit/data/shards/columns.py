"""Everything of one shard but its images, as columns: `train-000000.columns.npz` beside `train-000000.tar`.

It is made from the tar and can be made again: shards without one, as vlakit 0.1.0 wrote them, get it when first read.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vlakit.data.shards.frames import (
    LOWDIM,
    LOWDIM_ERRORS,
    META,
    frame_key,
    image_member,
    parse_instruction,
    parse_lowdim,
)
from vlakit.data.shards.index import ShardEntry, ShardIndex
from vlakit.data.shards.statistics import proprio_columns
from vlakit.errors import CorruptRecord
from vlakit.files import write_atomically
from vlakit.schema import Float32, Int64


@dataclass(frozen=True, slots=True)
class Columns:
    """The n frames of a shard. action (n, A), proprio (n, P) in the index's order, places (n, C, 2): offset and size.

    C: the index's cameras in order. instructions (n,): places in `texts`.
    """

    action: Float32
    proprio: Float32
    places: Int64
    instructions: Int64
    texts: tuple[str, ...]

    def save(self, path: Path, shard_hash: str) -> None:
        """Write them for the shard of this sha256; whole or not at all. Raises DiskFull."""
        write_atomically(path, self.to_bytes(shard_hash))

    def to_bytes(self, shard_hash: str) -> bytes:
        """The file's content."""
        stream = io.BytesIO()
        texts = np.frombuffer(json.dumps([shard_hash, *self.texts]).encode(), np.uint8)
        np.savez(stream, allow_pickle=False, **{**asdict(self), "texts": texts})
        return stream.getvalue()


class StoredColumns:
    """`action` or `proprio` of one shard as (D, n), read a dimension at a time: nothing grows with the dataset."""

    def __init__(self, shard: Path, kind: str) -> None:
        self.path, self.kind = columns_path(shard), kind
        self.shape: tuple[int, int] = self._values().T.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, dimension: int) -> Float32:
        return self._values()[:, dimension]

    def _values(self) -> Float32:
        with np.load(self.path, allow_pickle=False) as archive:
            return archive[self.kind]


def columns_path(shard: Path) -> Path:
    """Where the columns of a tar lie."""
    return shard.with_suffix(".columns.npz")


def load_columns(shard: Path, entry: ShardEntry) -> Columns | None:
    """The columns beside a tar; None where there are none, or those of another tar, or a broken file."""
    try:
        with np.load(columns_path(shard), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        shard_hash, *texts = json.loads(arrays.pop("texts").tobytes())
        columns = Columns(**arrays, texts=tuple(texts))
    except (*LOWDIM_ERRORS, TypeError):
        return None
    return columns if shard_hash == entry.sha256 and len(columns.action) == entry.nsamples else None


def open_columns(folder: Path, entry: ShardEntry, index: ShardIndex) -> Columns:
    """The columns of a shard, made and kept where they are missing. Raises CorruptRecord when the tar is damaged."""
    shard = folder / entry.url
    columns = load_columns(shard, entry)
    if columns is None:
        columns = scan(shard, entry, index)
        partial = columns_path(shard).with_suffix(f".{os.getpid()}.partial")  # workers may come here at the same time
        with suppress(OSError):  # a folder that cannot be written: they are made each time
            partial.write_bytes(columns.to_bytes(entry.sha256))
            partial.rename(columns_path(shard))
    return columns


def scan(shard: Path, entry: ShardEntry, index: ShardIndex) -> Columns:
    """Make the columns from the tar itself."""
    try:
        with tarfile.open(shard, "r:") as tar:
            return _scanned(tar, entry, index)
    except (tarfile.TarError, TypeError, *LOWDIM_ERRORS) as error:
        what = f"its frames are not the {entry.nsamples} of the index: {type(error).__name__} {error}"
        raise corrupt(shard, what) from error


def _scanned(tar: tarfile.TarFile, entry: ShardEntry, index: ShardIndex) -> Columns:
    members = {info.name: info for info in tar}
    keys = [frame_key(episode, step) for episode, n_frames in entry.episodes for step in range(n_frames)]

    def content(name: str) -> bytes:
        stream = tar.extractfile(members[name])
        return stream.read() if stream else b""

    lowdim = [parse_lowdim(content(f"{key}.{LOWDIM}")) for key in keys]
    named = [{name.removeprefix("proprio."): value[None] for name, value in one.items()} for one in lowdim]
    texts = [parse_instruction(content(f"{key}.{META}")) for key in keys]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    images = [[members[f"{key}.{image_member(camera)}"] for camera in index.cameras] for key in keys]
    return Columns(
        action=np.stack([one["action"] for one in lowdim]),
        proprio=np.concatenate([proprio_columns(one, index.proprio, 1) for one in named]),
        places=np.array([[(info.offset_data, info.size) for info in row] for row in images], np.int64),
        instructions=np.array([numbers[text] for text in texts], np.int64),
        texts=tuple(numbers),
    )


def corrupt(shard: Path, what: str) -> CorruptRecord:
    """The error of a damaged tar."""
    remedy = "run the verification to see all that is wrong, then convert the source again"
    return CorruptRecord(what, where=str(shard), do=remedy)
