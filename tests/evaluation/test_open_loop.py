"""Open-loop scores by hand, and the two baselines on recorded frames."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlakit.data.shards.reader import ShardFolder
from vlakit.errors import InvalidData, StatisticsMissing
from vlakit.evaluation.open_loop import MEAN, POLICY, PREVIOUS, EpisodeResult, open_loop, score
from vlakit.models.openvla.vla import OpenVLA
from vlakit.policy import Sampled, TrainedPolicy
from vlakit.processing.normalizer import normalize
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics, Float32, Int64, Observation


@pytest.fixture
def folder(bridge_shards: Path) -> ShardFolder:
    return ShardFolder.open(bridge_shards)


@pytest.fixture
def policy(tiny_vla: OpenVLA, tiny_processor: TokenProcessor, folder: ShardFolder) -> TrainedPolicy:
    return TrainedPolicy(tiny_vla, tiny_processor.for_training({"bridge_orig": folder.statistics}, None))


@pytest.fixture
def simple(bridge_statistics: DatasetStatistics) -> DatasetStatistics:
    """Statistics under which the first six dimensions shrink to half on the way to physical units."""
    low, high = np.full(7, -0.5), np.full(7, 0.5)
    return replace(bridge_statistics, q01=low, q99=high, min=2 * low, max=2 * high)


def episode(recorded: Float32, answered: Float32, n_wrong: int = 0) -> EpisodeResult:
    """Two series of actions; the first `n_wrong` tokens of the answer are not those of the record."""
    truth = np.full(recorded.shape, 1300)
    ids = truth.copy()
    ids.flat[:n_wrong] += 1
    return EpisodeResult("e", "x", recorded, truth, {POLICY: answered}, {POLICY: ids})


def test_scores_of_two_frames_by_hand(simple: DatasetStatistics) -> None:
    recorded = np.zeros((2, 7), np.float32)
    answered = recorded.copy()
    answered[0, 1], answered[1, 6] = 0.1, -0.5
    scores = score(simple, [episode(recorded, answered, n_wrong=3)], POLICY)
    assert scores.token_accuracy == pytest.approx(11 / 14)
    assert scores.l1 == pytest.approx((0.2 + 0.5) / 14, abs=1e-6)
    assert scores.l1_per_dimension == pytest.approx([0, 0.05, 0, 0, 0, 0, 0.25])


def test_all_frames_weigh_the_same_whatever_the_episode(simple: DatasetStatistics) -> None:
    short, long = np.zeros((1, 7), np.float32), np.zeros((3, 7), np.float32)
    scores = score(simple, [episode(short, short + 0.25, n_wrong=7), episode(long, long)], POLICY)
    assert scores.token_accuracy == 0.75
    assert scores.l1_per_dimension == pytest.approx([0.0625] * 7)


class Oracle(TrainedPolicy):
    """Answers the recorded tokens, frame by frame."""

    recorded: Iterator[Int64]

    def sample(self, observations: Sequence[Observation], **choice: Any) -> Sampled:
        ids = np.stack([next(self.recorded) for _ in observations])
        actions = self.processor.physical(self.processor.from_ids(ids)[:, None], [one.dataset for one in observations])
        return Sampled(actions, ids, np.zeros(ids.shape, np.float32))


def test_the_recorded_tokens_score_full_accuracy(policy: TrainedPolicy, folder: ShardFolder) -> None:
    """Also where the gripper is open, whose id shares its centre with another."""
    recorded = np.concatenate([found.recorded for found in open_loop(policy, folder, "val").episodes])
    assert {0.0, 1.0} <= set(recorded[:, 6].tolist())
    oracle = Oracle(policy.network, policy.processor)
    oracle.recorded = iter(policy.processor.actions.encode(normalize(recorded, folder.statistics)))
    scores = open_loop(oracle, folder, "val").scores
    assert scores[POLICY].token_accuracy == 1.0
    assert scores[POLICY].l1 <= 1 / 255
    assert scores[MEAN].token_accuracy < 1
    assert scores[PREVIOUS].token_accuracy < 1


def test_the_mean_baseline_answers_the_datasets_mean(policy: TrainedPolicy, folder: ShardFolder) -> None:
    result = open_loop(policy, folder, "val", max_frames=20)
    mean = folder.statistics.mean.astype(np.float32)
    for found in result.episodes:
        assert np.array_equal(found.answers[MEAN], np.tile(mean, (len(found.recorded), 1)))


def test_the_previous_baseline_repeats_the_record_one_step_late(policy: TrainedPolicy, folder: ShardFolder) -> None:
    result = open_loop(policy, folder, "val", max_frames=20)
    assert len(result.episodes) > 1
    for found in result.episodes:
        assert np.array_equal(found.answers[PREVIOUS][1:], found.recorded[:-1])
        assert np.array_equal(found.answers[PREVIOUS][0], folder.statistics.mean.astype(np.float32))


def test_every_frame_of_the_split_is_asked_once(policy: TrainedPolicy, folder: ShardFolder) -> None:
    seen: list[tuple[int, int]] = []
    result = open_loop(policy, folder, "val", batch_size=16, progress=lambda done, total: seen.append((done, total)))
    n_frames = sum(n for _, n in folder.shards("val"))
    assert result.n_frames == n_frames
    assert [found.episode for found in result.episodes] == [row.episode for row in folder.episodes("val")]
    assert seen == [(min(16 * i, n_frames), n_frames) for i in range(1, len(seen) + 1)]
    assert seen[-1][0] == n_frames


def test_the_batch_size_changes_nothing(policy: TrainedPolicy, folder: ShardFolder) -> None:
    small, large = (open_loop(policy, folder, "val", batch_size=n, max_frames=20) for n in (3, 64))
    assert small.scores == large.scores
    assert set(small.scores) == {POLICY, MEAN, PREVIOUS}


def test_whole_episodes_up_to_max_frames_and_never_none(policy: TrainedPolicy, folder: ShardFolder) -> None:
    first = folder.episodes("val")[0].n_frames
    assert open_loop(policy, folder, "val", max_frames=1).n_frames == first
    assert open_loop(policy, folder, "val", max_frames=2 * first - 1).n_frames == first


def test_an_empty_split_names_those_there_are(policy: TrainedPolicy, folder: ShardFolder) -> None:
    with pytest.raises(InvalidData, match="the split 'test'") as caught:
        open_loop(policy, folder, "test")
    assert "train, val" in caught.value.do


def test_a_dataset_that_the_policy_does_not_know_fails_first(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, folder: ShardFolder, simple: DatasetStatistics
) -> None:
    asked: list[int] = []
    stranger = TrainedPolicy(tiny_vla, tiny_processor.for_training({"a": simple}, None))
    with pytest.raises(StatisticsMissing):
        open_loop(stranger, folder, "val", progress=lambda done, total: asked.append(done))
    assert not asked


def test_the_result_is_plain_values(policy: TrainedPolicy, folder: ShardFolder) -> None:
    plain = open_loop(policy, folder, "val", max_frames=1).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["dataset"], plain["split"], plain["episodes"]) == ("bridge_orig", "val", 1)
    assert len(plain["scores"][POLICY]["l1_per_dimension"]) == 7
