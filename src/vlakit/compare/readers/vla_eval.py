"""vla-eval's aggregates: one JSON a benchmark, or the shards of one; episode_id and seed decide the initial state.

Source: github.com/allenai/vla-evaluation-harness, vla_eval/results/collector.py (BenchmarkResult).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlakit.compare.episodes import Episodes, Outcome, Start, columns, digest_of, outcome_of
from vlakit.compare.foreign import field_of, list_of, load_json, starts_with_keys, whole_of
from vlakit.compare.readers import Reader
from vlakit.errors import InvalidData

KEYS = ("benchmark", "harness_version", "tasks")


def find(path: Path) -> list[Path]:
    """The file, or those of a folder."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    return [file for file in files if starts_with_keys(file, *KEYS)]


def read(path: Path, files: list[Path]) -> Episodes:
    """All tasks of one benchmark. Raises InvalidData for several seeds and another layout, CorruptRecord."""
    contents = [file.read_bytes() for file in files]
    reports = [load_json(file, content) for file, content in zip(files, contents, strict=True)]
    pairs = list(zip(reports, files, strict=True))
    starts, success, credit = columns(outcome for report, file in pairs for outcome in _outcomes(report, file))
    seeds = {str(report.get("seed")) for report in reports}
    if len(seeds) > 1:
        raise InvalidData(
            f"files of seeds {', '.join(sorted(seeds))}", where=str(path), do="give the files of one seed"
        )
    seed = seeds.pop()
    n_errors = sum(_errors(report) for report in reports)
    run = path.resolve().stem if path.is_file() else path.resolve().name
    return Episodes(
        run=run,
        source=path,
        starts=starts,
        success=success,
        credit=credit,
        digest=digest_of(contents),
        doubt="" if seed != "None" else "the file has no seed, and some benchmarks draw initial states from it",
        versions={} if seed == "None" else {"seed of the benchmark": seed},
        notes=[f"{n_errors} episodes of {run} ended in an error; vla-eval counts them as failed"] if n_errors else [],
    )


def _outcomes(report: Any, file: Path) -> Iterator[Outcome]:
    benchmark = str(field_of(report, "benchmark", file))
    for task in list_of(report, "tasks", file):
        name = str(field_of(task, "task", file))
        for episode in list_of(task, "episodes", file):
            success = outcome_of(field_of(field_of(episode, "metrics", file), "success", file), str(file))
            unit = f"episode {whole_of(episode, 'episode_id', file):05d}"
            yield Outcome(Start(benchmark, name, unit), success, float(success))


def _errors(report: Any) -> int:
    return sum(bool(episode.get("failure_reason")) for task in report["tasks"] for episode in task["episodes"])


READER = Reader("vla-eval", "BENCHMARK.json with tasks and episodes", find, read)
