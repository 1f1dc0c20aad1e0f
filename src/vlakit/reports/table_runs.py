"""The runs that fill a table: from an MLflow store and the evaluation folders it points to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from vlakit.errors import ConfigError, UnknownName, VlakitError, nearest
from vlakit.evaluation.records import read_header
from vlakit.reports.episodes import Episodes, digest_of
from vlakit.reports.readers.own import find, read
from vlakit.reports.table_spec import TableRow, TableSpec
from vlakit.tracking.mlflow import RunRow, histories, runs

SWEEPS = "tags.`vlakit.kind` = 'sweep'"
ALIKE = ("steps", "batch_size")  # what runs of one table must share
LEARNING = ("train/loss", "val/loss", "val/token_accuracy", "val/l1")  # metrics whose history is kept
MOST_POINTS = 200  # of one curve of one run
Curve = Sequence[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class TableRun:
    """One training that belongs to a row; why: what keeps it from counting, empty where `episodes` do.

    record: id, name, started, vlakit, dirty, checkpoint, and shards.DATASET, as far as they are known.
    """

    run: str
    row: str
    seed: str
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    episodes: Episodes | None = None
    why: str = ""
    commit: str = ""
    record: Mapping[str, str] = field(default_factory=dict[str, str])
    curves: Mapping[str, Curve] = field(default_factory=dict[str, Curve])


@dataclass(frozen=True)
class Filled:
    """All runs of a table, and what a reader should know of how they were chosen."""

    runs: list[TableRun]
    notes: list[str]


def from_store(spec: TableSpec, tracking_uri: str, experiment: str, parent: str | Sequence[str]) -> Filled:
    """The runs of sweeps. parent: "auto" (all sweeps of this table, else all runs), "all", "last", or ids.

    Of several runs of a row and seed the newest that finished counts. Raises UnknownName, ConfigError for runs of
    other lengths.
    """
    recorded, notes = _recorded(spec, tracking_uri, experiment, parent)
    chosen: dict[tuple[str, str], RunRow] = {}
    superseded = 0
    for run in sorted(recorded, key=lambda run: (run.status == "FINISHED", run.start_ms)):
        row = _row_of(run, spec.rows)
        if row is not None:
            key = row.name, run.params.get("seed", "?")
            superseded += key in chosen and chosen[key].status == "FINISHED"
            chosen[key] = run
    if superseded:
        notes.append(f"{superseded} older runs of the same row and seed were left out")
    _check_alike([run for run in chosen.values() if run.status == "FINISHED"], tracking_uri)
    return Filled([_table_run(run, row, seed, spec) for (row, seed), run in chosen.items()], notes)


def _recorded(
    spec: TableSpec, uri: str, experiment: str, parent: str | Sequence[str]
) -> tuple[list[RunRow], list[str]]:
    if parent == "all":
        return _of_rows(spec, uri, experiment), []
    sweeps = runs(uri, experiment, SWEEPS)
    if parent == "auto":
        own = [run.run_id for run in sweeps if f"hparams_search={spec.search}" in run.name.split()]
        if not own:
            return _of_rows(spec, uri, experiment), [f"no sweep of {spec.name} is recorded: runs of any origin"]
        wanted = own
    else:
        given = [parent] if isinstance(parent, str) else list(parent)
        wanted = [sweeps[-1].run_id if name == "last" and sweeps else str(name) for name in given]
    known = {run.run_id: run.name for run in sweeps}
    for run_id in wanted:
        if run_id not in known:
            raise UnknownName(f"no sweep {run_id!r}", where=uri, do=nearest(run_id, known))
    found = [run for run_id in wanted for run in runs(uri, experiment, f"tags.`mlflow.parentRunId` = '{run_id}'")]
    return found, [f"runs of: {known[run_id]} ({run_id})" for run_id in wanted]


def _of_rows(spec: TableSpec, uri: str, experiment: str) -> list[RunRow]:
    found: dict[str, RunRow] = {}
    for row in spec.rows:
        if row.where:
            words = " and ".join(f"params.`{key}` LIKE '{v.replace('*', '%')}'" for key, v in row.where.items())
            found |= {run.run_id: run for run in runs(uri, experiment, words)}
    return list(found.values())


def _row_of(run: RunRow, rows: Iterable[TableRow]) -> TableRow | None:
    for row in rows:
        if row.where and all(fnmatchcase(run.params.get(key, ""), v) for key, v in row.where.items()):
            return row
    return None


def _check_alike(chosen: Sequence[RunRow], where: str) -> None:
    for key in ALIKE:
        values = sorted({run.params[key] for run in chosen if key in run.params})
        if len(values) > 1:
            raise ConfigError(
                f"runs of one table differ in {key}: {', '.join(values)}",
                where=where,
                do="parent=ID names the sweep that counts (vlakit compare lists runs), or parent=last",
            )


def _table_run(run: RunRow, row: str, seed: str, spec: TableSpec) -> TableRun:
    commit = run.tags.get("mlflow.source.git.commit", "")
    found = TableRun(run.run_id[:8], row, seed, run.metrics, commit=commit, record=_facts(run))
    if run.status != "FINISHED":
        why = run.tags.get("vlakit.error") or {"RUNNING": "still running"}.get(run.status, run.status.lower())
        return replace(found, why=why)
    output = run.tags.get("vlakit.output")
    if output is None:
        return replace(found, why="its record names no folder")
    try:
        parts = [_evaluation(Path(output) / "evaluation" / suite, suite) for suite in spec.suites]
    except VlakitError as error:
        return replace(found, why=error.what)
    asked = Path(str(read_header(parts[0].source).get("subject", "")))
    checkpoint = asked.name if asked.suffix == ".ckpt" else "last.ckpt"  # which is what a run's folder stands for
    record = {**found.record, "checkpoint": checkpoint}
    return replace(found, episodes=replace(merged(parts), run=row, seed=seed), record=record)


def _facts(run: RunRow) -> dict[str, str]:
    started = datetime.fromtimestamp(run.start_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    known = {"vlakit": run.tags.get("vlakit.version"), "dirty": run.tags.get("git.dirty")}
    shards = {key: value for key, value in run.tags.items() if key.startswith("shards.")}
    return {"id": run.run_id, "name": run.name, "started": started, **{k: v for k, v in known.items() if v}, **shards}


def with_curves(filled: Filled, tracking_uri: str) -> Filled:
    """The same runs with their learning curves, thinned to MOST_POINTS: reading them costs some 10 ms each."""
    found = histories(tracking_uri, [run.record["id"] for run in filled.runs], LEARNING)
    curves = [{name: thinned(curve) for name, curve in found[run.record["id"]].items()} for run in filled.runs]
    return replace(filled, runs=[replace(run, curves=own) for run, own in zip(filled.runs, curves, strict=True)])


def thinned(curve: Curve) -> Curve:
    """At most MOST_POINTS of it, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(curve) - 1, min(len(curve), MOST_POINTS)).round().astype(int)
    return [curve[i] for i in places]


def _evaluation(folder: Path, suite: str) -> Episodes:
    """Raises ConfigError for none and for one that did not end, and what the reader refuses."""
    if not find(folder):
        raise ConfigError(f"not evaluated in {suite}", where=str(folder), do="vlakit evaluate")
    if "summary" not in read_header(folder):
        raise ConfigError(f"its evaluation in {suite} did not end", where=str(folder), do="the same command goes on")
    return read(folder, find(folder))


def merged(parts: Sequence[Episodes]) -> Episodes:
    """Evaluations of one checkpoint in several suites as one."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return replace(
        first,
        starts=[start for part in parts for start in part.starts],
        success=np.concatenate([part.success for part in parts]),
        credit=np.concatenate([part.credit for part in parts]),
        digest=digest_of([part.digest.encode() for part in parts]),
        states=" ".join(part.states for part in parts),
        notes=[note for part in parts for note in part.notes],
    )
