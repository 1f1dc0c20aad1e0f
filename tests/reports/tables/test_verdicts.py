"""The one rule of verdicts, over all intervals, rates and p: what a reader of the print would conclude."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from table_fills import filled

from vlakit.compare.grids import gain_limits
from vlakit.compare.pairs import Settings, compare_paired
from vlakit.compare.versus import ALL, Judged, judge
from vlakit.reports.rendering import report_of
from vlakit.reports.tables.claims import Claim
from vlakit.reports.tables.spec import load_table
from vlakit.reports.tables.table import from_paper, from_runs
from vlakit.reports.tables.verdicts import (
    AT_CEILING,
    AT_FLOOR,
    NO_CLAIM,
    against_claims,
    judge_by_interval,
    of_claim,
    rule,
)

SETTINGS = Settings()
BETTER, WORSE, SAME = Claim("", "a", "b", same=False), Claim("", "b", "a", same=False), Claim("", "a", "b", same=True)
LIMITS = (-0.3, -0.07, -0.0501, -0.0499, -0.02, -0.0004, 0.0, 0.0004, 0.02, 0.0499, 0.0501, 0.07, 0.3)


def pair(low: float, high: float, p: float = 0.001, a: str = "a", b: str = "b") -> Judged:
    some = np.array([[1.0, 0.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 1.0, 1.0]])
    template = compare_paired(*some, np.zeros(4, np.int64), SETTINGS)
    finding = replace(template, difference=(low + high) / 2 or 1e-9, interval=(low, high), p=p)
    return judge({(a, b, ALL): finding}, SETTINGS)[0]


def verdict(judged: Judged, claim: Claim = BETTER, rates: tuple[float, float] = (0.6, 0.5)) -> str:
    (found,) = judge_by_interval([judged], {(ALL, "a"): rates[0], (ALL, "b"): rates[1]}, [claim], SETTINGS)
    return of_claim(claim, found, SETTINGS)


def intervals() -> Iterator[tuple[float, float]]:
    return ((low, high) for low, high in product(LIMITS, LIMITS) if low < high)


@pytest.mark.parametrize("claim", [BETTER, WORSE, SAME])
@pytest.mark.parametrize("p", [0.001, 0.2])
def test_whoever_reads_the_printed_interval_comes_to_the_same_verdict(claim: Claim, p: float) -> None:
    """The rule a second time, from the printed words alone."""
    for low, high in intervals():
        found = verdict(pair(low, high, p), claim)
        first, last = (float(word) for word in gain_limits((low, high)).split(" to "))
        if first > -5 and last < 5:
            assert found == "equivalent within 5 points"
        elif p > 0.05 or first <= 0 <= last:
            assert found.startswith("cannot tell (")
            assert "differ" not in found
        elif claim is SAME:
            beyond = first > 5 or last < -5
            assert found == (
                "contradicts" if beyond else "cannot tell (they differ, but perhaps by less than 5 points)"
            )
        else:
            sign = "agrees" if (first > 0) == (claim is BETTER) else "contradicts"
            beyond = first > 5 or last < -5
            assert found == (sign if beyond else f"{sign} in sign, size not shown")


@pytest.mark.parametrize("claim", [BETTER, WORSE, SAME])
def test_no_claim_is_judged_at_the_floor_or_the_ceiling_whatever_the_interval(claim: Claim) -> None:
    for low, high in intervals():
        for p in (1e-9, 0.5):
            assert verdict(pair(low, high, p), claim, (0.099, 0.0)) == AT_FLOOR
            assert verdict(pair(low, high, p), claim, (0.951, 1.0)) == AT_CEILING
    for rates in ((0.1, 0.0), (0.0, 0.1), (0.95, 1.0), (1.0, 0.0)):
        assert "no verdict" not in verdict(pair(0.1, 0.3), claim, rates)


def test_swapping_the_rows_swaps_agrees_and_contradicts_and_nothing_else() -> None:
    for low, high in intervals():
        assert verdict(pair(low, high), BETTER) == verdict(pair(-high, -low), WORSE)
        turned = verdict(pair(-high, -low), BETTER)
        for one, other in (("agrees", "contradicts"), ("contradicts", "agrees")):
            if turned.startswith(one):
                assert verdict(pair(low, high), BETTER) == turned.replace(one, other)
        assert verdict(pair(low, high), SAME) == verdict(pair(-high, -low), SAME)


def test_what_has_no_interval_or_no_p_cannot_be_told() -> None:
    bare = pair(0.1, 0.3)
    for missing in ({"interval": None, "p": None}, {"p": None}):
        finding = replace(bare.finding, **missing, remark="no outcome varies")
        assert verdict(judge({("a", "b", ALL): finding}, SETTINGS)[0]) == "cannot tell (no outcome varies)"


def test_claims_are_corrected_over_claims_alone_and_further_pairs_over_themselves() -> None:
    names = [("a", "b"), ("c", "b"), ("d", "b"), ("c", "d")]
    pairs = [pair(0.1, 0.3, 0.02, *name) for name in names]
    rates = {(ALL, name): 0.5 for name in "abcd"}
    claims = [Claim("", "b", "a", same=False), Claim("", "d", "c", same=True)]
    found = judge_by_interval(pairs, rates, claims, SETTINGS)
    assert [(j.a, j.b) for j in found] == names
    assert [j.p_holm for j in found] == [0.04] * 4
    alone = judge_by_interval(pairs, rates, claims[:1], SETTINGS)
    assert [j.p_holm for j in alone] == pytest.approx([0.02, 0.06, 0.06, 0.06])
    assert against_claims(alone[1], claims[:1], SETTINGS) == NO_CLAIM
    assert "claims (1) and, apart, over the others (3)" in rule(alone, claims[:1], SETTINGS)


def test_more_pairs_that_are_no_claim_change_no_verdict_on_a_claim() -> None:
    spec = load_table("table1")
    few = filled({"full": 0.8, "last_layer": 0.7, "frozen_vision": 0.75})
    more = filled(
        {"full": 0.8, "last_layer": 0.7, "frozen_vision": 0.75, "lora_r64": 0.8}
    )  # lora_r64: no claim of full
    reports = [from_runs(spec, fill, SETTINGS, "test") for fill in (few, more)]
    one, other = ({c.claim.says: c.verdict for c in report.claims if c.verdict != "not measured"} for report in reports)
    assert one.items() <= other.items()
    assert len(one) == 2


def test_measured_and_quoted_claims_are_judged_by_one_rule_that_stands_under_the_table() -> None:
    spec = load_table("table1")
    paper = from_paper(spec, SETTINGS)
    measured = from_runs(spec, filled({row.name: 0.7 for row in spec.rows}), SETTINGS, "test")
    for report in (paper, measured):
        assert [claim.verdict for claim in report.claims] == [
            of_claim(named, next(j for j in report.pairs if {j.a, j.b} == {named.a, named.b}), report.settings)
            for named in (spec.claims_in_print if report is paper else spec.claims)
        ]
        (line,) = [note for note in report_of(report).notes if note.startswith("rule: ")]
        for number in ("claims (6)", "10 %", "95 %", "+-5 points", "0.05"):
            assert number in line
    assert [claim.paper for claim in measured.claims] == [claim.verdict for claim in paper.claims]


def test_the_row_and_the_claim_about_it_never_disagree() -> None:
    spec = load_table("table1")
    for rates in (
        (0.8, 0.4, 0.75, 0.79, 0.6, 0.8),
        (0.05, 0.02, 0.03, 0.04, 0.05, 0.05),
        (0.3, 0.8, 0.9, 0.9, 0.3, 0.3),
    ):
        fill = filled({row.name: rate for row, rate in zip(spec.rows, rates, strict=True)})
        report = from_runs(spec, fill, SETTINGS, "test")
        verdicts = {frozenset((c.claim.a, c.claim.b)): c.verdict for c in report.claims}
        for row in report.rows[1:]:
            assert row.agreement == verdicts.get(frozenset((row.row.name, "full")), NO_CLAIM)
