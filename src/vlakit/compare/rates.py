"""How well each strategy did by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlakit.compare.episodes import Arm, Table, scores
from vlakit.errors import InvalidData
from vlakit.schema import Float64
from vlakit.stats.intervals import wilson
from vlakit.stats.paired import bootstrap
from vlakit.stats.seeds import mean_interval


@dataclass(frozen=True)
class Rate:
    """One arm: mean score and its interval as fractions, over n episodes of so many trainings."""

    name: str
    n: int
    seeds: int
    rate: float
    interval: tuple[float, float] | None
    letters: str


def rate_of(arm: Arm, table: Table | None, score: str, confidence: float, letters: str) -> Rate:
    """Mean score over the starts that are compared, and its interval: Wilson's, a bootstrap, or one over seeds.

    Trainings whose outcomes never vary count as one (Wilson's over the starts): wider than right, but not absent.
    """
    values = table.values[arm.name] if table else scores(arm.evaluations[0], score)[None]
    tasks = table.tasks if table else None
    try:
        interval = _interval(values, tasks, confidence)
    except InvalidData:
        interval = None
    return Rate(arm.name, values.size, len(values), float(values.mean()), interval, letters)


def _interval(values: Float64, tasks: np.ndarray | None, confidence: float) -> tuple[float, float]:
    if len(values) > 1 and np.ptp(values) > 0:
        return mean_interval(values, confidence)
    values = values[:1]
    if (values == 0.5).any():
        low, high = bootstrap(values[0], tasks, confidence=confidence)
        return max(0.0, low), high
    return wilson(int(values.sum()), values.size, confidence)
