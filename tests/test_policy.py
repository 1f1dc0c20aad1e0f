"""A policy from a checkpoint answers as the one that was saved."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import built, saved

from vlakit.errors import CheckpointMismatch, InvalidData, StatisticsMissing
from vlakit.models.vla import OpenVLA
from vlakit.policy import VLAPolicy
from vlakit.processing.processor import ProcessorNames, VLAProcessor
from vlakit.schema import DatasetStatistics, Observation
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora


@pytest.fixture
def observations() -> list[Observation]:
    images = np.random.default_rng(0).integers(0, 256, (3, 96, 128, 3), dtype=np.uint8)
    said = ("lift the pot", "put the carrot on the yellow plate", "close the drawer")
    return [Observation(image, text, "bridge_orig") for image, text in zip(images, said, strict=True)]


@pytest.mark.parametrize("kind", [Full, Lora], ids=["full", "lora"])
def test_a_reloaded_policy_answers_bit_for_bit(
    kind: type[Full] | type[Lora], tiny_processor: VLAProcessor, observations: list[Observation], tmp_path: Path
) -> None:
    module = built(kind, tiny_processor, **({"rank": 2} if kind is Lora else {}))
    for name, parameter in module.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    file = saved(module, tmp_path / "last.ckpt")
    expected = VLAPolicy(module.model, tiny_processor).act(observations)
    torch.manual_seed(99)
    policy = VLAPolicy.from_checkpoint(file)
    assert np.array_equal(policy.act(observations), expected)
    assert policy.card["strategy"] == kind.name


def test_a_batch_is_answered_as_single_calls(
    tiny_vla: OpenVLA, tiny_processor: VLAProcessor, observations: list[Observation]
) -> None:
    policy = VLAPolicy(tiny_vla, tiny_processor)
    together = policy.act(observations)
    assert together.shape == (3, 1, 7)
    assert together.dtype == np.float32
    assert np.array_equal(together, np.concatenate([policy.act([one]) for one in observations]))


def test_answers_lie_within_the_datasets_quantiles(
    tiny_vla: OpenVLA,
    tiny_processor: VLAProcessor,
    observations: list[Observation],
    bridge_statistics: DatasetStatistics,
) -> None:
    actions = VLAPolicy(tiny_vla, tiny_processor).act(observations)[:, 0, :6]
    assert (actions >= bridge_statistics.q01[:6]).all()
    assert (actions <= bridge_statistics.q99[:6]).all()


def test_each_observation_is_answered_in_the_units_of_its_dataset(
    tiny_vla: OpenVLA,
    tiny_processor: VLAProcessor,
    observations: list[Observation],
    bridge_statistics: DatasetStatistics,
) -> None:
    doubled = replace(bridge_statistics, q01=2 * bridge_statistics.q01, q99=2 * bridge_statistics.q99)
    both = tiny_processor.for_training({"bridge_orig": bridge_statistics, "doubled": doubled}, None)
    policy = VLAPolicy(tiny_vla, both)
    one, two = policy.act([observations[0], replace(observations[0], dataset="doubled")])
    np.testing.assert_allclose(two[0, :6], 2 * one[0, :6], rtol=1e-6)
    assert two[0, 6] == one[0, 6]


def test_an_unconstrained_policy_says_when_it_answers_no_action(
    tiny_vla: OpenVLA, tiny_processor: VLAProcessor, observations: list[Observation]
) -> None:
    with torch.no_grad():
        tiny_vla.language_model.lm_head.weight[1216:1472] = 0
    free = VLAPolicy(tiny_vla, tiny_processor, constrain=False)
    ids = free.action_ids(observations)
    assert not tiny_processor.actions.is_action(ids).all()
    assert free.act(observations).shape == (3, 1, 7)
    with pytest.raises(InvalidData):
        tiny_processor.decode_actions(ids, "bridge_orig")
    assert tiny_processor.actions.is_action(VLAPolicy(tiny_vla, tiny_processor).action_ids(observations)).all()


def test_a_chunk_comes_as_one_answer(
    tiny_vla: OpenVLA, observations: list[Observation], bridge_statistics: DatasetStatistics
) -> None:
    names = ProcessorNames(64, ("imagenet", "half"), "words", chunk=2)
    policy = VLAPolicy(tiny_vla, VLAProcessor(names, {"bridge_orig": bridge_statistics}))
    assert policy.act(observations).shape == (3, 2, 7)


def test_an_unknown_dataset_is_an_error(
    tiny_vla: OpenVLA, tiny_processor: VLAProcessor, observations: list[Observation]
) -> None:
    with pytest.raises(StatisticsMissing):
        VLAPolicy(tiny_vla, tiny_processor).act([replace(observations[0], dataset="kuka")])


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch):
        VLAPolicy.from_checkpoint(tmp_path / "none.ckpt")
