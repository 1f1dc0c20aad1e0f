"""What the two stages on scenes share: running means, and the check that the data are scenes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning import Trainer
from torch import Tensor
from vlakit.data.scene_data import SceneData
from vlakit.data.scenes import SceneFolder

from vlakit.errors import ConfigError


class Means:
    """Means of named values (n,) over batches, each value counting once."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, int]] = {}

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of a batch."""
        for name, some in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + float(some.double().sum()), count + some.numel())

    def compute(self) -> dict[str, Tensor]:
        """All means since the last call, which are then forgotten."""
        means = {name: torch.tensor(total / max(1, count)) for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means


def scene_data(trainer: Trainer, strategy: str) -> SceneData:
    """The trainer's data; ConfigError when they are not scenes."""
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  set by Trainer.fit
    if not isinstance(data, SceneData):
        raise ConfigError(
            f"the strategy {strategy!r} learns from scenes, not from demonstrations",
            where="data",
            do="add data=tabletop_scenes, or choose experiment=tiny_towers or tiny_grounding",
        )
    return data


def check_scenes(trainer: Trainer, strategy: str) -> SceneFolder:
    """The scenes that the trainer's data hold."""
    return scene_data(trainer, strategy).scenes
