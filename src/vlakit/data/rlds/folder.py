"""One version folder of a TFDS dataset: its features and which tfrecord files make up each split."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from vlakit.data.rlds.features import Features, read_features
from vlakit.errors import InvalidData, UnknownName

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAMED = re.compile(r"(?:(?P<name>.+)-)?[^-]+\.tfrecord-\d+-of-\d+")  # by the template that TFDS takes unasked
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_PLACES = {  # of a filepathTemplate, as TFDS fills them
    "SHARD_X_OF_Y": r"(?P<part>\d+)-of-(?P<total>\d+)",
    "SHARD_INDEX": r"(?P<part>\d+)",
    "NUM_SHARDS": r"(?P<total>\d+)",
    "FILEFORMAT": "tfrecord",
}
_PLACE = re.compile(r"\\\{(\w+)\\\}")  # one of them after re.escape
Parts: TypeAlias = dict[tuple[int, int], Path]  # (number, of how many; 0 where the name does not say) -> file


@dataclass(frozen=True, slots=True)
class RldsFolder:
    """A dataset on disk; splits: name -> its tfrecord files in order, none for an empty split.

    lengths: file -> its records, as far as dataset_info.json declares them.
    """

    path: Path
    name: str | None  # None: neither dataset_info.json nor a file says it
    splits: dict[str, list[Path]]
    features: Features
    lengths: dict[Path, int] = field(default_factory=dict[Path, int])


@dataclass(frozen=True, slots=True)
class _Declared:
    """What dataset_info.json says of one split: how its files are called, and how many records each holds."""

    template: str
    lengths: tuple[int, ...] | None  # None: it does not say


def open_rlds(folder: str | Path) -> RldsFolder:
    """Open DIR/1.0.0, or DIR with exactly one version below it.

    Raises UnknownName when the folder is not there, InvalidData when it is no RLDS folder or lacks a tfrecord file.
    """
    path = _version_folder(Path(folder))
    info = _dataset_info(path / "dataset_info.json")
    declared = _declared(info, path / "dataset_info.json")
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    name = str(info["name"]) if "name" in info else _name_of(path, files)
    found = _found(files, name, declared)
    if not found and not (declared and not any(one.lengths for one in declared.values())):
        raise _no_file(path, name, files, info)
    names = [*declared, *(split for split in found if split not in declared)]
    splits = {split: _complete(path, split, found.get(split, {}), declared.get(split)) for split in names}
    lengths = {
        file: length
        for split, one in declared.items()
        for file, length in zip(splits[split], one.lengths or (), strict=one.lengths is not None)
    }
    return RldsFolder(path, name, splits, read_features(path / "features.json"), lengths)


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


def _declared(info: Mapping[str, Any], where: Path) -> dict[str, _Declared]:
    """Each split of dataset_info.json; a split without lengths is declared to be empty."""
    try:
        return {
            str(split["name"]): _Declared(
                str(split.get("filepathTemplate") or _TEMPLATE),
                tuple(map(int, split["shardLengths"])) if "shardLengths" in split else None,
            )
            for split in info.get("splits", [])
        }
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        message = f"its splits cannot be read: {type(error).__name__} {error}"
        raise InvalidData(message, where=str(where), do="fetch dataset_info.json again, or delete it") from None


def _name_of(path: Path, files: Iterable[Path]) -> str | None:
    """The dataset's name where no dataset_info.json says it: the folder's, or the one that all files begin with."""
    named = {match["name"] for file in files if (match := _NAMED.fullmatch(file.name))}
    own = path.parent.name
    if own in named:
        return own
    if len(named) > 1:
        names = ", ".join(sorted(name or "(none)" for name in named))
        raise InvalidData(
            f"files of several datasets: {names}", where=str(path), do="leave one dataset a folder, or name it alike"
        )
    return next(iter(named), own)


def _found(files: Iterable[Path], name: str | None, declared: Mapping[str, _Declared]) -> dict[str, Parts]:
    """The files of each split that are called as the dataset's own are; all others are no part of it."""
    patterns = {split: _pattern(one.template, name, re.escape(split)) for split, one in declared.items()}
    undeclared = _pattern(_TEMPLATE, name, ".+")
    found: dict[str, Parts] = {}
    for file in files:
        matches = {split: match for split, pattern in patterns.items() if (match := pattern.fullmatch(file.name))}
        other = undeclared.fullmatch(file.name)
        if not matches and other is not None and other["split"] not in declared:
            matches = {other["split"]: other}
        for split, match in matches.items():
            groups = match.groupdict()
            found.setdefault(split, {})[int(groups.get("part", 0)), int(groups.get("total", 0))] = file
    return found


def _pattern(template: str, name: str | None, split: str) -> re.Pattern[str]:
    """What a filepathTemplate matches for a split, which is a regular expression."""
    if name is None:
        template = template.replace("{DATASET}-", "")
    places = {**_PLACES, "DATASET": re.escape(name or ""), "SPLIT": f"(?P<split>{split})"}
    return re.compile(_PLACE.sub(lambda match: places.get(match[1], re.escape(match[0])), re.escape(template)))


def _no_file(path: Path, name: str | None, files: Iterable[Path], info: Mapping[str, Any]) -> InvalidData:
    kind = info.get("fileFormat", "tfrecord")
    others = [file.name for file in files if ".tfrecord" in file.name]
    hint = "" if kind == "tfrecord" else f" (its files are {kind})"
    if others:
        hint = f" of dataset {name!r}: there are {', '.join(others[:3])}"
    remedy = "give the name in dataset_info.json that the files have" if others else "fetch NAME-SPLIT.tfrecord-*"
    return InvalidData(f"the folder holds no tfrecord file{hint}", where=str(path), do=remedy)


def _complete(path: Path, split: str, parts: Parts, declared: _Declared | None) -> list[Path]:
    totals = {total for _, total in parts if total}
    if declared and declared.lengths is not None and (declared.lengths or parts):
        totals.add(len(declared.lengths))
    if not totals:
        return [parts[number] for number in sorted(parts)]
    if len(totals) > 1:
        counts = " and ".join(str(total) for total in sorted(totals))
        said = f", dataset_info.json declares {len(declared.lengths)}" if declared and declared.lengths else ""
        message = f"files of split {split!r} are numbered out of {counts}{said}"
        raise InvalidData(message, where=str(path), do="keep those of one download only")
    (total,), files = totals, {part: file for (part, _), file in parts.items()}
    missing = [part for part in range(total) if part not in files]
    if missing:
        message = f"split {split!r} lacks {len(missing)} of its {total} files"
        names = ", ".join(f"{split}.tfrecord-{part:05}-of-{total:05}" for part in missing[:3])
        raise InvalidData(message, where=str(path), do=f"fetch *-{names}")
    if len(files) > total:
        message = f"split {split!r} has {len(files)} files where dataset_info.json declares {total}"
        raise InvalidData(message, where=str(path), do="keep those of one download only")
    return [files[part] for part in range(total)]
