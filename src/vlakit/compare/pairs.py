"""One pair of strategies: difference, interval, p and what it would take; which method depends on what there is.

Each method is right for its case alone: outcomes of one training each, half credits, several trainings, unpaired.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from vlakit.errors import InvalidData
from vlakit.schema import Float64
from vlakit.stats.intervals import newcombe, unpaired_equivalence, unpaired_p, welch
from vlakit.stats.paired import (
    bootstrap,
    count_pairs,
    credit_equivalence,
    equivalence,
    mcnemar,
    newcombe_paired,
    sign_flip,
    t_of_mean,
)
from vlakit.stats.power import rollouts_mean, rollouts_paired
from vlakit.stats.seeds import Components, compare_seeds


@dataclass(frozen=True)
class Finding:
    """What the data say of a minus b, as fractions; n pairs of starts, or episodes of a where nothing is paired.

    only_a, only_b: starts on which that one did better (None: unpaired). p or interval None: nothing to estimate an
    error from, `remark` says why.
    seeds: how many trainings of a and b there are. variance: of one rollout's difference; components: the same for
    several trainings; the two errors: from episodes and from seeds.
    """

    n: int
    only_a: int | None
    only_b: int | None
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    p_equivalence: float | None
    variance: float
    method: str
    seeds: tuple[int, int] = (1, 1)
    episode_se: float | None = None
    seed_se: float | None = None
    p_checkpoints: float | None = None
    remark: str = ""
    components: Components | None = None


@dataclass(frozen=True)
class Settings:
    """How to judge: confidence of intervals (alpha is the rest), margin of equivalence, power of planned rollouts."""

    confidence: float = 0.95
    margin: float = 0.05
    power: float = 0.8

    @property
    def alpha(self) -> float:
        """The chance of a false alarm, all comparisons together."""
        return 1 - self.confidence


def compare_paired(a: Float64, b: Float64, tasks: npt.NDArray[np.int64], settings: Settings) -> Finding:
    """Compare scores (S, N) on shared starts, tasks (N,) int. Raises InvalidData for one training against several."""
    if min(len(a), len(b)) == 1 and len(a) != len(b):
        raise InvalidData(
            f"{len(a)} and {len(b)} trainings do not compare",
            do="give one of each, or at least two of each: from one training its spread between seeds is not known",
        )
    try:
        if len(a) > 1:
            return _several_seeds(a, b, settings)
        halves = ((a == 0.5) | (b == 0.5)).any()
        return _half_credits(a[0], b[0], tasks, settings) if halves else _outcomes(a[0] > 0, b[0] > 0, settings)
    except InvalidData as error:
        d = a.mean(axis=0) - b.mean(axis=0)
        return _untestable(error.what, d, (int((d > 0).sum()), int((d < 0).sum())), (len(a), len(b)))


def _untestable(
    why: str, d: Float64, only: tuple[int, int] | tuple[None, None], seeds: tuple[int, int] = (1, 1)
) -> Finding:
    """The difference alone, where the data allow no error to be estimated."""
    return Finding(
        n=len(d),
        only_a=only[0],
        only_b=only[1],
        difference=float(d.mean()),
        interval=None,
        p=None,
        p_equivalence=None,
        variance=0.0,
        method="none",
        seeds=seeds,
        remark=why,
    )


def _outcomes(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], settings: Settings) -> Finding:
    counts = count_pairs(a, b)
    smoothed = (counts.only_a + counts.only_b + 0.5) / (counts.n + 1)  # none seen is not none there
    return Finding(
        n=counts.n,
        only_a=counts.only_a,
        only_b=counts.only_b,
        difference=counts.difference,
        interval=newcombe_paired(counts, settings.confidence),
        p=mcnemar(counts.only_a, counts.only_b),
        p_equivalence=equivalence(counts, settings.margin),
        variance=max(smoothed - counts.difference**2, smoothed / counts.n),
        method="McNemar mid-p; Newcombe's paired interval",
        remark="no pair differs: the interval says how much could have been missed" if counts.discordance == 0 else "",
    )


def _half_credits(a: Float64, b: Float64, tasks: npt.NDArray[np.int64], settings: Settings) -> Finding:
    d = a - b
    if len(d) < 2:
        raise InvalidData("one pair with half credits says nothing", do="roll out more")
    return Finding(
        n=len(d),
        only_a=int((d > 0).sum()),
        only_b=int((d < 0).sum()),
        difference=float(d.mean()),
        interval=bootstrap(d, tasks, confidence=settings.confidence),
        p=sign_flip(d),
        p_equivalence=credit_equivalence(d, settings.margin),
        variance=max(float(d.var(ddof=1)), 0.5 / (len(d) + 1)),
        method="sign flips, mid-p; paired bootstrap within tasks",
        remark="no pair differs" if not d.any() else "",
    )


def _several_seeds(a: Float64, b: Float64, settings: Settings) -> Finding:
    compared = compare_seeds(a, b, settings.confidence)
    d = a.mean(axis=0) - b.mean(axis=0)
    return Finding(
        n=a.shape[1],
        only_a=int((d > 1e-9).sum()),
        only_b=int((d < -1e-9).sum()),
        difference=compared.difference,
        interval=compared.interval,
        p=compared.p,
        p_equivalence=compared.equivalence(settings.margin),
        variance=0.0,
        method="t over seeds and initial states, crossed",
        seeds=(len(a), len(b)),
        episode_se=compared.episode_se,
        seed_se=compared.seed_se,
        p_checkpoints=compared.p_checkpoints,
        components=compared.components,
    )


def compare_tasks(a: Float64, b: Float64, settings: Settings) -> Finding:
    """Compare success a task (S, T), T tasks, with the task as the unit: what other tasks of the kind would show.

    Each task counts once, however many starts it has; with several trainings they are crossed with the tasks.
    """
    d = a.mean(axis=0) - b.mean(axis=0)
    only = int((d > 1e-9).sum()), int((d < -1e-9).sum())
    try:
        if len(a) > 1:
            return replace(_several_seeds(a, b, settings), method="t over seeds and tasks, crossed")
        interval, p = t_of_mean(d, settings.confidence)
    except InvalidData as error:
        return _untestable(error.what, d, only, (len(a), len(b)))
    return replace(
        _untestable("", d, only),
        interval=interval,
        p=p,
        p_equivalence=credit_equivalence(d, settings.margin),
        variance=float(d.var(ddof=1)),
        method="t over tasks",
    )


def compare_unpaired(a: Float64, b: Float64, settings: Settings) -> Finding:
    """Compare scores (N,) and (M,) of episodes that share nothing."""
    halves = ((a == 0.5).any() or (b == 0.5).any()) and min(len(a), len(b)) > 1
    try:
        interval, p, p_equivalence, method = (_means if halves else _rates)(a, b, settings)
    except InvalidData as error:
        return _untestable(error.what, np.full(len(a), a.mean() - b.mean()), (None, None))
    return Finding(
        n=len(a),
        only_a=None,
        only_b=None,
        difference=float(a.mean() - b.mean()),
        interval=interval,
        p=p,
        p_equivalence=p_equivalence,
        variance=float(a.var() + b.var()),
        method=method,
    )


def _means(a: Float64, b: Float64, settings: Settings) -> tuple[tuple[float, float], float, float, str]:
    compared = welch(a, b, settings.confidence, settings.margin)
    return compared.interval, compared.p, compared.p_equivalence, "Welch's t, unpaired"


def _rates(a: Float64, b: Float64, settings: Settings) -> tuple[tuple[float, float], float, float, str]:
    counts = int((a > 0).sum()), len(a), int((b > 0).sum()), len(b)
    method = "N - 1 chi-squared; Newcombe's unpaired interval"
    p_equivalence = unpaired_equivalence(*counts, settings.margin)
    return newcombe(*counts, settings.confidence), unpaired_p(*counts), p_equivalence, method


def needed(finding: Finding, settings: Settings, family: int) -> float:
    """Rollouts of each at which an answer is likely; inf: no number. Several trainings: `trainings_needed`.

    For a difference as large as the one seen, or for equivalence where it is inside the margin, whichever is sooner,
    at the level that the first of `family` comparisons must pass.
    """
    if finding.components is not None:
        return trainings_needed(finding, settings, family, finding.n)
    options = {"alpha": settings.alpha / family, "power": settings.power}
    d, variance = abs(finding.difference), max(finding.variance, 1e-6)
    same = _until_equivalent(finding, settings, family)
    if not finding.method.startswith("McNemar") or variance + d * d > 1:
        return min(same, rollouts_mean(d, variance, **options))
    return min(same, rollouts_paired(d, max(variance + d * d, abs(d)), **options))


def trainings_needed(finding: Finding, settings: Settings, family: int, n_states: int) -> float:
    """The same in trainings of each, all evaluated on n_states initial states: more states need fewer trainings."""
    assert finding.components is not None  # noqa: S101  of several trainings
    options = {"alpha": settings.alpha / family, "power": settings.power}
    differ, same = abs(finding.difference), settings.margin - abs(finding.difference)
    return min(
        finding.components.trainings(differ, n_states, sides=2, **options) if differ else inf,
        finding.components.trainings(same, n_states, sides=1, **options) if same > 0 else inf,
    )


def more_states(finding: Finding, settings: Settings, family: int) -> tuple[float, int]:
    """(trainings of each, states): the first of 500, 1,000, ... states that halves the trainings or makes them finite.

    (inf, 0) where no number of states up to 10,000 does.
    """
    here = needed(finding, settings, family)
    for n_states in (500, 1000, 2000, 5000, 10_000):
        if n_states > finding.n:
            there = trainings_needed(finding, settings, family, n_states)
            if there <= here / 2 and there < inf:
                return there, n_states
    return inf, 0


def _until_equivalent(finding: Finding, settings: Settings, family: int) -> float:
    """The evidence for equivalence, as a normal score, grows with the root of the rollouts; inf: never enough."""
    if finding.p_equivalence is None or finding.p_equivalence >= 0.5:
        return inf
    wanted = float(ndtri(1 - settings.alpha / family) + ndtri(settings.power)) ** 2
    return ceil(finding.n * wanted / float(ndtri(max(finding.p_equivalence, 1e-300))) ** 2)
