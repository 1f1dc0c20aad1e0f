"""A comparison as text, JSON, CSV, LaTeX or one HTML page. A new format is a function in `FORMATS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Any

from vlakit.compare.grids import Grid, aligned, csv_lines, error, limits, p_text, points
from vlakit.compare.grids import latex as tabular
from vlakit.compare.versus import Comparison, Judged
from vlakit.reports.tables.paper import PaperPair, PaperRow, agreement
from vlakit.stats.intervals import quantile


@dataclass(frozen=True)
class Paper:
    """What stands beside: the paper's rows and pairs of one table."""

    table: str
    rows: Mapping[str, PaperRow]
    pairs: Mapping[tuple[str, str], PaperPair]


def grids(found: Comparison, paper: Paper | None) -> list[Grid]:
    """Runs, pairs, pairs task by task, and pairs beside the paper's."""
    level = f"{100 * found.settings.confidence:g} %"
    rates = [
        [r.name, str(r.seeds), f"{r.n:,}", points(r.rate), limits(r.interval), r.letters, *_paper_rate(r.name, paper)]
        for r in found.rates
    ]
    beside = [f"paper {paper.table}"] if paper else []
    parts = [Grid("runs", ["run", "seeds", "episodes", f"{found.score} %", level, "letters", *beside], rates, beside)]
    how = "paired on shared initial states" if found.paired else "not paired"
    header = ["a", "b", "n", "only a", "only b", "a - b", level, "p", "p Holm", "verdict"]
    parts.append(Grid(f"pairs, {how}", header, [_pair_row(judged) for judged in found.pairs]))
    if any(judged.finding.seed_se is not None for judged in found.pairs):
        parts.append(_seed_grid(found.pairs))
    if paper:
        parts.append(_paper_grid(found, paper))
    if found.tasks:
        rows = [[judged.scope, *_pair_row(judged)] for judged in found.tasks]
        parts.append(Grid("task by task", ["task", *header], rows))
    return parts


def _pair_row(judged: Judged) -> list[str]:
    f = judged.finding
    alone = ["-" if n is None else str(n) for n in (f.only_a, f.only_b)]
    p = [p_text(f.p), p_text(judged.p_holm)]
    return [
        judged.a,
        judged.b,
        str(f.n),
        *alone,
        points(f.difference, signed=True),
        limits(f.interval, True),
        *p,
        judged.verdict,
    ]


def _seed_grid(pairs: Sequence[Judged]) -> Grid:
    header = ["a", "b", "seeds", "a - b", "+- episodes", "+- seeds", "p these checkpoints", "p other trainings"]
    rows = [
        [
            *(j.a, j.b, f"{j.finding.seeds[0]} and {j.finding.seeds[1]}", points(j.finding.difference, signed=True)),
            *(
                error(j.finding.episode_se),
                error(j.finding.seed_se),
                p_text(j.finding.p_checkpoints),
                p_text(j.finding.p),
            ),
        ]
        for j in pairs
    ]
    return Grid("where the uncertainty comes from (standard errors)", header, rows)


def _paper_grid(found: Comparison, paper: Paper) -> Grid:
    header = ["a", "b", "a - b", "paper a - b", "+-", "paper p Holm", "against the paper"]
    rows: list[list[str]] = []
    for j in found.pairs:
        printed = paper.pairs.get((j.a, j.b))
        if printed:
            own = [j.a, j.b, points(j.finding.difference, signed=True)]
            theirs = [points(printed.difference, signed=True), error(printed.se), p_text(printed.p_holm)]
            rows.append([*own, *theirs, agreement(j, printed, found.settings.alpha)])
    return Grid(f"beside the paper's {paper.table} (quoted, not measured here)", header, rows, header[3:6])


def _paper_rate(name: str, paper: Paper | None) -> list[str]:
    if paper is None:
        return []
    row = paper.rows.get(name)
    return [f"{points(row.rate)} +- {error(row.se)}" if row else "-"]


def to_json(found: Comparison, paper: Paper | None) -> dict[str, Any]:
    """Plain values: runs, pairs (over all tasks), tasks (pairs with their task), paired, settings, notes."""
    runs = [
        {"run": r.name, "seeds": r.seeds, "n": r.n, found.score: r.rate, "interval": r.interval, "letters": r.letters}
        for r in found.rates
    ]
    return {
        "paired": found.paired,
        "score": found.score,
        "confidence": found.settings.confidence,
        "margin": found.settings.margin,
        "runs": runs,
        "pairs": [{**pair_json(judged), **_paper_json(judged, paper, found.settings.alpha)} for judged in found.pairs],
        "tasks": [{"task": judged.scope, **pair_json(judged)} for judged in found.tasks],
        "notes": found.notes,
    }


def pair_json(judged: Judged) -> dict[str, Any]:
    """A judged pair as plain values; differences are a minus b, as fractions."""
    f = judged.finding
    content: dict[str, Any] = {
        "pair": [judged.a, judged.b],
        "n": f.n,
        "only_a": f.only_a,
        "only_b": f.only_b,
        "difference": f.difference,
        "interval": f.interval,
        "p": f.p,
        "p_holm": judged.p_holm,
        "verdict": judged.verdict,
        "p_equivalence": f.p_equivalence,
        "p_equivalence_holm": judged.p_equivalence_holm,
        "needed": None if isinf(judged.rollouts) else judged.rollouts,
        "more": None if isinf(judged.more) else judged.more,
        "method": f.method,
    }
    if f.seed_se is not None:
        names = ("episode_se", "seed_se", "p_checkpoints", "seeds")
        content |= {name: getattr(f, name) for name in names}
    return content


def _paper_json(judged: Judged, paper: Paper | None, alpha: float) -> dict[str, Any]:
    printed = paper.pairs.get((judged.a, judged.b)) if paper else None
    if paper is None or printed is None:
        return {}
    return {"paper": {"table": paper.table, **vars(printed), "verdict": agreement(judged, printed, alpha)}}


def text(found: Comparison, paper: Paper | None) -> str:
    """Aligned tables for people."""
    parts = ["\n".join([grid.title, *aligned(grid)]) for grid in grids(found, paper)]
    return "\n\n".join([*parts, *(f"note: {note}" for note in found.notes)])


def json_text(found: Comparison, paper: Paper | None) -> str:
    """One line of JSON."""
    return json.dumps(to_json(found, paper))


def csv_text(found: Comparison, paper: Paper | None) -> str:
    """One line a pair and scope, plain numbers."""
    report = to_json(found, paper)
    keys = ["n", "only_a", "only_b", "difference", "low", "high", "p", "p_holm", "needed", "verdict"]
    lines: list[list[object]] = [["task", "a", "b", *keys]]
    for row in [*report["pairs"], *report["tasks"]]:
        row["low"], row["high"] = row["interval"] or (None, None)
        lines.append([row.get("task", "all"), *row["pair"], *(row[key] for key in keys)])
    return csv_lines(lines)


def latex(found: Comparison, paper: Paper | None) -> str:
    """A tabular of each table, ready for \\input."""
    return "\n\n".join(tabular(grid) for grid in grids(found, paper))


def html_page(found: Comparison, paper: Paper | None) -> str:
    """One self-contained page: the tables, and the differences as a picture."""
    from vlakit.reports.page.html_page import render, typeset_forest
    from vlakit.reports.tables.forest import Difference

    z = quantile(found.settings.confidence)
    drawn: list[Difference] = []
    for j in found.pairs:
        printed = paper.pairs.get((j.a, j.b)) if paper else None
        half = z * printed.se if printed else 0.0
        theirs = (printed.difference, (printed.difference - half, printed.difference + half)) if printed else None
        drawn.append(Difference(j.a, j.b, (j.finding.difference, j.finding.interval), theirs, j))
    forest = typeset_forest(drawn, found.settings)
    return render("compare.html.j2", grids=grids(found, paper), forest=forest, notes=found.notes)


FORMATS: dict[str, Callable[[Comparison, Paper | None], str]] = {
    "text": text,
    "json": json_text,
    "csv": csv_text,
    "latex": latex,
    "html": html_page,
}
