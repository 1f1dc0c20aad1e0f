"""RLDS: the version folder that TFDS writes."""

from __future__ import annotations

from pathlib import Path

from vlakit.data.rlds.source import RldsSource

MARK = "features.json in it, or in one version folder below"


def recognise(path: Path) -> bool:
    """Also an unfinished one, which then says what it lacks."""
    return any(path.glob("features.json")) or any(path.glob("*/features.json")) or any(path.glob("*.tfrecord*"))


def open_source(path: Path) -> RldsSource:
    """DIR/1.0.0, or DIR with one version below it."""
    return RldsSource.open(path)
