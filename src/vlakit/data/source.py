"""Where demonstrations come from: all that a conversion knows of RLDS, or of any other format.

A format is one class with this shape and one file in `formats/`; nothing else of the kit changes with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vlakit.data.formats import format_of
from vlakit.data.survey import Survey
from vlakit.files import ASSETS

SAMPLE = ASSETS / "bridge_dataset"


class Header(Protocol):
    """One episode that has not been read; str() says where it lies. Cheap: a source may have a million of them."""

    @property
    def key(self) -> int:
        """64 bits of its content: equal episodes have equal keys. By it an episode is held out for validation."""
        ...

    @property
    def metadata(self) -> Mapping[str, str | int]:
        """What of its place is written into the shards: `source_file`, `source_record`."""
        ...


class Source(Protocol):
    """A dataset as it was published. It is sent to worker processes, so it holds no open file."""

    @property
    def path(self) -> Path:
        """Where it lies, for errors."""
        ...

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits that hold something."""
        ...

    def identity(self) -> dict[str, Any]:
        """Plain values that tell this source from another one, or from itself after a change: its name, file sizes."""
        ...

    def survey(self) -> Survey:
        """What it holds, found without a spec."""
        ...

    def headers(self, split: str) -> Iterator[Header]:
        """The episodes of a split in order, none decoded."""
        ...

    def read(self, header: Any, fields: Collection[str]) -> Mapping[str, np.ndarray | list[Any]]:
        """One episode as raw steps: slash path -> T values, images encoded; planning takes only the len() of an image.

        Raises FeatureMissing, CorruptRecord, UnknownName, each naming the episode.
        """
        ...

    def same(self, header: Any, other: Any) -> bool:
        """Whether two episodes with equal keys are equal to the last byte."""
        ...


def source_folder(source: str) -> Path:
    """The dataset that `source` means: the shipped Bridge episodes for "sample", a path otherwise."""
    return SAMPLE if source == "sample" else Path(source).expanduser()


def open_source(path: Path) -> Source:
    """The source in a folder or file, whatever its format; raises UnknownName or InvalidData when it is none."""
    return format_of(path).open_source(path)
