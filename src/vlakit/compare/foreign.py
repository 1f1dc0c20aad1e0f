"""Reading other kits' JSON: what is missing is named, so that a file of another version is refused, not guessed at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlakit.errors import CorruptRecord, InvalidData


def load_json(file: Path, content: bytes | str) -> Any:
    """The value in a file. Raises CorruptRecord."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorruptRecord(f"not JSON: {error}", where=str(file), do="copy the file again") from error


def field_of(record: Any, key: str, file: Path) -> Any:
    """record[key]; InvalidData where the file has another layout."""
    if isinstance(record, dict) and key in record:
        return record[key]
    kind = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
    raise InvalidData(
        f"no {key!r} here: a file of another version?",
        where=f"{file}  (has: {kind[:200]})",
        do="vlakit reads the layouts in src/vlakit/compare/readers; a new version is a new file there",
    )


def list_of(record: Any, key: str, file: Path) -> list[Any]:
    """record[key], which must be a list."""
    value = field_of(record, key, file)
    if isinstance(value, list):
        return value
    raise InvalidData(f"{key!r} is no list: a file of another version?", where=str(file), do="check the file")


def whole_of(record: Any, key: str, file: Path) -> int:
    """record[key], which must be a whole number."""
    value = field_of(record, key, file)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidData(f"{key!r} is no whole number but {value!r}", where=str(file), do="check the file")


def starts_with_keys(file: Path, *keys: str) -> bool:
    """A .json file whose text holds every one of these keys."""
    if file.suffix != ".json" or not file.is_file():
        return False
    text = file.read_bytes()
    return all(f'"{key}"'.encode() in text for key in keys)
