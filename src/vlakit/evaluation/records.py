"""An evaluation on disk: `evaluation.json` says what was asked, `episodes.jsonl` holds one record an episode.

Records are flushed as episodes end, so a killed evaluation goes on where it was; half a line at the end is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.compare.records import EPISODES, HEADER, find_header
from vlakit.errors import ConfigError, CorruptRecord, InvalidData
from vlakit.files import FolderBusy, disk_full_as_error, flush_to_disk, locked, write_atomically
from vlakit.schema import Float32
from vlakit.stats.intervals import wilson
from vlakit.trees import changes, flat

TARGET = "suite_settings._target_"  # where the suite's code lay: not what an evaluation is, and it moves


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode. actions: what the environment was given, step by step; error: why it could not go on, or None.

    number: its place in the evaluation. wall_s: from its start to its end, others running beside it; robot_s: what it
    would have taken on a robot. Two records are equal when all but these two times are.
    """

    number: int
    suite: str
    task: str
    instruction: str
    initial_state: str
    seed: int
    success: bool
    credit: float
    steps: int
    actions: list[list[float]]
    error: str | None = None
    policy_calls: int = 0
    policy: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    wall_s: float = field(default=0.0, compare=False)
    robot_s: float = field(default=0.0, compare=False)

    @property
    def trace(self) -> Float32:
        """The actions as (T, A) float32, to the last bit."""
        return np.array(self.actions, np.float32)

    @classmethod
    def from_line(cls, line: bytes) -> EpisodeRecord:
        """One line of episodes.jsonl; ValueError when it is none. Keys of a later vlakit are left out."""
        try:
            content = json.loads(line)
            return cls(**{f.name: content[f.name] for f in fields(cls)})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a record: {error}") from error


class EvaluationFolder:
    """The folder of one evaluation, open for writing; make it with `opened`."""

    def __init__(self, path: Path, header: dict[str, Any], done: list[EpisodeRecord]) -> None:
        self.path, self.header, self.done = path, header, done

    def append(self, record: EpisodeRecord) -> None:
        """Write one record; it is on the disk when this returns. Raises DiskFull."""
        file = self.path / EPISODES
        with disk_full_as_error(file), file.open("ab") as stream:
            stream.write(_line(record))
            stream.flush()
            flush_to_disk(stream.fileno())
        self.done.append(record)

    def keep_first(self, n: int) -> None:
        """Drop the records of all but the first `n` episodes of the evaluation, if there are any."""
        if all(record.number < n for record in self.done):
            return
        self.done = [record for record in self.done if record.number < n]
        write_atomically(self.path / EPISODES, b"".join(map(_line, self.done)))

    def note(self, **notes: Any) -> None:
        """Add to the header what is no setting, such as the outcome of the gate."""
        self.header.update(notes)
        _write_header(self.path, self.header)


@contextmanager
def opened(
    path: Path,
    settings: Mapping[str, Any],
    notes: Mapping[str, Any] | None = None,
    shorter: Callable[[int], Mapping[str, Any]] | None = None,
) -> Iterator[EvaluationFolder]:
    """Begin an evaluation in `path`, or go on with the one there, and hold the folder alone meanwhile.

    settings: all that decides the episodes; notes: what does not. shorter: the settings of its first n episodes alone,
    so that more may be asked of a folder than it was begun with. Raises ConfigError when the folder holds an
    evaluation with other settings, FolderBusy when another process writes it, CorruptRecord.
    """
    requested = json.loads(json.dumps(settings))
    try:
        with locked(path):
            header = find_header(path)
            if header is None:
                _check_empty(path)
                header = {"settings": requested}
            written = header["settings"]
            if shorter is not None and 0 < written.get("episodes", 0) < requested["episodes"]:
                check_settings(written, json.loads(json.dumps(shorter(written["episodes"]))), path)
                header = {**header, "settings": requested}
                header.pop("summary", None)  # it ended, and is to go on
            else:
                check_settings(written, requested, path)
            header.update(notes or {})
            _write_header(path, header)
            _drop_half_line(path / EPISODES)
            yield EvaluationFolder(path, header, read_episodes(path))
    except FolderBusy as error:
        raise FolderBusy("another evaluation is writing this folder", where=error.where, do=error.do) from error


def read_episodes(folder: str | Path) -> list[EpisodeRecord]:
    """All records of a folder, in the order of the evaluation. Half a line at the end is no record; CorruptRecord."""
    file = Path(folder) / EPISODES
    if not file.is_file():
        return []
    records: list[EpisodeRecord] = []
    content = file.read_bytes()
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            records.append(EpisodeRecord.from_line(line))
        except ValueError as error:
            raise CorruptRecord(
                f"line {number} is no episode: {error}", where=str(file), do="delete that line; its episode runs again"
            ) from error
    return sorted(records, key=lambda record: record.number)


def check_settings(written: Mapping[str, Any], requested: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError that names every setting in which a folder's evaluation and the one asked for differ."""
    pairs = changes(flat(written), flat(requested))
    kept = [TARGET, *(key for key, change in pairs.items() if change == ("absent", None))]  # a later vlakit's, unused
    differing = [f"{key} was {_short(was)}, is {_short(now)}" for key, (was, now) in pairs.items() if key not in kept]
    if differing:
        raise ConfigError(
            f"this folder holds another evaluation: {'; '.join(differing)}",
            where=str(folder),
            do="give another folder with out=DIR, or repeat the command that began this one",
        )


@dataclass(frozen=True)
class Row:
    """Episodes of one task, or of all: success and its Wilson interval as fractions, mean credit and steps."""

    task: str
    episodes: int
    successes: int
    success: float
    low: float
    high: float
    credit: float
    steps: float
    errors: int


def summary(records: Sequence[EpisodeRecord], confidence: float = 0.95) -> tuple[Row, list[Row]]:
    """All episodes pooled, and a row a task in order of appearance. Raises InvalidData when there is none."""
    if not records:
        raise InvalidData("no episode to sum up", do="run vlakit evaluate suite=NAME first")
    tasks = list(dict.fromkeys(record.task for record in records))
    rows = [_row(task, [record for record in records if record.task == task], confidence) for task in tasks]
    return _row("all", records, confidence), rows


def pairs_row(both: Sequence[bool], records: Sequence[EpisodeRecord], confidence: float = 0.95) -> Row:
    """Pairs of episodes as a row: both right or not, credits and steps as those of the episodes. both: one a pair."""
    whole, right, n = _row("pairs both right", records, confidence), sum(both), len(both)
    low, high = wilson(right, n, confidence)
    return replace(whole, episodes=n, successes=right, success=right / n, low=low, high=high)


def _line(record: EpisodeRecord) -> bytes:
    return json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n"


def _row(task: str, records: Sequence[EpisodeRecord], confidence: float) -> Row:
    successes, n = sum(record.success for record in records), len(records)
    credit, steps = (sum(values) / n for values in ((r.credit for r in records), (r.steps for r in records)))
    low, high = wilson(successes, n, confidence)
    errors = sum(record.error is not None for record in records)
    return Row(task, n, successes, successes / n, low, high, credit, steps, errors)


def _write_header(folder: Path, header: Mapping[str, Any]) -> None:
    write_atomically(folder / HEADER, json.dumps(header, indent=1, ensure_ascii=False) + "\n")


def _check_empty(folder: Path) -> None:
    if (folder / EPISODES).exists():
        raise ConfigError(
            f"the folder has {EPISODES} without {HEADER}", where=str(folder), do="give another folder with out=DIR"
        )


def _drop_half_line(file: Path) -> None:
    """Cut off what a killed process wrote of a line."""
    if not file.is_file():
        return
    whole = file.read_bytes().rfind(b"\n") + 1
    if whole < file.stat().st_size:
        os.truncate(file, whole)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:24] + "..."
