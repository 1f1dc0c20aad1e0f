"""A resumed run is the run that was never interrupted: its losses with dropout, its validations, its steps."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_runs import Trace, built, data_of, trainer_of

from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.lora import Lora
from vlakit.strategies.saving import LastCheckpoint


class Validated(Callback):
    """The steps that were validated, as Lightning would log them, and their losses."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged_as = trainer.fit_loop.epoch_loop._batches_that_stepped
        self.seen.append((trainer.global_step, logged_as, float(trainer.callback_metrics["val/loss"])))


class Killed(Exception):
    """What nothing catches."""


class KilledAt(Callback):
    """Ends the run before this batch, as nothing but a kill would: nothing is saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise Killed


class Case:
    """Trainings of six steps with dropout, validated every second step."""

    def __init__(self, shards: Path, processor: TokenProcessor, folder: Path, workers: int) -> None:
        self.shards, self.processor, self.folder, self.workers = shards, processor, folder, workers

    def train(self, *callbacks: Callback, ckpt: Path | None = None, seed: int = 0) -> tuple[Trace, Validated]:
        trace, validated = Trace(), Validated()
        data = data_of(self.shards, self.processor, num_workers=self.workers)
        module = built(Lora, data.processor, seed=seed, rank=4, dropout=0.3)
        options = {"val_check_interval": 2, "check_val_every_n_epoch": None, "limit_val_batches": 1}
        options |= {
            "num_sanity_val_steps": 0,
            "enable_checkpointing": True,
            "max_epochs": -1,
            "default_root_dir": self.folder,
        }
        trainer = trainer_of(6, trace, validated, *callbacks, **options)
        with suppress(Killed):
            trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
        return trace, validated

    def last(self, kind: type[ModelCheckpoint]) -> ModelCheckpoint:
        options = {"every_n_train_steps": 2, "enable_version_counter": False}
        return kind(dirpath=self.folder, filename="last", **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_dropout_goes_on_as_if_nothing_had_happened(
    bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path, workers: int
) -> None:
    case = Case(bridge_shards, tiny_processor, tmp_path, workers)
    whole, all_validated = case.train(case.last(LastCheckpoint))
    case.train(case.last(LastCheckpoint), KilledAt(3))
    second, validated = case.train(case.last(LastCheckpoint), ckpt=tmp_path / "last.ckpt", seed=9)
    assert second.keys == whole.keys[2:]
    assert second.losses == whole.losses[2:]  # behind a validation of its own too, whose workers begin anew
    assert [step for step, _, _ in all_validated.seen] == [2, 4, 6]
    assert validated.seen == all_validated.seen[1:]


def test_a_checkpoint_of_before_resumes_and_the_validation_that_it_lacks_is_run(
    bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    """It was written before the validation of its step, and without the states of the generators."""
    case = Case(bridge_shards, tiny_processor, tmp_path, 0)
    whole, all_validated = case.train(case.last(ModelCheckpoint))
    case.train(case.last(ModelCheckpoint), KilledAt(5))
    old = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del old["random_states"], old["validated_step"]
    torch.save(old, tmp_path / "old.ckpt")
    second, validated = case.train(ckpt=tmp_path / "old.ckpt")
    assert second.keys == whole.keys[4:]
    assert validated.seen[0] == all_validated.seen[1]
    assert [steps[:2] for steps in validated.seen] == [(4, 3), (6, 5)]


def test_a_run_without_held_out_frames_is_saved_all_the_same(
    bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    data = data_of(bridge_shards, tiny_processor)
    last = LastCheckpoint(dirpath=tmp_path, filename="last", every_n_train_steps=2)
    trainer_of(2, last, enable_checkpointing=True, default_root_dir=tmp_path).fit(
        built(Lora, data.processor, rank=4), data
    )
    assert (tmp_path / "last.ckpt").is_file()
