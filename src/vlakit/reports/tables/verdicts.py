"""What is said of a pair and of a claim about it: the one rule of all tables, for measured and for quoted pairs.

In this order: both rates at the floor or the ceiling: no verdict; the interval wholly inside the tolerance: equivalent,
whatever is claimed; p (Holm) at most alpha and the interval beyond zero: one is better, and where the interval lies
wholly beyond the tolerance a claim agrees or is contradicted, else in sign alone; else it cannot be told.
Limits count as they are printed, to a tenth of a point, so that a reader of the table comes to the same verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vlakit.compare.pairs import Settings
from vlakit.compare.versus import Judged, judge
from vlakit.reports.tables.claims import Claim

FLOOR, CEILING = 0.10, 0.95
AT_FLOOR, AT_CEILING = "at the floor: no verdict", "at the ceiling: no verdict"
NO_CLAIM = "no claim declared"
AGREES, CONTRADICTS = "agrees", "contradicts"

Rates = Mapping[tuple[str, str], float]  # (scope, row) -> rate


def judge_by_interval(
    pairs: Sequence[Judged], rates: Rates, claims: Sequence[Claim], settings: Settings
) -> list[Judged]:
    """The same pairs in the same order: Holm over those of claims and over the others apart, verdicts by the rule."""
    families: tuple[list[Judged], list[Judged]] = ([], [])
    for judged in pairs:
        families[claim_of(judged, claims) is None].append(judged)
    again: dict[tuple[str, str, str], Judged] = {}
    for family in families:
        for judged in judge({(j.a, j.b, j.scope): j.finding for j in family}, settings):
            both = [rates[judged.scope, name] for name in (judged.a, judged.b)]
            again[judged.a, judged.b, judged.scope] = replace(judged, verdict=_of_pair(judged, both, settings))
    return [again[j.a, j.b, j.scope] for j in pairs]


def _of_pair(judged: Judged, rates: Sequence[float], settings: Settings) -> str:
    if max(rates) < FLOOR:
        return AT_FLOOR
    if min(rates) > CEILING:
        return AT_CEILING
    limits = _printed(judged)
    if limits is None:
        return judged.undecided
    if -settings.margin < limits[0] and limits[1] < settings.margin:
        return f"equivalent within {_points(settings)}"
    if judged.p_holm is None or judged.p_holm > settings.alpha or limits[0] <= 0 <= limits[1]:
        return judged.undecided
    return f"{judged.a if limits[0] > 0 else judged.b} better"


def of_claim(claim: Claim, judged: Judged, settings: Settings) -> str:
    """What a pair of `judge_by_interval` says of a claim about it."""
    if judged.winner is None:
        return judged.verdict
    low, high = _printed(judged) or (0.0, 0.0)
    beyond = max(low, -high) > settings.margin
    if claim.same:
        return CONTRADICTS if beyond else f"cannot tell (they differ, but perhaps by less than {_points(settings)})"
    sign = AGREES if judged.winner == claim.a else CONTRADICTS
    return sign if beyond else f"{sign} in sign, size not shown"


def against_claims(judged: Judged, claims: Sequence[Claim], settings: Settings) -> str:
    """What a pair says of the claim about it, NO_CLAIM where there is none."""
    claim = claim_of(judged, claims)
    return of_claim(claim, judged, settings) if claim else NO_CLAIM


def claim_of(judged: Judged, claims: Sequence[Claim]) -> Claim | None:
    """The first claim about a pair, either way round."""
    return next((claim for claim in claims if {claim.a, claim.b} == {judged.a, judged.b}), None)


def rule(pairs: Sequence[Judged], claims: Sequence[Claim], settings: Settings) -> str:
    """The rule in words with its numbers, a line under a table."""
    n_claimed = sum(claim_of(judged, claims) is not None for judged in pairs)
    rest, within = len(pairs) - n_claimed, _points(settings)
    apart = f" and, apart, over the others ({rest})" if rest else ""
    return (
        f"p Holm is over the pairs of claims ({n_claimed}){apart}. In this order: both rows below {100 * FLOOR:g} % or "
        f"above {100 * CEILING:g} %: no verdict; interval within +-{within}: equivalent, whatever the claim; p Holm <= "
        f"{settings.alpha:.2g} and interval beyond zero: agrees or contradicts, in sign alone unless it lies beyond "
        f"{within} (sameness is contradicted beyond {within} only); else cannot tell"
    )


def _printed(judged: Judged) -> tuple[float, float] | None:
    """The limits as `grids.gain` prints them."""
    interval = judged.finding.interval
    return None if interval is None or judged.finding.p is None else (round(interval[0], 3), round(interval[1], 3))


def _points(settings: Settings) -> str:
    return f"{100 * settings.margin:g} points"
