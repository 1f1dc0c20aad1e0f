"""A table of episodes as CSV: task, initial_state, success; credit, run (or experiment), seed, suite where they differ.

Files of `vlakit table ... save=DIR` are such tables. Lines of one run and seed are one evaluation.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from vlakit.compare.episodes import Episodes, Outcome, Start, columns, digest_of, outcome_of
from vlakit.compare.grids import unquoted
from vlakit.compare.readers import Reader
from vlakit.errors import CorruptRecord, InvalidData

NEEDED = ("task", "initial_state", "success")
_WORDS = {"true": 1.0, "false": 0.0}
Line = dict[str, str]


def find(path: Path) -> list[Path]:
    """The file, or those of a folder that have the columns."""
    if path.is_dir():
        return [file for file in sorted(path.glob("*.csv")) if set(NEEDED) <= set(_header(file))]
    return [path] if path.suffix.lower() == ".csv" and path.is_file() else []


def read(path: Path, files: list[Path]) -> list[Episodes]:
    """An evaluation of each run and seed, in the order of the files. Raises InvalidData, CorruptRecord."""
    groups: dict[tuple[str, str, str], list[tuple[int, Line]]] = {}
    sources: dict[tuple[str, str, str], Path] = {}
    for file in files:
        for number, line in _lines(file):
            name = line.get("experiment") or line.get("run") or file.stem
            key = name, line.get("run", ""), line.get("seed", "")
            groups.setdefault(key, []).append((number, line))
            sources.setdefault(key, file)
    if not groups:
        raise InvalidData("no episode here", where=str(path), do="a line an episode, below the header")
    return [_evaluation(key[0], lines, sources[key]) for key, lines in groups.items()]


def _evaluation(name: str, lines: Sequence[tuple[int, Line]], file: Path) -> Episodes:
    starts, success, credit = columns(_outcome(line, f"{file}, line {number}") for number, line in lines)
    digest = digest_of(json.dumps(line, sort_keys=True).encode() for _, line in lines)
    return Episodes(name, file, starts, success, credit, digest, seed=lines[0][1].get("seed") or None)


def _header(file: Path) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        first = stream.readline()
    return [word.strip().strip('"').lower() for word in first.strip().split(_comma(first))]


def _comma(header: str) -> str:
    """What stands between fields: spreadsheets of half the world write semicolons, some tabs."""
    return max(",;\t", key=header.count)


def _lines(file: Path) -> list[tuple[int, Line]]:
    header = _header(file)
    absent = [name for name in NEEDED if name not in header]
    if absent:
        raise InvalidData(
            f"no column {absent[0]!r}",
            where=f"{file}  (has: {', '.join(header)[:200]})",
            do=f"a line an episode with {', '.join(NEEDED)} and, where they differ, credit, run, seed, suite",
        )
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=_comma(stream.readline()))
            rows = [(number, [unquoted(field.strip()) for field in row]) for number, row in enumerate(reader, 2) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorruptRecord(f"not readable as CSV: {error}", where=str(file), do="save it again, as UTF-8") from error
    for number, row in rows:
        if len(row) != len(header):
            what = f"{len(row)} fields under {len(header)} columns"
            raise CorruptRecord(what, where=f"{file}, line {number}", do="save the table again")
    return [(number, dict(zip(header, row, strict=True))) for number, row in rows]


def _outcome(line: Line, where: str) -> Outcome:
    success = outcome_of(_number(line["success"], "success", where), where)
    credit = _number(line["credit"], "credit", where) if line.get("credit") else float(success)
    start = Start(line.get("suite") or "csv", line["task"], line["initial_state"])
    if not start.task or not start.unit:
        raise CorruptRecord("an episode without task or initial_state", where=where, do="fill them in")
    return Outcome(start, success, credit)


def _number(word: str, column: str, where: str) -> float:
    try:
        value = _WORDS.get(word.lower())
        value = float(word) if value is None else value
    except ValueError:
        value = float("nan")
    if isfinite(value):
        return value
    raise CorruptRecord(f"a {column} of {word!r}", where=where, do="give 1 or 0, true or false; a credit may be 0.5")


READER = Reader("csv", f"FILE.csv with {', '.join(NEEDED)}", find, read)
