"""The replay gate lets through what training and suite agree on, and nothing that was broken on purpose."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_suite import FakeEnvironment, FakeSuite, states_of, statistics

from vlakit.data.specs.spec import DatasetSpec, Segment
from vlakit.errors import InvalidData, PartMissing, StatisticsMissing
from vlakit.evaluation.gate import (
    Codec,
    GateClosed,
    check_gate,
    replay_gate,
    short_gate,
    through_processor,
    through_spec,
    training_path,
)
from vlakit.evaluation.suite import InitialState
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics, Float32

SUITE = FakeSuite()
STATES = states_of(SUITE, 10)


def tokens(one: DatasetStatistics) -> Codec:
    settings = TokenSettings(image_size=64, channel_statistics=("half",), tokenizer="words")
    return through_processor(TokenProcessor(settings, {"fake_dots": one}), "fake_dots")


def spec(**changes: Any) -> DatasetSpec:
    action = changes.pop("action", (Segment(take="action"),))
    language = Segment(take="language_instruction")
    return DatasetSpec("fake_dots", {"primary": "image"}, language, action, **changes)


def both(first: Codec, then: Codec) -> Codec:
    return lambda actions: then(first(actions))


def first(n: int) -> list[InitialState]:
    return states_of(SUITE, n)[:n]


def test_actions_through_the_right_tokens_succeed_again() -> None:
    result = replay_gate(SUITE, STATES, tokens(statistics()))
    assert (result.episodes, result.successes, result.tried, result.lost, result.passed) == (20, 20, 20, [], True)
    dimension, by = result.worst
    assert 0 < by < 0.01, dimension
    check_gate(result)


def flipped_gripper(actions: Float32) -> Float32:
    return np.concatenate([actions[:, :6], 1 - actions[:, 6:]], axis=1)


BROKEN = {
    "statistics of a slower robot": tokens(statistics(0.3)),
    "statistics in millimetres": tokens(statistics(1000)),
    "a gripper that was normalised": tokens(statistics(gripper=0.4)),
    "a flipped gripper": both(flipped_gripper, tokens(statistics())),
    "a spec that flips the gripper": both(
        through_spec(spec(action=(Segment("action", (0, 6)), Segment("action", (6, 7), ("invert",))))),
        tokens(statistics()),
    ),
    "actions in centimetres": both(lambda actions: actions * np.float32(100), tokens(statistics())),
    "x and y in the wrong order": both(lambda actions: actions[:, [1, 0, 2, 3, 4, 5, 6]], tokens(statistics())),
    "the first step lost": through_spec(spec(drop_first_steps=1)),
}


@pytest.mark.parametrize("codec", BROKEN.values(), ids=BROKEN)
def test_broken_preprocessing_is_refused(codec: Codec) -> None:
    result = short_gate(SUITE, first, codec, 8)
    with pytest.raises(GateClosed, match=f"{result.successes} of 40 demonstrations succeed") as caught:
        check_gate(result)
    assert result.lost[0] in caught.value.where
    assert "statistics" in caught.value.do


def test_a_perfect_short_replay_is_enough_and_one_loss_makes_it_longer() -> None:
    asked: list[int] = []

    def states(n: int) -> list[InitialState]:
        asked.append(n)
        return first(n)

    def losing_one(actions: Float32) -> Float32:
        return actions * np.float32(0) if len(actions) == lost else actions

    assert short_gate(SUITE, states, tokens(statistics()), 4).passed
    assert asked == [4]
    shown = replay_gate(SUITE, first(4), lambda actions: actions)
    assert shown.passed
    lost = -1  # no demonstration has this length
    assert short_gate(SUITE, states, losing_one, 4).passed
    lost = 4
    short_gate(SUITE, states, losing_one, 4)
    assert asked == [4, 4, 4, 20]


def test_a_dataset_without_statistics_is_said_before_anything_runs() -> None:
    processor = TokenProcessor(
        TokenSettings(image_size=64, channel_statistics=("half",), tokenizer="words"), {"other": statistics()}
    )
    with pytest.raises(StatisticsMissing, match="fake_dots"):
        through_processor(processor, "fake_dots")


def test_statistics_of_another_action_size_are_an_error() -> None:
    short = statistics()
    short = DatasetStatistics(
        *(getattr(short, f)[:4] for f in ("q01", "q99", "mean", "std", "min", "max", "mask")), 1, 1
    )
    with pytest.raises(InvalidData, match="7 numbers meets statistics of 4"):
        replay_gate(SUITE, STATES, tokens(short))


def test_a_dataset_with_a_spec_goes_through_it_and_one_without_does_not(tmp_path: Path) -> None:
    actions = np.array([[0.01] * 6 + [1.0]], np.float32)
    assert np.array_equal(training_path(None, "fake_dots")(actions), actions)
    assert np.array_equal(through_spec(spec())(actions), actions)


def test_an_expert_that_never_succeeds_says_so_and_a_missing_one_is_a_missing_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidData, match="the expert never succeeds in 1 episodes"):
        replay_gate(FakeSuite(raises_at={"reach-000": 0}), STATES[:1], tokens(statistics()))

    def missing(self: FakeEnvironment) -> Float32:
        raise PartMissing("no expert here")

    monkeypatch.setattr(FakeEnvironment, "expert", missing)
    with pytest.raises(PartMissing, match="no expert here"):
        replay_gate(SUITE, STATES[:1], tokens(statistics()))
