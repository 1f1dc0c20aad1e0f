"""vla-eval's live record, recording-ID.sqlite: what its aggregates are made of, and whether all of it is there.

Source: vla-eval 0.8.0, vla_eval/recording.py (the tables) and results/export.py (which rows count: the last of a task,
episode and task_idx; rows without task_idx all do).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlakit.compare.episodes import Episodes, digest_of
from vlakit.compare.foreign import load_json
from vlakit.compare.readers import Reader
from vlakit.compare.readers.vla_eval import RECORDINGS, Row, aggregates, evaluation, missing
from vlakit.compare.sqlite import Tables, reading
from vlakit.errors import CorruptRecord, InvalidData

RESULTS = ("sid", "eid", "eval_id", "task_name", "episode_id", "status", "context")
STATUSES = ("success", "fail", "error")


def find(path: Path) -> list[Path]:
    """The file, or those of a folder."""
    files = sorted(path.glob(RECORDINGS)) if path.is_dir() else [path] if path.match(RECORDINGS) else []
    return [file for file in files if file.is_file()]


def read(path: Path, files: list[Path]) -> list[Episodes]:
    """An evaluation of each recording. Raises InvalidData for a file beside them that none covers, CorruptRecord."""
    found: list[Episodes] = []
    covered: dict[str, int] = {}
    for file in files:
        name = file.stem.removeprefix("recording-") if len(files) > 1 or path == file else path.resolve().name
        with reading(file) as tables:
            recording = _Recording(tables, file)
        covered |= recording.n_episodes()
        found.append(recording.evaluation(name))
    stale = [note for file in aggregates(path) if path.is_dir() for note in _older(file, covered)]
    for one in found:
        one.notes.extend(stale)
    return found


class _Recording:
    """The rows of one file that count, and what it says about its benchmarks."""

    def __init__(self, tables: Tables, file: Path) -> None:
        self.file = file
        metadata = tables.rows("eval_metadata", ("eval_id", "safe_name", "metadata"))
        if not metadata:
            raise InvalidData("no evaluation here", where=str(file), do="give a recording of vla-eval 0.5 or later")
        self.about = {eval_id: (safe, self._mapping(text)) for eval_id, safe, text in metadata}
        self.rows = list(self._last(tables.rows("episode_results", RESULTS)))
        self.shards = tables.rows("eval_shards", ("eval_id", "shard_id", "num_shards", "complete"))
        if not all(_whole(value) for _, *numbers in self.shards for value in numbers):
            raise CorruptRecord("a shard without numbers", where=str(file), do="copy the file again")
        self.queue = tables.rows("work_queue", ("eval_id", "done"))

    def evaluation(self, name: str) -> Episodes:
        """All its benchmarks as one."""
        rows = [self._row(*row) for row in self.rows]
        seeds = [_seed(about) for _, about in self.about.values()]
        digest = digest_of(repr(row).encode() for row in self.rows)
        said = "; ".join(filter(None, map(self._unfinished, self.about)))
        return evaluation(self.file, name, rows, seeds, digest, unfinished=said)

    def n_episodes(self) -> dict[str, int]:
        """Evaluation -> episodes that count."""
        return {eval_id: sum(row[2] == eval_id for row in self.rows) for eval_id in self.about}

    def benchmark(self, eval_id: str) -> str:
        """Its name, as aggregates have it."""
        safe_name, about = self.about[eval_id]
        return str(about.get("benchmark", safe_name))

    def _last(self, rows: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        kept: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for i, (*place, context) in enumerate(rows):
            _, _, eval_id, task, episode, *_ = place
            task_idx = self._mapping(context).get("task_idx") if context else None
            kept[eval_id, task, episode, repr(task_idx), None if task_idx is not None else i] = (*place, task_idx)
        yield from kept.values()

    def _row(self, *row: Any) -> Row:
        _, _, eval_id, task, episode, status, task_idx = row
        if eval_id not in self.about or status not in STATUSES or not _whole(episode):
            what = f"an episode {episode!r} of {eval_id!r} with status {status!r}"
            raise CorruptRecord(what, where=str(self.file), do=f"its status must be one of {', '.join(STATUSES)}")
        if task_idx is not None and not _whole(task_idx):
            raise CorruptRecord(f"a task_idx of {task_idx!r}", where=str(self.file), do="copy the file again")
        task = str(task or "_unknown")
        return Row(self.benchmark(eval_id), task, task_idx, episode, status == "success", status == "error")

    def _mapping(self, text: Any) -> dict[str, Any]:
        value = load_json(self.file, text) if isinstance(text, str | bytes) else text
        if isinstance(value, dict):
            return value
        raise CorruptRecord(f"no mapping but {value!r:.80}", where=str(self.file), do="copy the file again")

    def _unfinished(self, eval_id: str) -> str:
        """What is not done of a benchmark: by its queue of work, else by its shards, as vla-eval's export judges."""
        done = [bool(done) for owner, done in self.queue if owner == eval_id]
        if done:
            return (
                ""
                if all(done)
                else f"{done.count(False)} of {len(done)} episodes of {self.benchmark(eval_id)} were not run"
            )
        shards = [(number, total, complete) for owner, number, total, complete in self.shards if owner == eval_id]
        if not shards:
            return ""
        cut = [number for number, _, complete in shards if not complete]
        said = [missing(self.benchmark(eval_id), {n for n, *_ in shards}, max(total for _, total, _ in shards))]
        said += [f"shard {', '.join(map(str, cut))} of {self.benchmark(eval_id)} did not end"] if cut else []
        return "; ".join(filter(None, said))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _seed(about: dict[str, Any]) -> Any:
    """Of the benchmark, where its configuration has one."""
    config = about.get("config")
    params = config.get("params") if isinstance(config, dict) else None
    return params.get("seed") if isinstance(params, dict) else None


def _older(file: Path, covered: dict[str, int]) -> Iterator[str]:
    """An aggregate beside the recordings: one of them must be its source, and then it is the recording that counts."""
    report = load_json(file, file.read_bytes())
    n_here = covered.get(str(report.get("eval_id")) if isinstance(report, dict) else "")
    if n_here is None:
        what = f"{file.name} is of another evaluation than the recordings beside it"
        raise InvalidData(what, where=str(file.parent), do="give one of the files by name")
    n_there = report.get("num_episodes_total", n_here)
    if n_there != n_here:
        yield f"{file.name} was made of {n_there} episodes; its recording, which holds {n_here}, was read"


READER = Reader("vla-eval recording", "recording-ID.sqlite", find, read)
