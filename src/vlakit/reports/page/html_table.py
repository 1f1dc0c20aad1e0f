"""A table's page: beside the tables themselves differences, learning curves, rollouts and provenance."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from vlakit import __version__
from vlakit.compare.grids import Grid
from vlakit.reports.page.forest import differences, typeset_forest
from vlakit.reports.page.html_page import Scale, render, scale_of
from vlakit.reports.paths import public
from vlakit.reports.tables.runs import LEARNING, MOST_POINTS, Curve, TableRun
from vlakit.reports.tables.table import PAPER, RowReport, TableReport

MOST_BYTES = 200_000  # of one video
FEW = 30  # points of a curve: so many are drawn as dots too
COLOURS = 7  # of style.css; further rows are dashed
RULES = {
    "last.ckpt": "the weights after the last training step; none was chosen by its success",
    "best.ckpt": "the weights that did best on held-out frames while training (callbacks.best.monitor)",
}


def table_page(report: TableReport, grids: Sequence[Grid], notes: Sequence[str]) -> str:
    """The page. Raises nothing of its own: what is absent is named with its reason."""
    paper = report.source == PAPER
    return render(
        "table.html.j2",
        report=report,
        paper=paper,
        says={row.row.name: row.row.says for row in report.rows if row.row.says != row.row.name},
        grids=grids,
        forest=typeset_forest(differences(report), report.settings, report.score),
        notes=notes,
        slots={row.row.name: slot(i) for i, row in enumerate(report.rows)},
        charts=[] if paper else charts(report),
        most_points=MOST_POINTS,
        without_curves=_without(report, {run.row for run in report.runs if run.curves}, "no metric history is kept"),
        shelves=[] if paper else [_shelf(row, report.runs) for row in report.rows],
        facts=_facts(report),
        runs=_runs(report.runs),
    )


def slot(place: int) -> str:
    """CSS classes of a row's curves."""
    return f"s{place % COLOURS}{' dashed' if place >= COLOURS else ''}"


@dataclass(frozen=True)
class Line:
    """A run's curve, or the mean of a row's, as SVG path data in a square of 1000; dots: its points, empty for many."""

    row: str
    label: str
    path: str
    dots: str
    mean: bool = False


@dataclass(frozen=True)
class Chart:
    """One metric over steps."""

    metric: str
    x: Scale
    y: Scale
    lines: Sequence[Line]


def charts(report: TableReport) -> list[Chart]:
    """A chart of each metric that a run has a history of: every run's curve, and over them the mean of each row's."""
    drawn: list[Chart] = []
    for metric in LEARNING:
        runs = [run for run in report.runs if run.curves.get(metric)]
        if runs:
            points = [point for run in runs for point in run.curves[metric]]
            x, y = scale_of([0, *(step for step, _ in points)], whole=True), scale_of([value for _, value in points])
            lines = [_line(run.row, f"seed {run.seed}", run.curves[metric], x, y) for run in runs]
            means = {
                row: _mean([run.curves[metric] for run in runs if run.row == row]) for row in {r.row: 0 for r in runs}
            }
            lines += [replace(_line(row, "mean", curve, x, y), mean=True) for row, curve in means.items() if curve]
            drawn.append(Chart(metric, x, y, lines))
    return drawn


def _mean(curves: Sequence[Curve]) -> Curve:
    """At the steps that all of several curves have; nothing of a single one."""
    values = [dict(curve) for curve in curves]
    steps = sorted(set(values[0]).intersection(*values[1:])) if len(values) > 1 else []
    return [(step, fmean(curve[step] for curve in values)) for step in steps]


def _line(row: str, which: str, curve: Curve, x: Scale, y: Scale) -> Line:
    return drawn(row, f"{row}, {which}: {curve[-1][1]:.4g} at step {curve[-1][0]:,}", curve, x, y)


def drawn(row: str, label: str, curve: Curve, x: Scale, y: Scale) -> Line:
    """A curve as SVG path data; its points too where they are few."""
    places = [f"{10 * x.at(step):.0f} {1000 - 10 * y.at(value):.0f}" for step, value in curve]
    dots = "".join(f"M{place}h0" for place in places) if len(places) <= FEW else ""
    return Line(row, label, f"M{'L'.join(places)}", dots)


@dataclass(frozen=True)
class Clip:
    """A video as base64."""

    label: str
    content: str


@dataclass(frozen=True)
class Shelf:
    """A row's videos; why: what is missing of them."""

    row: str
    clips: Sequence[Clip]
    why: str


def _shelf(row: RowReport, runs: Sequence[TableRun]) -> Shelf:
    """The first success and the first failure that were filmed: how it looks, not how often."""
    evaluated = [run for run in runs if run.row == row.row.name and run.episodes]
    films = [(file, run) for run in evaluated for file in sorted(_folder(run).glob("*.mp4"))]
    small = [(file, run) for file, run in films if file.stat().st_size <= MOST_BYTES]
    first = {file.stem.rpartition("_")[2]: (file, run) for file, run in reversed(small)}
    clips = [_clip(*first[end]) for end in ("success", "failure") if end in first]
    return Shelf(row.row.name, clips, "" if clips else _why(row, evaluated, films, small))


def _folder(run: TableRun) -> Path:
    return (run.episodes.source if run.episodes else Path()) / "videos"


def _why(row: RowReport, evaluated: Sequence[TableRun], films: Sequence[object], small: Sequence[object]) -> str:
    if not evaluated:
        return "; ".join(row.holes)
    if all(run.episodes and run.episodes.source.suffix == ".csv" for run in evaluated):
        return "a saved folder keeps no videos"
    if small:
        return "its videos show only episodes that ended in an error"
    if films:
        return f"its videos are larger than {MOST_BYTES / 1000:g} kB each: picture_size=N of vlakit evaluate"
    return "no video beside its episodes: videos=N of vlakit evaluate films some"


def _clip(file: Path, run: TableRun) -> Clip:
    number, _, task = file.stem.partition("_")
    task, _, end = task.rpartition("_")
    label = f"{task.replace('_', ' ')}: {end} (seed {run.seed}, episode {int(number) if number.isdigit() else number})"
    return Clip(label, b64encode(file.read_bytes()).decode())


def _without(report: TableReport, there: Iterable[str], why: str) -> list[tuple[str, str]]:
    """(row, reason) of rows that are not there."""
    known, run = set(there), {run.row for run in report.runs}
    missing = [row for row in report.rows if row.row.name not in known]
    return [(row.row.name, why if row.row.name in run else "; ".join(row.holes)) for row in missing]


def _facts(report: TableReport) -> list[tuple[str, list[str]]]:
    """What a reader needs to do it again: (term, values)."""
    runs = report.runs
    source = f"the paper's printed {', '.join(report.spec.paper)}" if report.source == PAPER else public(report.source)
    facts = [("this page", [public(report.command), f"vlakit {__version__}"]), ("source", [source])]
    if report.source == PAPER:
        return facts
    starts = sorted(run.record["started"] for run in runs if "started" in run.record)
    evaluated = [run.episodes for run in runs if run.episodes]
    files = _unique(run.record.get("checkpoint", "") for run in runs if run.episodes)
    shards = _unique(f"{k[7:]} {v}" for run in runs for k, v in run.record.items() if k.startswith("shards."))
    return [
        *facts,
        ("filled by", [report.spec.sweep]),
        ("trainings", [f"from {starts[0]} to {starts[-1]}" if starts else ""]),
        ("trained with", _unique(f"vlakit {run.record['vlakit']}" for run in runs if "vlakit" in run.record)),
        ("evaluated with", _unique(f"{k} {v}" for e in evaluated for k, v in sorted(e.versions.items()))),
        ("initial states", _unique(e.states for e in evaluated)),
        ("shards", shards),
        ("checkpoint", [f"{file}: {RULES.get(file, 'the file that vlakit evaluate was given')}" for file in files]),
    ]


def _unique(words: Iterable[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word]


def _runs(runs: Sequence[TableRun]) -> Grid:
    header = ["row", "seed", "run", "name", "started", "commit", "checkpoint", "episodes", "sha256 of episodes", "what"]
    return Grid("runs", header, [[run.row, run.seed, run.run, *_about(run.record, run)] for run in runs])


def _about(record: Mapping[str, str], run: TableRun) -> list[str]:
    commit = f"{run.commit[:10] or '-'}{' + changes' if record.get('dirty') == 'true' else ''}"
    n, digest = (f"{len(run.episodes):,}", run.episodes.digest[:12]) if run.episodes else ("-", "-")
    return [
        record.get("name", "-"),
        record.get("started", "-"),
        commit,
        record.get("checkpoint", "-"),
        n,
        digest,
        run.why,
    ]
