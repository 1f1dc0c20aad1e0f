"""A table's outcomes as a few CSV files that a reviewer can read: one a row of the table, and runs.csv.

ROW.csv: run, experiment, seed, suite, task, initial_state, success (0 or 1), credit. runs.csv: a line a training with
its metrics, the commit, the digest of its episodes.jsonl and of the initial states, versions, what went wrong, and its
record (JSON: id, name, start, checkpoint, shard hashes). curves.csv: run, metric, step, value; thinned.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from vlakit.compare.episodes import Episodes, Outcome, Start, columns, outcome_of
from vlakit.compare.grids import csv_lines, unquoted
from vlakit.errors import CorruptRecord, InvalidData, one_line
from vlakit.files import write_atomically
from vlakit.reports.tables.runs import Filled, TableRun, tidy
from vlakit.reports.tables.spec import TableSpec

RUNS, CURVES = "runs.csv", "curves.csv"
HEADER = ["run", "experiment", "seed", "suite", "task", "initial_state", "success", "credit"]
ABOUT = ["run", "experiment", "seed", "why", "commit", "digest", "states", "versions", "record"]
POINT = ["run", "metric", "step", "value"]


def save(filled: Filled, spec: TableSpec, folder: Path) -> list[Path]:
    """Write the outcomes of all runs into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / RUNS]
    metrics = sorted({column.metric for column in spec.columns})
    lines: list[list[object]] = [[*ABOUT, *metrics]]
    for run in filled.runs:
        e = run.episodes
        facts = [e.digest, e.states, json.dumps(e.versions, sort_keys=True)] if e else ["", "", ""]
        about = [run.run, run.row, run.seed, run.why, run.commit, *facts, json.dumps(run.record, sort_keys=True)]
        lines.append([*about, *(run.metrics.get(metric) for metric in metrics)])
    write_atomically(folder / RUNS, csv_lines(lines) + "\n")
    for row in spec.rows:
        runs = [run for run in filled.runs if run.row == row.name and run.episodes]
        if runs:
            file = folder / f"{row.name}.csv"
            write_atomically(file, csv_lines([HEADER, *(line for run in runs for line in _lines(run))]) + "\n")
            written.append(file)
    points = [[r.run, name, *point] for r in filled.runs for name, curve in r.curves.items() for point in curve]
    if points:
        write_atomically(folder / CURVES, csv_lines([POINT, *points]) + "\n")
        written.append(folder / CURVES)
    return written


def _lines(run: TableRun) -> Iterable[list[object]]:
    if run.episodes is None:
        return
    e = run.episodes
    for start, success, credit in sorted(zip(e.starts, e.success.tolist(), e.credit.tolist(), strict=True)):
        yield [run.run, run.row, run.seed, start.suite, start.task, start.unit, int(success), f"{credit:g}"]


def from_folder(spec: TableSpec, folder: Path) -> Filled:
    """The runs that `save` wrote. Raises InvalidData where there are none, CorruptRecord."""
    about = _read(folder / RUNS, ABOUT)
    known = {row.name for row in spec.rows}
    outcomes: dict[tuple[str, str], list[dict[str, str]]] = {}
    for name in sorted(known):
        for line in _read(folder / f"{name}.csv", HEADER) if (folder / f"{name}.csv").is_file() else []:
            outcomes.setdefault((line["experiment"], line["seed"]), []).append(line)
    curves = _curves(folder / CURVES)
    runs = [
        replace(
            _run(line, outcomes.get((line["experiment"], line["seed"]), []), folder), curves=curves.get(line["run"], {})
        )
        for line in about
        if line["experiment"] in known
    ]
    return tidy(Filled(runs, [f"from {folder}"]))


def _curves(file: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Run -> metric -> points; nothing where no curve was kept."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in _read(file, POINT) if file.is_file() else []:
        try:
            point = int(line["step"]), float(line["value"])
        except ValueError as error:
            raise CorruptRecord(f"not a number: {error}", where=str(file), do="save the table again") from error
        curves.setdefault(line["run"], {}).setdefault(line["metric"], []).append(point)
    return curves


def _read(file: Path, header: Sequence[str]) -> list[dict[str, str]]:
    if not file.is_file():
        raise InvalidData("no results here", where=str(file), do="give a folder that vlakit table ... save=DIR wrote")
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if list(reader.fieldnames or [])[: len(header)] != list(header):
            raise CorruptRecord(f"the header is not {','.join(header)}", where=str(file), do="save the table again")
        lines = list(reader)
    broken = [i for i, line in enumerate(lines, 2) if None in line or None in line.values()]
    if broken:
        raise CorruptRecord(f"line {broken[0]} has another number of fields", where=str(file), do="save it again")
    return [{key: one_line(unquoted(value)) for key, value in line.items()} for line in lines]


def _run(about: dict[str, str], lines: Sequence[dict[str, str]], folder: Path) -> TableRun:
    file = folder / f"{about['experiment']}.csv"
    try:
        numbers = {key: float(value) for key, value in about.items() if key not in ABOUT and value}
        outcomes = [_outcome(line, file) for line in lines if line["run"] == about["run"]]
        versions, record = (json.loads(about[key] or "{}") for key in ("versions", "record"))
    except ValueError as error:
        raise CorruptRecord(f"not a number: {error}", where=str(file), do="save the table again") from error
    facts = {"metrics": numbers, "commit": about["commit"], "record": record}
    run = TableRun(about["run"], about["experiment"], about["seed"], **facts)
    if about["why"] or not outcomes:
        return replace(run, why=about["why"] or "no episodes in this folder")
    starts, success, credit = columns(outcomes)
    episodes = Episodes(
        run=about["experiment"],
        source=file,
        starts=starts,
        success=success,
        credit=credit,
        digest=about["digest"],
        seed=about["seed"],
        versions=versions,
        states=about["states"],
    )
    return replace(run, episodes=episodes)


def _outcome(line: dict[str, str], file: Path) -> Outcome:
    start = Start(line["suite"], line["task"], line["initial_state"])
    return Outcome(start, outcome_of(int(line["success"]), str(file)), float(line["credit"]))
