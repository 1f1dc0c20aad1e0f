"""Mean credits of two policies whose episodes share nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from vlakit.errors import InvalidData
from vlakit.schema import Float64


@dataclass(frozen=True)
class MeanComparison:
    """Interval for mean a minus mean b, p of no difference, and of a difference of the margin or more."""

    interval: tuple[float, float]
    p: float
    p_equivalence: float


def welch(a: Float64, b: Float64, confidence: float, margin: float) -> MeanComparison:
    """Welch's t for credits (N,) and (M,). Raises InvalidData where neither varies: t has no say.

    Source: Welch, Biometrika 34 (1947) 28.
    """
    if min(len(a), len(b)) < 2:
        raise InvalidData("means of one episode do not compare", where=f"n = {len(a)}, {len(b)}", do="roll out more")
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    error = float(np.sqrt(sum(parts)))
    if error == 0:
        raise InvalidData("no credit varies", where="both policies", do="more initial states or harder tasks")
    df = float(error**4 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1)))
    difference = float(a.mean() - b.mean())
    half = error * float(stdtrit(df, 0.5 + confidence / 2))
    sides = stdtr(df, -(difference + margin) / error), stdtr(df, (difference - margin) / error)
    interval = max(-1.0, difference - half), min(1.0, difference + half)
    return MeanComparison(interval, min(1.0, 2 * float(stdtr(df, -abs(difference) / error))), float(max(sides)))
