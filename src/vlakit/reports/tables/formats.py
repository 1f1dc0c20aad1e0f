"""A table as text, Markdown, LaTeX, CSV, JSON or an HTML page. Measured and quoted figures have columns of their own.

A new format is a function in `FORMATS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from vlakit.compare.grids import Grid, aligned, csv_lines, error, limits, markdown, p_text, points
from vlakit.compare.grids import latex as tabular
from vlakit.compare.versus import Judged
from vlakit.reports.tables.quoted import Quoted
from vlakit.reports.tables.spec import Column
from vlakit.reports.tables.table import PAPER, RowReport, TableReport
from vlakit.reports.versus_tables import pair_json


def grids(report: TableReport) -> list[Grid]:
    """Rows, claims, and for the paper's own data every pair."""
    level = f"{100 * report.settings.confidence:g} %"
    if report.source == PAPER:
        parts = [_printed_grid(report, level), _pair_grid("all pairs, unpaired", report.pairs, level)]
        if report.scopes:
            parts.append(_pair_grid("pairs part by part", report.scopes, level))
    else:
        parts = [_measured_grid(report, level)]
    return [part for part in [*parts, _claim_grid(report)] if part.rows]


def _measured_grid(report: TableReport, level: str) -> Grid:
    spec = report.spec
    titles = [column.title for column in spec.columns]
    header = [
        *("row", "seeds", "n", "success %", level, f"- {spec.reference}", level, "p Holm", *titles),
        *("paper: success %", *(f"paper: {column.title}" for column in spec.columns if column.quoted)),
        *("measured", "against the paper", "what"),
    ]
    title, rows = f"{spec.title} (paper: quoted, not measured here)", [_measured(r, report) for r in report.rows]
    return Grid(title, header, rows, [word for word in header if word.startswith("paper: ")])


def _measured(row: RowReport, report: TableReport) -> list[str]:
    rate, judged, columns = row.rate, row.judged, report.spec.columns
    own = ["-"] * 4 if rate is None else [str(rate.seeds), f"{rate.n:,}", points(rate.rate), limits(rate.interval)]
    against = ["-"] * 3
    if judged:
        f = judged.finding
        against = [points(f.difference, signed=True), limits(f.interval, signed=True), p_text(judged.p_holm)]
    numbers = [_number(row, column) for column in columns]
    theirs = [_plain(row.quoted.get(column.metric), column) for column in columns if column.quoted]
    said = [_said(row, report) or "-", row.beside or "-", "; ".join(row.holes)]
    return [row.row.name, *own, *against, *numbers, _plus_minus(row.printed), *theirs, *said]


def _said(row: RowReport, report: TableReport) -> str:
    """What these data say of a row beside the reference, whatever the paper has."""
    if row.judged:
        return {"a better": "better", "b better": "worse"}.get(row.judged.verdict, row.judged.verdict)
    return "reference" if row.row.name == report.spec.reference else ""


def _number(row: RowReport, column: Column) -> str:
    number = row.numbers.get(column.metric)
    if number is None:
        return "-"
    text = _plain(number.mean, column)
    if number.interval is None:
        return text
    return f"{text} ({_plain(number.interval[0], column)} to {_plain(number.interval[1], column)})"


def _plain(value: float | None, column: Column) -> str:
    return "-" if value is None else f"{value:,.{column.digits}f}"


def _plus_minus(printed: Quoted | None) -> str:
    if printed is None:
        return "-"
    return points(printed.rate) if printed.printed_se is None else f"{points(printed.rate)} +- {error(printed.error)}"


def _printed_grid(report: TableReport, level: str) -> Grid:
    header = ["scope", "row", "n", "success %", "+- printed", "+- reproduced", "rule", "half credits", level]
    rows = [
        [
            *(row.scope, row.name, f"{row.n:,}", points(row.rate), error(row.printed_se)),
            "-" if row.se is None else f"{100 * row.se:.2f}",
            *(row.rule, "-" if row.half_credits is None else str(row.half_credits), limits(row.interval)),
        ]
        for scope in report.printed.values()
        for row in scope.values()
    ]
    return Grid(f"{report.spec.title}: as the paper prints it (quoted)", header, rows, header[2:])


def _pair_grid(title: str, pairs: list[Judged], level: str) -> Grid:
    header = ["scope", "a", "b", "a - b", level, "p", "p Holm", "verdict"]
    rows = [
        [
            *(j.scope, j.a, j.b, points(j.finding.difference, signed=True), limits(j.finding.interval, signed=True)),
            *(p_text(j.finding.p), p_text(j.p_holm), j.verdict),
        ]
        for j in pairs
    ]
    return Grid(title, header, rows)


def _claim_grid(report: TableReport) -> Grid:
    if report.source == PAPER:
        rows = [[claim.claim.says, claim.paper] for claim in report.claims]
        return Grid("claims, by the paper's own rollouts", ["claim", "verdict"], rows, ["verdict"])
    rows = [[claim.claim.says, claim.verdict, claim.paper] for claim in report.claims]
    theirs = "paper's own rollouts"
    return Grid("claims", ["claim", "verdict", theirs], rows, [theirs])


def text(report: TableReport) -> str:
    """Aligned tables for people."""
    parts = ["\n".join([grid.title, *aligned(grid)]) for grid in grids(report)]
    return "\n\n".join([*parts, *(f"note: {note}" for note in _notes(report))])


def markdown_text(report: TableReport) -> str:
    """Tables for a README."""
    return "\n\n".join([*map(markdown, grids(report)), "\n".join(f"- {note}" for note in _notes(report))]).rstrip()


def latex_text(report: TableReport) -> str:
    """A tabular of each table, ready for \\input."""
    return "\n\n".join([*map(tabular, grids(report)), *(f"% {note}" for note in _notes(report))])


def csv_text(report: TableReport) -> str:
    """One line a row of the table: plain numbers, success as fractions, quoted columns marked so."""
    if report.source == PAPER:
        return _paper_csv(report)
    columns = report.spec.columns
    header = [
        *("row", "seeds", "n", "success", "low", "high", "difference", "difference_low", "difference_high", "p"),
        *("p_holm", *(c.metric for c in columns), "quoted_success", "quoted_se"),
        *(*(f"quoted_{c.metric}" for c in columns), "measured", "verdict", "holes"),
    ]
    return csv_lines([header, *(_csv_row(row, report) for row in report.rows)])


def _csv_row(row: RowReport, report: TableReport) -> list[object]:
    rate, finding = row.rate, row.judged.finding if row.judged else None
    own = [None] * 5 if rate is None else [rate.seeds, rate.n, rate.rate, *(rate.interval or (None, None))]
    against = [None] * 4 if finding is None else [finding.difference, *(finding.interval or (None, None)), finding.p]
    numbers = [getattr(row.numbers.get(c.metric), "mean", None) for c in report.spec.columns]
    theirs = [row.printed.rate, row.printed.printed_se] if row.printed else [None, None]
    quoted = [row.quoted.get(c.metric) for c in report.spec.columns]
    p_holm = row.judged.p_holm if row.judged else None
    said = [_said(row, report), row.beside, "; ".join(row.holes)]
    return [row.row.name, *own, *against, p_holm, *numbers, *theirs, *quoted, *said]


def _paper_csv(report: TableReport) -> str:
    lines: list[list[object]] = [["scope", "a", "b", "difference", "low", "high", "p", "p_holm", "verdict"]]
    for j in [*report.pairs, *report.scopes]:
        f = j.finding
        lines.append([j.scope, j.a, j.b, f.difference, *(f.interval or (None, None)), f.p, j.p_holm, j.verdict])
    return csv_lines(lines)


def html_text(report: TableReport) -> str:
    """One self-contained page: the tables, differences, learning curves, rollouts and where all comes from."""
    from vlakit.reports.page.html_table import table_page  # Jinja and matplotlib, which no other format needs

    return table_page(report, grids(report), _notes(report))


def json_text(report: TableReport) -> str:
    """One line of JSON: rows with `measured` and `quoted` apart, pairs, scopes, claims, notes."""
    return json.dumps(to_json(report))


def to_json(report: TableReport) -> dict[str, Any]:
    """Plain values; rates and differences as fractions."""
    return {
        "table": report.spec.name,
        "title": report.spec.title,
        "source": report.source,
        "reference": report.spec.reference,
        "confidence": report.settings.confidence,
        "margin": report.settings.margin,
        "rows": [_row_json(row) for row in report.rows],
        "pairs": [pair_json(judged) for judged in report.pairs],
        "scopes": [{"scope": judged.scope, **pair_json(judged)} for judged in report.scopes],
        "claims": [
            {"claim": c.claim.says, "pair": [c.claim.a, c.claim.b], "verdict": c.verdict, "paper": c.paper}
            for c in report.claims
        ],
        "printed": [_printed_json(row) for scope in report.printed.values() for row in scope.values()],
        "notes": _notes(report),
    }


def _row_json(row: RowReport) -> dict[str, Any]:
    measured: dict[str, Any] = {metric: asdict(number) for metric, number in row.numbers.items()}
    if row.rate:
        measured["success"] = {key: getattr(row.rate, key) for key in ("rate", "n", "seeds", "interval")}
    quoted: dict[str, Any] = dict(row.quoted)
    if row.printed:
        quoted["success"] = _printed_json(row.printed)
    return {
        "row": row.row.name,
        "says": row.row.says,
        "measured": measured,
        "quoted": quoted,
        "pair": pair_json(row.judged) if row.judged else None,
        "verdict": row.beside or None,
        "holes": list(row.holes),
    }


def _printed_json(row: Quoted) -> dict[str, Any]:
    return {**asdict(row), "interval": row.interval, "reproduced": row.reproduced}


def _notes(report: TableReport) -> list[str]:
    empty = report.source != PAPER and all(row.rate is None for row in report.rows)
    return [*report.notes, *([f"nothing is measured yet: {report.spec.sweep}"] if empty and report.spec.sweep else [])]


FORMATS: dict[str, Callable[[TableReport], str]] = {
    "text": text,
    "markdown": markdown_text,
    "latex": latex_text,
    "csv": csv_text,
    "json": json_text,
    "html": html_text,
}
