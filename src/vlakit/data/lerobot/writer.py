"""Demonstrations as a LeRobot dataset: v3.0, which LeRobot opens and appends to, or v2.1 with GR00T's modality.json.

LeRobot checks little: a wrong total or rate, a missing column, tasks without an index or out of order are read without
a word. All of them are counted here from what was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vlakit.data.demonstration import Demonstration
from vlakit.data.lerobot.encode import VideoFile
from vlakit.data.lerobot.info import COUNTERS, PLACES, Feature
from vlakit.data.lerobot.meta import WriteOptions, Written, write_meta
from vlakit.data.lerobot.summary import Picture, of_numbers
from vlakit.data.lerobot.tables import rows_schema, rows_table
from vlakit.data.rlds.images import decode_image
from vlakit.errors import CorruptRecord, InvalidData
from vlakit.files import new_folder

MEGABYTE = 1_000_000
SAMPLED = 16  # pictures of an episode that its statistics are taken from, as LeRobot takes a part of them


def write_dataset(demonstrations: Iterable[Demonstration], folder: Path, options: WriteOptions) -> dict[str, int]:
    """Write a new folder, whole or not at all; how many episodes, frames and tasks it holds.

    Raises ConfigError where it is there already, InvalidData for demonstrations that differ in sizes or for none.
    """
    with new_folder(folder) as partial:
        writer = _Writer(partial, options)
        for demonstration in demonstrations:
            writer.add(demonstration)
        return writer.finish()


@dataclass(slots=True)
class _Writer:
    folder: Path
    options: WriteOptions
    features: dict[str, Feature] = field(default_factory=dict[str, Feature])
    episodes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    rows: dict[str, list[np.ndarray]] = field(default_factory=dict[str, list[np.ndarray]])
    pictures: dict[str, Picture] = field(default_factory=dict[str, Picture])
    tasks: dict[str, int] = field(default_factory=dict[str, int])
    videos: dict[str, tuple[int, VideoFile]] = field(default_factory=dict[str, tuple[int, VideoFile]])
    table: tuple[int, pq.ParquetWriter, Path] | None = None
    n_frames: int = 0

    @property
    def one_each(self) -> bool:
        """Whether every episode has files of its own."""
        return self.options.version == "v2.1"

    def add(self, one: Demonstration) -> None:
        """Write one episode."""
        if not self.features:
            self._begin(one)
        numbers = self._numbers(one)
        row: dict[str, Any] = {
            "episode_index": len(self.episodes),
            "tasks": list(dict.fromkeys(one.instructions)),
            "length": len(one),
        }
        seen = {name: Picture() for name in self.pictures}
        row |= {f"stats/{name}/{what}": v for name in numbers for what, v in of_numbers(numbers[name]).items()}
        images = {f"observation.images.{camera}": images for camera, images in one.images.items()}
        video_places = self._write_videos(images, seen, one.where)
        row |= self._write_rows({**numbers, **images}, len(one)) | video_places
        for name, picture in seen.items():
            row |= {f"stats/{name}/{what}": value for what, value in picture.summary().items()}
            self.pictures[name].merge(picture)
        for name, values in numbers.items():
            self.rows.setdefault(name, []).append(values)
        self.episodes.append({**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self.n_frames += len(one)

    def finish(self) -> dict[str, int]:
        """Close what is open, write meta/."""
        if not self.episodes:
            raise InvalidData("no episode to write", where=str(self.folder), do="check the source and its spec")
        self._close_table()
        for _, video in self.videos.values():
            video.close()
        statistics = {name: of_numbers(np.concatenate(blocks)) for name, blocks in self.rows.items()}
        statistics |= {name: picture.summary() for name, picture in self.pictures.items()}
        write_meta(self.folder, Written(self.options, self.features, self.episodes, list(self.tasks), statistics))
        return {"episodes": len(self.episodes), "frames": self.n_frames, "tasks": len(self.tasks)}

    def _begin(self, one: Demonstration) -> None:
        kind = "image" if self.options.codec == "jpeg" else "video"
        first = {f"observation.images.{camera}": images[0] for camera, images in one.images.items()}
        sizes = {name: _decoded(data, one.where) for name, data in first.items()}
        names = self.options.action_names or ()
        if len(names) != one.action.shape[1]:
            names = tuple(f"action_{n}" for n in range(one.action.shape[1]))
        found = [Feature(name, kind, picture.shape, ("height", "width", "channels")) for name, picture in sizes.items()]
        if one.state.shape[1]:
            labels = tuple(f"state_{n}" for n in range(one.state.shape[1]))
            found.append(Feature("observation.state", "float32", one.state.shape[1:], labels))
        found.append(Feature("action", "float32", one.action.shape[1:], names))
        found += [Feature(name, "float32" if name == "timestamp" else "int64", (1,)) for name in COUNTERS]
        self.features = {feature.name: feature for feature in found}
        self.pictures = {name: Picture() for name in sizes}

    def _numbers(self, one: Demonstration) -> dict[str, np.ndarray]:
        """Every feature of an episode that is a number, counters and all."""
        frames = np.arange(len(one))
        for text in one.instructions:
            self.tasks.setdefault(text, len(self.tasks))
        values = {
            "observation.state": one.state,
            "action": one.action,
            "timestamp": (frames / self.options.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(len(one), len(self.episodes)),
            "index": self.n_frames + frames,
            "task_index": np.array([self.tasks[text] for text in one.instructions]),
        }
        values = {name: value for name, value in values.items() if value.shape[1:] != (0,)}
        shapes = {name: value.shape[1:] or (1,) for name, value in values.items()}
        shapes |= {
            f"observation.images.{name}": self.features[f"observation.images.{name}"].shape for name in one.images
        }
        if shapes != {name: feature.shape for name, feature in self.features.items()}:
            what = f"an episode has other features than the first: {shapes}"
            raise InvalidData(what, where=one.where, do="export one dataset at a time")
        return values

    def _write_videos(
        self, images: Mapping[str, Sequence[bytes]], seen: Mapping[str, Picture], where: str
    ) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, encoded in images.items():
            if self.options.codec == "jpeg":
                for _ in self._pictures(name, encoded[:: self._every(encoded)], seen, where, 1):
                    pass
                continue
            number, video = self._video(name)
            first, end = video.add(self._pictures(name, encoded, seen, where, self._every(encoded)), where)
            row |= self._place(f"videos/{name}", number)
            row |= {f"videos/{name}/from_timestamp": first, f"videos/{name}/to_timestamp": end}
        return row

    def _every(self, encoded: Sequence[bytes]) -> int:
        return max(len(encoded) // SAMPLED, 1)

    def _pictures(
        self, name: str, encoded: Sequence[bytes], seen: Mapping[str, Picture], where: str, every: int
    ) -> Iterable[np.ndarray]:
        for step, data in enumerate(encoded):
            picture = _decoded(data, f"{where}, step {step}, {name}")
            if picture.shape != self.features[name].shape:
                what = f"a picture is {picture.shape} where the first is {self.features[name].shape}"
                raise InvalidData(what, where=f"{where}, step {step}, {name}", do="export one size at a time")
            if step % every == 0:
                seen[name].add(picture)
            yield picture

    def _video(self, name: str) -> tuple[int, VideoFile]:
        number, video = self.videos.get(name, (-1, None))
        if video is None or self.one_each or video.n_bytes > self.options.video_mb * MEGABYTE:
            if video is not None:
                video.close()
            path = self._path(1, number + 1, video_key=name)
            self.videos[name] = number + 1, VideoFile(path, self.options.codec, self.options.fps)
        return self.videos[name]

    def _write_rows(self, values: Mapping[str, Any], length: int) -> dict[str, Any]:
        """One row group an episode."""
        number = -1 if self.table is None else self.table[0]
        if self.table is None or self.one_each or self.table[2].stat().st_size > self.options.data_mb * MEGABYTE:
            self._close_table()
            number, path = number + 1, self._path(0, number + 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            schema = rows_schema(list(self.features.values()))
            self.table = number, pq.ParquetWriter(path, schema, compression="snappy"), path
        writer = self.table[1]
        writer.write_table(rows_table(writer.schema, values), row_group_size=length)
        bounds = {"dataset_from_index": self.n_frames, "dataset_to_index": self.n_frames + length}
        return self._place("data", number) | bounds

    def _close_table(self) -> None:
        if self.table is not None:
            self.table[1].close()

    def _place(self, part: str, number: int) -> dict[str, int]:
        return {f"{part}/chunk_index": number // self.options.chunk, f"{part}/file_index": number % self.options.chunk}

    def _path(self, part: int, number: int, **names: str) -> Path:
        chunk, file = divmod(number, self.options.chunk)
        v21 = {"episode_chunk": chunk, "episode_index": number}
        v3 = {"chunk_index": chunk, "file_index": file}
        return self.folder / PLACES[self.options.version][part].format(**v21, **v3, **names)


def _decoded(data: bytes, where: str) -> np.ndarray:
    try:
        return decode_image(data)
    except (CorruptRecord, InvalidData) as error:
        raise type(error)(error.what, where=where, do=error.do) from None
