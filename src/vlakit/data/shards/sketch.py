"""Statistics of columns of any length in little memory; sketches of parts put together are the sketch of the whole.

A column is counted in bins whose width is a power of two and whose edges are multiples of it: the smallest width for
which its range takes at most BINS of them. A wider range merges bins, two by two, and cuts none. So a quantile is wrong
by less than one bin, which is .05 % of the range, whatever the data, their order, and how they were cut into parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from math import floor, frexp, ldexp
from typing import Any

import numpy as np
import numpy.typing as npt

from vlakit.schema import Int64

BINS = 4096
BLOCK = 1 << 20  # values at a time


@dataclass(frozen=True)
class Sketch:
    """n values: mean, sum of squared deviations, range; counts (k,): how many lie in [first + i, first + i + 1) widths.

    exponent: the width is 2 ** exponent.
    """

    n: int
    mean: float
    deviations: float
    low: float
    high: float
    exponent: int
    first: int
    counts: Int64

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Sketch:
        """Of at least one finite value (n,)."""
        column = np.asarray(values, np.float64)
        mean, low, high = float(column.mean()), float(column.min()), float(column.max())
        exponent = _exponent(low, high)
        bins = np.floor(np.ldexp(column, -exponent)).astype(np.int64)
        first = int(bins.min())
        deviations = float(np.square(column - mean).sum())
        return cls(len(column), mean, deviations, low, high, exponent, first, np.bincount(bins - first))

    def merged(self, other: Sketch) -> Sketch:
        """Of the values of both."""
        n, low, high = self.n + other.n, min(self.low, other.low), max(self.high, other.high)
        apart = other.mean - self.mean
        exponent = _exponent(low, high)
        parts = [part.coarsened(exponent) for part in (self, other)]
        first = min(part.first for part in parts)
        counts = np.zeros(max(part.first + len(part.counts) for part in parts) - first, np.int64)
        for part in parts:
            counts[part.first - first :][: len(part.counts)] += part.counts
        mean = self.mean + apart * other.n / n
        deviations = self.deviations + other.deviations + apart**2 * self.n * other.n / n
        return Sketch(n, mean, deviations, low, high, exponent, first, counts)

    def coarsened(self, exponent: int) -> Sketch:
        """The same in wider bins."""
        bins = (self.first + np.arange(len(self.counts))) >> (exponent - self.exponent)
        counts = np.bincount(bins - bins[0], self.counts).astype(np.int64)
        return Sketch(self.n, self.mean, self.deviations, self.low, self.high, exponent, int(bins[0]), counts)

    def quantile(self, share: float) -> float:
        """As numpy's "linear", each value taken to lie evenly in its bin."""
        place = share * (self.n - 1)
        rank = floor(place)
        below, above = self._ranked(rank), self._ranked(min(rank + 1, self.n - 1))
        return below + (above - below) * (place - rank)

    def _ranked(self, rank: int) -> float:
        """The value with so many in front of it."""
        ends = np.cumsum(self.counts)
        number = int(np.searchsorted(ends, rank, "right"))
        inside = (rank - (ends[number] - self.counts[number]) + 0.5) / self.counts[number]
        return min(max(ldexp(self.first + number + float(inside), self.exponent), self.low), self.high)

    @property
    def std(self) -> float:
        """Of the population, as numpy's."""
        return (self.deviations / self.n) ** 0.5


def sketch(blocks: Iterable[npt.NDArray[Any]]) -> Sketch:
    """Of the values of all blocks, each (n_i,), some of which may be empty; at least one value."""
    parts = (block[i : i + BLOCK] for block in blocks for i in range(0, len(block), BLOCK))
    return reduce(Sketch.merged, map(Sketch.of, parts))


def _exponent(low: float, high: float) -> int:
    """Of the smallest width that is enough; it never falls when the range grows, so any two sketches can be merged."""
    exact = frexp(max(abs(low), abs(high)))[1] - 52  # narrower bins than float64 has values there would be empty
    exponent = max(exact, frexp(high - low)[1] - BINS.bit_length()) if high > low else exact
    while floor(ldexp(high, -exponent)) - floor(ldexp(low, -exponent)) >= BINS:
        exponent += 1
    return exponent
