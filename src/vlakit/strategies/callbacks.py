"""What a run measures about itself, and the checkpoint that Ctrl-C leaves behind."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from vlakit.schema import Batch


class Throughput(Callback):
    """Logs `time/samples_per_s`, the share of time spent waiting for data, and `memory/peak_bytes`.

    The wait is the time between the end of one step and the arrival of the next batch, so it holds whatever the loader
    could not hide.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.started = self.step_ended = time.perf_counter()
        self.waited, self.samples = 0.0, 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()  # validation is neither training nor waiting

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.waited += time.perf_counter() - self.step_ended

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.step_ended = time.perf_counter()
        self.samples += len(batch)
        if (batch_idx + 1) % trainer.log_every_n_steps:  # pyright: ignore[reportAttributeAccessIssue]  set by Trainer
            return
        elapsed = self.step_ended - self.started
        pl_module.log_dict(
            {
                "time/samples_per_s": self.samples * trainer.world_size / elapsed,
                "time/data_wait_share": self.waited / elapsed,
                "memory/peak_bytes": float(peak_memory_bytes(pl_module.device)),
            },
            batch_size=len(batch),
        )
        self._reset()


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: by torch's allocator on a GPU, by the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere but on macOS


class SaveOnInterrupt(Callback):
    """Ctrl-C, or any other end by exception but a bad loss, leaves `interrupted.ckpt` in `folder`, from which to resume."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.optimizers:
            trainer.save_checkpoint(self.folder / "interrupted.ckpt")
