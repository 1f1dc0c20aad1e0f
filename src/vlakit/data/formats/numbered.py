"""A folder of numbered pictures with a table, one row a step: what one has before any format was chosen.

EPISODE/steps.csv (or .json, .jsonl), and pictures in EPISODE/ or, one folder a camera, in EPISODE/CAMERA/.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.arrays import INSTRUCTION, ArraySource, Field, spec_path, told
from vlakit.data.formats import by_number
from vlakit.errors import CorruptRecord, InvalidData

MARK = "a .csv, .json or .jsonl with a row a step beside numbered .png or .jpg, or folders with these"
_TABLES, _PICTURES = (".csv", ".json", ".jsonl"), (".png", ".jpg", ".jpeg")
_COLUMN = re.compile(r"(.*?)[._\[]?(\d+)\]?")  # action_0, action.0, action[0]: columns of one field
_TELLING = ("instruction", "task", INSTRUCTION)
_FOLDER_CAMERA = "image"


def recognise(path: Path) -> bool:
    """By the first folder that has a table and pictures."""
    return path.is_dir() and next(_episodes(path), None) is not None


def open_source(path: Path) -> NumberedSource:
    """Needs no library of its own."""
    return NumberedSource(path)


class NumberedSource(ArraySource):
    """The columns action_0, action_1... are the field action; any other is observation/NAME."""

    format = "numbered pictures"

    def places(self, split: str) -> Iterator[tuple[Path, str]]:
        """Every folder with a table and pictures, by name; all are train."""
        if split == "train":
            yield from ((folder, "") for folder in _episodes(self.path))

    @property
    def rate(self) -> float | None:
        """`fps` of the first JSON."""
        rate = _content(_table(next(_episodes(self.path)))).get("fps")
        return None if rate is None else float(rate)

    @contextmanager
    def fields(self, file: Path, name: str) -> Iterator[Mapping[str, Field]]:
        """Columns of the table, and the pictures of each camera, still encoded."""
        content = _content(_table(file))
        rows: Sequence[Mapping[str, Any]] = content["steps"]
        found = {path: _field(values, f"{file}, {path}") for path, values in _columns(rows, file).items()}
        for camera, files in _cameras(file).items():
            if len(files) != len(rows):
                what = f"{len(files)} pictures of {camera!r} and {len(rows)} rows in {_table(file).name}"
                raise InvalidData(what, where=str(file), do="keep one picture a row")
            found[f"observation/{camera}"] = Field((len(rows),), "picture", partial(_encoded, files))
        text = next((content[key] for key in _TELLING if isinstance(content.get(key), str)), None)
        yield {**told(text, len(rows), file, self.path), **found}


def _episodes(path: Path) -> Iterator[Path]:
    for folder in (path, *sorted((one for one in path.glob("*") if one.is_dir()), key=lambda one: by_number(one.name))):
        if any(one.suffix in _TABLES for one in folder.glob("*")) and _cameras(folder):
            yield folder


def _table(folder: Path) -> Path:
    tables = sorted(one for one in folder.glob("*") if one.suffix in _TABLES)
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise InvalidData(f"several tables: {names}", where=str(folder), do="keep the one with a row a step")
    return tables[0]


def _content(table: Path) -> dict[str, Any]:
    """{"steps": rows} and what a JSON says of all of them."""
    try:
        text = table.read_text(encoding="utf-8-sig")
        if table.suffix == ".csv":
            content: Any = {"steps": list(csv.DictReader(text.splitlines(), strict=True))}
        elif table.suffix == ".jsonl":
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            content = json.loads(text)
    except (ValueError, csv.Error) as error:
        raise CorruptRecord(f"the table cannot be read: {error}", where=str(table), do="write it again") from None
    content = {"steps": content} if isinstance(content, list) else content
    if not isinstance(content, dict) or not isinstance(content.get("steps"), list) or not content["steps"]:
        what = 'neither a list of rows nor {"steps": [...]}'
        raise InvalidData(what, where=str(table), do="write one row a step")
    return content


def _columns(rows: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, list[Any]]:
    """Field -> a value a step; numbered columns side by side, in order of their number."""
    parts: dict[str, dict[int, str]] = defaultdict(dict)
    for name in rows[0]:
        match = _COLUMN.fullmatch(name)
        field, number = (match[1], int(match[2])) if match and match[1] else (name, -1)
        parts[field][number] = name
    try:
        found = {
            field: [[row[names[n]] for n in sorted(names)] if min(names) >= 0 else row[names[-1]] for row in rows]
            for field, names in parts.items()
        }
    except (KeyError, TypeError) as error:
        what = f"not every row has the columns of the first: {error}"
        raise InvalidData(what, where=str(folder), do="complete the table") from None
    return {_path(field): values for field, values in found.items()}


def _path(field: str) -> str:
    own = spec_path(field)
    return (
        INSTRUCTION
        if field in _TELLING
        else own
        if own.startswith(("action", "observation/"))
        else f"observation/{own}"
    )


def _field(values: list[Any], where: str) -> Field:
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        if not all(isinstance(value, str) for value in values):
            remedy = "give each row as many numbers"
            raise InvalidData("neither text nor numbers of one length", where=where, do=remedy) from None
        return Field((len(values),), "text", lambda: values)
    return Field(array.shape, "float32", lambda: array)


def _cameras(folder: Path) -> dict[str, list[Path]]:
    found = {_FOLDER_CAMERA: _pictures(folder)}
    found |= {
        below.name: _pictures(below) for below in sorted(folder.glob("*")) if below.is_dir() and not _has_table(below)
    }
    return {camera: files for camera, files in found.items() if files}


def _has_table(folder: Path) -> bool:
    return any(one.suffix in _TABLES for one in folder.glob("*"))


def _pictures(folder: Path) -> list[Path]:
    files = [one for one in folder.glob("*") if one.suffix.lower() in _PICTURES and re.search(r"\d", one.stem)]
    return sorted(files, key=lambda one: by_number(one.stem))


def _encoded(files: Sequence[Path]) -> list[bytes]:
    return [file.read_bytes() for file in files]
