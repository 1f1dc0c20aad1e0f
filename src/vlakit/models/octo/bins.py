"""Numbers to tokens and back: bins of equal width, or of equal weight under a normal distribution."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from vlakit.errors import ConfigError

EPSILON = 1e-6  # of probability, or of length, that the outermost edges keep away from the ends


class Bins:
    """n bins; their edges (n + 1,) float32 as the original computes them.

    kind uniform: from low to high, beyond which all is of the last bin; normal: the ends are +-4.75, and the original
    puts whatever is beyond them into bin 0, so that +5 comes back as -3.1 for 256 bins. clip=False does as it did.
    """

    def __init__(
        self, n: int, kind: str = "normal", low: float = -5.0, high: float = 5.0, *, clip: bool = True
    ) -> None:
        if kind not in ("uniform", "normal") or n < 2 or low >= high:
            raise ConfigError(
                f"{n} {kind} bins from {low} to {high}",
                where="model.network.head_options",
                do="bins is uniform or normal, n_bins 2 or more, low below high",
            )
        self.n, self.kind, self.low, self.high, self.clip = n, kind, low, high, clip
        if kind == "uniform":
            # Counted times 1 / n in float32, as XLA divides by a constant: 45 / 60 ends above .75 there, and at 60,
            # 120, 240, 500 or 1000 bins a value on an edge falls one bin lower than by exact edges.
            shares = np.arange(n, dtype=np.float32) * (np.float32(1) / np.float32(n))
            edges = np.append(np.float32(low) * (1 - shares) + np.float32(high) * shares, np.float32(high))
        else:
            shares = np.linspace(np.float32(EPSILON), np.float32(1 - EPSILON), n + 1, dtype=np.float32)
            edges = ndtri(shares.astype(np.float64)).astype(np.float32)
        self.edges = torch.from_numpy(edges)  # no buffer: a network in bf16 would round them
        self.centers = (self.edges[1:] + self.edges[:-1]) / 2

    def encode(self, values: Tensor) -> Tensor:
        """Tokens int64 of float32 values of any shape."""
        if self.kind == "uniform":
            values = values.clamp(self.low + EPSILON, self.high - EPSILON)
        tokens = torch.searchsorted(self.edges.to(values.device), values.contiguous().float(), right=True) - 1
        if self.clip:
            return tokens.clamp(0, self.n - 1)
        return tokens.where((tokens >= 0) & (tokens < self.n), 0)

    def decode(self, tokens: Tensor) -> Tensor:
        """The middle of each token's bin."""
        return self.centers.to(tokens.device)[tokens]
