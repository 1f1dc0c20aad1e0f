"""Formats that a source may have, one module each; adding a format is adding a file here (docs/data.md).

A module has `MARK` (for people), `recognise(path) -> bool`, which only looks at names, and `open_source(path)`.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from vlakit.errors import InvalidData, PartMissing, UnknownName


def formats() -> dict[str, ModuleType]:
    """Name -> module, in order of the alphabet."""
    names = sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
    return {name: import_module(f"{__name__}.{name}") for name in names}


def format_of(path: Path) -> ModuleType:
    """The format of a folder or file; raises UnknownName where nothing is, InvalidData for none or several formats."""
    if not path.exists():
        remedy = "check the path; that of RLDS ends in NAME/VERSION"
        raise UnknownName("there is no such folder", where=str(path), do=remedy)
    known = formats()
    found = [name for name, module in known.items() if module.recognise(path)]
    if len(found) == 1:
        return known[found[0]]
    marks = "; ".join(f"{name}: {module.MARK}" for name, module in known.items())
    if found:
        what = f"the folder could be of several formats: {', '.join(found)}"
        raise InvalidData(what, where=str(path), do=f"leave one dataset in a folder ({marks})")
    raise InvalidData("no dataset of a known format", where=str(path), do=f"known are {marks}")


def needed(module: str, extra: str) -> ModuleType:
    """An optional library; PartMissing names the extra that brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise PartMissing(f"{error.name or module} is not installed", do=f"pip install 'vlakit[{extra}]'") from None


def by_number(name: str) -> tuple[int, str]:
    """What names are sorted by: their last number, so that demo_2 comes before demo_10."""
    numbers = re.findall(r"\d+", name)
    return (int(numbers[-1]) if numbers else -1), name
