"""What is asked of a policy: shapes, the greedy prefix, passes in which dropout alone is switched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from vlakit.errors import InvalidData, PartMissing
from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation
from vlakit.selection.acquisitions import ACQUISITIONS, Acquisition
from vlakit.selection.outlook import dropout_only, outlook

if TYPE_CHECKING:
    from vlakit.models.openvla.vla import OpenVLA
    from vlakit.processing.tokens import TokenProcessor

SAID = ["lift the pot", "put the carrot on the plate", "close the drawer", "lift the pot"]


@pytest.fixture
def observations() -> list[Observation]:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    return [Observation.of(picture, said, "bridge_orig") for picture, said in zip(pictures, SAID, strict=True)]


@pytest.fixture
def adapted(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> TrainedPolicy:
    inject_lora(tiny_vla, LoraNumbers(4, 4, 0.3, ("q_proj", "up_proj")))
    for name, parameter in tiny_vla.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return TrainedPolicy(tiny_vla, tiny_processor)


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_each_of_the_eight_chooses_among_what_a_policy_has_not_learnt(
    name: str, adapted: TrainedPolicy, observations: list[Observation]
) -> None:
    acquisition = Acquisition(name)
    seen = outlook(adapted, observations, acquisition.needs, passes=3, rows=3)
    picks = acquisition.choose(seen, [1], 4, 2, np.random.default_rng(0))
    again = acquisition.choose(seen, [1], 4, 2, np.random.default_rng(0))
    assert picks == again
    assert len(set(picks.positions)) == 2
    assert set(picks.positions) <= {0, 2, 3}


def test_the_distribution_is_that_of_the_recorded_log_probabilities(
    adapted: TrainedPolicy, observations: list[Observation]
) -> None:
    drawn = adapted.sample(observations, generator=torch.Generator().manual_seed(0))
    inputs, ids = adapted.observed(observations), torch.from_numpy(drawn.ids)
    with torch.no_grad():
        whole = adapted.network.distribution(inputs, ids)  # pyright: ignore[reportCallIssue]
    assert whole.shape == (4, 7, 256)
    assert torch.allclose(whole.exp().sum(-1), torch.ones(4, 7), atol=1e-5)
    of_these = whole.gather(2, (ids - adapted.network.allowed[0])[..., None])[..., 0]  # pyright: ignore
    assert np.allclose(of_these.numpy(), drawn.log_probs, atol=1e-4)


def test_passes_differ_by_dropout_alone_repeat_with_their_seed_and_leave_no_trace(
    adapted: TrainedPolicy, observations: list[Observation]
) -> None:
    state = torch.get_rng_state()
    first = outlook(adapted, observations, "passes", passes=3)
    assert first.passes is not None
    assert first.log_probs is not None
    assert first.passes.shape == (3, 4, 7, 256)
    assert np.abs(first.passes[0] - first.passes[1]).max() > 1e-3
    again = outlook(adapted, observations, "passes", passes=3)
    assert again.passes is not None
    assert np.array_equal(first.passes, again.passes)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module.training for module in adapted.network.modules())
    plain = outlook(adapted, observations, "answers")
    assert plain.log_probs is not None
    assert np.array_equal(plain.log_probs, first.log_probs)


def test_dropout_is_switched_and_nothing_else() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Dropout(0.0))
    network.train()
    network[0].eval()
    with dropout_only(network) as names:
        assert names == ["2"]
        assert [module.training for module in network] == [False, False, True, False]
        network(torch.randn(5, 3))
    assert [module.training for module in network] == [False, True, True, True]
    moved: torch.Tensor = network[1].num_batches_tracked  # pyright: ignore[reportAssignmentType]
    assert int(moved) == 0


def test_a_network_without_dropout_is_refused_with_the_remedy(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    with pytest.raises(PartMissing, match=r"strategy\.dropout"):
        outlook(TrainedPolicy(tiny_vla, tiny_processor), observations, "passes")


def test_dropout_that_changes_nothing_gives_identical_passes_which_are_refused(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, observations: list[Observation]
) -> None:
    inject_lora(tiny_vla, LoraNumbers(4, 4, 0.3, ("q_proj",)))  # untrained adapters add zero
    seen = outlook(TrainedPolicy(tiny_vla, tiny_processor), observations, "passes", passes=3)
    with pytest.raises(InvalidData, match="same answer"):
        Acquisition("bald").scores(seen)


def test_features_are_of_what_they_say(adapted: TrainedPolicy, observations: list[Observation]) -> None:
    language = outlook(adapted, observations, "language").features["language"]
    vision = outlook(adapted, observations, "vision").features["vision"]
    assert np.allclose(language[0], language[3])  # the same words
    assert not np.allclose(language[0], language[1])
    assert not np.allclose(vision[0], vision[3])
    picks = Acquisition("coreset_language").choose(
        outlook(adapted, observations, "language"), [0], 4, 3, np.random.default_rng(0)
    )
    assert picks.tied == 1
    assert picks.positions[-1] == 3
