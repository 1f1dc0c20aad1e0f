"""How many rollouts a question costs. alpha is two-sided; numbers are rollouts of each policy, or pairs.

A need computed from an observed difference inherits that difference's error: it is a guide, not a promise.
"""

from __future__ import annotations

from math import ceil, inf, sqrt

import numpy as np
from scipy.special import bdtr, ndtr, ndtri

from vlakit.errors import InvalidData


def rollouts_unpaired(rate_a: float, rate_b: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Rollouts of each policy to see rate a differ from rate b; inf for equal rates.

    Source: Fleiss, Levin, Paik, Statistical Methods for Rates and Proportions (2003), formula 4.14.
    >>> rollouts_unpaired(0.75, 0.70), rollouts_unpaired(0.97, 0.96)
    (1251, 5301)
    """
    _check(alpha, power)
    if rate_a == rate_b:
        return inf
    mean = (rate_a + rate_b) / 2
    null = float(ndtri(1 - alpha / 2)) * sqrt(2 * mean * (1 - mean))
    alternative = float(ndtri(power)) * sqrt(rate_a * (1 - rate_a) + rate_b * (1 - rate_b))
    return ceil(((null + alternative) / (rate_a - rate_b)) ** 2)


def rollouts_paired(difference: float, discordance: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Pairs that McNemar's test needs for a difference when a share `discordance` of pairs differs; inf for none.

    Source: Connor, Biometrics 43 (1987) 207; Miettinen, Biometrics 24 (1968) 339.
    """
    _check(alpha, power)
    if difference == 0:
        return inf
    if not abs(difference) <= discordance <= 1:
        raise InvalidData(
            f"difference {difference} with discordance {discordance}", do="give |difference| <= share <= 1"
        )
    null = float(ndtri(1 - alpha / 2)) * sqrt(discordance)
    alternative = float(ndtri(power)) * sqrt(discordance - difference**2)
    return ceil(((null + alternative) / difference) ** 2)


def rollouts_mean(difference: float, variance: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Rollouts for a difference of mean credits: `variance` of one pair's difference, or the sum of both variances.

    Source: Cohen, Statistical Power Analysis (1988), section 2.4, normal approximation.
    """
    _check(alpha, power)
    if difference == 0:
        return inf
    return max(2, ceil(float(ndtri(1 - alpha / 2) + ndtri(power)) ** 2 * variance / difference**2))


def power_unpaired(n: int, rate_a: float, rate_b: float, *, alpha: float = 0.05) -> float:
    """Chance of seeing rate a differ from rate b with n rollouts of each. Source: as `rollouts_unpaired`."""
    mean = (rate_a + rate_b) / 2
    null = float(ndtri(1 - alpha / 2)) * sqrt(2 * mean * (1 - mean))
    alternative = sqrt(rate_a * (1 - rate_a) + rate_b * (1 - rate_b))
    return (
        float(ndtr((abs(rate_a - rate_b) * sqrt(n) - null) / alternative)) if alternative else float(rate_a != rate_b)
    )


def power_paired(n: int, difference: float, discordance: float, *, alpha: float = 0.05) -> float:
    """Chance that McNemar's mid-p comes below alpha with n pairs: the sum over all numbers of discordant pairs."""
    if not abs(difference) <= discordance <= 1:
        raise InvalidData(
            f"difference {difference} with discordance {discordance}", do="give |difference| <= share <= 1"
        )
    if discordance == 0:
        return 0.0
    m = np.arange(n + 1)
    weight = np.diff(bdtr(m, n, discordance), prepend=0.0)
    m, weight = m[weight > 1e-12], weight[weight > 1e-12]
    limit, share = _critical(m, alpha), (discordance + difference) / (2 * discordance)
    m, weight, limit = m[limit >= 0], weight[limit >= 0], limit[limit >= 0]
    reject = bdtr(limit, m, share) + bdtr(limit, m, 1 - share)
    return float(np.minimum(reject, 1.0) @ weight)


def _critical(m: np.ndarray, alpha: float) -> np.ndarray:
    """The largest number of wins of the loser among m discordant pairs at which mid-p is at most alpha; -1: none."""
    k = np.arange(m.max() // 2 + 1)[:, None]
    below = np.where(k > 0, bdtr(np.maximum(k - 1, 0), m, 0.5), 0.0)
    return ((2 * k < m) & (bdtr(k, m, 0.5) + below <= alpha)).sum(axis=0) - 1  # mid-p grows with k


def _check(alpha: float, power: float) -> None:
    if not (0 < alpha < 1 and 0 < power < 1):
        raise InvalidData(f"alpha {alpha}, power {power}", do="give numbers between 0 and 1")
