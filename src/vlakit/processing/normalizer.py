"""Physical units to [-1, 1] and back, usually by the 1 % and 99 % quantiles; the gripper passes through unchanged.

A column that never changes is learnt as 0, as in OpenVLA, and comes back as the constant that it is.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from vlakit.errors import InvalidData
from vlakit.processing.linear import Linear
from vlakit.schema import Bool, DatasetStatistics, Float32, Float64

# Name -> names of the two bounds, and what is added to their distance on the way back. On the way there all add 1e-8.
# OpenVLA's code comes back by the quantiles alone; OpenVLA-OFT's adds it again, and takes extremes for some robots.
NORMALIZATIONS = {"openvla": ("q01", "q99", 0.0), "bounds_q99": ("q01", "q99", 1e-8), "bounds": ("min", "max", 1e-8)}
# Diffusion Policy's: extremes, of the gripper as well; nothing is clipped, and a narrow column is shifted alone.
LIMITS = "limits"
NORMALIZATIONS[LIMITS] = ("min", "max", 0.0)


def bounds_of(statistics: DatasetStatistics, normalization: str = "openvla") -> tuple[Float64, Float64]:
    """The values (A,) that become -1 and +1."""
    low, high, _ = NORMALIZATIONS[normalization]
    bounds = getattr(statistics, low), getattr(statistics, high)
    return Linear.of_range(*bounds).bounds if normalization == LIMITS else bounds


def mask_of(statistics: DatasetStatistics, normalization: str = "openvla") -> Bool:
    """Which columns (A,) are normalised."""
    return np.ones_like(statistics.mask) if normalization == LIMITS else statistics.mask


def normalize(actions: npt.ArrayLike, statistics: DatasetStatistics, normalization: str = "openvla") -> Float32:
    """Map actions (..., A) from physical units to [-1, 1], clipped, where the mask says so; others stay as they are.

    Dimensions that never change (min == max) become 0. Source: OpenVLA's BOUNDS_Q99 normalisation.
    """
    values = _checked(actions, "an action", len(statistics.q01))
    scaled = _scaled(values, *bounds_of(statistics, normalization), clipped=normalization != LIMITS)
    result = np.where(mask_of(statistics, normalization), scaled, values)
    return np.where(statistics.min == statistics.max, 0.0, result).astype(np.float32)


def normalize_proprio(values: npt.ArrayLike, statistics: DatasetStatistics, normalization: str = "openvla") -> Float32:
    """Map proprio (..., P) from the dataset's units to [-1, 1], clipped; numbers that never change become 0.

    Raises InvalidData for another size than the statistics have. Source: OpenVLA-OFT.
    """
    known = statistics.proprio or dict.fromkeys(("q01", "q99", "min", "max"), np.zeros(0))
    numbers = _checked(values, "proprio", len(known["q01"]))
    bounds = [known[name] for name in NORMALIZATIONS[normalization][:2]]
    if normalization == LIMITS:
        return Linear.of_range(*bounds).there(numbers)
    scaled = _scaled(numbers, *bounds, clipped=True)
    return np.where(known["min"] == known["max"], 0.0, scaled).astype(np.float32)


def unnormalize(normalized: npt.ArrayLike, statistics: DatasetStatistics, normalization: str = "openvla") -> Float32:
    """Map (..., A) in [-1, 1] back to physical units where the mask says so; constants whatever was predicted.

    What lies outside, as a head of numbers may answer, is not clipped.
    """
    values = _checked(normalized, "an action", len(statistics.q01))
    low, high = bounds_of(statistics, normalization)
    physical = 0.5 * (values + 1) * (high - low + NORMALIZATIONS[normalization][2]) + low
    return with_constants(np.where(mask_of(statistics, normalization), physical, values), statistics).astype(np.float32)


def _scaled(values: Float64, low: Float64, high: Float64, *, clipped: bool) -> Float64:
    if clipped:
        return (2 * (values - low) / (high - low + 1e-8) - 1).clip(-1.0, 1.0)
    return 2 * (values - low) / (high - low) - 1


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
