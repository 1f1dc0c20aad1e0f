"""The runs that fill a table: from an MLflow store and the evaluation folders it points to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from vlakit.compare.episodes import Episodes, digest_of
from vlakit.compare.readers.own import find, read
from vlakit.compare.records import read_header
from vlakit.errors import ConfigError, UnknownName, VlakitError, nearest
from vlakit.reports.paths import public
from vlakit.reports.tables.spec import TableRow, TableSpec
from vlakit.tracking.mlflow import RunRow, histories, runs

SWEEPS = "tags.`vlakit.kind` = 'sweep'"
ALIKE = ("steps", "batch_size", "model.weights")  # what runs of one table must share, unless a row names it
LEARNING_RATE = "strategy.optimizer.lr"  # what runs of one row must share
LEARNING = ("train/loss", "val/loss", "val/token_accuracy", "val/l1", "rollout/success_greedy", "drift/kl_rollout")
MOST_POINTS = 200  # of one curve of one run
Curve = Sequence[tuple[int, float]]  # (step, value)
Rows = Sequence[tuple[str, RunRow]]  # (row, run)


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
    """The runs of sweeps. parent: "auto" (all sweeps of this table, else all runs), "all", "last" (of them), or ids.

    Of several runs of a row and seed the newest that finished and was evaluated counts; those that were evaluated in
    other suites alone are no runs of this table. Raises UnknownName, ConfigError for runs that do not compare: of
    other lengths, weights or shards in one table, or of other learning rates in one row.
    """
    recorded, notes = _recorded(spec, tracking_uri, experiment, parent)
    groups: dict[tuple[str, str], list[RunRow]] = {}
    elsewhere = 0
    for run in recorded:
        row = _row_of(run, spec.rows)
        if row is not None and _is_elsewhere(run, spec):
            elsewhere += 1
        elif row is not None:
            groups.setdefault((row.name, run.params.get("seed", "?")), []).append(run)
    chosen = {key: max(runs, key=lambda run: _rank(run, spec)) if runs[1:] else runs[0] for key, runs in groups.items()}
    finished = [(row, run) for (row, _), members in groups.items() for run in members if run.status == "FINISHED"]
    counted = [(row, run) for (row, _), run in chosen.items() if run.status == "FINISHED"]
    superseded = len(finished) - len(counted)
    for n, what in ((superseded, "other runs of the same row and seed"), (elsewhere, "runs of other suites")):
        notes += [f"{n} {what} were left out"] if n else []
    _check_alike(finished, counted, spec, tracking_uri)
    return tidy(Filled([_table_run(run, row, seed, spec) for (row, seed), run in chosen.items()], notes))


def _recorded(
    spec: TableSpec, uri: str, experiment: str, parent: str | Sequence[str]
) -> tuple[list[RunRow], list[str]]:
    if parent == "all":
        return _of_rows(spec, uri, experiment), []
    sweeps = runs(uri, experiment, SWEEPS)
    of_table = [run.run_id for run in sweeps if f"hparams_search={spec.search}" in run.name.split()]
    if parent == "auto":
        if not of_table:
            return _of_rows(spec, uri, experiment), [f"no sweep of {spec.name} is recorded: runs of any origin"]
        wanted = of_table
    else:
        given = [parent] if isinstance(parent, str) else list(parent)
        wanted = [of_table[-1] if name == "last" and of_table else str(name) for name in given]
    known = {run.run_id: run.name for run in sweeps}
    for run_id in wanted:
        if run_id not in known:
            raise UnknownName(f"no sweep {run_id!r} of {spec.name}", where=uri, do=nearest(run_id, known))
    recorded = [run for run_id in wanted for run in runs(uri, experiment, f"tags.`mlflow.parentRunId` = '{run_id}'")]
    return recorded, [f"runs of: {known[run_id]} ({run_id})" for run_id in wanted]


def _of_rows(spec: TableSpec, uri: str, experiment: str) -> list[RunRow]:
    recorded: dict[str, RunRow] = {}
    for row in spec.rows:
        if row.where:
            words = " and ".join(f"params.`{key}` LIKE '{v.replace('*', '%')}'" for key, v in row.where.items())
            recorded |= {run.run_id: run for run in runs(uri, experiment, words)}
    return list(recorded.values())


def _row_of(run: RunRow, rows: Iterable[TableRow]) -> TableRow | None:
    for row in rows:
        if row.where and all(fnmatchcase(run.params.get(key, ""), v) for key, v in row.where.items()):
            return row
    return None


def _is_elsewhere(run: RunRow, spec: TableSpec) -> bool:
    """Whether its training ended in an evaluation in another suite, and none in the table's followed."""
    suite = run.params.get("evaluate.suite", "None")
    return suite not in {"None", *spec.suites} and not any(find(place) for place in _places(run, spec))


def _places(run: RunRow, spec: TableSpec) -> list[Path]:
    output = run.tags.get("vlakit.output")
    return [Path(output) / "evaluation" / suite for suite in spec.suites] if output else []


def _rank(run: RunRow, spec: TableSpec) -> tuple[bool, bool, int]:
    """A training is marked as finished before its evaluation: of those the evaluated count more, then the newer."""
    try:
        evaluated = [_evaluation(place, place.name) for place in _places(run, spec)]
    except VlakitError:
        evaluated = []
    return run.status == "FINISHED", bool(evaluated), run.start_ms


def _check_alike(finished: Rows, chosen: Rows, spec: TableSpec, where: str) -> None:
    """Learning rates within a row; over the table ALIKE (where no row names the key) and shards (or its data)."""
    named = {row.name: row.where for row in spec.rows}
    values = {"one table differ in shards": _other_shards(chosen, named)}
    for row, run in finished:
        if LEARNING_RATE in run.params:
            values.setdefault(f"row {row} differ in {LEARNING_RATE}", set()).add(run.params[LEARNING_RATE])
    for row, run in chosen:
        for key in ALIKE:
            if key in run.params and named[row].get(key, "*") == "*":
                values.setdefault(f"one table differ in {key}", set()).add(run.params[key])
    for what, several in values.items():
        if len(several) > 1:
            raise ConfigError(
                f"runs of {what}: {', '.join(sorted(several))}",
                where=where,
                do="parent=ID names the sweep that counts (vlakit compare lists runs), or parent=last",
            )


def _other_shards(chosen: Rows, named: Mapping[str, Mapping[str, str]]) -> set[str]:
    """The shards that runs learn from, but for rows that name their data; none where each seed has its own.

    Those are the same in all rows: seeds then vary the demonstrations too (scale=table).
    """
    of_seeds: dict[str, set[str]] = {}
    for row, run in chosen:
        shards = [f"{key[7:]} {value[:12]}" for key, value in sorted(run.tags.items()) if key.startswith("shards.")]
        if shards and not any(key.startswith("data.") for key in named[row]):
            of_seeds.setdefault(run.params.get("seed", ""), set()).add(" and ".join(shards))
    every = [shards for of_seed in of_seeds.values() for shards in of_seed]
    return set() if len(every) == len(set(every)) == len(of_seeds) else set(every)


def _table_run(run: RunRow, row: str, seed: str, spec: TableSpec) -> TableRun:
    commit = run.tags.get("mlflow.source.git.commit", "")
    entry = TableRun(run.run_id[:8], row, seed, run.metrics, commit=commit, record=_facts(run))
    if run.status != "FINISHED":
        why = run.tags.get("vlakit.error") or {"RUNNING": "still running"}.get(run.status, run.status.lower())
        return replace(entry, why=why)
    output = run.tags.get("vlakit.output")
    if output is None:
        return replace(entry, why="its record names no folder")
    try:
        parts = [_evaluation(place, suite) for place, suite in zip(_places(run, spec), spec.suites, strict=True)]
    except VlakitError as error:
        return replace(entry, why=error.what)
    subject = Path(str(read_header(parts[0].source).get("subject", "")))
    checkpoint = subject.name if subject.suffix == ".ckpt" else "last.ckpt"  # which is what a run's folder stands for
    record = {**entry.record, "checkpoint": checkpoint}
    return replace(entry, episodes=replace(merged(parts), run=row, seed=seed), record=record)


def _facts(run: RunRow) -> dict[str, str]:
    started = datetime.fromtimestamp(run.start_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    known = {"vlakit": run.tags.get("vlakit.version"), "dirty": run.tags.get("git.dirty")}
    shards = {key: value for key, value in run.tags.items() if key.startswith("shards.")}
    return {"id": run.run_id, "name": run.name, "started": started, **{k: v for k, v in known.items() if v}, **shards}


def tidy(filled: Filled) -> Filled:
    """The same without passwords and places of this machine in what is said of the runs."""
    cleaned = [
        replace(run, why=public(run.why), record={key: public(value) for key, value in run.record.items()})
        for run in filled.runs
    ]
    return Filled(cleaned, [public(note) for note in filled.notes])


def with_curves(filled: Filled, tracking_uri: str) -> Filled:
    """The same runs with their learning curves, thinned to MOST_POINTS: reading them costs some 10 ms each."""
    points = histories(tracking_uri, [run.record["id"] for run in filled.runs], LEARNING)
    curves = [{name: thinned(curve) for name, curve in points[run.record["id"]].items()} for run in filled.runs]
    return replace(filled, runs=[replace(run, curves=kept) for run, kept in zip(filled.runs, curves, strict=True)])


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
