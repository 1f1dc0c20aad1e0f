"""LoRA checkpoints without their base, and the refusal of what this machine cannot quantise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import built, saved

from vlakit.checkpoints.file import read_checkpoint
from vlakit.checkpoints.formats import LoadOptions
from vlakit.errors import CheckpointMismatch, ConfigError, PartMissing
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Observation
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora
from vlakit.strategies.qlora import Qlora


@pytest.fixture
def base(tiny_processor: TokenProcessor, tmp_path: Path) -> Path:
    return saved(built(Full, tiny_processor, seed=3), tmp_path / "base.ckpt")


def adapted(base: Path, processor: TokenProcessor) -> Lora:
    module = built(Lora, processor, rank=2, adapter_only=True, weights=str(base))
    for name, parameter in module.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return module


def test_an_adapter_only_checkpoint_is_small_and_answers_alike(
    base: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    module = adapted(base, tiny_processor)
    file = saved(module, tmp_path / "adapter.ckpt")
    assert all(".lora_" in name for name in read_checkpoint(file)["state_dict"])
    assert file.stat().st_size < base.stat().st_size / 5
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    asked = [Observation.of(image, "lift the pot", "bridge_orig")]
    expected = TrainedPolicy(module.model, tiny_processor).act(asked)
    assert np.array_equal(TrainedPolicy.from_checkpoint(file).act(asked), expected)


def test_a_base_that_moved_can_be_named(base: Path, tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    file = saved(adapted(base, tiny_processor), tmp_path / "adapter.ckpt")
    moved = base.rename(tmp_path / "moved.ckpt")
    with pytest.raises(CheckpointMismatch, match=r"base\.ckpt") as caught:
        TrainedPolicy.from_checkpoint(file)
    assert "base=DIR" in caught.value.do
    TrainedPolicy.from_checkpoint(file, options=LoadOptions(base=str(moved)))


def test_adapters_on_random_weights_must_be_kept_whole(tiny_processor: TokenProcessor) -> None:
    with pytest.raises(ConfigError, match="random weights"):
        built(Lora, tiny_processor, rank=2, adapter_only=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal is for machines without CUDA")
def test_qlora_without_cuda_says_what_to_use(base: Path, tiny_processor: TokenProcessor) -> None:
    with pytest.raises(PartMissing, match="CUDA") as caught:
        built(Qlora, tiny_processor, rank=2, weights=str(base))
    assert "strategy=lora" in caught.value.do
