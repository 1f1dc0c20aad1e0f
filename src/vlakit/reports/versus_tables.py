"""A comparison as a report: runs, pairs, pairs task by task, and pairs beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isinf
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
from vlakit.compare.pairs import Settings
from vlakit.compare.versus import ALL, Comparison, Judged
from vlakit.reports.tables.claims import Claim, declared
from vlakit.reports.tables.paper import PaperPair, PaperRow, paper_pairs
from vlakit.reports.tables.verdicts import against_claims, judge_by_interval, rule
from vlakit.stats.intervals import quantile
from vlakit.stats.seeds import SPREADS, false_alarms


@dataclass(frozen=True)
class Paper:
    """What stands beside: the paper's rows, pairs and claims of one table."""

    table: str
    rows: Mapping[str, PaperRow]
    pairs: Mapping[tuple[str, str], PaperPair]
    claims: Sequence[Claim]

    def of(self, judged: Judged) -> PaperPair | None:
        """The printed pair of the same two."""
        return self.pairs.get((judged.a, judged.b))

    def judged(self, comparison: Comparison) -> list[Judged]:
        """The pairs that the paper has, by the rule of its table."""
        rates = {(ALL, rate.name): rate.rate for rate in comparison.rates}
        return judge_by_interval(list(filter(self.of, comparison.pairs)), rates, self.claims, comparison.settings)


def paper_of(table: str, rows: dict[str, PaperRow], settings: Settings) -> Paper:
    """A table's rows with its pairs and claims; the claimed pairs are corrected apart from the others.

    Where no file declares the table's claims, what the paper's rollouts separate is taken for them.
    """
    claims = declared(table)
    if claims is None:
        separate = [pair for pair, p in paper_pairs(rows).items() if p.p_holm <= settings.alpha and p.difference > 0]
        claims = [Claim(f"{a} is better than {b}", a, b, same=False) for a, b in separate]
    return Paper(table, rows, paper_pairs(rows, {frozenset((claim.a, claim.b)) for claim in claims}), claims)


def report_of(comparison: Comparison, paper: Paper | None = None) -> Report:
    """A comparison, ready for any format."""
    columns = [Column("", at("scope"), fields=["task"]), *_pair_columns("", comparison.pairs, comparison.settings)]
    notes = list(comparison.notes)
    if paper:
        notes.append(f"against the paper: {rule(paper.judged(comparison), paper.claims, comparison.settings)}")
    return Report(
        grids=grids(comparison, paper),
        lines=plain_lines(columns, [*comparison.pairs, *comparison.tasks]),
        content=to_json(comparison, paper),
        notes=notes,
        page=lambda: _page(comparison, paper, notes),
    )


def grids(comparison: Comparison, paper: Paper | None) -> list[Grid]:
    """Runs, pairs, where their uncertainty comes from, the paper's pairs, and pairs task by task."""
    level = f"{100 * comparison.settings.confidence:g} %"
    columns = _pair_columns(level, comparison.pairs, comparison.settings)
    how = "paired on shared initial states" if comparison.paired else "not paired"
    parts = [
        grid("runs", _rate_columns(comparison.score, level, paper), comparison.rates),
        grid(f"pairs, {how}", columns, comparison.pairs),
        over_tasks(comparison.over_tasks, level, comparison.score),
    ]
    if any(judged.finding.seed_se is not None for judged in comparison.pairs):
        parts.append(grid("where the uncertainty comes from (standard errors)", _SEED_COLUMNS, comparison.pairs))
    if paper:
        title = f"beside the paper's {paper.table} (quoted, not measured here)"
        parts.append(grid(title, _paper_columns(paper, comparison.settings), paper.judged(comparison)))
    if comparison.tasks:
        parts.append(grid("task by task", [Column("task", at("scope")), *columns], comparison.tasks))
    return [part for part in parts if part.rows]


def over_tasks(pairs: Sequence[Judged], level: str, score: str) -> Grid:
    """The same differences with the task as the unit: what other tasks of the kind would show; p not corrected."""
    columns = [*A_AND_B, Column("tasks", at("finding.n")), *tested(level)[:3]]
    return grid(f"{score} over other tasks: the task is the unit, each counts once", columns, pairs)


def _rate_columns(score: str, level: str, paper: Paper | None) -> list[Column]:
    columns = [
        Column("run", at("name")),
        Column("seeds", at("seeds")),
        Column("episodes", at("n"), count),
        Column(f"{score} %", at("rate"), points),
        Column(level, at("interval"), limits),
        Column("letters", at("letters")),
    ]
    if paper:
        columns.append(Column(f"paper {paper.table}", lambda rate: paper.rows.get(rate.name), _plus_minus, quoted=True))
    return columns


def _plus_minus(row: PaperRow) -> str:
    return f"{points(row.rate)} +- {points(row.se)}"


A_AND_B = [Column("a", at("a"), fields=["a"]), Column("b", at("b"), fields=["b"])]
DIFFERENCE = Column("a - b", at("finding.difference"), gain, ["difference_fraction"])
UNITS = {  # of JSON's values
    **dict.fromkeys(("success", "credit", "rate", "interval", "difference", "margin", "confidence"), "fraction"),
    **dict.fromkeys(("episode_se", "seed_se", "se", "error", "printed_se"), "fraction"),
    **dict.fromkeys(("n", "only_a", "only_b"), "episodes"),
    **dict.fromkeys(("needed", "more"), "rollouts of each; trainings of each where several were compared"),
}


def false_alarm_column(
    rows: Sequence[Any], settings: Settings, of: Callable[[Any], Judged | None] = lambda row: row
) -> Column:
    """What a spread between trainings does to the p of a row's pair of one training each; titled where there is one."""

    def shares(row: Any) -> tuple[float, ...] | None:
        judged = of(row)
        if judged is None or judged.finding.seeds != (1, 1) or judged.finding.p is None:
            return None
        f = judged.finding
        return tuple(false_alarms(f.variance, f.n, spread, settings.alpha) for spread in SPREADS)

    there = any(map(shares, rows))
    fields = [f"false_alarms_at_{spread:g}_logits_fraction" for spread in SPREADS] if there else []
    title = "false alarms % (seeds)" if there else ""
    return Column(title, shares, lambda ends: f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f}", fields)


def _pair_columns(level: str, pairs: Sequence[Judged], settings: Settings) -> list[Column]:
    return [
        *A_AND_B,
        Column("n", at("finding.n"), fields=["n_episodes"]),
        Column("only a", at("finding.only_a"), fields=["only_a_episodes"]),
        Column("only b", at("finding.only_b"), fields=["only_b_episodes"]),
        *tested(level),
        Column("", lambda judged: None if isinf(judged.rollouts) else judged.rollouts, fields=["needed_of_each"]),
        Column("verdict", at("verdict"), fields=["verdict"]),
        false_alarm_column(pairs, settings),
    ]


def tested(level: str) -> list[Column]:
    """The difference of a judged pair, its interval and p."""
    return [
        DIFFERENCE,
        Column(level, at("finding.interval"), gain_limits, ["low_fraction", "high_fraction"]),
        Column("p", at("finding.p"), p_text, ["p"]),
        Column("p Holm", at("p_holm"), p_text, ["p_holm"]),
    ]


_SEED_COLUMNS = [
    *A_AND_B,
    Column("seeds", lambda judged: "{} and {}".format(*judged.finding.seeds)),
    DIFFERENCE,
    Column("+- episodes", at("finding.episode_se"), points),
    Column("+- seeds", at("finding.seed_se"), points),
    Column("p these checkpoints", at("finding.p_checkpoints"), p_text),
    Column("p other trainings", at("finding.p"), p_text),
]


def _paper_columns(paper: Paper, settings: Settings) -> list[Column]:
    def printed(name: str) -> Callable[[Judged], Any]:
        return lambda judged: getattr(paper.of(judged), name)

    return [
        *A_AND_B,
        DIFFERENCE,
        Column("paper a - b", printed("difference"), gain, quoted=True),
        Column("+-", printed("se"), points, quoted=True),
        Column("paper p Holm", printed("p_holm"), p_text, quoted=True),
        Column("against the paper", lambda judged: against_claims(judged, paper.claims, settings)),
    ]


def to_json(comparison: Comparison, paper: Paper | None) -> dict[str, Any]:
    """Plain values: runs, pairs (over all tasks), tasks (pairs with their task), paired, settings, notes."""
    score, settings = comparison.score, comparison.settings
    beside = {(j.a, j.b): j for j in paper.judged(comparison)} if paper else {}
    return {
        "paired": comparison.paired,
        "score": score,
        "confidence": settings.confidence,
        "margin": settings.margin,
        "runs": [
            {"run": r.name, "seeds": r.seeds, "n": r.n, score: r.rate, "interval": r.interval, "letters": r.letters}
            for r in comparison.rates
        ],
        "pairs": [{**pair_json(judged), **_paper_json(judged, paper, beside, settings)} for judged in comparison.pairs],
        "tasks": [{"task": judged.scope, **pair_json(judged)} for judged in comparison.tasks],
        "over_tasks": [pair_json(judged) for judged in comparison.over_tasks],
        "notes": comparison.notes,
        "units": UNITS,
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
        content |= {name: getattr(f, name) for name in ("episode_se", "seed_se", "p_checkpoints", "seeds")}
    return content


def _paper_json(
    judged: Judged, paper: Paper | None, beside: Mapping[tuple[str, str], Judged], settings: Settings
) -> dict[str, Any]:
    printed = paper.of(judged) if paper else None
    if paper is None or printed is None:
        return {}
    verdict = against_claims(beside[judged.a, judged.b], paper.claims, settings)
    return {"paper": {"table": paper.table, **vars(printed), "verdict": verdict}}


def _page(comparison: Comparison, paper: Paper | None, notes: Sequence[str]) -> str:
    """One self-contained page: the tables, and the differences as a picture."""
    from vlakit.reports.page.forest import Difference, typeset_forest  # Jinja, which no other format needs
    from vlakit.reports.page.html_page import render

    z = quantile(comparison.settings.confidence)
    drawn: list[Difference] = []
    for j in comparison.pairs:
        printed = paper.of(j) if paper else None
        quoted = None
        if printed:
            quoted = printed.difference, (printed.difference - z * printed.se, printed.difference + z * printed.se)
        drawn.append(Difference(j.a, j.b, (j.finding.difference, j.finding.interval), quoted, j))
    forest = typeset_forest(drawn, comparison.settings, comparison.score)
    return render("compare.html.j2", grids=grids(comparison, paper), forest=forest, notes=notes)
