"""Who attends to whom: task tokens, then for each timestep its observations and its readouts.

Within the task, and within the observations of one timestep, all see each other: order counts between timesteps alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TASK, OBSERVATION, READOUT = 0, 1, 2  # kinds of tokens; READOUT + i is the i-th readout


@dataclass(frozen=True)
class Layout:
    """Tokens of the task; of each group of observations and of each readout, by name, a timestep; the window W."""

    task: int
    observations: Mapping[str, int]
    readouts: Mapping[str, int]
    window: int

    @property
    def tokens(self) -> int:
        """Of the whole sequence."""
        return self.task + self.window * sum([*self.observations.values(), *self.readouts.values()])


def attention_table(layout: Layout, *, off_by_one: bool = False) -> Tensor:
    """(n, n) bool, row = attending token: nothing sees the future, and no task or observation sees a readout.

    A readout sees task, observations and itself, at its own timestep and before. off_by_one: the rule of the released
    checkpoints, where the first token of each group of a timestep obeys the rules of the group before it, so that
    observations do see a readout (octo issue 75).
    """
    kinds = [OBSERVATION] * len(layout.observations) + [READOUT + i for i in range(len(layout.readouts))]
    sizes = [*layout.observations.values(), *layout.readouts.values()]
    step = np.array(kinds)[_group_of(sizes, off_by_one)]
    kind = np.concatenate([np.full(layout.task, TASK), np.tile(step, layout.window)])
    time = np.concatenate([np.full(layout.task, -1), np.repeat(np.arange(layout.window), len(step))])
    asking, asked = kind[:, None], kind[None]
    seen = (asked == TASK) | ((asked == OBSERVATION) & (asking != TASK)) | (asked == asking)
    return torch.from_numpy(seen & (time[None] <= time[:, None]))


def _group_of(sizes: Sequence[int], off_by_one: bool) -> np.ndarray:
    """The group of each token of a timestep.

    >>> _group_of([2, 1], off_by_one=False).tolist(), _group_of([2, 1], off_by_one=True).tolist()
    ([0, 0, 1], [0, 0, 0])
    """
    side = "left" if off_by_one else "right"
    return np.searchsorted(np.cumsum(sizes), np.arange(sum(sizes)), side=side)
