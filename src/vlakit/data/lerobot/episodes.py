"""Which episodes a LeRobot dataset has, in which file and from which second on each lies, and what their tasks say.

v3.0 keeps this in parquet files and puts many episodes into one file; v2.1 has JSON lines and one file an episode.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlakit.data.lerobot.info import INFO, Info
from vlakit.errors import CorruptRecord, InvalidData

EPISODES = "meta/episodes"
_ALONE: dict[str, Any] = {"partitioning": None}  # folders called a=b are no columns
_UNFINISHED = "finish the recording (dataset.finalize() writes the end of each file), or fetch the file again"


@dataclass(frozen=True, slots=True)
class Episode:
    """Where one episode lies. videos: camera -> (file, second at which its first picture is shown)."""

    index: int
    length: int
    data: Path
    videos: Mapping[str, tuple[Path, float]]
    tasks: tuple[str, ...] = ()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of pyarrow as ours: InvalidData for a missing or unfinished file, CorruptRecord for a damaged one."""
    try:
        yield
    except FileNotFoundError:
        raise InvalidData("a file of the dataset is missing", where=str(path), do="fetch it") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if "footer" in str(error) or "magic bytes" in str(error) or not path.stat().st_size:
            what = "an unfinished parquet file: it has no footer"
            raise InvalidData(what, where=str(path), do=_UNFINISHED) from None
        raise _corrupt(path, error) from None


def column_names(path: Path) -> list[str]:
    """What the columns of a parquet file are called; errors as `readable`."""
    with readable(path):
        return pq.read_schema(path).names


def read_parquet(path: Path, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """The rows of one file; errors as `readable`."""
    with readable(path):
        return pq.read_table(path, columns=columns, filters=filters, **_ALONE)


def read_episodes(info: Info) -> list[Episode]:
    """All episodes in order of their number.

    Raises InvalidData where they are none, numbered twice, or not as many, or as long, as info.json says.
    """
    where = str(info.folder / "meta")
    try:
        episodes = sorted(_v3(info) if info.version == "v3.0" else _v21(info), key=lambda episode: episode.index)
    except (KeyError, TypeError, ValueError) as error:
        what = f"the list of episodes cannot be used: {type(error).__name__} {error}"
        raise InvalidData(what, where=where, do="fetch meta/ again") from None
    twice = [one.index for one, other in pairwise(episodes) if one.index == other.index]
    if twice:
        raise InvalidData(f"episode {twice[0]} is listed twice", where=where, do="remove one of the two from meta/")
    _check_total("episodes", info.total_episodes, len(episodes), info)
    _check_total("frames", info.total_frames, sum(episode.length for episode in episodes), info)
    return episodes


def read_tasks(info: Info) -> dict[int, str]:
    """task_index -> instruction; by number, never by row. Raises InvalidData for a task without a text."""
    if info.version == "v3.0":
        table = read_parquet(info.folder / "meta/tasks.parquet")
        text = next((name for name in table.column_names if name != "task_index"), "task")  # an unnamed index too
        rows = [{"task_index": row.get("task_index"), "task": row.get(text)} for row in table.to_pylist()]
    else:
        rows = list(_lines(info.folder / "meta/tasks.jsonl"))
    for row in rows:
        if not isinstance(row.get("task"), str) or not isinstance(row.get("task_index"), int):
            where = str(info.folder / "meta")
            raise InvalidData(f"a task without number or text: {row}", where=where, do="write what the robot was told")
    return {row["task_index"]: row["task"] for row in rows}


def _v3(info: Info) -> Iterator[Episode]:
    folder = info.folder / EPISODES
    files = sorted(folder.glob("*/*.parquet"))
    if not files and info.total_episodes != 0:
        raise InvalidData("an unfinished v3.0 dataset: it lists no episode", where=str(folder), do=_UNFINISHED)
    videos = [name for name, feature in info.features.items() if feature.camera and feature.dtype == "video"]
    for file in files:
        table = read_parquet(file, [name for name in column_names(file) if not name.startswith("stats/")])
        for row in table.to_pylist():
            yield Episode(
                row["episode_index"],
                row["length"],
                info.file(info.data_path, chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]),
                {name: _video(info, name, row) for name in videos},
                tuple(row.get("tasks") or ()),
            )


def _video(info: Info, name: str, row: Mapping[str, Any]) -> tuple[Path, float]:
    chunk, file = row[f"videos/{name}/chunk_index"], row[f"videos/{name}/file_index"]
    place = info.file(info.video_path, video_key=name, chunk_index=chunk, file_index=file)
    return place, float(row[f"videos/{name}/from_timestamp"])


def _v21(info: Info) -> Iterator[Episode]:
    videos = [name for name, feature in info.features.items() if feature.camera and feature.dtype == "video"]
    for row in _lines(info.folder / "meta/episodes.jsonl"):
        number = row["episode_index"]
        places = {"episode_chunk": number // info.chunks_size, "episode_index": number}
        yield Episode(
            number,
            row["length"],
            info.file(info.data_path, **places),
            {name: (info.file(info.video_path, video_key=name, **places), 0.0) for name in videos},
            tuple(row.get("tasks") or ()),
        )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                yield json.loads(line)
    except FileNotFoundError:
        raise InvalidData("a file of the dataset is missing", where=str(path), do="fetch it") from None
    except ValueError as error:
        raise _corrupt(path, error) from None


def _check_total(what: str, said: int | None, found: int, info: Info) -> None:
    if said is not None and said != found:
        message = f"info.json says {said} {what}, its files hold {found}"
        raise InvalidData(message, where=str(info.folder / INFO), do="fetch meta/ again, or correct info.json")
    if not found:
        raise InvalidData(f"the dataset has no {what}", where=str(info.folder), do="record some")


def _corrupt(path: Path, error: Exception) -> CorruptRecord:
    return CorruptRecord(f"it cannot be read: {str(error)[:200]}", where=str(path), do="fetch the file again")
