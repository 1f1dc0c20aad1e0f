"""What a run measures about itself, and what an interruption leaves behind."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from tiny_runs import Trace, built, data_of, trainer_of

from vlakit.errors import LossNotFinite
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch
from vlakit.strategies.callbacks import SaveOnInterrupt, Throughput, TrainingBar, peak_memory_bytes
from vlakit.strategies.last_layer import LastLayer


class StopAt(Callback):
    """Raises once so many steps are done."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise self.error


def test_an_interruption_leaves_a_checkpoint_from_which_to_resume(
    bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    whole, first, second = Trace(), Trace(), Trace()
    data = data_of(bridge_shards, tiny_processor)
    trainer_of(4, whole).fit(built(LastLayer, data.processor), data)
    stopped = trainer_of(4, first, StopAt(2, KeyboardInterrupt()), SaveOnInterrupt(str(tmp_path)))
    data = data_of(bridge_shards, tiny_processor)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        stopped.fit(built(LastLayer, data.processor), data)
    data = data_of(bridge_shards, tiny_processor)
    file = tmp_path / "interrupted.ckpt"
    trainer_of(4, second).fit(built(LastLayer, data.processor, seed=9), data, ckpt_path=file, weights_only=True)
    assert first.keys + second.keys == whole.keys
    assert first.losses + second.losses == whole.losses


def test_a_bad_loss_leaves_no_checkpoint(bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    data = data_of(bridge_shards, tiny_processor)
    with pytest.raises(LossNotFinite):
        trainer_of(2, StopAt(1, LossNotFinite("nan")), SaveOnInterrupt(str(tmp_path))).fit(
            built(LastLayer, data.processor), data
        )
    assert not list(tmp_path.iterdir())


class SlowWork(Callback):
    """A step that takes 50 ms longer."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        time.sleep(0.05)


def slow_data(shards: Path, processor: TokenProcessor, seconds: float) -> Any:
    data = data_of(shards, processor)
    read = data.shards["bridge_orig"].read_sample

    def late(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return read(*args, **kwargs)

    data.shards["bridge_orig"].read_sample = late
    return data


def last_window(trainer: Trainer) -> tuple[float, float]:
    """Seconds waited and seconds worked over the last two steps of four samples."""
    share = float(trainer.callback_metrics["time/data_wait_share"])
    elapsed = 8 / float(trainer.callback_metrics["time/samples_per_s"])
    return share * elapsed, (1 - share) * elapsed


def test_waiting_for_data_is_told_from_working(bridge_shards: Path, tiny_processor: TokenProcessor) -> None:
    data = slow_data(bridge_shards, tiny_processor, 0.03)  # 0.12 s a batch
    trainer = trainer_of(4, Throughput(), SlowWork(), log_every_n_steps=2)
    trainer.fit(built(LastLayer, data.processor), data)
    waited, worked = last_window(trainer)
    assert waited >= 2 * 0.12
    assert worked >= 2 * 0.05
    assert float(trainer.callback_metrics["memory/peak_GB"]) > 0.1


def test_peak_memory_is_in_bytes_and_never_falls() -> None:
    before = peak_memory_bytes(torch.device("cpu"))
    held = torch.ones(10_000_000)
    assert peak_memory_bytes(torch.device("cpu")) >= before > 1e8
    assert held.nbytes == 4e7


def test_the_bar_of_a_resumed_run_counts_to_all_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    bar, trainer = TrainingBar(), Trainer(max_steps=12, max_epochs=-1, logger=False, accumulate_grad_batches=2)
    bar._trainer = trainer
    monkeypatch.setattr(Trainer, "global_step", 8)
    assert bar.total_train_batches == 24
