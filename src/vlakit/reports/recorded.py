"""Recorded runs side by side: one row a kind of run, seeds pooled into mean +- standard deviation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from vlakit.compare.gather import kind
from vlakit.compare.grids import FORMATS, Column, Report, at, grid, plain_lines
from vlakit.errors import ConfigError, UnknownName, nearest
from vlakit.tracking.mlflow import EXPERIMENT, RunRow, runs

# column -> (metric, factor, digits)
COLUMNS: dict[str, tuple[str, float, int]] = {
    "trainable": ("params/trainable", 1, 0),
    "peak MB": ("memory/peak_bytes", 1e-6, 0),
    "samples/s": ("time/samples_per_s", 1, 1),
    "val loss": ("val/loss", 1, 3),
    "val token acc.": ("val/token_accuracy", 1, 3),
    "val L1": ("val/l1", 1, 4),
}
SHORT = {"token_accuracy": "open-loop acc.", "l1": "open-loop L1"}


@dataclass(frozen=True)
class Cell:
    """Mean over n seeds; spread is their standard deviation, None with one seed."""

    mean: float
    spread: float | None
    digits: int

    def __str__(self) -> str:
        text = f"{self.mean:,.{self.digits}f}"
        return text if self.spread is None else f"{text} +- {self.spread:,.{self.digits}f}"


@dataclass(frozen=True)
class Row:
    """One kind of run: the same name but for the seed, and the same weights to start from."""

    name: str
    seeds: list[str]
    cells: dict[str, Cell] = field(default_factory=dict[str, Cell])


def compare_runs(
    tracking_uri: str,
    *,
    parent: str | None = None,
    names: Sequence[str] | None = None,
    experiment: str = EXPERIMENT,
    sort: str | None = None,
) -> list[Row]:
    """Rows of the finished runs of a store: of one sweep (`parent` id or "last"), or `names` (names or ids), or all.

    Raises UnknownName for a run or sweep that is not there, ConfigError when nothing finished.
    """
    recorded = runs(tracking_uri, experiment)
    chosen = _choose(recorded, parent, names, tracking_uri)
    finished = [run for run in chosen if run.status == "FINISHED" and run.tags.get("vlakit.kind") != "sweep"]
    if not finished:
        raise ConfigError("no finished run to compare", where=tracking_uri, do="python train.py experiment=lora_r32")
    groups: dict[tuple[str, ...], dict[tuple[str, ...], dict[str, RunRow]]] = {}
    for run in finished:  # oldest first: of several runs of a seed, which are no further evidence, the newest counts
        on_data = groups.setdefault(identity(run), {}).setdefault(shards(run), {})
        on_data[run.params.get("seed", run.run_id)] = run
    rows = [_row(key[0], members) for key, on_data in groups.items() for members in repetitions(list(on_data.values()))]
    if sort is not None:
        if sort not in COLUMNS:
            raise ConfigError(f"no column {sort!r}", where="sort", do=nearest(sort, COLUMNS))
        rows.sort(key=lambda row: row.cells[sort].mean if sort in row.cells else float("inf"))
    return rows


def identity(run: RunRow) -> tuple[str, ...]:
    """What runs must share to be repetitions: name but for the seed, start, precision, and the datasets' names."""
    datasets = sorted(name for name in run.tags if name.startswith("shards."))
    return kind(run.name), run.params.get("model.weights", ""), run.params.get("trainer.precision", ""), *datasets


def shards(run: RunRow) -> tuple[str, ...]:
    """Which shards of each dataset."""
    return tuple(digest for name, digest in sorted(run.tags.items()) if name.startswith("shards."))


def repetitions(on_data: Sequence[Mapping[str, RunRow]]) -> list[list[RunRow]]:
    """Runs by seed, on each data: those on the same are repetitions, and all where each seed has data of its own."""
    seeds = [seed for by_seed in on_data for seed in by_seed]
    if len(seeds) == len(on_data) == len(set(seeds)):
        return [[run for by_seed in on_data for run in by_seed.values()]]
    return [list(by_seed.values()) for by_seed in on_data]


def _choose(recorded: Sequence[RunRow], parent: str | None, names: Sequence[str] | None, where: str) -> list[RunRow]:
    if parent is not None:
        sweeps = [run.run_id for run in recorded if run.tags.get("vlakit.kind") == "sweep"]
        wanted = sweeps[-1] if parent == "last" and sweeps else parent
        if wanted not in sweeps:
            raise UnknownName(f"no sweep {parent!r}", where=where, do=nearest(parent, sweeps))
        return [run for run in recorded if run.parent == wanted]
    if names is None:
        return list(recorded)
    known = {word for run in recorded for word in (run.run_id, run.name)}
    for name in names:
        if name not in known:
            raise UnknownName(f"no run {name!r}", where=where, do=nearest(name, known))
    return [run for run in recorded if run.run_id in names or run.name in names]


def _row(name: str, members: Sequence[RunRow]) -> Row:
    cells: dict[str, Cell] = {}
    evaluated = {m for run in members for m in run.metrics if re.fullmatch(r"eval/(token_accuracy|l1)/[^/]+", m)}
    evaluated |= {f"eval/success/{run.params['evaluate.suite']}" for run in members if "evaluate.suite" in run.params}
    extra = {_evaluation_column(metric): (metric, 1.0, 3) for metric in sorted(evaluated)}
    for column, (metric, factor, digits) in {**COLUMNS, **extra}.items():
        values = [run.metrics[metric] * factor for run in members if metric in run.metrics]
        if values:
            cells[column] = Cell(fmean(values), stdev(values) if len(values) > 1 else None, digits)
    totals = [run.metrics["params/total"] for run in members if run.metrics.get("params/total")]
    if totals and "trainable" in cells:
        cells["share %"] = Cell(100 * cells["trainable"].mean / fmean(totals), None, 1)
        cells["trainable"] = Cell(cells["trainable"].mean, None, 0)
    return Row(name, [run.params.get("seed", "?") for run in members], cells)


def _evaluation_column(metric: str) -> str:
    """A short title.

    >>> _evaluation_column("eval/token_accuracy/bridge_orig"), _evaluation_column("eval/success/tabletop_target")
    ('open-loop acc. bridge_orig', 'success tabletop_target')
    """
    _, score, place = metric.split("/", 2)
    return f"{SHORT.get(score, score)} {place}"


def render(rows: Sequence[Row], output_format: str) -> str:
    """Rows as an aligned table (`text`), as `csv` or as `json`."""
    numbers = [
        Column(name, lambda row, name=name: str(row.cells.get(name, "-")), fields=[name]) for name in columns_of(rows)
    ]
    columns = [
        Column("run", at("name"), fields=["run"]),
        Column("seeds", lambda row: len(row.seeds), fields=["seeds"]),
        *numbers,
    ]
    report = Report([grid("", columns, rows)], plain_lines(columns, rows), to_json(rows))
    return FORMATS.build(output_format, report=report)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Columns that any row fills, in a fixed order."""
    order = ["trainable", "share %", *list(COLUMNS)[1:]]
    extra = sorted({name for row in rows for name in row.cells} - set(order))
    return [name for name in [*order, *extra] if any(name in row.cells for row in rows)]


def to_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Plain values: {rows: [{run, seeds, column: {mean, spread}}]}."""
    cells = [{name: {"mean": cell.mean, "spread": cell.spread} for name, cell in row.cells.items()} for row in rows]
    return {"rows": [{"run": row.name, "seeds": row.seeds, **c} for row, c in zip(rows, cells, strict=True)]}
