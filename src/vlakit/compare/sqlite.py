"""A stranger's SQLite file, read and nothing else: no line of SQL that the file itself brings along is run.

https://www.sqlite.org/security.html: views, triggers and generated columns of a file are code, so only plain tables
are read; the work, the length of a value and what a statement may do are bounded.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from vlakit.errors import CorruptRecord, InvalidData

LONGEST = 1 << 24  # bytes of one value
STEPS, EVERY = 500_000_000, 100_000  # of SQLite's machine, a few seconds; how often they are counted
ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}
_PLAIN = re.compile(r"\s*CREATE\s+TABLE\b", re.IGNORECASE)
_MADE = re.compile(r"\bAS\s*\(|\bGENERATED\b", re.IGNORECASE)


class Tables:
    """The tables of an open file."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        self._connection, self._file = connection, file

    def rows(self, table: str, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """These columns of a table in the order of its rows, none where there is no such table; InvalidData."""
        found = self._connection.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        if not found:
            return []
        kind, sql = found[0]
        if kind != "table" or not _PLAIN.match(str(sql)) or _MADE.search(str(sql)):
            what = f"{table!r} is no plain table in this file"
            raise InvalidData(what, where=str(self._file), do="take the file that the harness itself wrote")
        return self._connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY rowid").fetchall()


@contextmanager
def reading(file: Path) -> Iterator[Tables]:
    """The tables of a file at one moment. Raises CorruptRecord for no sound database, InvalidData for other columns."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("BEGIN")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
            connection.set_authorizer(lambda what, *_: sqlite3.SQLITE_OK if what in ALLOWED else sqlite3.SQLITE_DENY)
            left = iter(range(STEPS // EVERY))
            connection.set_progress_handler(lambda: next(left, None) is None, EVERY)
            yield Tables(connection, file)
    except sqlite3.OperationalError as error:
        remedy = "let its writer end; or it is a file of another version"
        raise InvalidData(f"cannot be read: {error}", where=str(file), do=remedy) from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise CorruptRecord(f"no sound SQLite file: {error}", where=str(file), do="copy the file again") from error
