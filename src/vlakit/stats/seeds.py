"""Several trainings of each strategy on shared initial states: what varies with the episode, what with the seed.

A test over episodes alone speaks of these checkpoints; a claim about strategies needs the spread between trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from statistics import harmonic_mean

import numpy as np
from scipy.special import stdtr, stdtrit

from vlakit.errors import InvalidData
from vlakit.schema import Float64
from vlakit.stats.intervals import quantile, two_sided
from vlakit.stats.paired import sign_flip

SPREADS = 0.25, 0.5  # of trainings, SD in log odds: small and usual


@dataclass(frozen=True)
class Components:
    """Variances of a difference between two strategies: of initial states, of trainings (both strategies together), and
    what neither explains of one training's one episode.
    """

    states: float
    seeds: float
    residual: float

    def error(self, n_seeds: int, n_states: int) -> tuple[float, float]:
        """Standard error of the difference after n_seeds trainings of each on n_states, and its degrees of freedom."""
        rest = self.residual / (n_seeds * n_states)
        states, seeds = self.states / n_states + rest, self.seeds / n_seeds + rest
        total = states + seeds - rest
        df = total**2 / (states**2 / (n_states - 1) + seeds**2 / (2 * (n_seeds - 1))) if total else inf
        return sqrt(total), df

    def trainings(self, effect: float, n_states: int, *, alpha: float, power: float, sides: int) -> float:
        """Trainings of each, two or more, at which a t-test sees `effect`; inf: no number of them on these states.

        With few trainings the t quantiles are far from normal ones: they are taken at the planned degrees of freedom.
        Source: Searle, Casella, McCulloch (1992), chapter 4, for the error; a sum of quantiles for noncentral t.
        """

        def seen(n_seeds: int) -> bool:
            se, df = self.error(n_seeds, n_states)
            return effect >= se * float(stdtrit(df, 1 - alpha / sides) + stdtrit(df, power))

        return _first(seen, 1)


def _first(holds: Callable[[int], bool], low: int, high: int = 100_000) -> float:
    """The first whole number above `low` at which it holds, as it then does for all larger; inf: not up to `high`."""
    if not holds(high):
        return inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class SeedComparison:
    """Difference a minus b over seeds and initial states, as fractions.

    episode_se: with these checkpoints and other initial states; seed_se: what other trainings add; interval, p and df
    take both in; p_checkpoints takes the trainings as given (None: too many of them for an exact test); components:
    of which variances se is made, for planning.
    """

    difference: float
    episode_se: float
    seed_se: float
    interval: tuple[float, float]
    p: float
    p_checkpoints: float | None
    df: float
    se: float
    components: Components

    def equivalence(self, margin: float) -> float:
        """P of "the strategies differ by `margin` or more": the larger of two one-sided t-tests."""
        above, below = self.difference + margin, self.difference - margin
        return max(float(stdtr(self.df, -above / self.se)), float(stdtr(self.df, below / self.se)))


def compare_seeds(a: Float64, b: Float64, confidence: float = 0.95) -> SeedComparison:
    """Compare credits (S, N) of two strategies, S trainings each (two or more), N shared initial states.

    Seeds and states are crossed random effects: Var = seeds + states - what both count (the residual), with
    Satterthwaite's degrees of freedom. Source: Searle, Casella, McCulloch, Variance Components (1992), chapter 4;
    Satterthwaite, Biometrics Bull. 2 (1946) 110. Raises InvalidData.
    """
    for arm in (a, b):
        if arm.ndim != 2 or arm.shape[0] < 2 or arm.shape[1] < 2:
            raise InvalidData(
                "needs two seeds and two initial states a strategy", where=f"credits of shape {arm.shape}"
            )
    if a.shape[1] != b.shape[1]:
        raise InvalidData(f"{a.shape[1]} and {b.shape[1]} initial states do not pair", do="evaluate on the same states")
    over_states = a.mean(axis=0) - b.mean(axis=0)
    states = float(over_states.var(ddof=1)) / a.shape[1]
    seeds = [float(arm.mean(axis=1).var(ddof=1)) / arm.shape[0] for arm in (a, b)]
    twice = sum(_residual(arm) / arm.size for arm in (a, b))
    total = max(states + sum(seeds) - twice, states, *seeds)
    if total == 0:
        raise InvalidData(
            "no outcome varies: every episode of either strategy ended the same",
            do="harder tasks or more initial states; there is nothing to estimate an error from",
        )
    parts = [(states, a.shape[1] - 1), *((part, len(arm) - 1) for part, arm in zip(seeds, (a, b), strict=True))]
    df = total**2 / sum(part**2 / n for part, n in parts)
    difference, se = float(over_states.mean()), float(np.sqrt(total))
    half = se * float(stdtrit(df, 0.5 + confidence / 2))
    return SeedComparison(
        difference=difference,
        episode_se=float(np.sqrt(states)),
        seed_se=float(np.sqrt(max(0.0, sum(seeds) - twice))),
        interval=(max(-1.0, difference - half), min(1.0, difference + half)),
        p=min(1.0, 2 * float(stdtr(df, -abs(difference) / se))),
        p_checkpoints=_of_checkpoints(over_states),
        df=df,
        se=se,
        components=Components(
            states=max(0.0, states - twice) * a.shape[1],
            seeds=max(0.0, sum(seeds) - twice) * harmonic_mean((len(a), len(b))),
            residual=twice * a.shape[1] * harmonic_mean((len(a), len(b))),
        ),
    )


def false_alarms(variance: float, n_states: int, spread: float, alpha: float) -> float:
    """How often a test over n_states episodes calls equal strategies different, of one training each, at level alpha.

    spread: SD of trainings in log odds; variance: of one episode's difference. Between equal ones half of it is the
    mean of p (1 - p), by which a log odd moves a rate, so two trainings add 2 (spread variance / 2)^2 to
    variance / n_states. Source: the delta method; checked by simulation in experiments/statistics.
    """
    inflated = 1 + n_states * spread**2 * variance / 2
    return two_sided(quantile(1 - alpha) / sqrt(inflated))


def mean_interval(arm: Float64, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the mean credit of one strategy from (S, N): over other seeds and states. Raises InvalidData."""
    seeds, states = (float(arm.mean(axis=axis).var(ddof=1)) / arm.shape[1 - axis] for axis in (1, 0))
    total = max(seeds + states - _residual(arm) / arm.size, seeds, states)
    if total == 0:
        raise InvalidData("no outcome varies", where="one strategy", do="harder tasks or more initial states")
    df = total**2 / (seeds**2 / (arm.shape[0] - 1) + states**2 / (arm.shape[1] - 1))
    half = float(np.sqrt(total) * stdtrit(df, 0.5 + confidence / 2))
    return max(0.0, float(arm.mean()) - half), min(1.0, float(arm.mean()) + half)


def _of_checkpoints(differences: Float64) -> float | None:
    try:
        return sign_flip(differences)
    except InvalidData:  # means over 7 and 9 trainings, or over 61: no lattice to count on
        return None


def _residual(arm: Float64) -> float:
    """Mean square of what neither seed nor state explains."""
    rest = arm - arm.mean(axis=0) - arm.mean(axis=1, keepdims=True) + arm.mean()
    return float((rest**2).sum()) / ((arm.shape[0] - 1) * (arm.shape[1] - 1))
