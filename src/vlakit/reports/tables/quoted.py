"""The paper's own tables analysed again: the printed +- reproduced, an interval a row, every pair tested.

Rows are unpaired and one checkpoint each, so a verdict here is on what the printed rollouts can carry, nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import hypot, sqrt
from typing import Any

from scipy.special import ndtr, stdtrit

from vlakit.compare.pairs import Finding, Settings
from vlakit.compare.versus import ALL, Judged, judge
from vlakit.errors import UnknownName, nearest
from vlakit.reports.tables.paper import PaperRow, paper_pairs, tables
from vlakit.stats.intervals import errors_possible, half_credits_behind, quantile, standard_error_of_sum, wilson

OFT_ROLLOUTS = 500  # a suite; OpenVLA-OFT (arXiv 2502.19645), Table 1


@dataclass(frozen=True)
class Quoted:
    """One printed rate over n rollouts; fractions. printed_se: None where none is printed.

    se: as `rule` gives it ("sample" or "binomial"), None where no half credits give what is printed; half_credits:
    their number in the sum, the least of those that give it. confidence: of the interval. possible: how many values
    half credits could give the +- at this n and sum, and how many tenths lie between the least and the most of them.
    """

    name: str
    scope: str
    rate: float
    n: int
    rule: str
    printed_se: float | None
    se: float | None
    half_credits: int | None
    confidence: float = 0.95
    possible: tuple[int, int] | None = None

    @property
    def error(self) -> float:
        """The +- to test with: what is printed, else what the rule gives."""
        return self.printed_se if self.printed_se is not None else float(self.se or 0.0)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's for whole successes; else Student's t on the error."""
        if self.half_credits == 0:
            return wilson(round(self.rate * self.n), self.n, self.confidence)
        used = self.printed_se if self.se is None else self.se
        half = float(stdtrit(self.n - 1, 0.5 + self.confidence / 2)) * float(used or 0.0)
        return max(0.0, self.rate - half), min(1.0, self.rate + half)

    @property
    def reproduced(self) -> bool | None:
        """Whether the rule gives the printed +-, to its last digit; None where none is printed."""
        if self.printed_se is None:
            return None
        return self.se is not None and abs(self.se - self.printed_se) <= 0.0005 + 1e-9


Rows = dict[str, Quoted]  # by name
Scopes = dict[str, Rows]  # by scope; ALL is the whole table


def quoted(names: Sequence[str], confidence: float = 0.95) -> Scopes:
    """Rows of one table of paper_tables.yaml, whole and by scope; further tables are scopes. Raises UnknownName.

    Of no table, for one of which nothing is in print, there are no rows.
    """
    scopes = _read(names[0]) if names else {ALL: {}}
    for name in names[1:]:
        scopes[name] = {row: replace(value, scope=name) for row, value in _read(name)[ALL].items()}
    return {
        scope: {name: replace(row, confidence=confidence) for name, row in rows.items()}
        for scope, rows in scopes.items()
    }


def judge_quoted(scopes: Scopes, settings: Settings) -> tuple[list[Judged], list[Judged]]:
    """All pairs of the whole table, and all pairs of its scopes: unpaired, normal, Holm within either."""
    whole = judge(dict(_findings(scopes.get(ALL, {}), settings)), settings)
    parts = [finding for name, rows in scopes.items() if name != ALL for finding in _findings(rows, settings)]
    return whole, judge(dict(parts), settings)


def _findings(rows: Rows, settings: Settings) -> Iterator[tuple[tuple[str, str, str], Finding]]:
    """Every pair whose +- is known. p as `compare against=` has it."""
    usable = {name: row for name, row in rows.items() if row.error > 0}
    if len(usable) < 2:
        return
    printed = paper_pairs({name: PaperRow(name, row.rate, row.error) for name, row in usable.items()})
    z, margin = quantile(settings.confidence), settings.margin
    for a, b in combinations(usable, 2):
        pair, n = printed[a, b], min(usable[a].n, usable[b].n)
        low, high = pair.difference - z * pair.se, pair.difference + z * pair.se
        sides = -(pair.difference + margin) / pair.se, (pair.difference - margin) / pair.se
        yield (
            (a, b, usable[a].scope),
            Finding(
                n=n,
                only_a=None,
                only_b=None,
                difference=pair.difference,
                interval=(max(-1.0, low), min(1.0, high)),
                p=pair.p,
                p_equivalence=float(max(ndtr(sides[0]), ndtr(sides[1]))),
                variance=usable[a].error ** 2 * usable[a].n + usable[b].error ** 2 * usable[b].n,
                method="normal, from printed standard errors, unpaired",
            ),
        )


def _read(table: str) -> Scopes:
    content = tables().get(table)
    for applies, layout in LAYOUTS:
        if isinstance(content, dict) and applies(content):
            return layout(content)
    usable = [n for n, c in tables().items() if isinstance(c, dict) and any(applies(c) for applies, _ in LAYOUTS)]
    raise UnknownName(f"no table of rates {table!r}", where="paper_tables.yaml", do=nearest(table, usable))


def _from_counts(name: str, successes: float, n: int, scope: str = ALL, printed_se: float | None = None) -> Quoted:
    """A row whose successes are known: sample standard error, with half credits where the +- betrays them."""
    whole = [round(2 * successes) % 2]
    halves = whole if printed_se is None else half_credits_behind(successes, n, printed_se)
    se = standard_error_of_sum(successes, n, halves[0]) if halves else None
    error = None if printed_se is None else round(printed_se / 100, 6)
    values = errors_possible(successes, n)
    possible = len(values), round(10 * (values[-1] - values[0])) + 1
    return Quoted(name, scope, successes / n, n, "sample", error, se, halves[0] if halves else None, possible=possible)


def _from_percent(name: str, percent: float, n: int, scope: str, printed_se: float | None = None) -> Quoted:
    """A row of whole successes known by its percentage: binomial standard error."""
    rate = percent / 100
    error = None if printed_se is None else round(printed_se / 100, 6)
    return Quoted(name, scope, rate, n, "binomial", error, sqrt(rate * (1 - rate) / n), 0)


def _counted(table: Mapping[str, Any]) -> Scopes:
    """Tables 1, 2 and 10: {name: {success, trials, se}}."""
    rows = table.get("rows", table)
    counted = (_from_counts(name, r["success"], r["trials"], ALL, r.get("se")) for name, r in rows.items())
    return {ALL: {row.name: row for row in counted}}


def _by_task(table: Mapping[str, Any]) -> Scopes:
    """Tables 4, 6, 9 and 11: successes a task and method; the number of trials follows from the printed means."""
    lines = list(table["rows"].values() if isinstance(table["rows"], dict) else table["rows"])
    sums = [sum(column) for column in zip(*lines, strict=True)]
    rows: Rows = {}
    for (name, (percent, se)), successes in zip(table["printed"].items(), sums, strict=True):
        n = len(lines) * round(100 * successes / percent / len(lines))
        rows[name] = _from_counts(name, successes, n, ALL, se)
    return {ALL: rows}


def _franka(table: Mapping[str, Any]) -> Scopes:
    """Table 7: percent a task, part and method; the table top and the wiping task are printed apart."""
    scopes: Scopes = {}
    for scope, printed in ((ALL, table["printed_tabletop"]), ("wipe", table["printed_wipe"])):
        n = printed["trials"]
        columns = zip(table["methods"], printed["mean"], printed["se"], strict=True)
        rows = (_from_counts(name, round(2 * mean * n / 100) / 2, n, scope, se) for name, mean, se in columns)
        scopes[scope] = {row.name: row for row in rows}
    return scopes


def _suites(table: Mapping[str, Any]) -> Scopes:
    """Table 12 and OFT's table 1: percent a suite; the whole is the mean over suites."""
    n = table.get("rollouts_per_suite", OFT_ROLLOUTS)
    scopes: Scopes = {ALL: {}}
    for name, row in table["rows"].items():
        means, errors = (row["mean"], row["se"]) if isinstance(row, dict) else (row, [None] * len(row))
        for scope, mean, se in zip(table["suites"], means, errors, strict=True):
            scopes.setdefault(scope, {})[name] = _from_percent(name, mean, n, scope, se)
        average = row["average"] if isinstance(row, dict) else sum(means) / len(means)
        whole = _from_percent(name, average, n * len(means), ALL, row["average_se"] if isinstance(row, dict) else None)
        parts = [scopes[scope][name] for scope in table["suites"]]
        se = hypot(*(part.se or 0.0 for part in parts)) / len(parts)  # the suites' rates differ: stratified
        scopes[ALL][name] = Quoted(**{**vars(whole), "se": se, "rule": "stratified binomial"})
    return scopes


LAYOUTS: list[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], Scopes]]] = [
    (lambda t: "suites" in t, _suites),
    (lambda t: "printed_tabletop" in t, _franka),
    (lambda t: "printed" in t and "rows" in t, _by_task),
    (lambda t: _has_counts(t.get("rows", t)), _counted),
]


def _has_counts(rows: Any) -> bool:
    values = list(rows.values()) if isinstance(rows, dict) else []
    return bool(values) and all(isinstance(row, dict) and {"success", "trials"} <= row.keys() for row in values)
