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
    """The newest state, every so many steps, behind the validation of its step: its points are on record by then."""

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

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, unless it was validated at a step of its own."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
