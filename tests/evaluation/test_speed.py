"""Actions a second: a chunk counts all its actions."""

from __future__ import annotations

import pytest
from oft_cases import CHUNK, network_of, processor_of, samples_of
from tiny_folders import policy_of

from vlakit.checkpoints.contract import make_contract
from vlakit.evaluation import speed
from vlakit.policy import TrainedPolicy
from vlakit.schema import DatasetStatistics


def test_a_chunk_counts_all_its_actions_over_the_median_answer(
    bridge_statistics: DatasetStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = processor_of(bridge_statistics)
    network = network_of("l1", processor)
    contract = make_contract(network, processor, samples_of(bridge_statistics, 1))
    policy = TrainedPolicy(network, processor, policy_of(network, processor, contract).card)
    times = iter([0, 0.1, 1, 1.1, 2, 2.1, 3, 3.1, 4, 9])  # the last answer was disturbed
    monkeypatch.setattr(speed, "perf_counter", lambda: next(times))
    assert speed.actions_per_second(policy) == pytest.approx(CHUNK / 0.1)


def test_a_policy_without_golden_frames_has_no_speed(bridge_statistics: DatasetStatistics) -> None:
    processor = processor_of(bridge_statistics)
    assert speed.actions_per_second(TrainedPolicy(network_of("l1", processor), processor)) is None
