"""HDF5 as robomimic and LIBERO (one file, a group a demonstration) or ALOHA (one file a demonstration) write it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.arrays import ArraySource, Field, pictures, spec_path, told
from vlakit.data.formats import by_number, needed
from vlakit.errors import CorruptRecord, InvalidData

MARK = "*.hdf5 or *.h5"
_ENDINGS = (".hdf5", ".h5")
_ACTIONS = ("actions", "action")
_ENCODED = (b"\xff\xd8", b"\x89PNG")
_MASKS = {"train": "train", "val": "valid"}  # robomimic's filter keys


def recognise(path: Path) -> bool:
    """One such file, or a folder with some below it."""
    return path.suffix in _ENDINGS if path.is_file() else any(path.glob("*.hdf5")) or any(path.glob("*.h5"))


def open_source(path: Path) -> Hdf5Source:
    """Raises PartMissing without h5py."""
    needed("h5py", "hdf5")
    return Hdf5Source(path)


class Hdf5Source(ArraySource):
    """Instructions are in no such file but LIBERO's: instruction.txt beside the files says one for all."""

    format = "HDF5"

    def places(self, split: str) -> Iterator[tuple[Path, str]]:
        """Demonstrations by number; robomimic's masks train and valid are the splits where a file has both."""
        files = [self.path] if self.path.is_file() else sorted(f for f in self.path.glob("*") if f.suffix in _ENDINGS)
        for file in sorted(files, key=lambda one: by_number(one.stem)):
            with _opened(file) as root:
                names = _names(root, split, file)
            yield from ((file, name) for name in names)

    @property
    def rate(self) -> float | None:
        """control_freq of robomimic's env_args."""
        file, name = next(self.places("train"))
        with _opened(file) as root:
            arguments = _json(root["data"].attrs.get("env_args")) if name else {}
        rate = arguments.get("env_kwargs", {}).get("control_freq")
        return None if rate is None else float(rate)

    @contextmanager
    def fields(self, file: Path, name: str) -> Iterator[Mapping[str, Field]]:
        """Every dataset of the group with a row a step."""
        with _opened(file) as root:
            group = root[name] if name else root
            n_steps = next(len(group[key]) for key in _ACTIONS if key in group)
            found: dict[str, Field] = {}

            def visit(path: str, dataset: Any) -> None:
                if hasattr(dataset, "shape") and dataset.shape[:1] == (n_steps,):
                    found[spec_path(path)] = _field(dataset, f"{file}, {path}")

            group.visititems(visit)
            folder = file.parent
            yield {**told(_instruction(root, group), n_steps, folder), **found}


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(file, "r") as root:
            yield root
    except (OSError, KeyError, RuntimeError) as error:
        what = f"the HDF5 file cannot be read: {error}"
        raise CorruptRecord(what, where=str(file), do="fetch the file again, or leave it out") from None


def _names(root: Any, split: str, file: Path) -> list[str]:
    if any(key in root for key in _ACTIONS):
        return [""] if split == "train" else []
    demos = [name for name in root.get("data", {}) if any(key in root["data"][name] for key in _ACTIONS)]
    if not demos:
        what = f"neither data/DEMO/actions nor action is in the file: it holds {', '.join(root) or 'nothing'}"
        raise InvalidData(what, where=str(file), do="write it as robomimic or ALOHA do, or see docs/data.md")
    masks = root.get("mask", {})
    if all(mask in masks for mask in _MASKS.values()):
        kept = {_text(name) for name in masks[_MASKS[split]][()]}
        demos = [name for name in demos if name in kept]
    elif split != "train":
        return []
    return [f"data/{name}" for name in sorted(demos, key=by_number)]


def _field(dataset: Any, where: str) -> Field:
    shape, dtype = dataset.shape, dataset.dtype
    if dtype.kind in "OS" and not _vlen_bytes(dtype):
        return Field(shape, "text", lambda: [_text(value) for value in dataset[()]])
    if _vlen_bytes(dtype) or (len(shape) == 2 and dtype == np.uint8 and bytes(dataset[0][:4]).startswith(_ENCODED)):
        # ALOHA pads each to the longest with zeros, which no JPEG or PNG ends in
        return Field(
            shape[:1], "picture", lambda: [bytes(np.asarray(row, np.uint8)).rstrip(b"\0") for row in dataset[()]]
        )
    if len(shape) == 4:
        return Field(shape, str(dtype), lambda: pictures(dataset[()], where))
    return Field(shape, str(dtype), partial(dataset.__getitem__, ()))


def _vlen_bytes(dtype: Any) -> bool:
    import h5py

    return h5py.check_vlen_dtype(dtype) == np.uint8


def _instruction(root: Any, group: Any) -> str | None:
    """Of the demonstration, the file, or LIBERO's problem_info."""
    for place in (group, root.get("data", root), root):
        for key in ("language_instruction", "instruction"):
            if key in place.attrs:
                return _text(place.attrs[key])
        if "problem_info" in place.attrs:
            return _json(place.attrs["problem_info"]).get("language_instruction")
    one = group.get("language_instruction", group.get("language_raw"))
    return _text(np.ravel(one[()])[0]) if one is not None and np.size(one) == 1 else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _json(text: Any) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
