"""Physical units to [-1, 1] and back, usually by the 1 % and 99 % quantiles; the gripper passes through unchanged.

A column that never changes is learnt as 0, as in OpenVLA, and comes back as the constant that it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlakit.errors import InvalidData
from vlakit.processing.linear import NARROW, Linear
from vlakit.schema import Bool, DatasetStatistics, Float32, Float64

_KNOWN = ("q01", "q99", "min", "max", "mean", "std")


@dataclass(frozen=True)
class Normalization:
    """Two statistics become -1 and +1; columns without the mask stay as they are.

    limit: values are clipped to it. back: added to the distance on the way back; on the way there all add 1e-8.
    OpenVLA's code comes back by the quantiles alone; OpenVLA-OFT's adds it again, and takes extremes for some robots.
    """

    low: str = "q01"
    high: str = "q99"
    back: float = 0.0
    limit: float = 1.0

    def bounds(self, numbers: Mapping[str, Float64]) -> tuple[Float64, Float64]:
        """The values (A,) that become -1 and +1."""
        return numbers[self.low], numbers[self.high]

    def mask(self, statistics: DatasetStatistics) -> Bool:
        """Which columns (A,) of an action are normalised."""
        return statistics.mask

    def there(self, values: Float64, numbers: Mapping[str, Float64]) -> Float64:
        """(..., A) in [-1, 1], if that is the limit; 0 in columns that never change."""
        low, high = self.bounds(numbers)
        scaled = 2 * (values - low) / (high - low + 1e-8) - 1
        return np.where(numbers["min"] == numbers["max"], 0.0, scaled.clip(-self.limit, self.limit))


class Moments(Normalization):
    """Octo's: mean 0 and deviation 1, so that the bounds are a deviation from the mean; nothing is clipped."""

    def bounds(self, numbers: Mapping[str, Float64]) -> tuple[Float64, Float64]:
        """See Normalization."""
        return numbers["mean"] - numbers["std"], numbers["mean"] + numbers["std"]


@dataclass(frozen=True)
class Limits(Normalization):
    """Diffusion Policy's: extremes, of the gripper too; nothing is clipped, and a `narrow` column is shifted alone."""

    narrow: float = NARROW

    def bounds(self, numbers: Mapping[str, Float64]) -> tuple[Float64, Float64]:
        """See Normalization."""
        return self._linear(numbers).bounds

    def mask(self, statistics: DatasetStatistics) -> Bool:
        """See Normalization."""
        return np.ones_like(statistics.mask)

    def there(self, values: Float64, numbers: Mapping[str, Float64]) -> Float64:
        """See Normalization; what a narrow column is away from its lowest value."""
        return self._linear(numbers).there(values).astype(np.float64)

    def _linear(self, numbers: Mapping[str, Float64]) -> Linear:
        return Linear.of_range(numbers["min"], numbers["max"], narrow=self.narrow)


LIMITS = "limits"
TOLD_LIMITS = "told_limits"  # of the original's normalisers made from statistics, as its image policies have them
NORMALIZATIONS = {
    "openvla": Normalization(),
    "bounds_q99": Normalization(back=1e-8),
    "bounds": Normalization("min", "max", back=1e-8),
    "normal": Moments(limit=np.inf),
    LIMITS: Limits(),
    TOLD_LIMITS: Limits(narrow=1e-7),
}


def bounds_of(statistics: DatasetStatistics, normalization: str = "openvla") -> tuple[Float64, Float64]:
    """The values (A,) that become -1 and +1."""
    return NORMALIZATIONS[normalization].bounds(_numbers(statistics))


def mask_of(statistics: DatasetStatistics, normalization: str = "openvla") -> Bool:
    """Which columns (A,) are normalised."""
    return NORMALIZATIONS[normalization].mask(statistics)


def normalize(actions: npt.ArrayLike, statistics: DatasetStatistics, normalization: str = "openvla") -> Float32:
    """Map actions (..., A) from physical units to [-1, 1] where the mask says so; others stay as they are.

    Dimensions that never change (min == max) become 0. Source: OpenVLA's BOUNDS_Q99 normalisation.
    """
    values, numbers = _checked(actions, "an action", len(statistics.q01)), _numbers(statistics)
    kind = NORMALIZATIONS[normalization]
    result = np.where(kind.mask(statistics), kind.there(values, numbers), values)
    return np.where(statistics.min == statistics.max, 0.0, result).astype(np.float32)


def normalize_proprio(values: npt.ArrayLike, statistics: DatasetStatistics, normalization: str = "openvla") -> Float32:
    """Map proprio (..., P) from the dataset's units to [-1, 1]; numbers that never change become 0.

    Raises InvalidData for another size than the statistics have. Source: OpenVLA-OFT.
    """
    known = statistics.proprio or dict.fromkeys(_KNOWN, np.zeros(0))
    numbers = _checked(values, "proprio", len(known["q01"]))
    return NORMALIZATIONS[normalization].there(numbers, known).astype(np.float32)


def unnormalize(normalized: npt.ArrayLike, statistics: DatasetStatistics, normalization: str = "openvla") -> Float32:
    """Map (..., A) in [-1, 1] back to physical units where the mask says so; constants whatever was predicted.

    What lies outside, as a head of numbers may answer, is not clipped.
    """
    values = _checked(normalized, "an action", len(statistics.q01))
    low, high = bounds_of(statistics, normalization)
    physical = 0.5 * (values + 1) * (high - low + NORMALIZATIONS[normalization].back) + low
    return with_constants(np.where(mask_of(statistics, normalization), physical, values), statistics).astype(np.float32)


def _numbers(statistics: DatasetStatistics) -> dict[str, Float64]:
    return {name: getattr(statistics, name) for name in _KNOWN}


def with_constants(actions: npt.NDArray[Any], statistics: DatasetStatistics) -> npt.NDArray[Any]:
    """Physical actions (..., A) with the columns that never change (min == max) at their one value."""
    return np.where(statistics.min == statistics.max, statistics.min, actions)


def distance(actions: Float32, others: Float32, statistics: DatasetStatistics) -> Float32:
    """How far physical actions (..., A) are apart in normalised units; in physical ones where a column is constant."""
    apart = np.abs(normalize(actions, statistics) - normalize(others, statistics))
    return np.where(statistics.min == statistics.max, np.abs(actions - others), apart).astype(np.float32)


def _checked(numbers: npt.ArrayLike, what: str, size: int) -> npt.NDArray[np.float64]:
    values = np.asarray(numbers, dtype=np.float64)
    if values.shape[-1] != size:
        raise InvalidData(
            f"{what} of {values.shape[-1]} numbers meets statistics of {size}",
            where="normalizer",
            do="use the statistics of this dataset, or convert it again: vlakit shards",
        )
    return values
