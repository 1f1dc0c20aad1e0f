"""One table: measured figures beside what the paper prints, never in one cell; a verdict a row and a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from vlakit.compare.episodes import Arm
from vlakit.compare.pairs import Settings
from vlakit.compare.rates import Rate
from vlakit.compare.versus import ALL, Comparison, Judged, compare_arms
from vlakit.reports.paths import public
from vlakit.reports.tables.claims import Claim
from vlakit.reports.tables.quoted import Quoted, Scopes, judge_quoted, quoted
from vlakit.reports.tables.runs import Filled, TableRun
from vlakit.reports.tables.spec import Column, TableRow, TableSpec
from vlakit.reports.tables.verdicts import against_claims, claim_of, judge_by_interval, of_claim, rule

PAPER = "paper"


@dataclass(frozen=True)
class Number:
    """A metric measured here: mean over n trainings, and its interval; None with fewer than two that differ."""

    mean: float
    n: int
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class RowReport:
    """One row. rates (by score), numbers: measured here; printed, quoted: the paper's; holes: absent seeds, and why.

    judged: this row (a) against the reference (b); agreement: what that says of the claim about the two, NO_CLAIM where
    there is none, empty where they were not compared.
    """

    row: TableRow
    rates: Mapping[str, Rate] = field(default_factory=dict[str, Rate])
    numbers: Mapping[str, Number] = field(default_factory=dict[str, Number])
    printed: Quoted | None = None
    quoted: Mapping[str, float] = field(default_factory=dict[str, float])
    holes: Sequence[str] = ()
    judged: Judged | None = None
    agreement: str = ""

    @property
    def rate(self) -> Rate | None:
        """Success; None where nothing was measured."""
        return self.rates.get("success")


@dataclass(frozen=True)
class ClaimReport:
    """One claim of the paper: what the data at hand say of it, and what the paper's own rollouts can say."""

    claim: Claim
    verdict: str
    paper: str


@dataclass(frozen=True)
class TableReport:
    """A table. source: "paper" (every pair of printed rows), or where the runs came from. scopes: pairs by part.

    runs: what fills it; command: that which printed it, empty where there was none; score: what pairs are compared by;
    over_tasks: the pairs again, with the task as the unit.
    """

    spec: TableSpec
    source: str
    settings: Settings
    rows: list[RowReport]
    pairs: list[Judged]
    scopes: list[Judged]
    claims: list[ClaimReport]
    printed: Scopes
    notes: list[str]
    runs: Sequence[TableRun] = ()
    command: str = ""
    score: str = "success"
    over_tasks: Sequence[Judged] = ()


def from_paper(spec: TableSpec, settings: Settings) -> TableReport:
    """The paper's own rollouts, analysed as ours would be: unpaired, from printed means and errors."""
    printed = quoted(spec.paper, settings.confidence)
    pairs, scopes = _of_paper(spec, printed, settings)
    rows = [RowReport(row, printed=_printed(row, printed), quoted=_quoted(row, spec.columns)) for row in spec.rows]
    claims = [_claim_report(claim, spec, None, pairs, settings) for claim in spec.claims]
    notes = [*_paper_notes(printed), f"rule: {rule(pairs, spec.claims_in_print, settings)}"]
    return TableReport(
        spec, PAPER, settings, rows, pairs, scopes, claims, printed, notes, score=score_of(spec, printed)
    )


def _of_paper(spec: TableSpec, printed: Scopes, settings: Settings) -> tuple[list[Judged], list[Judged]]:
    rates = {(scope, row.name): row.rate for scope, rows in printed.items() for row in rows.values()}
    pairs, scopes = judge_quoted(printed, settings)
    return judge_by_interval(pairs, rates, spec.claims_in_print, settings), judge_by_interval(
        scopes, rates, [], settings
    )


def score_of(spec: TableSpec, printed: Scopes) -> str:
    """What is like the paper's mean: "credit" where a printed row of the table holds half credits, else "success"."""
    rows = [_printed(row, printed) for row in spec.rows]
    return "credit" if any(row and row.half_credits for row in rows) else "success"


def from_runs(
    spec: TableSpec, filled: Filled, settings: Settings, source: str, paired: str = "auto", score: str | None = None
) -> TableReport:
    """Measured rows: seeds pooled, each against the reference on shared initial states. Raises InvalidData.

    Where rows have several trainings a row with one is shown and not tested: the spread between its seeds is unknown.
    score: what is compared, success or credit; None: that which is like the paper's, see `score_of`.
    """
    printed = quoted(spec.paper, settings.confidence)
    like = score_of(spec, printed)
    score = score or like
    comparisons, notes = _compare(spec, filled, settings, paired, score)
    rates = {score: _rates(comparisons)}
    judged = [judged for part in comparisons for judged in part.pairs]
    pairs = judge_by_interval(judged, {(ALL, r.name): r.rate for r in rates[score].values()}, spec.claims, settings)
    for other in {"success", like} - {score}:
        rates[other] = _rates(_compare(replace(spec, claims=[]), filled, settings, paired, other)[0])
    evidence = Evidence(filled, rates, pairs, printed, settings)
    rows = [_row_report(row, spec, evidence) for row in spec.rows]
    of_paper = _of_paper(spec, printed, settings)[0]
    claims = [_claim_report(claim, spec, pairs, of_paper, settings) for claim in spec.claims]
    notes = [*filled.notes, *notes, *(note for part in comparisons for note in part.notes)]
    notes += [f"rule: {rule(pairs, spec.claims, settings)}"] if pairs else []
    unique = list(dict.fromkeys(map(public, notes)))
    over = [judged for part in comparisons for judged in part.over_tasks]
    return TableReport(
        spec,
        public(source),
        settings,
        rows,
        pairs,
        [],
        claims,
        printed,
        unique,
        filled.runs,
        score=score,
        over_tasks=over,
    )


def _rates(comparisons: Sequence[Comparison]) -> dict[str, Rate]:
    return {rate.name: rate for part in comparisons for rate in part.rates}


def _compare(
    spec: TableSpec, filled: Filled, settings: Settings, paired: str, score: str
) -> tuple[list[Comparison], list[str]]:
    """Compare the rows that have most trainings; those with one beside several stand alone."""
    groups = {
        row.name: [run.episodes for run in filled.runs if run.row == row.name and run.episodes] for row in spec.rows
    }
    arms = [Arm(name, members) for name, members in groups.items() if members]
    several = any(len(arm.evaluations) > 1 for arm in arms)
    tested = [arm for arm in arms if len(arm.evaluations) > 1 or not several]
    alone = [arm for arm in arms if arm not in tested]
    names = [arm.name for arm in tested]
    pairs = [(a, b) for a, b in spec.pairs if a in names and b in names]
    options: dict[str, Any] = {"paired": paired, "by_task": False, "score": score}
    comparisons = [compare_arms(tested, settings, pairs=pairs, **options)] if tested else []
    comparisons += [compare_arms([arm], settings, pairs=[], **options) for arm in alone]
    return comparisons, [f"{arm.name}: one training beside several, so it is shown and not tested" for arm in alone]


@dataclass(frozen=True)
class Evidence:
    """What rows are reported from. rates: score -> row -> rate."""

    filled: Filled
    rates: Mapping[str, Mapping[str, Rate]]
    pairs: Sequence[Judged]
    printed: Scopes
    settings: Settings


def _row_report(row: TableRow, spec: TableSpec, evidence: Evidence) -> RowReport:
    every = evidence.filled.runs
    runs = [run for run in every if run.row == row.name]
    judged = next((j for j in evidence.pairs if (j.a, j.b) == (row.name, spec.reference)), None)
    confidence = evidence.settings.confidence
    return RowReport(
        row,
        {score: rates[row.name] for score, rates in evidence.rates.items() if row.name in rates},
        {c.metric: number for c in spec.columns if (number := _number(c, runs, confidence))},
        _printed(row, evidence.printed),
        _quoted(row, spec.columns),
        _holes(row, runs, every),
        judged,
        against_claims(judged, spec.claims, evidence.settings) if judged else "",
    )


def _holes(row: TableRow, runs: Sequence[TableRun], every: Sequence[TableRun]) -> list[str]:
    """What is absent and why: parts that do not exist, seeds that failed, seeds that other rows have."""
    if row.missing:
        return [row.missing]
    if not runs:
        return ["no run yet"]
    seeds = sorted({run.seed for run in every}, key=lambda seed: (len(seed), seed))
    of = {run.seed: run.why for run in runs}
    return [f"seed {seed}: {of.get(seed, 'no run')}" for seed in seeds if of.get(seed, "no run")]


def _number(column: Column, runs: Sequence[TableRun], confidence: float) -> Number | None:
    """Over the trainings that count."""
    values = [run.metrics[column.metric] * column.scale for run in runs if not run.why and column.metric in run.metrics]
    if not values:
        return None
    mean, n = fmean(values), len(values)
    if n == 1:
        return Number(mean, 1, None)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * stdev(values) / n**0.5
    return Number(mean, n, (mean - half, mean + half) if half else None)


def _printed(row: TableRow, printed: Scopes) -> Quoted | None:
    """The paper's row: NAME, or SCOPE/NAME for one of a further table or part."""
    scope, _, name = (row.paper or "").rpartition("/")
    return printed.get(scope or ALL, {}).get(name)


def _quoted(row: TableRow, columns: Sequence[Column]) -> dict[str, float]:
    return {column.metric: column.quoted[row.name] for column in columns if row.name in column.quoted}


def _claim_report(
    claim: Claim, spec: TableSpec, measured: Sequence[Judged] | None, printed: Sequence[Judged], settings: Settings
) -> ClaimReport:
    """measured None: only the paper's rollouts are judged."""
    in_print = next((c for c in spec.claims_in_print if c.says == claim.says), None)
    paper = (in_print and _of_pairs(in_print, printed, settings)) or "not tested in the paper"
    if measured is None:
        return ClaimReport(claim, paper, paper)
    return ClaimReport(claim, _of_pairs(claim, measured, settings) or "not measured", paper)


def _of_pairs(claim: Claim, pairs: Sequence[Judged], settings: Settings) -> str | None:
    judged = next((j for j in pairs if claim_of(j, [claim])), None)
    return of_claim(claim, judged, settings) if judged else None


def _paper_notes(printed: Scopes) -> list[str]:
    """Which +- come out as printed, what that is worth, and what the tests rest on."""
    rows = [row for scope in printed.values() for row in scope.values() if row.reproduced is not None]
    wrong = [row for row in rows if not row.reproduced]
    notes = [f"+- reproduced: {len(rows) - len(wrong)} of {len(rows)} printed ones"] if rows else []
    shares = [row.possible[0] / row.possible[1] for row in rows if row.possible]
    if shares:
        worth = (
            f"half credits could have given {100 * min(shares):.0f} to {100 * max(shares):.0f} % of the tenths between"
        )
        notes.append(
            f"{worth} the least and the largest +- of a row: the nearer to 100 %, the less is a reproduction worth"
        )
    notes += [
        f"{row.name} ({row.scope}): printed +- {100 * row.error:.1f}, {row.rule} {100 * (row.se or 0):.2f}"
        for row in wrong
    ]
    notes.append("unpaired tests from printed means and +-; one checkpoint a row")
    return notes
