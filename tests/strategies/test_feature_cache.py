"""Training from stored features is the same training; the store survives kill -9, other weights and other writers."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import Trace, built, data_of, trainer_of

from vlakit.errors import ConfigError
from vlakit.models.network import tensors_hash
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.base import PolicyModule
from vlakit.strategies.feature_cache import FeatureCache, RowFile
from vlakit.strategies.frozen_vision import FrozenVision
from vlakit.strategies.full import Full
from vlakit.strategies.last_layer import LastLayer
from vlakit.strategies.lora import Lora
from vlakit.strategies.sandwich import Sandwich

SHAPE = (2, 3)


def losses_of(
    kind: type[PolicyModule], shards: Path, processor: TokenProcessor, steps: int, **options: Any
) -> list[Any]:
    """Losses of the first steps from the same seed."""
    data = data_of(shards, processor, **options.pop("data", {}))
    trace = Trace()
    trainer_of(steps, trace).fit(built(kind, data.processor, **options), data)
    return trace.losses


@pytest.mark.parametrize("kind", [FrozenVision, LastLayer])
def test_stored_features_train_to_the_same_bits(
    kind: type[PolicyModule], bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    expected = losses_of(kind, bridge_shards, tiny_processor, 10)
    filling = losses_of(kind, bridge_shards, tiny_processor, 10, feature_cache=str(tmp_path))
    reading = losses_of(kind, bridge_shards, tiny_processor, 10, feature_cache=str(tmp_path))
    assert len(set(expected)) == 10
    assert filling == expected
    assert reading == expected


def test_a_full_cache_never_runs_the_towers(
    bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    data = data_of(bridge_shards, tiny_processor)
    folder = data.shards["bridge_orig"]
    module = built(FrozenVision, data.processor)
    batch = next(iter(data.train_dataloader()))
    cache = FeatureCache(tmp_path, module.model, {"bridge_orig": (folder.content_hash, folder.first_rows[-1])}, {})
    first = cache.features(batch)
    batch.pixels = {"primary": torch.full_like(batch.pixels["primary"], float("nan"))}
    assert torch.equal(cache.features(batch), first)


@pytest.mark.parametrize(("kind", "options"), [(Full, {}), (Sandwich, {}), (Lora, {"rank": 2})])
def test_a_strategy_that_trains_the_towers_refuses(
    kind: type[PolicyModule], options: dict[str, Any], tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    module = built(kind, tiny_processor, feature_cache=str(tmp_path), **options)
    with pytest.raises(ConfigError, match="trains the vision towers") as caught:
        module.check_able(module.model)
    assert "frozen_vision" in caught.value.do


def test_augmentation_asks_for_copies(bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    options = {"data": {"augment": True}, "feature_cache": str(tmp_path)}
    with pytest.raises(ConfigError, match="one stored copy"):
        losses_of(LastLayer, bridge_shards, tiny_processor, 1, **options)
    assert np.isfinite(losses_of(LastLayer, bridge_shards, tiny_processor, 2, feature_copies=2, **options)).all()


def test_other_weights_or_another_preparation_never_share_features(
    tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    model = built(LastLayer, tiny_processor).model
    names = {"demo": ("hash", 4)}
    paths = [FeatureCache(tmp_path, model, names, {"image_size": 64}).files["demo"].path]
    paths.append(FeatureCache(tmp_path, model, names, {"image_size": 32}).files["demo"].path)
    paths.append(FeatureCache(tmp_path, model, {"demo": ("other", 4)}, {"image_size": 64}).files["demo"].path)
    before = tensors_hash(model.vision_backbone)
    with torch.no_grad():
        next(model.vision_backbone.parameters())[0] += 1
    assert tensors_hash(model.vision_backbone) != before
    paths.append(FeatureCache(tmp_path, model, names, {"image_size": 64}).files["demo"].path)
    assert len(set(paths)) == 4


def test_a_row_is_none_until_it_is_written_and_then_whole_for_every_reader(tmp_path: Path) -> None:
    writer, reader = (RowFile(tmp_path, 5, SHAPE, {}) for _ in range(2))
    values = np.arange(6, dtype=np.float32).reshape(SHAPE)
    writer.write(3, values)
    assert [reader.read(i) is None for i in range(5)] == [True, True, True, False, True]
    found = reader.read(3)
    assert found is not None
    assert np.array_equal(found, values)


def write_one_row_and_a_half(folder: Path) -> None:
    file = RowFile(folder, 5, SHAPE, {})
    file.write(1, np.ones(SHAPE, np.float32))
    with file.path.open("r+b") as stream:
        stream.seek(2 * file.row_bytes)
        stream.write(b"1234567")
    os.kill(os.getpid(), signal.SIGKILL)


def test_rows_survive_a_killed_writer_and_half_rows_do_not_count(tmp_path: Path) -> None:
    process = get_context("fork").Process(target=write_one_row_and_a_half, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    file = RowFile(tmp_path, 5, SHAPE, {})
    found = file.read(1)
    assert found is not None
    assert (found == 1).all()
    assert file.read(2) is None
