"""What a conversion refuses in an episode, and what it only notes of a dataset, because training would not say it.

A column that is not normalised must lie in [-1, 1]: beyond, action tokens clip it without a word.
"""

from __future__ import annotations

import math

import numpy as np

from vlakit.data.shards.statistics import default_mask
from vlakit.data.specs.spec import DatasetSpec
from vlakit.errors import InvalidData
from vlakit.schema import DatasetStatistics, Float32, Trajectory

_OVER = 1e-3  # beyond 1 that rounding may leave
_TENTH = 0.2  # of the range from -1 to 1
_USUAL = (2, 3, 4, 5, 10, 100, 255, 1000)  # what readings are divided by


def check_trajectory(trajectory: Trajectory, spec: DatasetSpec, where: str) -> None:
    """Raise InvalidData for proprio that is not finite and for action columns that tokens would clip."""
    for key, values in trajectory.proprio.items():
        broken = np.argwhere(~np.isfinite(values))
        if len(broken):
            step, column = broken[0].tolist()
            raise InvalidData(
                f"proprio {key!r} of step {step} is {values[step, column]} in column {column}",
                where=where,
                do="drop this trajectory or repair the recording",
            )
    mask = np.array(spec.mask) if spec.mask else default_mask(trajectory.action.shape[1])
    _check_range(trajectory.action, mask, where)


def _check_range(action: Float32, mask: np.ndarray, where: str) -> None:
    beyond = np.argwhere((np.abs(action) > 1 + _OVER) & ~mask)
    if not len(beyond):
        return
    column = int(beyond[0, 1])
    bound = float(np.abs(action[:, column]).max())
    raise InvalidData(
        f"column {column} of the action reaches {bound:g}; it is not normalised (mask: false), and tokens end at 1",
        where=where,
        do=f"add ops: [divide:{divisor(bound)}] to its segment of action in the spec, or set mask: true for it",
    )


def divisor(bound: float) -> int:
    """What readings up to `bound` are divided by to end at 1: a usual number where one comes next."""
    return next((number for number in _USUAL if bound <= number), math.ceil(bound))


def notes(statistics: DatasetStatistics) -> tuple[str, ...]:
    """What a person should know of the action's columns before training on them; nothing of those that are as usual."""
    found: list[str] = []
    for column, normalised in enumerate(statistics.mask.tolist()):
        low, high = float(statistics.min[column]), float(statistics.max[column])
        q01, q99 = float(statistics.q01[column]), float(statistics.q99[column])
        if not normalised and 0 < high - low <= _TENTH:
            found.append(
                f"column {column} of the action is not normalised and uses only {low:g} to {high:g} of -1 to 1:"
                " scale it with an op of the spec, or set mask: true for it"
            )
        if normalised and q01 == q99 and low < high:
            found.append(
                f"column {column} of the action is {q01:g} at its 1 % and its 99 % quantile and reaches {low:g} to"
                f" {high:g}: all of it comes back as {q01:g}; set mask: false for it to keep its motion"
            )
    return tuple(found)
