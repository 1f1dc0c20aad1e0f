"""Linear normalisers, `x * scale + offset`, as Diffusion Policy fits them; a narrow column keeps its scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlakit.schema import Float32, Float64

NARROW = 1e-4  # a column whose range is below this is shifted, not stretched


@dataclass(frozen=True)
class Linear:
    """scale and offset (A,). Nothing is clipped. Source: diffusion_policy/model/common/normalizer.py."""

    scale: Float64
    offset: Float64

    @classmethod
    def of_range(
        cls, low: npt.ArrayLike, high: npt.ArrayLike, *, onto: tuple[float, float] = (-1, 1), narrow: float = NARROW
    ) -> Linear:
        """[low, high] onto `onto`; a narrow column begins at the middle of `onto`."""
        first, last = np.asarray(low, np.float64), np.asarray(high, np.float64)
        is_narrow = last - first < narrow
        scale = (onto[1] - onto[0]) / np.where(is_narrow, onto[1] - onto[0], last - first)
        return cls(scale, np.where(is_narrow, sum(onto) / 2 - first, onto[0] - scale * first))

    @classmethod
    def of_size(cls, size: npt.ArrayLike, *, onto: tuple[float, float] = (-1, 1)) -> Linear:
        """Without an offset: the largest absolute value onto the nearer end of `onto`."""
        largest, end = np.asarray(size, np.float64), min(abs(onto[0]), abs(onto[1]))
        scale = end / np.where(largest < NARROW, end, largest)
        return cls(scale, np.zeros_like(scale))

    @classmethod
    def of_moments(cls, mean: npt.ArrayLike, std: npt.ArrayLike) -> Linear:
        """To mean 0 and deviation 1."""
        deviation = np.asarray(std, np.float64)
        scale = 1 / np.where(deviation < NARROW, 1, deviation)
        return cls(scale, -np.asarray(mean, np.float64) * scale)

    @property
    def bounds(self) -> tuple[Float64, Float64]:
        """What becomes -1, and what becomes 1."""
        return (-1 - self.offset) / self.scale, (1 - self.offset) / self.scale

    def there(self, values: npt.ArrayLike) -> Float32:
        """(..., A) normalised; last axes that make up A together are taken as one."""
        flat = np.asarray(values, np.float64)
        return (flat.reshape(-1, len(self.scale)) * self.scale + self.offset).reshape(flat.shape).astype(np.float32)

    def back(self, normalized: npt.ArrayLike) -> Float32:
        """The opposite."""
        flat = np.asarray(normalized, np.float64)
        return ((flat.reshape(-1, len(self.scale)) - self.offset) / self.scale).reshape(flat.shape).astype(np.float32)
