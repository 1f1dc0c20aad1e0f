"""What a run measures about itself, and the checkpoint that Ctrl-C leaves behind."""

from __future__ import annotations

import logging
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from vlakit.schema import Batch

log = logging.getLogger(__name__)
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reset_peak_memory(pl_module.device)

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
    """Most memory held since `reset_peak_memory`: by torch's allocator on a GPU, by the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.is_file():
        return 1024 * int(_STATUS.read_text().partition("VmHWM:")[2].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # since the process began: it cannot be reset
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak, so that the runs of a sweep, which share a process, do not inherit each other's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        with suppress(OSError):  # some containers forbid it; the peak is then the process's
            _CLEAR.write_text("5")


class TrainingBar(RichProgressBar):
    """Lightning's bar without epochs, which an endless stream does not have."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in shown.items() if name != "v_num"}


class SaveOnInterrupt(Callback):
    """Ctrl-C leaves `interrupted.ckpt` in `folder`, and says how to go on from it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.optimizers:
            file = self.folder / "interrupted.ckpt"
            trainer.save_checkpoint(file)
            log.warning(
                "interrupted after step %d; go on with the same command and ckpt_path=%s", trainer.global_step, file
            )
