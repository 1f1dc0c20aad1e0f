"""A pool: demonstrations of which one sees the first picture and the instruction, and buys the rest.

What was not bought cannot be read: `Bought`, from which shards are made, raises. An id is the number of a demonstration
among the train episodes of its source.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.rlds.images import decode_image
from vlakit.data.source import Header, Source
from vlakit.data.specs.spec import DatasetSpec, Segment
from vlakit.data.specs.standardize import standardize
from vlakit.data.survey import Survey
from vlakit.errors import CorruptRecord, InvalidData, UnknownName, VlakitError
from vlakit.schema import Observation

REASONS = "outliers.json"  # id -> why it cannot be learnt, where somebody knows: for reports, not to choose by


class LabelNotBought(VlakitError):
    """Somebody reads actions of a demonstration that was not acquired."""


@dataclass(frozen=True)
class Bought:
    """A source (data/source.py) that holds the acquired demonstrations of another, and raises for the rest."""

    whole: Source
    keys: tuple[int, ...]  # of the acquired headers, in order of their ids
    ids: tuple[int, ...]

    @property
    def path(self) -> Path:
        """Where the whole lies."""
        return self.whole.path

    @property
    def splits(self) -> Sequence[str]:
        """What is held out for validation is held out of what was bought."""
        return ["train"]

    def identity(self) -> dict[str, Any]:
        """The whole's, and which of it."""
        return {**self.whole.identity(), "bought": sha256(repr(self.ids).encode()).hexdigest()}

    def survey(self) -> Survey:
        """The whole's."""
        return self.whole.survey()

    def headers(self, split: str) -> Iterator[Header]:
        """The acquired ones, in order of their ids."""
        wanted = set(self.ids)
        return (header for number, header in enumerate(self.whole.headers("train")) if number in wanted)

    def read(self, header: Any, fields: Collection[str]) -> Mapping[str, np.ndarray | list[Any]]:
        """As the whole. Raises LabelNotBought."""
        if header.key not in self.keys:
            raise LabelNotBought("a demonstration that was not acquired", where=str(header), do="acquire it first")
        return self.whole.read(header, fields)

    def same(self, header: Any, other: Any) -> bool:
        """As the whole."""
        return self.whole.same(header, other)


class Pool:
    """All train demonstrations of a source. Raises InvalidData for none, or for two that are the same."""

    def __init__(self, source: Source, spec: DatasetSpec) -> None:
        self.source, self.spec = source, spec
        self.headers = list(source.headers("train")) if "train" in source.splits else []
        if not self.headers:
            raise InvalidData("the pool is empty", where=str(source.path), do="give a folder with train episodes")
        self._refuse_copies()

    def __len__(self) -> int:
        return len(self.headers)

    def first_looks(self, cameras: Sequence[str], ids: Sequence[int] | None = None) -> list[Observation]:
        """The first observation of each demonstration (default: all): no field that an action is made of is read."""
        blind = replace(
            self.spec,
            action=(Segment(zeros=self.spec.width or 1),),
            proprio=(),
            post=(),
            augment=(),
            frame_filter=None,
            action_encoding="EEF_POS" if self.spec.width == 7 else self.spec.action_encoding,
        )
        chosen = range(len(self)) if ids is None else ids
        return [self._first_look(blind, self.headers[one], cameras) for one in chosen]

    def bought(self, ids: Sequence[int]) -> Bought:
        """The source of these demonstrations alone. Raises UnknownName for an id that the pool lacks."""
        unknown = [one for one in ids if not 0 <= one < len(self)]
        if unknown:
            raise UnknownName(f"no demonstration {unknown[0]}", where=str(self.source.path), do=f"0 to {len(self) - 1}")
        order = sorted(int(one) for one in ids)
        return Bought(self.source, tuple(self.headers[one].key for one in order), tuple(order))

    def reasons(self) -> dict[int, str] | None:
        """Why demonstrations are outliers, where a file beside the pool says so; None: nobody knows.

        Raises CorruptRecord.
        """
        file = next((place / REASONS for place in (self.source.path, self.source.path.parent) if _holds(place)), None)
        if file is None:
            return None
        try:
            return {int(one): str(why) for one, why in json.loads(file.read_text(encoding="utf-8")).items()}
        except (AttributeError, ValueError) as error:
            raise CorruptRecord(f"no list of outliers: {error}", where=str(file), do="delete it, or mend it") from error

    def _first_look(self, blind: DatasetSpec, header: Header, cameras: Sequence[str]) -> Observation:
        steps = self.source.read(header, blind.keys(cameras))
        seen = standardize(steps, blind, where=str(header), cameras=cameras)
        if not len(seen):
            raise InvalidData("a demonstration without a step", where=str(header), do="leave it out of the pool")
        images = {camera: decode_image(seen.images[camera][0])[None] for camera in cameras}
        return Observation(images, seen.instructions[0], self.spec.name)

    def _refuse_copies(self) -> None:
        by_key: dict[int, int] = {}
        for number, header in enumerate(self.headers):
            other = by_key.setdefault(header.key, number)
            if other != number and self.source.same(self.headers[other], header):
                raise InvalidData(
                    f"demonstrations {other} and {number} are the same",
                    where=str(self.source.path),
                    do="leave copies out of the pool: one of them would be bought twice",
                )


def _holds(place: Path) -> bool:
    return (place / REASONS).is_file()
