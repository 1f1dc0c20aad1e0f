"""A paired test that may be looked at after every pair and stopped as soon as it is decided.

Evidence is the capital of a gambler who bets on which policy does better on the next initial state. If the policies
are equally good the game is fair, so the capital passes 1/alpha with probability at most alpha, whenever one looks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from vlakit.errors import InvalidData
from vlakit.schema import Float64

STAKES = 12
GAINS = np.array([1.0, 0.5, -0.5, -1.0])


def stakes(budget: int, alpha: float) -> Float64:
    """The fractions of capital (STAKES,) that are bet on either side, from small (late decisions) to nearly all.

    The smallest would be the best fixed one were the difference just visible at the end of the budget.
    """
    least = min(0.5, np.sqrt(2 * np.log(2 / alpha) / budget))
    return np.geomspace(least, 0.95, STAKES)


def log_evidence(counts: npt.NDArray[np.int64], bets: Float64) -> Float64:
    """Log capital (...,) after counts (..., 4) of pairs with difference 1, 0.5, -0.5, -1; order does not matter.

    For differences d in [-1, 1] and a stake s, the product of (1 + s d) is a nonnegative martingale of mean 1 when each
    d has mean 0 given the past; so is the average over stakes and both signs. By Ville's inequality its supremum
    exceeds 1/alpha with probability at most alpha. Pairs with d = 0 change nothing.
    Source: Ville, Etude critique de la notion de collectif (1939); Waudby-Smith, Ramdas, J. R. Stat. Soc. B 86
    (2024) 1, section 4 (betting, hedged over both signs).
    """
    signed = np.concatenate([bets, -bets])
    gain = np.log1p(GAINS[:, None] * signed)  # (4, 2 STAKES)
    return logsumexp(counts @ gain, axis=-1) - np.log(len(signed))


@dataclass
class SequentialTest:
    """One comparison, its budget of pairs fixed before the first. `add` pairs, then read `decision`.

    Raises InvalidData for a pair beyond the budget: a longer test has to be planned, not found.
    """

    budget: int
    alpha: float = 0.05
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))
    n: int = 0
    log_peak: float = 0.0
    decision: str = "go on"

    def __post_init__(self) -> None:
        if self.budget < 1 or not 0 < self.alpha < 1:
            raise InvalidData(f"budget {self.budget}, alpha {self.alpha}", do="give budget >= 1 and 0 < alpha < 1")
        self._bets = stakes(self.budget, self.alpha)

    @property
    def p(self) -> float:
        """A p-value that holds whenever it is read: one over the largest evidence so far."""
        return float(min(1.0, np.exp(-self.log_peak)))

    def add(self, credit_a: float, credit_b: float) -> str:
        """Count one pair; the decision: "go on", "a better", "b better", or "cannot tell" at the end of the budget."""
        if self.n >= self.budget:
            raise InvalidData(f"the budget of {self.budget} pairs is spent", do="plan a new test with new states")
        difference = credit_a - credit_b
        places = np.flatnonzero(np.isclose(GAINS, difference))
        if len(places) == 0 and difference != 0:
            raise InvalidData(f"credits {credit_a} and {credit_b}", do="give credits of 0, 0.5 or 1")
        self.n += 1
        self.counts[places] += 1
        self.log_peak = max(self.log_peak, float(log_evidence(self.counts, self._bets)))
        if self.decision == "go on" and self.log_peak >= np.log(1 / self.alpha):
            self.decision = "a better" if self.counts @ GAINS > 0 else "b better"
        elif self.decision == "go on" and self.n == self.budget:
            self.decision = "cannot tell"
        return self.decision


def stopping_times(differences: Float64, budget: int, alpha: float = 0.05) -> npt.NDArray[np.int64]:
    """After how many pairs each of M tests on differences (M, budget) decides; 0 where the budget does not suffice."""
    steps = differences[..., None] == GAINS  # (M, budget, 4)
    evidence = log_evidence(np.cumsum(steps, axis=1), stakes(budget, alpha))
    decided = evidence >= np.log(1 / alpha)
    return np.where(decided.any(axis=1), decided.argmax(axis=1) + 1, 0)
