"""Initial states of an evaluation: balanced from the first to the last, and checked before anything runs."""

from collections import Counter

import pytest
from fake_suite import FakeSuite

from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.starts import fingerprint, shared_states
from vlakit.evaluation.suite import InitialState

SUITE = FakeSuite()


def test_every_beginning_is_balanced_over_the_tasks_and_a_longer_list_begins_with_a_shorter() -> None:
    states = shared_states(SUITE, 11)
    for n in range(1, 12):
        counts = Counter(state.task for state in states[:n])
        assert counts["reach"] - counts["far"] in {0, 1}
    assert shared_states(SUITE, 6) == states[:6]


def test_only_the_tasks_asked_for() -> None:
    assert [state.name for state in shared_states(SUITE, 2, ["far"])] == ["far-000", "far-001"]


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'reech'") as caught:
        shared_states(SUITE, 2, ["reech"])
    assert "reach" in caught.value.do


def test_more_episodes_than_initial_states_say_how_many_there_are() -> None:
    class Small(FakeSuite):
        def initial_states(self, task: str, n: int) -> list[InitialState]:
            return list(super().initial_states(task, min(n, 3)))

    with pytest.raises(ConfigError, match="3 initial states, 4 are asked for") as caught:
        shared_states(Small(), 8)
    assert "episodes=6" in caught.value.do
    with pytest.raises(ConfigError, match="episodes is 0"):
        shared_states(SUITE, 0)


def test_the_digest_sees_names_content_and_order() -> None:
    states = shared_states(SUITE, 4)
    moved = InitialState(states[0].name, states[0].task, states[0].seed, states[0].instruction, {"start": [0, 0]})
    fingerprints = [fingerprint(some) for some in (states, states[::-1], [moved, *states[1:]], states[:3])]
    assert len(set(fingerprints)) == 4
    assert fingerprint(shared_states(SUITE, 4)) == fingerprints[0]
