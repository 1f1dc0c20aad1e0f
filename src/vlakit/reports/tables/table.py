"""One table: measured figures beside what the paper prints, never in one cell; a verdict a row and a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from vlakit.compare.episodes import Arm
from vlakit.compare.pairs import Settings
from vlakit.compare.rates import Rate
from vlakit.compare.versus import ALL, Comparison, Judged, compare_arms
from vlakit.reports.paths import public
from vlakit.reports.tables.paper import PaperPair, PaperRow, agreement, paper_pairs
from vlakit.reports.tables.quoted import Quoted, Rows, Scopes, judge_quoted, quoted
from vlakit.reports.tables.runs import Filled, TableRun
from vlakit.reports.tables.spec import Claim, Column, TableRow, TableSpec

PAPER = "paper"


@dataclass(frozen=True)
class Number:
    """A metric measured here: mean over n trainings, and its interval; None with fewer than two that differ."""

    mean: float
    n: int
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class RowReport:
    """One row. rate, numbers: measured here; printed, quoted: the paper's; holes: seeds that are absent, and why.

    judged: this row (a) against the reference (b); agreement: whether it agrees with the paper, empty where the paper
    has no such row.
    """

    row: TableRow
    rate: Rate | None = None
    numbers: Mapping[str, Number] = field(default_factory=dict[str, Number])
    printed: Quoted | None = None
    quoted: Mapping[str, float] = field(default_factory=dict[str, float])
    holes: Sequence[str] = ()
    judged: Judged | None = None
    agreement: str = ""


@dataclass(frozen=True)
class ClaimReport:
    """One claim of the paper: what the data at hand say of it, and what the paper's own rollouts can say."""

    claim: Claim
    verdict: str
    paper: str


@dataclass(frozen=True)
class TableReport:
    """A table. source: "paper" (every pair of printed rows), or where the runs came from. scopes: pairs by part.

    runs: what fills it; command: that which printed it, empty where there was none.
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


def from_paper(spec: TableSpec, settings: Settings) -> TableReport:
    """The paper's own rollouts, analysed as ours would be: unpaired, from printed means and errors."""
    printed = quoted(spec.paper, settings.confidence)
    pairs, scopes = judge_quoted(printed, settings)
    rows = [RowReport(row, printed=_printed(row, printed), quoted=_quoted(row, spec.columns)) for row in spec.rows]
    claims = [_claim_report(claim, spec, None, pairs, settings) for claim in spec.claims]
    return TableReport(spec, PAPER, settings, rows, pairs, scopes, claims, printed, _paper_notes(printed, spec))


def from_runs(spec: TableSpec, filled: Filled, settings: Settings, source: str, paired: str = "auto") -> TableReport:
    """Measured rows: seeds pooled, each against the reference on shared initial states. Raises InvalidData.

    Where rows have several trainings a row with one is shown and not tested: the spread between its seeds is unknown.
    """
    printed = quoted(spec.paper, settings.confidence)
    comparisons, notes = _compare(spec, filled, settings, paired)
    rates = {rate.name: rate for part in comparisons for rate in part.rates}
    pairs = [judged for part in comparisons for judged in part.pairs]
    against = PaperFigures(_paper_pairs(spec, printed.get(ALL, {})), printed, settings)
    rows = [_row_report(row, spec, filled, rates, pairs, against) for row in spec.rows]
    paper_judged = judge_quoted(printed, settings)[0]
    claims = [_claim_report(claim, spec, pairs, paper_judged, settings) for claim in spec.claims]
    notes = [*filled.notes, *notes, *(note for part in comparisons for note in part.notes)]
    unique = list(dict.fromkeys(map(public, notes)))
    return TableReport(spec, public(source), settings, rows, pairs, [], claims, printed, unique, filled.runs)


def _compare(spec: TableSpec, filled: Filled, settings: Settings, paired: str) -> tuple[list[Comparison], list[str]]:
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
    options: dict[str, Any] = {"paired": paired, "by_task": False}
    comparisons = [compare_arms(tested, settings, pairs=pairs, **options)] if tested else []
    comparisons += [compare_arms([arm], settings, pairs=[], **options) for arm in alone]
    return comparisons, [f"{arm.name}: one training beside several, so it is shown and not tested" for arm in alone]


@dataclass(frozen=True)
class PaperFigures:
    """What rows are held against: the paper's pairs and rows, and how to judge."""

    pairs: Mapping[tuple[str, str], PaperPair]
    printed: Scopes
    settings: Settings


def _row_report(
    row: TableRow,
    spec: TableSpec,
    filled: Filled,
    rates: Mapping[str, Rate],
    pairs: Sequence[Judged],
    paper: PaperFigures,
) -> RowReport:
    runs = [run for run in filled.runs if run.row == row.name]
    judged = next((j for j in pairs if (j.a, j.b) == (row.name, spec.reference)), None)
    printed = paper.pairs.get((row.name, spec.reference))
    return RowReport(
        row,
        rates.get(row.name),
        {c.metric: number for c in spec.columns if (number := _number(c, runs, paper.settings.confidence))},
        _printed(row, paper.printed),
        _quoted(row, spec.columns),
        _holes(row, runs, filled.runs),
        judged,
        _agreement(judged, printed, paper.settings) if judged and printed else "",
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


def _paper_pairs(spec: TableSpec, rows: Rows) -> dict[tuple[str, str], PaperPair]:
    """The paper's pairs under the names that the table gives its rows."""
    usable = {
        row.name: PaperRow(row.name, rows[row.paper].rate, rows[row.paper].error)
        for row in spec.rows
        if row.paper in rows and rows[row.paper].error > 0
    }
    return paper_pairs(usable) if len(usable) > 1 else {}


def _agreement(judged: Judged, printed: PaperPair, settings: Settings) -> str:
    """ "agrees", "contradicts" or "cannot tell", with what it would take."""
    verdict = agreement(judged, printed, settings.alpha)
    if not verdict.startswith("cannot tell (these"):
        return verdict
    if judged.verdict.startswith("equivalent"):
        return _of_equivalent(judged, printed.difference, settings.margin)
    return judged.verdict if judged.verdict.startswith("cannot") else verdict


def _claimed(claim: Claim, spec: TableSpec) -> Claim | None:
    """The claim in the paper's own names; None where the paper has no such rows."""
    named = {row.name: row.paper for row in spec.rows}
    a, b = named[claim.a], named[claim.b]
    return None if a is None or b is None else Claim(claim.says, a, b, claim.same)


def _claim_report(
    claim: Claim, spec: TableSpec, measured: Sequence[Judged] | None, printed: Sequence[Judged], settings: Settings
) -> ClaimReport:
    """measured None: only the paper's rollouts are judged."""
    printed_claim = _claimed(claim, spec)
    judged = _pair_of(printed_claim, printed) if printed_claim else None
    claimed = abs(judged.finding.difference) if judged else 0.0
    paper = (
        _verdict(printed_claim, judged, claimed, settings) if printed_claim and judged else "not tested in the paper"
    )
    if measured is None:
        return ClaimReport(claim, paper, paper)
    pair = _pair_of(claim, measured)
    return ClaimReport(claim, _verdict(claim, pair, claimed, settings) if pair else "not measured", paper)


def _pair_of(claim: Claim, pairs: Sequence[Judged]) -> Judged | None:
    return next((j for j in pairs if {j.a, j.b} == {claim.a, claim.b}), None)


def _verdict(claim: Claim, judged: Judged, claimed: float, settings: Settings) -> str:
    """ "agrees", "contradicts" or "cannot tell (N more rollouts would)": of these data, about a claim.

    claimed: the size of the difference that the paper prints, as a fraction.
    """
    same = judged.p_equivalence_holm is not None and judged.p_equivalence_holm <= settings.alpha
    differs = judged.p_holm is not None and judged.p_holm <= settings.alpha and judged.finding.difference != 0
    if claim.same and (same or differs):
        return "agrees" if same else "contradicts"
    if differs:
        return "agrees" if (judged.finding.difference > 0) == (judged.a == claim.a) else "contradicts"
    return _of_equivalent(judged, claimed, settings.margin) if same else judged.verdict


def _of_equivalent(judged: Judged, claimed: float, margin: float) -> str:
    """Equal within the margin contradicts a claimed difference only if that is larger."""
    return f"{'contradicts' if abs(claimed) >= margin else 'cannot tell'} ({judged.verdict})"


def _paper_notes(printed: Scopes, spec: TableSpec) -> list[str]:
    """Which +- come out as printed, and what the tests rest on."""
    rows = [row for scope in printed.values() for row in scope.values() if row.reproduced is not None]
    wrong = [row for row in rows if not row.reproduced]
    notes = [f"+- reproduced: {len(rows) - len(wrong)} of {len(rows)} printed ones"] if rows else []
    notes += [
        f"{row.name} ({row.scope}): printed +- {100 * row.error:.1f}, {row.rule} {100 * (row.se or 0):.2f}"
        for row in wrong
    ]
    n_pairs = len(list(combinations(printed.get(ALL, {}), 2)))
    notes.append(f"unpaired tests from printed means and +-; Holm over {n_pairs} pairs; one checkpoint a row")
    return notes
