"""One rate, and the difference of two rates or means of episodes that share nothing; the OpenVLA paper's errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtr, ndtri, stdtr, stdtrit

from vlakit.errors import InvalidData
from vlakit.schema import Float64


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a rate, as fractions. Raises InvalidData for n = 0 or counts that cannot be.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    >>> [round(100 * x, 1) for x in wilson(9, 10)]
    [59.6, 98.2]
    """
    check_counts(successes, n)
    z, p = quantile(confidence), successes / n
    centre = p + z * z / (2 * n)
    half = z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval for a rate, as fractions: its coverage is never less than `confidence`. Raises InvalidData.

    Source: Clopper, Pearson, Biometrika 26 (1934) 404, by quantiles of the beta distribution.
    """
    check_counts(successes, n)
    quantile(confidence)
    tail, k = (1 - confidence) / 2, successes
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def newcombe(k_a: int, n_a: int, k_b: int, n_b: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for rate a minus rate b of episodes that are not paired. Raises InvalidData.

    Source: Newcombe, Stat. Med. 17 (1998) 873, method 10: Wilson's limits, squared and added.
    """
    (low_a, high_a), (low_b, high_b) = wilson(k_a, n_a, confidence), wilson(k_b, n_b, confidence)
    a, b = k_a / n_a, k_b / n_b
    down, up = np.hypot(a - low_a, high_b - b), np.hypot(high_a - a, b - low_b)
    return float(a - b - down), float(a - b + up)


def score_test(k_a: int, n_a: int, k_b: int, n_b: int, difference: float = 0.0) -> float:
    """The score z of "rate a minus rate b is `difference`", episodes not paired; 0 where nothing can be said.

    Source: Farrington, Manning, Stat. Med. 9 (1990) 1447, times (N - 1) / N as in Campbell, Stat. Med. 26 (2007) 3661.
    """
    check_counts(k_a, n_a)
    check_counts(k_b, n_b)
    a, b = _constrained(k_a, n_a, k_b, n_b, difference)
    n = n_a + n_b
    variance = (a * (1 - a) / n_a + b * (1 - b) / n_b) * n / (n - 1)
    return 0.0 if variance <= 0 else float((k_a / n_a - k_b / n_b - difference) / np.sqrt(variance))


def unpaired_p(k_a: int, n_a: int, k_b: int, n_b: int) -> float:
    """Two-sided p of equal rates, episodes not paired: the "N - 1" chi-squared test. Source: as `score_test`."""
    return two_sided(score_test(k_a, n_a, k_b, n_b))


def unpaired_equivalence(k_a: int, n_a: int, k_b: int, n_b: int, margin: float) -> float:
    """P of "the rates differ by `margin` or more", episodes not paired: the larger of two one-sided score tests."""
    above = 1 - float(ndtr(score_test(k_a, n_a, k_b, n_b, -margin)))
    below = float(ndtr(score_test(k_a, n_a, k_b, n_b, margin)))
    return max(above, below)


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


def standard_error(credits_: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """Sample standard deviation of the credits over sqrt(n): the paper's +- on real robots. Raises InvalidData."""
    values = np.asarray(credits_, dtype=np.float64)
    if len(values) < 2:
        raise InvalidData("a standard error needs two episodes", where=f"n = {len(values)}", do="roll out more")
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def standard_error_of_sum(successes: float, n: int, halves: int = 0) -> float:
    """The same from the sum of credits and the number of half credits in it. Raises InvalidData."""
    whole = successes - halves / 2
    if whole < 0 or whole != int(whole) or whole + halves > n or halves < 0:
        raise InvalidData(f"{successes} of {n} cannot hold {halves} half credits", do="check the counts")
    return standard_error(np.repeat([1.0, 0.5, 0.0], [int(whole), halves, n - int(whole) - halves]))


def half_credits_behind(successes: float, n: int, printed_percent: float, digits: int = 1) -> list[int]:
    """The numbers of half credits with which `successes` of n give the +- that a paper prints, in percent.

    Half a unit of the last digit is allowed either way, ends included. An empty list: no such credits exist.
    >>> half_credits_behind(23, 33, 7.2)
    [6]
    """
    room = 0.5 * 10.0**-digits + 1e-9
    possible = _half_credits(successes, n)
    return [h for h in possible if abs(100 * standard_error_of_sum(successes, n, h) - printed_percent) <= room]


def errors_possible(successes: float, n: int, digits: int = 1) -> list[float]:
    """All +- in percent that a paper could have printed for `successes` of n: as many as half credits allow; sorted.

    >>> len(errors_possible(23, 33)), len(errors_possible(120, 170))
    (11, 17)
    """
    return sorted({round(100 * standard_error_of_sum(successes, n, h), digits) for h in _half_credits(successes, n)})


def _half_credits(successes: float, n: int) -> range:
    return range(round(2 * successes) % 2, round(min(2 * successes, 2 * (n - successes))) + 1, 2)


def quantile(confidence: float) -> float:
    """The two-sided standard normal quantile. Raises InvalidData for a confidence outside (0, 1)."""
    if not 0 < confidence < 1:
        raise InvalidData(f"confidence {confidence}", where="confidence", do="give a number between 0 and 1")
    return float(ndtri(0.5 + confidence / 2))


def two_sided(z: float) -> float:
    """Two-sided p of a standard normal z."""
    return min(1.0, 2 * float(ndtr(-abs(z))))


def check_counts(successes: int, n: int) -> None:
    """Raise InvalidData unless 0 <= successes <= n and n >= 1."""
    if n < 1:
        raise InvalidData("no episode, no rate", where=f"n = {n}", do="roll out at least one episode")
    if not 0 <= successes <= n:
        raise InvalidData(f"{successes} successes in {n} episodes", where="successes", do="give 0 <= successes <= n")


def _constrained(k_a: int, n_a: int, k_b: int, n_b: int, difference: float) -> tuple[float, float]:
    """The likeliest rates whose difference is `difference`: a root of a cubic (Farrington and Manning, appendix)."""
    if difference == 0:
        return (k_a + k_b) / (n_a + n_b), (k_a + k_b) / (n_a + n_b)
    theta, s = n_b / n_a, difference
    a, b, d = k_a / n_a, k_b / n_b, 1 + n_b / n_a
    linear = s * s + s * (2 * a + theta + 1) + a + theta * b
    quadratic = -(d + a + theta * b + s * (theta + 2))
    v = quadratic**3 / (3 * d) ** 3 - quadratic * linear / (6 * d * d) + -a * s * (1 + s) / (2 * d)
    u = np.copysign(np.sqrt(max(0.0, quadratic**2 / (3 * d) ** 2 - linear / (3 * d))), v)
    w = (np.pi + np.arccos(np.clip(v / u**3 if u else 0.0, -1, 1))) / 3
    rate = float(np.clip(2 * u * np.cos(w) - quadratic / (3 * d), max(0.0, s), min(1.0, 1 + s)))
    return rate, float(np.clip(rate - s, 0, 1))
