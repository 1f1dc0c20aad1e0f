"""A map made while a network trains."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import built, data_of, trainer_of

from vlakit.data.shards.reader import SampleRef
from vlakit.data.stream.datamodule import VLADataModule
from vlakit.processing.tokens import TokenProcessor
from vlakit.selection.maps import DatasetMap
from vlakit.selection.training_map import TrainingMap
from vlakit.strategies.last_layer import LastLayer

FILE = "map-bridge_orig.csv"


def steps_of(data: VLADataModule, epochs: float) -> int:
    """Steps after which every frame was met so often."""
    shards = data.shards["bridge_orig"]
    return -int(-epochs * sum(n for _, n in shards.shards("train")) // data.batch_size)


@pytest.fixture
def data(bridge_shards: Path, tiny_processor: TokenProcessor) -> VLADataModule:
    return data_of(bridge_shards, tiny_processor, batch_size=32)


def test_it_is_what_the_network_makes_of_each_demonstration(data: VLADataModule, tmp_path: Path) -> None:
    module = built(LastLayer, data.processor, optimizer=partial(torch.optim.SGD, lr=0.0))
    trainer_of(steps_of(data, 1), TrainingMap(str(tmp_path))).fit(module, data)
    known, shards = DatasetMap.load(tmp_path / FILE), data.shards["bridge_orig"]
    row = shards.episodes("train")[1]
    refs = [SampleRef("bridge_orig", row.shard, row.first_frame + step) for step in range(row.n_frames)]
    encoded = [data.processor.encode(shards.read_sample(ref)) for ref in refs]
    with torch.no_grad():
        output = module.model.train()(data.processor.collate(encoded))
    assert len(known.ids) == len(shards.episodes("train"))
    assert known.confidence[1] == pytest.approx(float((-output.row_losses).exp().mean()), abs=1e-4)
    assert known.correctness[1] == pytest.approx(float(output.scores["token_accuracy"].mean()))
    assert known.variability.max() < 1e-6  # one epoch


@pytest.mark.slow
def test_a_resumed_training_leaves_the_same_map(
    data: VLADataModule, bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    n, file = steps_of(data, 2), tmp_path / "half.ckpt"
    whole, half = tmp_path / "whole", tmp_path / "half"
    whole.mkdir()
    half.mkdir()
    trainer_of(n, TrainingMap(str(whole))).fit(built(LastLayer, data.processor), data)
    data = data_of(bridge_shards, tiny_processor, batch_size=32)
    first = trainer_of(n // 2 + 1, TrainingMap(str(tmp_path)))
    first.fit(built(LastLayer, data.processor), data)
    first.save_checkpoint(file)
    data = data_of(bridge_shards, tiny_processor, batch_size=32)
    second = trainer_of(n, TrainingMap(str(half)))
    second.fit(built(LastLayer, data.processor, seed=3), data, ckpt_path=file, weights_only=True)
    known, again = DatasetMap.load(whole / FILE), DatasetMap.load(half / FILE)
    assert np.array_equal(known.confidence, again.confidence)
    assert np.array_equal(known.variability, again.variability)
    assert known.variability.min() > 0


def test_a_training_that_ends_too_early_says_so(
    data: VLADataModule, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer_of(1, TrainingMap(str(tmp_path))).fit(built(LastLayer, data.processor), data)
    assert "before every frame was met" in caplog.text
    assert not list(tmp_path.iterdir())
