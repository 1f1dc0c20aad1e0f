"""What a run measures about itself, and the checkpoint that Ctrl-C, or another signal, leaves behind."""

from __future__ import annotations

import logging
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vlakit.schema import Batch

log = logging.getLogger(__name__)
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Throughput(Callback):
    """Logs `time/samples_per_s`, the share of time spent waiting for data, and `memory/peak_GB`.

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
                "time/step_s": elapsed / trainer.log_every_n_steps,  # pyright: ignore[reportAttributeAccessIssue]
                "time/data_wait_share": self.waited / elapsed,
                "memory/peak_GB": peak_memory_bytes(pl_module.device) / 1e9,
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

    @property
    def total_train_batches(self) -> int | float:
        """All steps of the run, as those are counted that a resumed one begins behind; Lightning's are what is left."""
        steps = self.trainer.max_steps
        return steps * self.trainer.accumulate_grad_batches if steps > 0 else super().total_train_batches

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in shown.items() if name != "v_num"}


class Stopped(KeyboardInterrupt):
    """A training that a signal ended. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class SaveOnInterrupt(Callback):
    """Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 leave `interrupted.ckpt` in `folder`, and say how to go on from it.

    They take effect between two steps, where nothing is half done; a second Ctrl-C takes effect at once. A signal that
    is ignored, as under nohup, or that SLURM's requeueing has taken, stays so.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.number: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen; Lightning puts back what was there when training ends."""
        if threading.current_thread() is not threading.main_thread():
            return
        untouched = (signal.SIG_DFL, signal.default_int_handler)
        ours = [number for number in self.SIGNALS if number == signal.SIGTERM or signal.getsignal(number) in untouched]
        for number in ours:
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: Any) -> None:
        if number == signal.SIGINT == self.number:
            raise KeyboardInterrupt
        self.number = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Let Lightning stop all ranks behind this step, where it stops for SIGTERM."""
        if trainer.strategy.reduce_boolean_decision(self.number is not None, all=False):
            trainer._signal_connector.received_sigterm = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A validation that would come first runs when the training goes on."""
        if trainer.received_sigterm and not _at_end(trainer):
            raise SIGTERMException

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """The same within one; several ranks, which would have to agree, end it."""
        if self.number is not None and trainer.world_size == 1 and not _at_end(trainer):
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and trainer.optimizers:
            file = self.folder / "interrupted.ckpt"
            trainer.save_checkpoint(file)
            log.warning(
                "interrupted after step %d; go on with the same command and ckpt_path=%s", trainer.global_step, file
            )


def _at_end(trainer: Trainer) -> bool:
    """Behind the last step: what is left then is done, for there is nothing to go on with."""
    return 0 <= trainer.max_steps <= trainer.global_step
