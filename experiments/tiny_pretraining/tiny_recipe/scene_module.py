"""What the stages that learn from scenes share: marks that count object by object or word by word, not row by row."""

from __future__ import annotations

from typing import TypeVar

from lightning import Trainer
from torch import Tensor

from tiny_recipe.scene_data import SceneData
from vlakit.errors import ConfigError
from vlakit.schema import Batch
from vlakit.strategies.base import Finetune

DATA = TypeVar("DATA", bound=SceneData)


class SceneModule(Finetune):
    """A stage says its marks of a held-out batch."""

    def marks(self, batch: Batch) -> dict[str, Tensor]:
        """Name -> values (n,), as many as there are objects, words or whatever is marked."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, _: int) -> None:
        """Accumulate the marks, each value counting once."""
        for name, values in self.marks(batch).items():
            self.validation.update({name: values}, [""] * len(values))


def data_of(trainer: Trainer, kind: type[DATA], choice: str, strategy: str) -> DATA:
    """The trainer's data. Raises ConfigError where they are not of this kind, conf/data/`choice`."""
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  set by Trainer.fit
    if not isinstance(data, kind):
        raise ConfigError(
            f"the strategy {strategy!r} learns from scenes, not from demonstrations",
            where="data",
            do=f"add data={choice}, or choose experiment=tiny_towers or tiny_grounding",
        )
    return data
