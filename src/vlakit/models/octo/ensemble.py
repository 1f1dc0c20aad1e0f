"""Several chunks foresee the present step: their weighted mean is what is done (Zhao et al. 2023, arXiv 2304.13705)."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from vlakit.errors import ConfigError


class TemporalEnsemble:
    """Remembers the last `chunk` answers (H, A); the i-th oldest weighs exp(-weight i): the oldest most of all.

    >>> ensemble = TemporalEnsemble(2, weight=0.0)
    >>> [float(ensemble.action(np.array([[a], [b]]))[0]) for a, b in ((0, 1), (3, 5), (5, 5))]
    [0.0, 2.0, 5.0]
    """

    def __init__(self, chunk: int, weight: float = 0.0) -> None:
        if chunk < 1:
            raise ConfigError(
                f"an ensemble of {chunk} chunks", where="ensemble", do="give the policy's chunk, 1 or more"
            )
        self.weight = weight
        self.chunks: deque[npt.NDArray[np.floating]] = deque(maxlen=chunk)

    def action(self, chunk: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """The action (A,) of this step, for which the policy has just answered (H, A)."""
        self.chunks.append(chunk)
        n = len(self.chunks)
        foreseen = np.stack([one[n - 1 - i] for i, one in enumerate(self.chunks)])  # (n, A), oldest first
        weights = np.exp(-self.weight * np.arange(n))
        return (weights / weights.sum()) @ foreseen

    def reset(self) -> None:
        """An episode began."""
        self.chunks.clear()
