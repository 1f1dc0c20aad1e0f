"""Learning curves of several seeds, each acquisition paired with random from the same first demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np

from vlakit.errors import InvalidData
from vlakit.selection.rounds import Round
from vlakit.stats.paired import bootstrap

Runs = Mapping[str, Sequence[Sequence[Round]]]  # acquisition -> runs, one a seed, seeds in the same order everywhere
METRICS = ("eval/success", "eval/token_accuracy", "val/token_accuracy")  # a curve shows the first that was measured


@dataclass(frozen=True)
class Lead:
    """How far an acquisition lies above random at one number of demonstrations: mean over seeds and its band."""

    n: int
    mean: float
    low: float
    high: float


def metric_of(runs: Runs) -> str:
    """What all rounds measured. Raises InvalidData where there is nothing."""
    rounds = [one for several in runs.values() for run in several for one in run]
    for metric in METRICS:
        if rounds and all(metric in one.metrics for one in rounds):
            return metric
    raise InvalidData(
        "no round was evaluated", where=", ".join(runs), do=f"one of {', '.join(METRICS)}: evaluate.suite=NAME in train"
    )


def points(run: Sequence[Round], metric: str) -> list[tuple[int, float]]:
    """(demonstrations, value) of each round."""
    return [(len(one.labelled), one.metrics[metric]) for one in run]


def mean_points(runs: Sequence[Sequence[Round]], metric: str) -> list[tuple[int, float]]:
    """The mean over seeds at the numbers that all of them have."""
    curves = [dict(points(run, metric)) for run in runs]
    shared = sorted(set(curves[0]).intersection(*curves[1:]))
    return [(n, fmean(curve[n] for curve in curves)) for n in shared]


def n_to_reach(curve: Sequence[tuple[int, float]], level: float) -> float | None:
    """Demonstrations at which a curve first reaches a level, between rounds by a line; None: never.

    >>> n_to_reach([(10, 0.2), (20, 0.6), (30, 0.5)], 0.4)
    15.0
    """
    for (n, value), (more, after) in pairwise(curve):
        if value >= level:
            return float(n)
        if after >= level:
            return n + (more - n) * (level - value) / (after - value)
    return float(curve[-1][0]) if curve and curve[-1][1] >= level else None


def leads(runs: Runs, name: str, metric: str, *, against: str = "random", confidence: float = 0.95) -> list[Lead]:
    """Paired differences by seed, with a bootstrap band over seeds. Raises InvalidData for unequal numbers of seeds."""
    mine, others = runs[name], runs[against]
    if len(mine) != len(others):
        raise InvalidData(
            f"{len(mine)} seeds of {name}, {len(others)} of {against}", where="curves", do="run the same seeds of both"
        )
    if any(a[0].labelled != b[0].labelled for a, b in zip(mine, others, strict=True)):
        raise InvalidData(f"{name} and {against} begin with other demonstrations", where="curves", do="pair the seeds")
    curves = [(dict(points(a, metric)), dict(points(b, metric))) for a, b in zip(mine, others, strict=True)]
    shared = sorted(set.intersection(*(set(a) & set(b) for a, b in curves)))
    differences = {n: np.array([a[n] - b[n] for a, b in curves]) for n in shared}
    return [Lead(n, float(one.mean()), *bootstrap(one, confidence=confidence)) for n, one in differences.items()]
