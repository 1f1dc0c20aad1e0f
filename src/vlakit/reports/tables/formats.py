"""A table as a report. Measured and quoted figures have columns of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from vlakit.compare.grids import (
    Column,
    Grid,
    Report,
    at,
    count,
    gain,
    gain_limits,
    grid,
    limits,
    p_text,
    plain_lines,
    points,
)
from vlakit.compare.rates import Rate
from vlakit.reports.tables.quoted import Quoted
from vlakit.reports.tables.spec import Column as Metric
from vlakit.reports.tables.table import PAPER, Number, RowReport, TableReport, score_of
from vlakit.reports.versus_tables import UNITS, false_alarm_column, over_tasks, pair_json, tested


def report_of(table: TableReport) -> Report:
    """A table, ready for any format but HTML."""
    level, notes = f"{100 * table.settings.confidence:g} %", _notes(table)
    if table.source == PAPER:
        parts = [_printed_grid(table, level), grid("all pairs, unpaired", _pair_columns(level), table.pairs)]
        parts.append(grid("pairs part by part", _pair_columns(level), table.scopes))
        lines = plain_lines(_pair_columns(level), [*table.pairs, *table.scopes])
    else:
        columns = _columns(table, level)
        parts = [grid(f"{table.spec.title} (paper: quoted, not measured here)", columns, table.rows)]
        parts.append(over_tasks(table.over_tasks, level, table.score))
        lines = plain_lines(columns, table.rows)
    grids = [part for part in [*parts, _claim_grid(table)] if part.rows]

    return Report(grids, lines, to_json(table), notes, comments=notes)


def _columns(table: TableReport, level: str) -> list[Column]:
    """Of measured rows, with what the paper prints."""
    spec, like = table.spec, score_of(table.spec, table.printed)
    by = " (credit)" if table.score == "credit" else ""
    return [
        Column("row", at("row.name"), fields=["row"]),
        Column("seeds", at("rate.seeds"), fields=["seeds"]),
        Column("n", at("rate.n"), count, ["n_episodes"]),
        *_rate_columns("success", level),
        *(_rate_columns("credit", level) if any("credit" in row.rates for row in table.rows) else []),
        Column("", lambda _: table.score, fields=["score"]),
        Column(f"- {spec.reference}{by}", at("judged.finding.difference"), gain, ["difference_fraction"]),
        Column(
            level, at("judged.finding.interval"), gain_limits, ["difference_low_fraction", "difference_high_fraction"]
        ),
        Column("", at("judged.finding.p"), fields=["p"]),
        Column("p Holm", at("judged.p_holm"), p_text, ["p_holm"]),
        false_alarm_column(table.rows, table.settings, at("judged")),
        Column("measured", lambda row: _measured(row, table) or None, fields=["measured"]),
        Column("against the paper", lambda row: row.agreement or None, fields=["verdict"]),
        *(column for metric in spec.columns for column in _metric_columns(metric, table)),
        Column(f"paper: {like} %", at("printed"), _plus_minus, quoted=True),
        Column("", at("printed.rate"), fields=[f"quoted_{like}_fraction"]),
        Column("", at("printed.printed_se"), fields=["quoted_se_fraction"]),
        *map(_quoted_column, spec.columns),
        Column("what", lambda row: "; ".join(row.holes), fields=["holes"]),
    ]


def _rate_columns(score: str, level: str) -> list[Column]:
    def rate(row: RowReport) -> Rate | None:
        return row.rates.get(score)

    fields = [f"{score}_low_fraction", f"{score}_high_fraction"]
    return [
        Column(f"{score} %", lambda row: getattr(rate(row), "rate", None), points, [f"{score}_fraction"]),
        Column(level, lambda row: getattr(rate(row), "interval", None), limits, fields),
    ]


def _metric_columns(metric: Metric, table: TableReport) -> list[Column]:
    """With its interval for people, unless no row has it beside others that do; the mean alone for programs."""
    filled = {name for row in table.rows for name in row.numbers}

    def number(row: RowReport) -> Number | None:
        return row.numbers.get(metric.metric)

    def shown(number: Number) -> str:
        interval = "" if number.interval is None else f" ({' to '.join(map(_figure(metric), number.interval))})"
        return f"{_figure(metric)(number.mean)}{interval}"

    return [
        Column(metric.title if metric.metric in filled or not filled else "", number, shown),
        Column("", lambda row: getattr(number(row), "mean", None), fields=[unit_name(metric)]),
    ]


def unit_name(metric: Metric) -> str:
    """What programs call a column, whose numbers are scaled: a metric and the unit that its title has in brackets.

    >>> unit_name(Metric("peak memory (GB)", "memory/peak_bytes", 1e-9)), unit_name(Metric("L1", "val/l1"))
    ('memory/peak_GB', 'val/l1')
    """
    unit = re.search(r"\(([^()]+)\)$", metric.title)
    word = re.sub(r"\W+", "_", unit[1]) if unit else ""
    return f"{metric.metric.removesuffix('_bytes')}_{word}" if word else metric.metric


def _quoted_column(metric: Metric) -> Column:
    title = f"paper: {metric.title}" if metric.quoted else ""
    return Column(
        title, lambda row: row.quoted.get(metric.metric), _figure(metric), [f"quoted_{unit_name(metric)}"], True
    )


def _figure(metric: Metric) -> Callable[[float], str]:
    return lambda value: f"{value:,.{metric.digits}f}"


def _plus_minus(printed: Quoted) -> str:
    return points(printed.rate) if printed.printed_se is None else f"{points(printed.rate)} +- {points(printed.error)}"


def _measured(row: RowReport, table: TableReport) -> str:
    """What these data say of a row beside the reference, whatever the paper has."""
    if row.judged:
        return {row.judged.a: "better", row.judged.b: "worse"}.get(row.judged.winner or "", row.judged.verdict)
    return "reference" if row.row.name == table.spec.reference else ""


def _printed_grid(table: TableReport, level: str) -> Grid:
    columns = [
        Column("scope", at("scope")),
        Column("row", at("name")),
        Column("n", at("n"), count, quoted=True),
        Column("success %", at("rate"), points, quoted=True),
        Column("+- printed", at("printed_se"), points, quoted=True),
        Column("+- reproduced", at("se"), lambda se: f"{100 * se:.2f}", quoted=True),
        Column("+- possible", at("possible"), lambda possible: "{} of {} tenths".format(*possible), quoted=True),
        Column("rule", at("rule"), quoted=True),
        Column("half credits", at("half_credits"), quoted=True),
        Column(level, at("interval"), limits, quoted=True),
    ]
    rows = [row for scope in table.printed.values() for row in scope.values()]
    return grid(f"{table.spec.title}: as the paper prints it (quoted)", columns, rows)


def _pair_columns(level: str) -> list[Column]:
    words = [Column(name, at(name), fields=[name]) for name in ("scope", "a", "b", "verdict")]
    return [*words[:3], *tested(level), words[3]]


def _claim_grid(table: TableReport) -> Grid:
    paper = "paper's own rollouts"
    if table.source == PAPER:
        columns = [Column("claim", at("claim.says")), Column("verdict", at("paper"), quoted=True)]
        return grid(f"claims, by the {paper}", columns, table.claims)
    columns = [
        Column("claim", at("claim.says")),
        Column("verdict", at("verdict")),
        Column(paper, at("paper"), quoted=True),
    ]
    return grid("claims", columns, table.claims)


def to_json(report: TableReport) -> dict[str, Any]:
    """Plain values; rates and differences as fractions."""
    names = {column.metric: unit_name(column) for column in report.spec.columns}
    return {
        "table": report.spec.name,
        "title": report.spec.title,
        "measured": report.spec.measured,
        "source": report.source,
        "reference": report.spec.reference,
        "confidence": report.settings.confidence,
        "margin": report.settings.margin,
        "score": report.score,
        "rows": [_row_json(row, names) for row in report.rows],
        "pairs": [pair_json(judged) for judged in report.pairs],
        "scopes": [{"scope": judged.scope, **pair_json(judged)} for judged in report.scopes],
        "over_tasks": [pair_json(judged) for judged in report.over_tasks],
        "claims": [
            {"claim": c.claim.says, "pair": [c.claim.a, c.claim.b], "verdict": c.verdict, "paper": c.paper}
            for c in report.claims
        ],
        "printed": [_printed_json(row) for scope in report.printed.values() for row in scope.values()],
        "notes": _notes(report),
        "units": UNITS,
    }


def _row_json(row: RowReport, names: Mapping[str, str]) -> dict[str, Any]:
    measured: dict[str, Any] = {names[metric]: asdict(number) for metric, number in row.numbers.items()}
    for score, rate in row.rates.items():
        measured[score] = {key: getattr(rate, key) for key in ("rate", "n", "seeds", "interval")}
    quoted: dict[str, Any] = {names[metric]: value for metric, value in row.quoted.items()}
    if row.printed:
        quoted["success"] = _printed_json(row.printed)
    return {
        "row": row.row.name,
        "says": row.row.says,
        "measured": measured,
        "quoted": quoted,
        "pair": pair_json(row.judged) if row.judged else None,
        "verdict": row.agreement or None,
        "holes": list(row.holes),
    }


def _printed_json(row: Quoted) -> dict[str, Any]:
    return {**asdict(row), "interval": row.interval, "reproduced": row.reproduced}


def _notes(report: TableReport) -> list[str]:
    empty = report.source != PAPER and all(row.rate is None for row in report.rows)
    return [*report.notes, *([f"nothing is measured yet: {report.spec.sweep}"] if empty and report.spec.sweep else [])]
