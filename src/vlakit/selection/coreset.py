"""k-center greedy: each pick is what lies farthest from everything taken before it.

Source: Sener and Savarese 2018; the amortised form is that of "Mind Your Outliers": fewer dimensions, stale distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlakit.errors import ConfigError, InvalidData
from vlakit.schema import Float64

PCA, UPDATES = 32, 20  # the original's defaults


@dataclass(frozen=True)
class Amortised:
    """How a large pool is done: features reduced to `pca` dimensions, distances renewed `updates` times a round."""

    pca: int = PCA
    updates: int = UPDATES

    def batches(self, n: int) -> list[int]:
        """How many picks share a vector of distances; the last takes the remainder, so that n < updates is one batch.

        >>> Amortised(updates=4).batches(10), Amortised(updates=4).batches(3)
        ([2, 2, 2, 4], [0, 0, 0, 3])
        """
        return [n // self.updates] * (self.updates - 1) + [n // self.updates + n % self.updates]


@dataclass(frozen=True)
class Picks:
    """Positions in the pool in the order of picking. tied: of these, how many repeat a feature that was taken."""

    positions: list[int]
    tied: int


def k_center(
    features: np.ndarray,
    taken: Sequence[int],
    n: int,
    *,
    rng: np.random.Generator | None = None,
    amortised: Amortised | None = None,
) -> Picks:
    """n further positions of features (N, D), given those that are taken; of equal distances the first position.

    Where only copies of what is taken are left, rng chooses among them (None: the first). With nothing taken the
    first pick is the one farthest from the mean. Raises InvalidData, ConfigError.
    """
    points = np.asarray(features, np.float64)
    _check(points, taken, n)
    points = points if amortised is None else reduced(points, amortised.pca)
    free = np.ones(len(points), bool)
    free[list(taken)] = False
    distances = squared_distances(points, points[list(taken)]) if len(taken) else _from_mean(points)
    positions: list[int] = []
    tied = 0
    for size in [1] * n if amortised is None else amortised.batches(n):
        batch: list[int] = []
        for _ in range(size):
            pick = _farthest(distances, free, rng)
            tied += bool(distances[pick] <= 0)
            free[pick] = False
            batch.append(pick)
        if batch:
            first = not taken and not positions
            nearer = squared_distances(points, points[batch])
            distances = nearer if first else np.minimum(distances, nearer)
            positions += batch
    return Picks(positions, tied)


def squared_distances(points: Float64, centers: Float64) -> Float64:
    """(N, D) and (M, D) -> (N,) squared distance to the nearest centre; exactly 0 for a copy of one."""
    nearest = np.full(len(points), np.inf)
    for center in centers:  # differences, not products: those leave 1e-14 between copies
        np.minimum(nearest, ((points - center) ** 2).sum(axis=1), out=nearest)
    return nearest


def reduced(points: Float64, n_components: int) -> Float64:
    """(N, D) -> (N, n_components) principal components; as it is where it has no more dimensions than that."""
    if n_components >= min(points.shape):
        return points
    centered = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    return centered @ axes[:n_components].T


def _from_mean(points: Float64) -> Float64:
    return squared_distances(points, points.mean(axis=0, keepdims=True))


def _farthest(distances: Float64, free: np.ndarray, rng: np.random.Generator | None) -> int:
    open_distances = np.where(free, distances, -1.0)
    pick = int(open_distances.argmax())
    if open_distances[pick] > 0 or rng is None:
        return pick
    return int(rng.choice(np.flatnonzero(free)))


def _check(points: Float64, taken: Sequence[int], n: int) -> None:
    if points.ndim != 2 or not np.isfinite(points).all():
        raise InvalidData(
            f"features of shape {points.shape}, all finite: {bool(np.isfinite(points).all())}",
            where="core-set",
            do="give one row of finite numbers for each demonstration",
        )
    check_size(n, len(points) - len(set(taken)))


def check_size(n: int, available: int) -> None:
    """Raise ConfigError where more is asked for than the pool still has, or less than one."""
    if not 1 <= n <= available:
        raise ConfigError(
            f"{n} demonstrations are asked for, {available} of the pool are not taken yet",
            where="acquisition",
            do=f"ask for 1 to {available}" if available else "the pool is used up: give a larger one",
        )
