"""Readers of evaluations, one file a format. A new format is a new file here that holds a `READER`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from vlakit.compare.episodes import Episodes
from vlakit.errors import InvalidData, UnknownName, one_line


@dataclass(frozen=True)
class Reader:
    """One format. find: the files that this format would read at a path, none if it is another's.

    read: what they hold, a list where a file may hold several evaluations.
    """

    name: str
    layout: str
    find: Callable[[Path], list[Path]]
    read: Callable[[Path, list[Path]], Episodes | list[Episodes]]


@cache
def readers() -> list[Reader]:
    """All readers, by the names of their files."""
    names = sorted(module.name for module in iter_modules(__path__))
    return [import_module(f"{__name__}.{name}").READER for name in names]


def read(path: str | Path) -> Episodes:
    """The one evaluation at a path, in whichever known format. Raises UnknownName, InvalidData, CorruptRecord."""
    every = read_all(path)
    if len(every) > 1:
        names = ", ".join(sorted({one.run for one in every}))
        raise InvalidData(f"{len(every)} evaluations here: {names}", where=str(path), do="give a file of one")
    return every[0]


def read_all(path: str | Path) -> list[Episodes]:
    """All evaluations at a path, at least one, without control characters. Raises as `read`."""
    place = Path(path)
    for reader in readers():
        files = reader.find(place)
        if files:
            found = reader.read(place, files)
            return [_printable(one) for one in (found if isinstance(found, list) else [found])]
    layouts = "; ".join(f"{reader.name}: {reader.layout}" for reader in readers())
    raise UnknownName(
        "no evaluation here" if place.exists() else "no such folder or file",
        where=str(place),
        do=f"give a folder or file with episodes ({layouts})",
    )


def _printable(episodes: Episodes) -> Episodes:
    """Starts are clean already (columns); so are then all words that a report shows."""
    return replace(
        episodes,
        run=one_line(episodes.run),
        seed=None if episodes.seed is None else one_line(episodes.seed),
        versions={one_line(key): one_line(value) for key, value in episodes.versions.items()},
        states=one_line(episodes.states),
        notes=[one_line(note) for note in episodes.notes],
        unfinished=one_line(episodes.unfinished),
    )
