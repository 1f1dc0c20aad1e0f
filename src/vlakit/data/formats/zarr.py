"""Zarr as Diffusion Policy's replay buffer: all episodes one after another, meta/episode_ends says where each ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.arrays import ArraySource, Field, pictures, spec_path, told
from vlakit.data.formats import needed
from vlakit.errors import CorruptRecord, InvalidData

MARK = "meta/episode_ends in it or in its only *.zarr, or *.zarr.zip"
_ENDS = "meta/episode_ends"


def recognise(path: Path) -> bool:
    """The group itself, packed or not, or a folder with one."""
    return len(_stores(path)) == 1


def open_source(path: Path) -> ZarrSource:
    """Raises PartMissing without zarr."""
    needed("zarr", "zarr")
    return ZarrSource(_stores(path)[0])


def _stores(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.endswith(".zarr.zip") else []
    folders = [path, *sorted(path.glob("*.zarr"))]
    return [one for one in folders if (one / _ENDS).is_dir()] or sorted(path.glob("*.zarr.zip"))


class ZarrSource(ArraySource):
    """`data/action` is the field action, any other array `data/NAME` is observation/NAME."""

    format = "Zarr"

    def places(self, split: str) -> Iterator[tuple[Path, str]]:
        """Every episode by its number; all are train."""
        if split == "train":
            with self._opened() as root:
                count = len(_ends(root, self.path))
            yield from ((self.path, f"episode {number}") for number in range(count))

    @contextmanager
    def fields(self, file: Path, name: str) -> Iterator[Mapping[str, Field]]:
        """Its rows of every array."""
        number = int(name.rpartition(" ")[2])
        with self._opened() as root:
            ends = _ends(root, file)
            rows = slice(int(ends[number - 1]) if number else 0, int(ends[number]))
            found = {_path(key): _field(array, rows, f"{file}, data/{key}") for key, array in root["data"].arrays()}
            text = root.attrs.get("language_instruction")
            yield {**told(text, rows.stop - rows.start, file, file.parent), **found}

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        from zarr import open_group
        from zarr.storage import LocalStore, ZipStore

        store = (ZipStore if self.path.is_file() else LocalStore)(self.path, read_only=True)
        try:
            yield open_group(store, mode="r")
        except (ValueError, KeyError, OSError, RuntimeError, EOFError) as error:  # an unknown codec, a damaged chunk
            what = f"the Zarr group cannot be read: {type(error).__name__} {error}"
            raise CorruptRecord(
                what, where=str(self.path), do="fetch it again, or store it with a usual codec"
            ) from None
        finally:
            store.close()


def _ends(root: Any, path: Path) -> np.ndarray:
    ends = np.asarray(root[_ENDS][:])
    lengths = {array.shape[0] for _, array in root["data"].arrays()}
    if not len(ends) or (np.diff(ends, prepend=0) <= 0).any() or lengths != {int(ends[-1])}:
        what = f"meta/episode_ends ends at {ends[-1:].tolist()}, the arrays of data hold {sorted(lengths)} steps"
        raise InvalidData(what, where=str(path), do="fetch the group again: it was not written to its end")
    return ends


def _path(key: str) -> str:
    own = spec_path(key)
    return own if own == "action" else f"observation/{key}"


def _field(array: Any, rows: slice, where: str) -> Field:
    shape = (rows.stop - rows.start, *array.shape[1:])
    if len(shape) == 4:
        return Field(shape, str(array.dtype), lambda: pictures(array[rows], where))
    return Field(shape, str(array.dtype), partial(array.__getitem__, rows))
