"""LeRobot v3.0 and v2.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlakit.data.formats import needed

MARK = "meta/info.json"


def recognise(path: Path) -> bool:
    """By the one file that every version has."""
    return (path / MARK).is_file()


def open_source(path: Path) -> Any:
    """Raises PartMissing without pyarrow or PyAV, and what `LeRobotSource.open` raises."""
    needed("pyarrow", "lerobot")
    needed("av", "lerobot")
    return needed("vlakit.data.lerobot.source", "lerobot").LeRobotSource.open(path)
