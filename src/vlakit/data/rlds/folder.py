"""One version folder of a TFDS dataset: its features and which tfrecord files make up each split."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlakit.data.rlds.features import Features, read_features
from vlakit.errors import InvalidData, UnknownName

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_FILE = re.compile(r"(?:(?P<name>[^-]+)-)?(?P<split>.+)\.tfrecord-(?P<part>\d+)-of-(?P<total>\d+)")


@dataclass(frozen=True, slots=True)
class RldsFolder:
    """A dataset on disk; splits: name -> its tfrecord files in order, none for an empty split."""

    path: Path
    name: str
    splits: dict[str, list[Path]]
    features: Features


def open_rlds(folder: str | Path) -> RldsFolder:
    """Open DIR/1.0.0, or DIR with exactly one version below it.

    Raises UnknownName when the folder is not there, InvalidData when it is no RLDS folder or lacks a tfrecord file.
    """
    path = _version_folder(Path(folder))
    info = _dataset_info(path / "dataset_info.json")
    splits = _splits(path, info)
    features = read_features(path / "features.json")
    return RldsFolder(path, str(info.get("name", path.parent.name)), splits, features)


def _version_folder(path: Path) -> Path:
    if not path.is_dir():
        raise UnknownName("there is no such folder", where=str(path), do="check the path; it ends in NAME/VERSION")
    if (path / "features.json").is_file():
        return path
    versions = sorted(below.parent for below in path.glob("*/features.json") if _VERSION.fullmatch(below.parent.name))
    if len(versions) == 1:
        return versions[0]
    if versions:
        names = ", ".join(version.name for version in versions)
        raise InvalidData("the folder holds several versions", where=str(path), do=f"name one of them: {names}")
    raise InvalidData(
        "no RLDS folder: it has no features.json",
        where=str(path),
        do="give the version folder that tfds wrote, such as NAME/1.0.0",
    )


def _dataset_info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        info = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidData(f"dataset_info.json is no JSON: {error}", where=str(path), do="fetch it again") from None
    return info if isinstance(info, dict) else {}


def _splits(path: Path, info: dict[str, Any]) -> dict[str, list[Path]]:
    found: dict[str, dict[tuple[int, int], Path]] = {}
    for file in sorted(path.glob("*.tfrecord-*")):
        match = _FILE.fullmatch(file.name)
        if match:
            part = int(match["part"]), int(match["total"])
            found.setdefault(match["split"], {})[part] = file
    declared = _declared(info)
    if not found and not (declared and not any(declared.values())):
        kind = info.get("fileFormat", "tfrecord")
        hint = "" if kind == "tfrecord" else f" (its files are {kind})"
        raise InvalidData(f"the folder holds no tfrecord file{hint}", where=str(path), do="fetch NAME-SPLIT.tfrecord-*")
    names = [*declared, *(name for name in found if name not in declared)]
    return {name: _complete(path, name, found.get(name, {}), declared.get(name)) for name in names}


def _declared(info: dict[str, Any]) -> dict[str, int]:
    """How many files dataset_info.json says each split has."""
    splits = info.get("splits", [])
    try:
        return {split["name"]: len(split.get("shardLengths", [])) for split in splits}
    except (TypeError, KeyError, AttributeError):
        return {}


def _complete(path: Path, split: str, parts: dict[tuple[int, int], Path], declared: int | None) -> list[Path]:
    totals = {total for _, total in parts}
    if declared:
        totals.add(declared)
    if not totals:
        return []
    if len(totals) > 1:
        counts = " and ".join(str(total) for total in sorted(totals))
        message = f"files of split {split!r} are numbered out of {counts}"
        raise InvalidData(message, where=str(path), do="keep those of one download only")
    total = totals.pop()
    missing = [part for part in range(total) if (part, total) not in parts]
    if missing:
        message = f"split {split!r} lacks {len(missing)} of its {total} files"
        names = ", ".join(f"{split}.tfrecord-{part:05}-of-{total:05}" for part in missing[:3])
        raise InvalidData(message, where=str(path), do=f"fetch *-{names}")
    return [parts[part, total] for part in range(total)]
