"""Several trainings of each strategy on shared initial states: what varies with the episode, what with the seed.

A test over episodes alone speaks of these checkpoints; a claim about strategies needs the spread between trainings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from vlakit.errors import InvalidData
from vlakit.schema import Float64
from vlakit.stats.paired import sign_flip


@dataclass(frozen=True)
class SeedComparison:
    """Difference a minus b over seeds and initial states, as fractions.

    episode_se: with these checkpoints and other initial states; seed_se: what other trainings add; interval, p and df
    take both in; p_checkpoints takes the trainings as given (None: too many of them for an exact test); floor: the
    part of se^2 that any number of trainings on the same states would leave.
    """

    difference: float
    episode_se: float
    seed_se: float
    interval: tuple[float, float]
    p: float
    p_checkpoints: float | None
    df: float
    se: float
    floor: float

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
        floor=max(0.0, states - twice),
    )


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
