"""A training of Octo that was killed goes on to the bit: its noise is drawn as if nothing had happened."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from octo_cases import HEADS, SMALL, processor_of
from tiny_runs import Trace, data_of, trainer_of

from vlakit.processing.instructions import InstructionProcessor
from vlakit.schema import DatasetStatistics
from vlakit.strategies.base import Finetune
from vlakit.strategies.optim import rsqrt
from vlakit.strategies.saving import LastCheckpoint


class Killed(Exception):
    """What nothing catches."""


class KilledAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise Killed


def train(
    shards: Path, processor: InstructionProcessor, folder: Path, head: str, *killed: Callback, ckpt: Path | None = None
) -> tuple[Trace, dict[str, torch.Tensor]]:
    trace, data = Trace(), data_of(shards, processor, num_workers=0)  # pyright: ignore[reportArgumentType]
    torch.manual_seed(9 if ckpt else 0)
    network = {**SMALL, "head": head, "head_options": HEADS[head]}
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    module = Finetune(network, data.processor, optimizer, partial(rsqrt, warmup_steps=2))
    module.configure_model()
    last = LastCheckpoint(dirpath=folder, filename="last", every_n_train_steps=2, enable_version_counter=False)
    options = {"enable_checkpointing": True, "max_epochs": -1, "default_root_dir": folder, "limit_val_batches": 0}
    trainer = trainer_of(4, trace, last, *killed, **options)
    with suppress(Killed):
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    return trace, module.model.state_dict()


@pytest.mark.parametrize("head", ["diffusion", "l1"])
def test_a_killed_training_goes_on_to_the_bit(
    head: str, bridge_shards: Path, bridge_statistics: DatasetStatistics, tmp_path: Path
) -> None:
    processor = processor_of(bridge_statistics)
    whole, expected = train(bridge_shards, processor, tmp_path / "whole", head)
    train(bridge_shards, processor, tmp_path / "cut", head, KilledAt(3))
    second, weights = train(bridge_shards, processor, tmp_path / "cut", head, ckpt=tmp_path / "cut" / "last.ckpt")
    assert second.losses == whole.losses[2:]
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
