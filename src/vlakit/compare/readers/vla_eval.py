"""vla-eval's aggregates: one JSON a benchmark, or the shards of one; episode_id and seed decide the initial state.

Source: github.com/allenai/vla-evaluation-harness, vla_eval/results/collector.py (BenchmarkResult), export.py
("partial", "shard") and, before its 0.5, merge.py ("merge_info").
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from vlakit.compare.episodes import Episodes, Outcome, Start, columns, digest_of, outcome_of
from vlakit.compare.foreign import field_of, list_of, load_json, starts_with_keys, whole_of
from vlakit.compare.readers import Reader
from vlakit.errors import InvalidData

KEYS = ("benchmark", "harness_version", "tasks")
RECORDINGS = "recording-*.sqlite"  # the live record that aggregates are made of; its own reader takes such a folder
_SHARD = re.compile(r"_shard(\d+)of(\d+)$")


class Row(NamedTuple):
    """One episode of a benchmark. task_idx tells tasks apart that have one name; error: it ended in one."""

    benchmark: str
    task: str
    task_idx: int | None
    episode: int
    success: bool
    error: bool


def find(path: Path) -> list[Path]:
    """The file, or those of a folder without a recording."""
    if path.is_dir() and any(path.glob(RECORDINGS)):
        return []
    return aggregates(path)


def aggregates(path: Path) -> list[Path]:
    """The aggregates at a path."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    return [file for file in files if starts_with_keys(file, *KEYS)]


def read(path: Path, files: list[Path]) -> Episodes:
    """All tasks of one benchmark. Raises InvalidData for several seeds and another layout, CorruptRecord."""
    contents = [file.read_bytes() for file in files]
    reports = [load_json(file, content) for file, content in zip(files, contents, strict=True)]
    pairs = list(zip(reports, files, strict=True))
    rows = [row for report, file in pairs for row in rows_of(report, file)]
    seeds = [report.get("seed") for report in reports]
    return evaluation(path, _name(path), rows, seeds, digest_of(contents), unfinished=_unfinished(pairs))


def evaluation(path: Path, run: str, rows: Sequence[Row], seeds: Sequence[Any], digest: str, **more: Any) -> Episodes:
    """What the rows of one evaluation say; a seed for each benchmark. Raises InvalidData for several seeds."""
    known = sorted({str(seed) for seed in seeds})
    if len(known) > 1:
        raise InvalidData(f"files of seeds {', '.join(known)}", where=str(path), do="give the files of one seed")
    seeded = known[:1] not in ([], ["None"])
    starts, success, credit = columns(_outcomes(rows))
    n_errors = sum(row.error for row in rows)
    more["unfinished"] = f"{run} is not whole: {more['unfinished']}" if more.get("unfinished") else ""
    return Episodes(
        run=run,
        source=path,
        starts=starts,
        success=success,
        credit=credit,
        digest=digest,
        doubt="" if seeded else "the file has no seed, and some benchmarks draw initial states from it",
        versions={"seed of the benchmark": known[0]} if seeded else {},
        notes=[f"{n_errors} episodes of {run} ended in an error; vla-eval counts them as failed"] if n_errors else [],
        **more,
    )


def _outcomes(rows: Sequence[Row]) -> Iterator[Outcome]:
    """With the number of the task where a benchmark has two of one name."""
    numbers: dict[tuple[str, str], set[int | None]] = defaultdict(set)
    for row in rows:
        numbers[row.benchmark, row.task].add(row.task_idx)
    for row in rows:
        twins = len(numbers[row.benchmark, row.task]) > 1
        unit = f"episode {row.episode:05d}" + (f" of task {row.task_idx}" if twins else "")
        yield Outcome(Start(row.benchmark, row.task, unit), row.success, float(row.success))


def rows_of(report: Any, file: Path) -> Iterator[Row]:
    """The episodes of one aggregate. Raises InvalidData, CorruptRecord."""
    benchmark = str(field_of(report, "benchmark", file))
    for task in list_of(report, "tasks", file):
        name = str(field_of(task, "task", file))
        for episode in list_of(task, "episodes", file):
            success = outcome_of(field_of(field_of(episode, "metrics", file), "success", file), str(file))
            number = whole_of(episode, "episode_id", file)
            task_idx = None if episode.get("task_idx") is None else whole_of(episode, "task_idx", file)
            yield Row(benchmark, name, task_idx, number, success, bool(episode.get("failure_reason")))


def _name(path: Path) -> str:
    """The folder's; an aggregate bears the benchmark's name, the same for every policy."""
    place = path.resolve()
    return place.parent.name if place.stem.endswith("_aggregate") else place.stem if path.is_file() else place.name


def _unfinished(pairs: Sequence[tuple[Any, Path]]) -> str:
    """Which files call themselves partial, and which shards of a benchmark are in none of them."""
    said: list[str] = []
    found: dict[str, set[int]] = defaultdict(set)
    totals: dict[str, int] = {}
    for report, file in pairs:
        merged = report.get("merge_info")
        if isinstance(merged, dict) and merged.get("shards_missing"):
            said.append(f"{file.name} was merged without shards {merged['shards_missing']}")
        elif report.get("partial"):
            said.append(f"{file.name} is marked partial")
        number, total = _shard(report, file)
        found[str(report["benchmark"])].add(number)
        totals[str(report["benchmark"])] = max(total, totals.get(str(report["benchmark"]), 0))
    said += [missing(benchmark, found[benchmark], total) for benchmark, total in totals.items()]
    return "; ".join(filter(None, said))


def _shard(report: Any, file: Path) -> tuple[int, int]:
    """Number and count of shards, as the file says or is called; a count of 0 where it is no shard."""
    shard = report.get("shard")
    if isinstance(shard, dict):
        return whole_of(shard, "id", file), whole_of(shard, "total", file)
    named = _SHARD.search(file.stem)
    return (int(named[1]), int(named[2])) if named else (0, 0)


def missing(benchmark: str, found: set[int], total: int) -> str:
    """Which shards of a benchmark are not there; empty where all are."""
    absent = [str(number) for number in islice((n for n in range(total) if n not in found), 9)]
    if len(absent) > 8:
        absent[8] = "..."
    return f"{benchmark} lacks shard {', '.join(absent)} of {total}" if absent else ""


READER = Reader("vla-eval", "BENCHMARK.json with tasks and episodes", find, read)
