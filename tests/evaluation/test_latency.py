"""A slow policy loses what it would lose on a robot: control steps, or only time when the world waits."""

import pytest
from fake_suite import FakeSuite, states_of

from vlakit.errors import ConfigError
from vlakit.evaluation.actors import Expert
from vlakit.evaluation.latency import Control
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.rollout import Options, rollout

SUITE = FakeSuite(tasks=("reach",))
STATES = states_of(SUITE, 4)


def episodes(control: Control, slots: int = 2) -> list[EpisodeRecord]:
    records = rollout(SUITE, Expert(), STATES, Options(slots, control=control))
    return sorted(records, key=lambda record: record.number)


@pytest.mark.parametrize(("latency_ms", "factor"), [(0, 1), (199, 1), (200, 2), (800, 5)])
def test_a_policy_that_takes_n_control_periods_needs_n_plus_1_times_the_steps(latency_ms: float, factor: int) -> None:
    plain, slow = episodes(Control()), episodes(Control(latency_ms, blocking=False))
    assert [record.steps for record in slow] == [factor * record.steps for record in plain]
    assert all(record.success for record in slow)


def test_held_steps_count_against_the_step_limit() -> None:
    slow = episodes(Control(1600, blocking=False))
    assert {record.success for record in slow if record.steps == 25} == {False}
    assert any(not record.success for record in slow)


def test_a_world_that_waits_changes_nothing_but_the_robots_time() -> None:
    plain, slow = episodes(Control()), episodes(Control(800, blocking=True))
    assert slow == plain
    for one, other in zip(plain, slow, strict=True):
        assert one.robot_s == pytest.approx(one.steps / 5)
        assert other.robot_s == pytest.approx(one.steps / 5 + 0.8 * one.policy_calls)


def test_measured_latency_is_of_one_answer_so_it_needs_one_slot() -> None:
    with pytest.raises(ConfigError, match="batch") as caught:
        Options(slots=2, control=Control("measured"))
    assert "slots=1" in caught.value.do
    assert all(record.robot_s > record.steps / 5 for record in episodes(Control("measured"), slots=1))


@pytest.mark.parametrize("latency", [-1, "fast", float("nan"), float("inf")])
def test_a_latency_that_is_none_is_refused(latency: float | str) -> None:
    with pytest.raises(ConfigError, match="latency_ms"):
        Control(latency)


def test_executing_no_action_is_refused() -> None:
    with pytest.raises(ConfigError, match="execute"):
        Control(execute=0)
