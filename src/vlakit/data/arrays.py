"""What formats have in common whose episodes are named arrays: a format says where episodes lie and what each holds.

Paths are those that a spec writes: `obs/` and `observations/` are `observation/`, `actions` is `action`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vlakit.data.survey import Survey
from vlakit.errors import FeatureMissing, InvalidData, nearest

INSTRUCTION = "language_instruction"
INSTRUCTION_FILE = "instruction.txt"
_COLUMNS, _PICTURES = 2, 4  # dimensions of (T, D) and of (T, H, W, C)
_OWN_WORDS = {"obs": "observation", "observations": "observation", "actions": "action"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an episode: shape (T, ...), dtype as stored or "picture" if encoded; `read` gives T values."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Any]

    @property
    def picture(self) -> bool:
        """Whether its values are pictures, raw or encoded."""
        return self.dtype == "picture" or len(self.shape) == _PICTURES

    @property
    def small(self) -> bool:
        """Whether it is numbers or text, cheap to read."""
        return not self.picture and len(self.shape) <= _COLUMNS


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """One episode: the file or folder, its name inside, its number; key: sha256 over numbers and text."""

    file: Path
    name: str
    number: int
    key: int

    @property
    def metadata(self) -> dict[str, str | int]:
        """File and number."""
        return {"source_file": self.file.name, "source_record": self.number}

    def __str__(self) -> str:
        return f"{self.file}, {self.name}" if self.name else str(self.file)


@dataclass(frozen=True)
class ArraySource(ABC):
    """A dataset in one file, or in a folder."""

    path: Path
    format: ClassVar[str]

    @abstractmethod
    def places(self, split: str) -> Iterator[tuple[Path, str]]:
        """File, and name inside it, of each episode of a split, in order."""

    @abstractmethod
    def fields(self, file: Path, name: str) -> AbstractContextManager[Mapping[str, Field]]:
        """What an episode holds, by the path that a spec writes; open as long as the block lasts."""

    @property
    def splits(self) -> list[str]:
        """Those that hold an episode."""
        return [split for split in ("train", "val") if any(True for _ in self.places(split))]

    @property
    def rate(self) -> float | None:
        """Frames a second; most formats do not say it."""
        return None

    def identity(self) -> dict[str, Any]:
        """Its name, and how large each file is."""
        files = [self.path] if self.path.is_file() else sorted(one for one in self.path.rglob("*") if one.is_file())
        sizes = {str(file.relative_to(self.path.parent)): file.stat().st_size for file in files}
        return {"name": self.path.name, "file_sizes": sizes}

    def survey(self) -> Survey:
        """The fields of the first episode; steps and instructions of all."""
        fields: dict[str, Field] = {}
        counts, instructions = list[int](), set[str]()
        for split in self.splits:
            for file, name in self.places(split):
                with self.fields(file, name) as found:
                    fields = fields or dict(found)
                    counts.append(max((field.shape[0] for field in found.values()), default=0))
                    instructions |= {*found[INSTRUCTION].read()} if INSTRUCTION in found else set()
        return Survey(
            format=self.format,
            n_episodes=len(counts),
            n_steps=sum(counts),
            fields={path: f"{field.dtype} {field.shape[1:]}" for path, field in fields.items()},
            cameras={
                path.removeprefix("observation/"): _size(field) for path, field in fields.items() if field.picture
            },
            rate=self.rate,
            instructions=sorted(instructions),
        )

    def headers(self, split: str) -> Iterator[ArrayHeader]:
        """The episodes of a split in order; their numbers are read for the key, no picture."""
        for number, (file, name) in enumerate(self.places(split)):
            digest = sha256()
            with self.fields(file, name) as found:
                for path in sorted(found):
                    if found[path].small:
                        digest.update(path.encode() + _bytes(found[path].read()))
            yield ArrayHeader(file, name, number, int.from_bytes(digest.digest()[:8], "big"))

    def read(self, header: ArrayHeader, fields: Collection[str]) -> dict[str, Any]:
        """The named fields; FeatureMissing with the nearest."""
        with self.fields(header.file, header.name) as found:
            return {path: found[self._path(path, found, str(header))].read() for path in fields}

    def same(self, header: ArrayHeader, other: ArrayHeader) -> bool:
        """Whether two episodes hold the same fields with the same values."""
        with self.fields(header.file, header.name) as mine, self.fields(other.file, other.name) as theirs:
            return mine.keys() == theirs.keys() and all(
                _bytes(mine[path].read()) == _bytes(theirs[path].read()) for path in mine
            )

    def _path(self, path: str, found: Mapping[str, Field], where: str) -> str:
        own = spec_path(path)
        for name in (own, own.removeprefix("observation/"), f"observation/{own}"):
            if name in found:
                return name
        remedy = f"correct the spec; {nearest(own, found)}"
        if own == INSTRUCTION:
            remedy = f"write what the robot was told into {INSTRUCTION_FILE} beside the data, or name another field"
        raise FeatureMissing(f"the episode has no field {path!r}", where=where, do=remedy)


def spec_path(path: str) -> str:
    """A path in the words of a spec.

    >>> spec_path("obs/agentview_image"), spec_path("actions"), spec_path("observations/qpos")
    ('observation/agentview_image', 'action', 'observation/qpos')
    """
    first, slash, rest = path.partition("/")
    return _OWN_WORDS.get(first, first) + slash + rest


def told(text: str | None, n_steps: int, *folders: Path) -> dict[str, Field]:
    """The instruction of every step: `text`, else what instruction.txt in the first of the folders says; else none."""
    files = (folder / INSTRUCTION_FILE for folder in folders)
    text = text or next((file.read_text(encoding="utf-8").strip() for file in files if file.is_file()), None)
    return {INSTRUCTION: Field((n_steps,), "text", lambda: [text] * n_steps)} if text else {}


def pictures(values: np.ndarray, where: str) -> np.ndarray:
    """Raw pictures (T, H, W, C) as uint8; some recorders store 0..255 as float. Raises InvalidData for other floats."""
    if values.dtype == np.uint8:
        return values
    levels = np.rint(values)
    if (
        not np.isfinite(values).all()
        or (levels != values).any()
        or levels.min() < 0
        or levels.max() > np.iinfo(np.uint8).max
    ):
        what = f"pictures are {values.dtype} from {values.min():g} to {values.max():g}, not levels of 0 to 255"
        raise InvalidData(what, where=where, do="store them as uint8")
    return levels.astype(np.uint8)


def _size(field: Field) -> tuple[int, int] | None:
    return (field.shape[1], field.shape[2]) if len(field.shape) == _PICTURES else None


def _bytes(values: Any) -> bytes:
    if isinstance(values, np.ndarray) and values.dtype != object:
        return str((values.dtype, values.shape)).encode() + values.tobytes()
    return b"\0".join(value if isinstance(value, bytes) else str(value).encode() for value in values)
