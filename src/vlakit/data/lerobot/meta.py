"""meta/ of a LeRobot dataset that was written: what LeRobot believes without looking."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlakit.data.lerobot.encode import CODECS, PIXELS
from vlakit.data.lerobot.info import INFO, PLACES, Feature
from vlakit.data.lerobot.tables import write_table, write_tasks


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """fps: of the recording. codec: av1, h264, or jpeg, which keeps the source's own bytes in the tables.

    version: v3.0 or v2.1. Limits of a file in megabytes, of v3.0 alone; action_names: what its columns are called.
    """

    fps: int
    codec: str = "av1"
    version: str = "v3.0"
    robot_type: str | None = None
    action_names: tuple[str, ...] | None = None
    data_mb: float = 100
    video_mb: float = 200
    chunk: int = 1000


@dataclass(frozen=True, slots=True)
class Written:
    """What was written. episodes: a row each, as meta/episodes has them; tasks in order of their number."""

    options: WriteOptions
    features: Mapping[str, Feature]
    episodes: Sequence[Mapping[str, Any]]
    tasks: Sequence[str]
    statistics: Mapping[str, Any]

    @property
    def cameras(self) -> list[str]:
        """Features that are pictures."""
        return [name for name, one in self.features.items() if one.camera]


def write_meta(folder: Path, written: Written) -> None:
    """All files of meta/, of the version that the options say."""
    meta = folder / "meta"
    meta.mkdir(exist_ok=True)
    _json(folder / INFO, _info(written))
    _json(meta / "stats.json", written.statistics)
    if written.options.version == "v3.0":
        write_tasks(meta / "tasks.parquet", written.tasks)
        write_table(meta / "episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(list(written.episodes)))
        return
    rows = written.episodes
    _lines(meta / "tasks.jsonl", ({"task_index": number, "task": task} for number, task in enumerate(written.tasks)))
    _lines(meta / "episodes.jsonl", ({k: row[k] for k in ("episode_index", "tasks", "length")} for row in rows))
    statistics = ({"episode_index": row["episode_index"], "stats": _nested(row, written.features)} for row in rows)
    _lines(meta / "episodes_stats.jsonl", statistics)
    _json(meta / "modality.json", _modality(written))


def _info(written: Written) -> dict[str, Any]:
    options, n_episodes = written.options, len(written.episodes)
    data_path, video_path = PLACES[options.version]
    videos = [name for name, one in written.features.items() if one.dtype == "video"]
    limits: dict[str, Any] = {"data_files_size_in_mb": options.data_mb, "video_files_size_in_mb": options.video_mb}
    if options.version == "v2.1":
        n_chunks = (n_episodes - 1) // options.chunk + 1
        limits = {"total_videos": n_episodes * len(videos), "total_chunks": n_chunks}
    return {
        "codebase_version": options.version,
        "robot_type": options.robot_type,
        "fps": options.fps,
        "total_episodes": n_episodes,
        "total_frames": sum(row["length"] for row in written.episodes),
        "total_tasks": len(written.tasks),
        **limits,
        "chunks_size": options.chunk,
        "splits": {"train": f"0:{n_episodes}"},
        "data_path": data_path,
        "video_path": video_path if videos else None,
        "features": {name: _described(one, options) for name, one in written.features.items()},
    }


def _described(one: Feature, options: WriteOptions) -> dict[str, Any]:
    found = {"dtype": one.dtype, "shape": list(one.shape), "names": list(one.names) or None}
    if one.dtype != "video":
        return found
    height, width, channels = one.shape
    codec = {"video.codec": CODECS[options.codec][1], "video.pix_fmt": PIXELS, "video.fps": options.fps}
    sizes = {"video.height": height, "video.width": width, "video.channels": channels}
    return {**found, "info": {**sizes, **codec, "has_audio": False, "is_depth_map": False}}


def _modality(written: Written) -> dict[str, Any]:
    """GR00T's: which columns are what, by their names, and which videos there are."""
    named = {"state": "observation.state", "action": "action"}
    parts = {part: written.features[name] for part, name in named.items() if name in written.features}
    columns = {
        part: {name: {"start": number, "end": number + 1} for number, name in enumerate(feature.names)}
        for part, feature in parts.items()
    }
    videos = {name.rpartition(".")[2]: {"original_key": name} for name in written.cameras}
    return {**columns, "video": videos, "annotation": {"human.task_description": {"original_key": "task_index"}}}


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def _lines(path: Path, rows: Iterable[Any]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def _nested(row: Mapping[str, Any], features: Iterable[str]) -> dict[str, Any]:
    """{"stats/action/min": ...} as {"action": {"min": ...}}."""
    found = {name: f"stats/{name}/" for name in features}
    return {name: {key.removeprefix(p): row[key] for key in row if key.startswith(p)} for name, p in found.items()}
