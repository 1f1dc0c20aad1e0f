"""Two policies on the same initial states, one outcome each: only pairs whose outcomes differ tell them apart.

Differences are a minus b, as fractions. Credits may be 0, 0.5 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtr, stdtr, stdtrit

from vlakit.errors import InvalidData
from vlakit.schema import Float64
from vlakit.stats.intervals import clopper_pearson, quantile, wilson

DRAWS = 4000


@dataclass(frozen=True)
class PairCounts:
    """Pairs by outcome: success of both, of a alone, of b alone, of neither. Raises InvalidData without any."""

    both: int
    only_a: int
    only_b: int
    neither: int

    def __post_init__(self) -> None:
        if min(self.both, self.only_a, self.only_b, self.neither) < 0 or self.n < 1:
            raise InvalidData("no pair, no comparison", where=repr(self), do="roll out both on shared initial states")

    @property
    def n(self) -> int:
        """Pairs."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Success rate of a minus that of b."""
        return (self.only_a - self.only_b) / self.n

    @property
    def discordance(self) -> float:
        """Share of pairs whose outcomes differ."""
        return (self.only_a + self.only_b) / self.n


def count_pairs(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> PairCounts:
    """Count (N,) successes of a against those of b, same order of initial states. Raises InvalidData."""
    if a.shape != b.shape or a.ndim != 1:
        raise InvalidData(f"outcomes of shape {a.shape} and {b.shape} do not pair", do="give one outcome a state")
    counts = np.bincount(2 * a.astype(np.int64) + b.astype(np.int64), minlength=4)
    return PairCounts(int(counts[3]), int(counts[2]), int(counts[1]), int(counts[0]))


def mcnemar(only_a: int, only_b: int, *, mid: bool = True) -> float:
    """Two-sided p of equal rates given the discordant pairs: mid-p, or exact. 1 without any: nothing speaks.

    Source: McNemar, Psychometrika 12 (1947) 153; mid-p: Fagerland, Lydersen, Laake, BMC Med. Res. Methodol. 13
    (2013) 91, whose example has mid-p 0.039 and exact p 0.070:
    >>> round(mcnemar(1, 7), 3), round(mcnemar(1, 7, mid=False), 3)
    (0.039, 0.07)
    """
    n, least = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    at_most = float(bdtr(least, n, 0.5))
    below = float(bdtr(least - 1, n, 0.5)) if least else 0.0
    return min(1.0, at_most + below if mid else 2 * at_most)


def newcombe_paired(counts: PairCounts, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the difference of paired rates; of sensible width without discordant pairs, too.

    Source: Newcombe, Stat. Med. 17 (1998) 2635, method 10: Wilson's limits, squared and added, less their correlation.
    """
    n = counts.n
    k_a, k_b = counts.both + counts.only_a, counts.both + counts.only_b
    (low_a, high_a), (low_b, high_b) = wilson(k_a, n, confidence), wilson(k_b, n, confidence)
    a, b, phi = k_a / n, k_b / n, _correlation(counts)
    down = _root(a - low_a, high_b - b, phi)
    up = _root(high_a - a, b - low_b, phi)
    return max(-1.0, counts.difference - down), min(1.0, counts.difference + up)


def tango(counts: PairCounts, difference: float) -> float:
    """The score z of "the paired rates differ by `difference`"; 0 where nothing can be said.

    Source: Tango, Stat. Med. 17 (1998) 891.
    """
    n, b, c, d = counts.n, counts.only_a, counts.only_b, difference
    linear = (2 * n - b + c) * d - b - c
    only_b = (np.sqrt(max(0.0, linear**2 + 8 * n * c * d * (1 - d))) - linear) / (4 * n)
    variance = n * (2 * only_b + d * (1 - d))
    return 0.0 if variance <= 1e-12 else float((b - c - n * d) / np.sqrt(variance))


def non_inferiority(counts: PairCounts, margin: float) -> float:
    """P of "a is worse than b by `margin` or more". Source: Tango, as above."""
    _check_margin(margin)
    return 1 - float(ndtr(tango(counts, -margin)))


def equivalence(counts: PairCounts, margin: float) -> float:
    """P of "a and b differ by `margin` or more": the larger of two one-sided tests (TOST).

    Source: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) 657, with Tango's score.
    """
    return max(non_inferiority(counts, margin), float(ndtr(tango(counts, margin))))


def sign_flip(differences: Float64, *, mid: bool = True) -> float:
    """Exact permutation p of differences (N,): under equality each may as well have the other sign.

    The distribution of all 2^N sums comes from its characteristic function, the product of cos(|d| t). With outcomes
    0 and 1 it is McNemar's test. Multiples of 1/2, or of 1/2 over the seeds averaged. Raises InvalidData.
    Source: Fisher, The Design of Experiments (1935), section 21.
    """
    sizes = _lattice(differences)
    sizes = sizes[sizes != 0]
    if len(sizes) == 0:
        return 1.0
    magnitudes, n_of = np.unique(np.abs(sizes), return_counts=True)
    if len(magnitudes) == 1:
        return mcnemar(int((sizes > 0).sum()), int((sizes < 0).sum()), mid=mid)
    reach, total = int(np.abs(sizes).sum()), abs(int(sizes.sum()))
    t = 2 * np.pi * np.arange(2 * reach + 1) / (2 * reach + 1)
    pmf = np.fft.ifft(np.prod([np.cos(m * t) ** n for m, n in zip(magnitudes, n_of, strict=True)], axis=0)).real
    at_least, beyond = pmf[total : reach + 1].sum(), pmf[total + 1 : reach + 1].sum()
    p = at_least + beyond if mid else 2 * at_least
    return float(np.clip(p, 2.0 ** -min(len(sizes), 1000), 1.0))


def bootstrap(
    differences: Float64,
    strata: npt.NDArray[np.int64] | None = None,
    *,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval for the mean of paired differences (N,), redrawn within strata (N,) int: tasks.

    Percentiles, widened for small N: Hesterberg, Am. Stat. 69 (2015) 371, section 4. Where all differences are equal
    the bootstrap would claim certainty; then the limits say how many others can have been missed. Raises InvalidData.
    """
    quantile(confidence)
    n = len(differences)
    if n < 2:
        raise InvalidData("a bootstrap needs two pairs", where=f"n = {n}", do="roll out more")
    if (differences == differences[0]).all():
        missed = clopper_pearson(0, n, 2 * confidence - 1)[1] if confidence > 0.5 else 1.0
        return (1 - missed) * float(differences[0]) - missed, (1 - missed) * float(differences[0]) + missed
    groups = np.zeros(n, np.int64) if strata is None else strata
    rng, totals = np.random.default_rng(seed), np.zeros(draws)
    for stratum in np.unique(groups):
        values, n_of = np.unique(differences[groups == stratum], return_counts=True)
        totals += rng.multinomial(n_of.sum(), n_of / n_of.sum(), size=draws) @ values
    tail = float(ndtr(-np.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.5 + confidence / 2)))
    low, high = np.quantile(totals / n, [tail, 1 - tail])
    return max(-1.0, float(low)), min(1.0, float(high))


def credit_equivalence(differences: Float64, margin: float) -> float | None:
    """As `equivalence` for credits, by Student's t on the differences; None where they do not vary: t has no say."""
    _check_margin(margin)
    n = len(differences)
    error = float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    if error == 0:
        return None
    mean = float(differences.mean())
    return max(float(stdtr(n - 1, -(mean + margin) / error)), float(stdtr(n - 1, (mean - margin) / error)))


def t_of_mean(differences: Float64, confidence: float = 0.95) -> tuple[tuple[float, float], float]:
    """Student's t interval for the mean of differences (N,), within -1 to 1, and two-sided p of "it is 0".

    Raises InvalidData where they do not vary.
    """
    n, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    if error < 1e-12:
        raise InvalidData("no difference varies", where=f"n = {n}", do="more tasks; there is nothing to estimate from")
    half = error * float(stdtrit(n - 1, 0.5 + confidence / 2))
    return (max(-1.0, mean - half), min(1.0, mean + half)), min(1.0, 2 * float(stdtr(n - 1, -abs(mean) / error)))


def _lattice(differences: Float64) -> npt.NDArray[np.int64]:
    """The differences as whole multiples of the smallest step they share, of steps 1/2 to 1/60."""
    for step in (1, *range(2, 61)):
        sizes = np.rint(differences * step)
        if np.abs(sizes - differences * step).max(initial=0.0) < 1e-6:
            return sizes.astype(np.int64)
    raise InvalidData("differences that are no multiples of half credits", do="give credits of 0, 0.5 or 1")


def _correlation(counts: PairCounts) -> float:
    a, b, c, d = counts.both, counts.only_a, counts.only_b, counts.neither
    margins = float((a + b) * (c + d)) * float((a + c) * (b + d))
    if margins == 0:
        return 0.0
    cross = a * d - b * c
    return (max(cross - counts.n / 2, 0.0) if cross > 0 else cross) / float(np.sqrt(margins))


def _root(one: float, other: float, phi: float) -> float:
    return float(np.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2)))


def _check_margin(margin: float) -> None:
    if not 0 < margin < 1:
        raise InvalidData(f"margin {margin}", where="margin", do="give a fraction between 0 and 1, such as 0.05")
