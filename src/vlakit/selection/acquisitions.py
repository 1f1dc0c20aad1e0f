"""The eight acquisitions by name: what each must know of the pool, and which demonstrations it takes.

A demonstration is one item of the pool, whatever its length: its frames are not independent, and none is bought alone.
Only random and the core-sets look at the batch as a whole; the others take the highest scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from vlakit.errors import ConfigError, PartMissing, nearest
from vlakit.schema import Float64
from vlakit.selection.coreset import Amortised, Picks, check_size, k_center
from vlakit.selection.uncertainty import MONTE_CARLO, SINGLE, check_passes, probabilities

Need: TypeAlias = Literal["nothing", "answers", "passes", "vision", "language", "fused"]
ACQUISITIONS: dict[str, Need] = {
    "random": "nothing",
    "least_conf": "answers",
    "entropy": "answers",
    "mc_entropy": "passes",
    "bald": "passes",
    "coreset_fused": "fused",
    "coreset_vision": "vision",
    "coreset_language": "language",
}


@dataclass(frozen=True)
class Outlook:
    """What a policy says of N demonstrations that it has not learnt from: no label is in it.

    log_probs (N, L, C) of its greedy answers; passes (K, N, L, C) the same under K dropout masks; features: name ->
    (N, D). Only what an acquisition needs is there.
    """

    log_probs: np.ndarray | None = None
    passes: np.ndarray | None = None
    features: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


@dataclass(frozen=True)
class Acquisition:
    """One way to choose. amortised: how core-sets are shortened; average: least_conf by the mean, not the product.

    Raises ConfigError for a name that is none of the eight.
    """

    name: str = "random"
    amortised: Amortised | None = None
    average: bool = False

    def __post_init__(self) -> None:
        if self.name not in ACQUISITIONS:
            raise ConfigError(
                f"no acquisition called {self.name!r}", where="acquisition", do=nearest(self.name, ACQUISITIONS)
            )

    @property
    def needs(self) -> Need:
        """What an outlook must hold."""
        return ACQUISITIONS[self.name]

    def scores(self, outlook: Outlook) -> Float64:
        """(N,) the higher, the sooner acquired. Raises InvalidData for identical passes, PartMissing."""
        if self.needs == "passes":
            if outlook.passes is None:
                raise _missing(self)
            check_passes(outlook.passes)
            return MONTE_CARLO[self.name](probabilities(outlook.passes))
        if outlook.log_probs is None:
            raise _missing(self)
        return SINGLE[f"{self.name}_mean" if self.average else self.name](probabilities(outlook.log_probs))

    def choose(self, outlook: Outlook, taken: Sequence[int], n_pool: int, n: int, rng: np.random.Generator) -> Picks:
        """n further positions of a pool of n_pool, of which `taken` are labelled. Raises ConfigError, InvalidData."""
        check_size(n, n_pool - len(set(taken)))
        if self.needs == "nothing":
            free = np.setdiff1d(np.arange(n_pool), np.asarray(taken, int))
            return Picks([int(pick) for pick in rng.permutation(free)[:n]], 0)
        if self.needs in ("answers", "passes"):
            return Picks(highest(self.scores(outlook), taken, n, rng), 0)
        if self.needs not in outlook.features:
            raise _missing(self)
        return k_center(outlook.features[self.needs], taken, n, rng=rng, amortised=self.amortised)


def highest(scores: Float64, taken: Sequence[int], n: int, rng: np.random.Generator) -> list[int]:
    """Positions of the n highest scores (N,) that are not taken, highest first; rng decides among equal ones.

    A partition would leave equal scores in an order of its own.
    """
    check_size(n, len(scores) - len(set(taken)))
    order = np.lexsort((rng.random(len(scores)), -scores))
    known = set(taken)
    return [int(position) for position in order if position not in known][:n]


def _missing(acquisition: Acquisition) -> PartMissing:
    return PartMissing(
        f"acquisition={acquisition.name} needs the policy's {acquisition.needs}, which it does not give",
        where=f"acquisition={acquisition.name}",
        do="take random, or a policy whose network has it: models.network.Distribution, Represents",
    )
