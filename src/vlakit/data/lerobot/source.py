"""A LeRobot dataset as a source of demonstrations (vlakit.data.source).

A feature `observation.images.top` is the field `observation/images/top`: in a spec `images: {primary: images/top}`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vlakit.data.lerobot.episodes import Episode, column_names, read_episodes, read_parquet, read_tasks
from vlakit.data.lerobot.info import COUNTERS, INFO, Feature, Info, read_info
from vlakit.data.lerobot.video import pictures_at
from vlakit.data.survey import Survey
from vlakit.errors import CorruptRecord, FeatureMissing, InvalidData, nearest

INSTRUCTION = ("task", "language_instruction")  # names under which a spec may take it
_CLOCK = 1e-4  # seconds that LeRobot itself lets a timestamp be off
_FLOAT32 = 2.0**-23  # relative error of a stored timestamp
Values = np.ndarray | list[Any]


@dataclass(frozen=True, slots=True)
class LeRobotHeader:
    """One episode of it; key: sha256 over its numbers and instructions."""

    episode: Episode
    key: int

    @property
    def metadata(self) -> dict[str, str | int]:
        """The file with its rows, and its number."""
        return {"source_file": self.episode.data.name, "source_record": self.episode.index}

    def __str__(self) -> str:
        return f"{self.episode.data}, episode {self.episode.index}"


@dataclass(frozen=True, slots=True)
class LeRobotSource:
    """v3.0 and v2.1. All but pictures is read from the tables; pictures of a video by the time they are shown."""

    info: Info
    episodes: tuple[Episode, ...]
    tasks: Mapping[int, str]

    @classmethod
    def open(cls, path: Path) -> LeRobotSource:
        """A folder with meta/info.json. Raises InvalidData for one that LeRobot would take and misread.

        That is: totals that contradict the tables, a declared feature without a column, a file that is not there.
        """
        info = read_info(path)
        source = cls(info, tuple(read_episodes(info)), read_tasks(info))
        source._check_files()
        return source

    @property
    def path(self) -> Path:
        """The folder."""
        return self.info.folder

    @property
    def splits(self) -> list[str]:
        """Those of info.json that hold an episode; all is train where it names none."""
        return [name for name in self.info.splits or {"train": None} if self._of(name)]

    @property
    def fields(self) -> list[str]:
        """What a spec can take."""
        usable = [name for name, one in self.info.features.items() if one.usable]
        return [name.replace(".", "/") for name in usable if name not in COUNTERS] + [INSTRUCTION[0]]

    def identity(self) -> dict[str, Any]:
        """Its name and version, and how large each file is."""
        files = sorted(file for part in ("meta", "data", "videos") for file in (self.path / part).rglob("*.*"))
        sizes = {str(file.relative_to(self.path)): file.stat().st_size for file in files if file.is_file()}
        return {"name": self.path.name, "version": self.info.version, "file_sizes": sizes}

    def survey(self) -> Survey:
        """What it holds, by its tables alone."""
        features = self.info.features.values()
        why = {"video": "a depth map", "image": "a depth map"}
        return Survey(
            format=f"LeRobot {self.info.version}",
            n_episodes=len(self.episodes),
            n_steps=sum(episode.length for episode in self.episodes),
            fields={one.name.replace(".", "/"): _words(one) for one in features if one.usable}
            | {INSTRUCTION[0]: f"text ({len(self.tasks)} that differ)"},
            cameras={_camera_key(one.name): (one.shape[0], one.shape[1]) for one in features if one.camera},
            rate=self.info.fps,
            instructions=list(self.tasks.values()),
            ignored={one.name: why.get(one.dtype, one.dtype) for one in features if not one.usable},
            names={one.name.replace(".", "/"): one.names for one in features if one.number and one.names},
        )

    def headers(self, split: str) -> Iterator[LeRobotHeader]:
        """The episodes of a split; only numbers are read, file after file."""
        numbers = [name for name, one in self.info.features.items() if one.number and name not in COUNTERS]
        for file, group in groupby(self._of(split), key=lambda episode: episode.data):
            table = read_parquet(file, ["episode_index", "task_index", *numbers])
            owners = _column(table["episode_index"], (), file)
            for episode in group:
                first, end = np.searchsorted(owners, [episode.index, episode.index + 1])
                if end - first != episode.length or (owners[first:end] != episode.index).any():
                    self._not_as_listed(episode, int((owners == episode.index).sum()))
                yield LeRobotHeader(episode, self._key(table.slice(first, end - first), file, numbers))

    def read(self, header: LeRobotHeader, fields: Collection[str]) -> dict[str, Values]:
        """The named fields; numbers as stored, pictures of a video as arrays, others as encoded bytes."""
        episode, wanted = header.episode, {field: self._feature(field, str(header)) for field in fields}
        columns = [one.name for one in wanted.values() if one is not None and one.dtype != "video"]
        table = self._rows(episode, columns)
        return {
            field: self._instructions(table, header) if one is None else self._values(table, one, episode)
            for field, one in wanted.items()
        }

    def same(self, header: LeRobotHeader, other: LeRobotHeader) -> bool:
        """Whether two episodes hold the same numbers, instructions and pictures."""
        return all(
            np.array_equal(np.asarray(mine), np.asarray(theirs), equal_nan=isinstance(mine, np.ndarray))
            for mine, theirs in zip(
                self.read(header, self.fields).values(), self.read(other, self.fields).values(), strict=True
            )
        )

    def _of(self, split: str) -> list[Episode]:
        first, end = self.info.splits.get(split, (0, len(self.episodes)))
        return [episode for episode in self.episodes if first <= episode.index < end]

    def _check_files(self) -> None:
        stored = {name for name, one in self.info.features.items() if one.dtype != "video"}
        lost = stored - {*column_names(self.episodes[0].data)}
        if lost:
            what = f"info.json declares the feature {min(lost)!r}, and no column of the data holds it"
            remedy = "fetch data/ again, or take it out of features"
            raise InvalidData(what, where=str(self.episodes[0].data), do=remedy)
        videos = (file for episode in self.episodes for file, _ in episode.videos.values())
        files = list(dict.fromkeys([*(episode.data for episode in self.episodes), *videos]))
        missing = [file for file in files if not file.is_file()]
        if missing:
            what = f"{len(missing)} of {len(files)} files of the dataset are missing, the first is {missing[0].name}"
            raise InvalidData(what, where=str(missing[0]), do="fetch it")

    def _not_as_listed(self, episode: Episode, found: int) -> None:
        what = f"meta/ says that episode {episode.index} has {episode.length} frames in a row; the table holds {found}"
        raise InvalidData(what, where=str(episode.data), do="fetch data/ and meta/ again")

    def _key(self, rows: pa.Table, file: Path, numbers: list[str]) -> int:
        digest = sha256()
        for name in sorted(numbers):
            digest.update(_column(rows[name], self.info.features[name].shape, file).tobytes())
        for task in rows["task_index"].to_pylist():
            digest.update(self.tasks.get(task, "").encode() + b"\n")
        return int.from_bytes(digest.digest()[:8], "big")

    def _feature(self, field: str, where: str) -> Feature | None:
        """The feature that a path of a spec means, None for the instruction; FeatureMissing with the nearest."""
        dotted = field.replace("/", ".")
        for name in (dotted, dotted.removeprefix("observation."), f"observation.{dotted}"):
            if name in self.info.features:
                return self.info.features[name]
        if field in INSTRUCTION:
            return None
        what = f"the dataset has no feature {field!r}"
        raise FeatureMissing(what, where=where, do=f"correct the spec; {nearest(field, self.fields)}")

    def _rows(self, episode: Episode, columns: list[str]) -> pa.Table:
        names = list(dict.fromkeys(["frame_index", "timestamp", "task_index", *columns]))
        table = read_parquet(episode.data, names, [("episode_index", "=", episode.index)])
        frames = _column(table["frame_index"], (), episode.data)
        if not np.array_equal(frames, np.arange(episode.length)):
            self._not_as_listed(episode, len(frames))
        times = _column(table["timestamp"], (), episode.data).astype(np.float64)
        apart = np.abs(times - frames / self.info.fps) - times * _FLOAT32
        if apart.max() > _CLOCK:
            row = int((apart > _CLOCK).argmax())
            what = f"fps is {self.info.fps:g}, and frame {row} of episode {episode.index} is at {times[row]:.4f} s"
            raise InvalidData(what, where=str(self.path / INFO), do="correct fps, or record again with even steps")
        return table

    def _values(self, table: pa.Table, feature: Feature, episode: Episode) -> Values:
        if feature.camera and feature.dtype == "video":
            return self._pictures(table, feature, episode)
        if feature.camera:
            return [self._picture(cell, feature) for cell in table[feature.name].to_pylist()]
        if feature.dtype == "string":
            return table[feature.name].to_pylist()
        if not feature.number:
            what = f"the feature {feature.name!r} is {feature.dtype}, which no spec can take"
            raise FeatureMissing(what, where=str(episode.data), do=f"take one of {', '.join(self.fields)}")
        return _column(table[feature.name], feature.shape, episode.data)

    def _pictures(self, table: pa.Table, feature: Feature, episode: Episode) -> list[Any]:
        file, first = episode.videos[feature.name]
        times = first + table["timestamp"].to_numpy().astype(np.float64)
        pictures = pictures_at(file, times, 0.5 / self.info.fps)
        if pictures[0].shape != feature.shape:
            what = f"its pictures are {pictures[0].shape}, info.json says {feature.shape}"
            raise InvalidData(what, where=str(file), do="correct the shape in info.json, or fetch the video again")
        return pictures

    def _picture(self, cell: Mapping[str, Any] | None, feature: Feature) -> bytes:
        """PNG or JPEG bytes: inside the table, or in a file that it names."""
        if cell and cell.get("bytes"):
            return cell["bytes"]
        file = self.path / str((cell or {}).get("path") or "")
        if not file.is_file():
            what = f"a picture of {feature.name!r} is neither in the table nor in a file"
            raise InvalidData(what, where=str(file), do="fetch the dataset again, with its images/")
        return file.read_bytes()

    def _instructions(self, table: pa.Table, header: LeRobotHeader) -> list[str]:
        numbers = table["task_index"].to_pylist()
        unknown = [number for number in numbers if number not in self.tasks]
        if unknown:
            what = f"task {unknown[0]} has no text"
            raise InvalidData(what, where=str(header), do="add it to meta/tasks, or leave the episode out")
        return [self.tasks[number] for number in numbers]


def _camera_key(name: str) -> str:
    """What `images` of a spec calls it: the path below observation/."""
    return name.removeprefix("observation.").replace(".", "/")


def _words(feature: Feature) -> str:
    size = " x ".join(map(str, feature.shape))
    return f"{feature.dtype} ({size})" + (f": {', '.join(feature.names)}" if feature.names and feature.number else "")


def _column(column: pa.ChunkedArray, shape: tuple[int, ...], file: Path) -> np.ndarray:
    """(T, *shape) of a column, (T,) for a shape of one; CorruptRecord where it does not hold as many numbers."""
    array, n_rows, empty, ragged = pa.concat_arrays(column.chunks or [pa.array([], column.type)]), len(column), 0, False
    while pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type) or pa.types.is_large_list(array.type):
        ragged = ragged or len(array.value_lengths().unique()) > 1
        empty, array = empty + array.null_count, array.flatten()
    values = array.to_numpy(zero_copy_only=False)
    sizes = () if shape in ((), (1,)) else shape
    empty += array.null_count
    if empty or ragged or values.dtype == object or values.size != n_rows * int(np.prod(sizes)):
        what = f"{values.size} numbers in {n_rows} rows ({empty} of them empty), where each has {shape or 1}"
        raise CorruptRecord(what, where=str(file), do="correct the shape in info.json, or fetch the table again")
    return values.reshape(n_rows, *sizes)
