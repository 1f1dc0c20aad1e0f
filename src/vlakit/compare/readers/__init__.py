"""Readers of evaluations, one file a format. A new format is a new file here that holds a `READER`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from vlakit.compare.episodes import Episodes, printable
from vlakit.errors import UnknownName


@dataclass(frozen=True)
class Reader:
    """One format. find: the files that this format would read at a path, none if it is another's."""

    name: str
    layout: str
    find: Callable[[Path], list[Path]]
    read: Callable[[Path, list[Path]], Episodes]


@cache
def readers() -> list[Reader]:
    """All readers, by the names of their files."""
    names = sorted(module.name for module in iter_modules(__path__))
    return [import_module(f"{__name__}.{name}").READER for name in names]


def read(path: str | Path) -> Episodes:
    """The episodes at a path, in whichever known format. Raises UnknownName, InvalidData, CorruptRecord."""
    place = Path(path)
    for reader in readers():
        files = reader.find(place)
        if files:
            episodes = reader.read(place, files)
            notes = [printable(note) for note in episodes.notes]
            return replace(episodes, run=printable(episodes.run), notes=notes)
    layouts = "; ".join(f"{reader.name}: {reader.layout}" for reader in readers())
    raise UnknownName(
        "no evaluation here" if place.exists() else "no such folder or file",
        where=str(place),
        do=f"give a folder or file with episodes ({layouts})",
    )
