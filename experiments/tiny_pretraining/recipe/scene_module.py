"""What the stages that learn from scenes share: steps on scenes instead of actions."""

from __future__ import annotations

import torch
from torch import Tensor
from vlakit.data.scenes import SceneBatch
from vlakit.strategies.scene_metrics import Means

from vlakit.errors import LossNotFinite
from vlakit.strategies.base import PolicyModule


class SceneModule(PolicyModule):
    """A `PolicyModule` whose batches are scenes; a stage says its loss and what it accumulates in `seen`."""

    seen: Means

    def scene_loss(self, batch: SceneBatch) -> Tensor:
        """The loss of one batch, a scalar."""
        raise NotImplementedError

    def training_step(self, batch: SceneBatch, _: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  scenes, not actions
        """Loss of one batch; one that is not finite stops the run."""
        loss = self.scene_loss(batch)
        if not torch.isfinite(loss):
            raise LossNotFinite(
                f"the loss is {loss.item()} at step {self.global_step}",
                where=f"batch at position {batch.position}",
                do="lower the learning rate",
            )
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True)
        return loss

    def on_validation_epoch_end(self) -> None:
        """Log the means over all held-out scenes."""
        self.log_dict({f"val/{name}": value for name, value in self.seen.compute().items()}, sync_dist=True)
