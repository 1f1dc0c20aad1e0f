"""A policy from a checkpoint answers as the one that was saved."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import built, saved

from vlakit.errors import CheckpointMismatch, InvalidData, StatisticsMissing
from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.models.openvla.vla import OpenVLA
from vlakit.policy import TrainedPolicy
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics, Observation
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora


@pytest.fixture
def observations() -> list[Observation]:
    images = np.random.default_rng(0).integers(0, 256, (3, 96, 128, 3), dtype=np.uint8)
    said = ("lift the pot", "put the carrot on the yellow plate", "close the drawer")
    return [Observation.of(image, text, "bridge_orig") for image, text in zip(images, said, strict=True)]


@pytest.mark.parametrize("kind", [Full, Lora], ids=["full", "lora"])
def test_a_reloaded_policy_answers_bit_for_bit(
    kind: type[Full] | type[Lora], tiny_processor: TokenProcessor, observations: list[Observation], tmp_path: Path
) -> None:
    module = built(kind, tiny_processor, **({"rank": 2} if kind is Lora else {}))
    for name, parameter in module.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    file = saved(module, tmp_path / "last.ckpt")
    expected = TrainedPolicy(module.model, tiny_processor).act(observations)
    torch.manual_seed(99)
    policy = TrainedPolicy.from_checkpoint(file)
    assert np.array_equal(policy.act(observations), expected)
    assert policy.card.strategy == kind.name


def test_a_batch_is_answered_as_single_calls(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    policy = TrainedPolicy(tiny_vla, tiny_processor)
    together = policy.act(observations)
    assert together.shape == (3, 1, 7)
    assert together.dtype == np.float32
    assert np.array_equal(together, np.concatenate([policy.act([one]) for one in observations]))


def test_answers_lie_within_the_datasets_quantiles(
    tiny_vla: OpenVLA,
    tiny_processor: TokenProcessor,
    observations: list[Observation],
    bridge_statistics: DatasetStatistics,
) -> None:
    actions = TrainedPolicy(tiny_vla, tiny_processor).act(observations)[:, 0, :6]
    assert (actions >= bridge_statistics.q01[:6]).all()
    assert (actions <= bridge_statistics.q99[:6]).all()


def test_each_observation_is_answered_in_the_units_of_its_dataset(
    tiny_vla: OpenVLA,
    tiny_processor: TokenProcessor,
    observations: list[Observation],
    bridge_statistics: DatasetStatistics,
) -> None:
    doubled = replace(bridge_statistics, q01=2 * bridge_statistics.q01, q99=2 * bridge_statistics.q99)
    both = tiny_processor.for_training({"bridge_orig": bridge_statistics, "doubled": doubled}, None)
    policy = TrainedPolicy(tiny_vla, both)
    one, two = policy.act([observations[0], replace(observations[0], dataset="doubled")])
    np.testing.assert_allclose(two[0, :6], 2 * one[0, :6], rtol=1e-6)
    assert two[0, 6] == one[0, 6]


def test_an_unconstrained_policy_says_when_it_answers_no_action(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    with torch.no_grad():
        tiny_vla.language_model.lm_head.weight[1216:1472] = 0
    free = TrainedPolicy(tiny_vla, tiny_processor, constrain=False)
    ids = free.sample(observations, temperature=0).ids
    assert not tiny_processor.actions.is_action(ids).all()
    assert free.act(observations).shape == (3, 1, 7)
    with pytest.raises(InvalidData):
        tiny_processor.from_ids(ids)
    bound = TrainedPolicy(tiny_vla, tiny_processor).sample(observations, temperature=0).ids
    assert tiny_processor.actions.is_action(bound).all()


def test_a_chunk_comes_as_one_answer(
    tiny_vla: OpenVLA, observations: list[Observation], bridge_statistics: DatasetStatistics
) -> None:
    names = TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words", chunk=2)
    policy = TrainedPolicy(tiny_vla, TokenProcessor(names, {"bridge_orig": bridge_statistics}))
    assert policy.act(observations).shape == (3, 2, 7)


def test_an_unknown_dataset_is_an_error(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    with pytest.raises(StatisticsMissing):
        TrainedPolicy(tiny_vla, tiny_processor).act([replace(observations[0], dataset="kuka")])


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch):
        TrainedPolicy.from_checkpoint(tmp_path / "none.ckpt")


@pytest.fixture(params=["full", "lora"])
def either(request: pytest.FixtureRequest, tiny_vla: OpenVLA) -> OpenVLA:
    """The tiny model, plain or with adapters that change its outputs."""
    if request.param == "lora":
        inject_lora(tiny_vla, LoraNumbers(2, 4))
        for name, parameter in tiny_vla.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.05)
    return tiny_vla.eval()


@pytest.mark.parametrize("constrain", [True, False])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_sampled_log_probabilities_equal_those_recomputed(
    either: OpenVLA,
    tiny_processor: TokenProcessor,
    observations: list[Observation],
    constrain: bool,
    temperature: float,
) -> None:
    policy = TrainedPolicy(either, tiny_processor, constrain=constrain)
    sampled = policy.sample(observations, temperature=temperature, generator=torch.Generator().manual_seed(3))
    assert sampled.actions.shape == (3, 1, 7)
    assert sampled.ids.shape == sampled.log_probs.shape == (3, 7)
    again = policy.log_prob(observations, sampled.ids)
    np.testing.assert_allclose(again.detach().numpy(), sampled.log_probs, atol=1e-5)
    for i, one in enumerate(observations):
        alone = policy.log_prob([one], sampled.ids[i : i + 1]).detach().numpy()
        np.testing.assert_allclose(alone[0], sampled.log_probs[i], atol=1e-5)


def test_gradients_flow_through_log_prob(
    either: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    policy = TrainedPolicy(either, tiny_processor)
    policy.log_prob(observations, policy.sample(observations, temperature=0).ids).sum().backward()
    learns = [p for name, p in either.named_parameters() if p.requires_grad and "lm_head" in name]
    assert learns
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().max() > 0 for p in learns)


def test_without_temperature_a_sample_is_what_the_policy_does(
    either: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    policy = TrainedPolicy(either, tiny_processor)
    together = policy.sample(observations, temperature=0.0)
    assert np.array_equal(together.actions, policy.act(observations))
    for i, one in enumerate(observations):
        assert np.array_equal(policy.sample([one], temperature=0.0).ids[0], together.ids[i])


def test_features_are_those_of_the_towers(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    features = TrainedPolicy(tiny_vla, tiny_processor).features(observations)
    assert features.shape == (3, 16, 192)
    assert features.dtype == np.float32
    assert np.abs(features[0] - features[1]).max() > 0


def test_a_model_in_half_precision_does_all_a_policy_does(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    policy = TrainedPolicy(tiny_vla.bfloat16(), tiny_processor)
    sampled = policy.sample(observations)
    assert policy.features(observations).dtype == np.float32
    assert policy.log_prob(observations, sampled.ids).shape == (3, 7)
    assert np.isfinite(policy.act(observations)).all()


@pytest.mark.parametrize(
    "ids", [np.full((3, 7), 5), np.full((3, 7), 1472), np.full((2, 7), 1300), np.full(7, 1300), np.zeros((3, 0), int)]
)
def test_answers_that_no_policy_gives_have_no_probability(
    ids: np.ndarray, tiny_vla: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    with pytest.raises(InvalidData, match="answers"):
        TrainedPolicy(tiny_vla, tiny_processor).log_prob(observations, ids)
