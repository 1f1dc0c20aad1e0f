"""Other weights from some batch on: OpenVLA's pretraining drops two datasets for its last third."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vlakit.data.specs.spec import load_mixture
from vlakit.errors import ConfigError, nearest
from vlakit.schema import Float64

if TYPE_CHECKING:
    from vlakit.data.stream.mixture import MixtureEntry

_WHOLE = 1 - 1e-12


@dataclass(frozen=True, slots=True)
class Later:
    """From batch `first` on a dataset has this weight; one that is not named comes no more.

    Where a dataset stays, it goes on where it was: its cursor does not know of weights.
    """

    first: int
    weights: Mapping[str, float]

    def bounds(self, n_frames: Mapping[str, int]) -> Float64:
        """Where a number drawn from [0, 1) changes from one dataset to the next; n_frames: of each, in order.

        Raises ConfigError for a dataset that is not among them, a weight or a batch that cannot be.
        """
        strange = [name for name in self.weights if name not in n_frames]
        if strange:
            what = f"the later mixture names {strange[0]!r}, which the first one lacks"
            raise ConfigError(what, where="data.later.mixture", do=nearest(strange[0], n_frames))
        sizes = np.array([self.weights.get(name, 0.0) * n for name, n in n_frames.items()], np.float64)
        if self.first < 1 or not np.isfinite(sizes).all() or sizes.min() < 0 or not sizes.sum():
            what = f"from batch {self.first} on the weights are {dict(self.weights)}"
            raise ConfigError(what, where="data.later", do="give weights above 0, and a step of at least 1")
        bounds = np.cumsum(sizes / sizes.sum())[:-1]
        return np.where(bounds >= _WHOLE, 2.0, bounds)  # behind the last dataset with a weight comes none


def chosen(
    options: Mapping[str, Any], entries_of: Callable[[Mapping[str, float]], Sequence[MixtureEntry]], batches_a_step: int
) -> Later | None:
    """The change that `data.later` asks for, {mixture: NAME or weights, step: N}; None for none.

    entries_of: weights -> all that is drawn from, questions with their share. Raises ConfigError for one half of it,
    and for weights that change nothing: of questions, or where no robot data is drawn.
    """
    mixture, step = options.get("mixture"), options.get("step")
    if mixture is None and step is None:
        return None
    if mixture is None or step is None:
        remedy = "data.later={mixture: NAME, step: N}"
        raise ConfigError("of a later mixture only one half is given", where="data.later", do=remedy)
    weights = load_mixture(mixture).datasets if isinstance(mixture, str) else dict(mixture)
    drawn = {entry.dataset: entry.weight for entry in entries_of(weights)}
    idle = [name for name, weight in weights.items() if drawn.get(name, weight) != weight]
    if idle or (any(drawn.values()) and not weights.keys() & drawn.keys()):
        what = f"a weight for the questions {idle[0]!r}" if idle else "a later mixture, and no robot data is drawn"
        raise ConfigError(what, where="data.later", do="the share of questions is data.mix.robot's, throughout")
    return Later(step * batches_a_step, {**weights, **drawn})
