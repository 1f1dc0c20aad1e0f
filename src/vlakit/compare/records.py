"""The folder of one evaluation: `evaluation.json` says what was asked, `episodes.jsonl` holds one record an episode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlakit.errors import CorruptRecord, InvalidData

HEADER, EPISODES = "evaluation.json", "episodes.jsonl"


def read_header(folder: str | Path) -> dict[str, Any]:
    """evaluation.json: "settings", and notes such as "gate" and "ckpt". Raises InvalidData, CorruptRecord."""
    header = find_header(Path(folder))
    if header is None:
        raise InvalidData(f"no {HEADER} here", where=str(folder), do="pass a folder that vlakit evaluate suite= wrote")
    return header


def find_header(folder: Path) -> dict[str, Any] | None:
    """The same, None where there is none. Raises CorruptRecord."""
    file = folder / HEADER
    if not file.is_file():
        return None
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
        header["settings"].items()  # that it is there, and a mapping
        return header
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptRecord(f"{HEADER} cannot be read: {error!r}", where=str(folder), do="delete the folder") from error
