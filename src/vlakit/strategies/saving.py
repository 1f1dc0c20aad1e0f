"""Checkpoints appear whole or not at all: Lightning's own writer copies across devices and can leave half a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from vlakit.files import atomic_writer


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes, then renames; on a full disk the checkpoint before stays as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`; raises DiskFull, and then leaves nothing behind."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(target) as stream:
            torch.save(checkpoint, stream)


class LastCheckpoint(ModelCheckpoint):
    """The newest state, every so many steps, behind the validation of its step: its points are on record by then.

    metrics: what that validation measured; a run that was killed behind its last step has them from its checkpoint.
    """

    metrics: dict[str, float] = {}  # noqa: RUF012  replaced, never changed

    @property
    def state_key(self) -> str:
        """Lightning's, which stands in checkpoints of before."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write where no validation follows."""
        if not trainer.enable_validation:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def state_dict(self) -> dict[str, Any]:
        """See ModelCheckpoint."""
        return {**super().state_dict(), "metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See ModelCheckpoint."""
        self.metrics = dict(state_dict.get("metrics", {}))
        super().load_state_dict(state_dict)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, unless it was validated at a step of its own."""
        self.metrics = measured(trainer)
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


def measured(trainer: Trainer) -> dict[str, float]:
    """The newest value of each metric: of this process, or of the checkpoint that it went on from."""
    kept = [one.metrics for one in trainer.checkpoint_callbacks if isinstance(one, LastCheckpoint)]
    new = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {name: value for metrics in [*kept, new] for name, value in metrics.items()}
