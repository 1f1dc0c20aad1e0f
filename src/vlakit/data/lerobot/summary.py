"""Statistics as LeRobot keeps them: one a column, of a camera one a channel in 0..1, (3, 1, 1)."""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_LEVELS = np.arange(256) / 255


def of_numbers(values: np.ndarray) -> dict[str, Any]:
    """Of rows (T,) or (T, D): lists of D, exact, and the count of rows."""
    columns = values.reshape(len(values), -1).astype(np.float64)
    found = {"min": columns.min(0), "max": columns.max(0), "mean": columns.mean(0), "std": columns.std(0)}
    found |= {name: np.quantile(columns, share, axis=0) for name, share in QUANTILES.items()}
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(columns)]}


class Picture:
    """Counts the levels of each channel, from which all that LeRobot asks follows exactly."""

    def __init__(self) -> None:
        self.levels = np.zeros((3, 256), np.int64)
        self.n_pictures = 0

    def add(self, picture: np.ndarray) -> None:
        """One (H, W, 3) uint8."""
        for channel in range(3):
            self.levels[channel] += np.bincount(picture[..., channel].ravel(), minlength=256)
        self.n_pictures += 1

    def merge(self, other: Picture) -> None:
        """Add what another one counted."""
        self.levels += other.levels
        self.n_pictures += other.n_pictures

    def summary(self) -> dict[str, Any]:
        """Lists of shape (3, 1, 1), and how many pictures were counted."""
        total = self.levels.sum(axis=1)
        mean = self.levels @ _LEVELS / total
        spread = np.sqrt(np.maximum(self.levels @ _LEVELS**2 / total - mean**2, 0))
        found = {"min": self._quantile(0.0), "max": self._quantile(1.0), "mean": mean, "std": spread}
        found |= {name: self._quantile(share) for name, share in QUANTILES.items()}
        return {**{name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}, "count": [self.n_pictures]}

    def _quantile(self, share: float) -> np.ndarray:
        below = self.levels.cumsum(axis=1)
        wanted = np.maximum(np.ceil(share * below[:, -1:]), 1)
        return _LEVELS[(below >= wanted).argmax(axis=1)]
