"""Vectorised rollouts: an episode does not depend on what runs beside it, and one that breaks, breaks alone."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from fake_suite import MAX_STEPS, FakeSuite, Seeker, states_of

from vlakit.errors import ConfigError, InvalidData
from vlakit.evaluation.actors import Expert
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.rollout import Options, rollout, stacked
from vlakit.policy import Policy
from vlakit.schema import Float32, Observation

SUITE = FakeSuite()
STATES = states_of(SUITE, 5)


def episodes(policy: Policy, slots: int = 4, suite: FakeSuite = SUITE, **options: object) -> list[EpisodeRecord]:
    records = rollout(suite, policy, STATES, Options(slots, **options))  # type: ignore[arg-type]
    return sorted(records, key=lambda record: record.number)


class Answering(Seeker):
    """Answers one instruction's observations otherwise, once they have been seen twice."""

    def __init__(self, answer: Float32 | None, said: str = "far") -> None:
        super().__init__()
        self.answer, self.said = answer, said

    def chunk(self, observation: Observation) -> Float32:
        if self.said not in observation.instruction:
            return super().chunk(observation)
        if self.answer is None:
            raise RuntimeError("the adapter is gone")
        return self.answer


class Chunked(Seeker):
    """The same move three times."""

    def chunk(self, observation: Observation) -> Float32:
        return np.repeat(super().chunk(observation) * [[0.5, 0.5, 1, 1, 1, 1, 1]], 3, axis=0).astype(np.float32)


@pytest.mark.parametrize("slots", [1, 3, 7, 40])
def test_the_number_of_slots_changes_no_episode(slots: int) -> None:
    assert episodes(Seeker(), slots) == episodes(Seeker(), 4)


def test_every_batch_has_a_row_a_slot() -> None:
    seeker = Seeker()
    episodes(seeker, slots=4)
    assert set(seeker.batches) == {4}


def test_the_policy_that_looks_succeeds_and_its_trace_says_how() -> None:
    records = episodes(Seeker())
    assert all(record.success and record.credit == 1 and record.error is None for record in records)
    assert [record.initial_state for record in records] == [state.name for state in STATES]
    environment = SUITE.environment()
    environment.reset(STATES[3])
    assert [environment.step(action).done for action in records[3].trace][-2:] == [False, True]


def test_skipped_episodes_leave_the_others_as_they_are() -> None:
    whole = episodes(Seeker())
    done = {record.initial_state for record in whole[::3]}
    rest = rollout(SUITE, Seeker(), STATES, Options(4), skip=done)
    assert sorted(rest, key=lambda record: record.number) == [r for r in whole if r.initial_state not in done]


def test_an_episode_without_success_ends_at_the_step_limit() -> None:
    hold = np.array([[0, 0, 0, 0, 0, 0, 1]], np.float32)
    records = episodes(Answering(hold, said=""))
    assert {(record.success, record.steps, record.credit) for record in records} == {(False, MAX_STEPS, 0.0)}


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (np.full((1, 7), np.nan, np.float32), "not finite"),
        (np.full((1, 7), np.inf, np.float32), "not finite"),
        (np.full((1, 7), 1e4, np.float32), "out of range: 1e+04 in dimension 0"),
        (None, "the policy raised RuntimeError: the adapter is gone"),
    ],
)
def test_what_a_policy_does_wrong_fails_its_own_episodes_only(answer: Float32 | None, cause: str) -> None:
    good, right = episodes(Answering(answer)), episodes(Seeker())
    for record, expected in zip(good, right, strict=True):
        if record.task == "reach":
            assert record == expected
        else:
            assert not record.success
            assert cause in str(record.error)


def test_answers_of_the_wrong_shape_fail_with_their_shape() -> None:
    class Flat(Seeker):
        def act(self, observations: Sequence[Observation]) -> Float32:
            return super().act(observations)[:, 0]

    class Short(Seeker):
        def act(self, observations: Sequence[Observation]) -> Float32:
            return super().act(observations)[..., :4]

    assert {record.error for record in episodes(Flat())} == {
        "the policy answers 4 observations with an array (4, 7)",
    }
    assert {record.error for record in episodes(Short())} == {
        "the policy answers with an array (1, 4), an action here has 7 numbers",
    }


def test_an_environment_that_raises_costs_its_own_episode_only() -> None:
    broken = FakeSuite(raises_at={"far-001": 2})
    found = episodes(Seeker(), suite=broken)
    failed = [record for record in found if record.error]
    assert [(record.initial_state, record.steps) for record in failed] == [("far-001", 3)]
    assert failed[0].error == "the environment raised RuntimeError: the contact solver diverged"
    assert [r for r in found if not r.error] == [r for r in episodes(Seeker()) if r.initial_state != "far-001"]


def test_a_chunk_is_carried_out_whole_or_as_far_as_asked() -> None:
    for execute, calls in ((None, 3), (1, 1), (2, 2)):
        from vlakit.evaluation.latency import Control

        for record in episodes(Chunked(), control=Control(execute=execute)):
            assert record.policy_calls == -(-record.steps // calls)


@pytest.mark.slow
def test_worker_processes_give_the_same_episodes() -> None:
    broken = FakeSuite(raises_at={"far-001": 2})
    assert episodes(Seeker(), suite=broken, workers=2) == episodes(Seeker(), suite=broken)


def test_a_rollout_that_is_left_early_is_a_beginning_of_the_whole() -> None:
    whole = list(rollout(SUITE, Expert(), STATES, Options(3)))
    assert list(islice(rollout(SUITE, Expert(), STATES, Options(3)), 4)) == whole[:4]


def test_two_states_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidData, match="far-000"):
        list(rollout(SUITE, Expert(), [STATES[1], STATES[1]], Options(2)))


def test_no_slots_are_refused() -> None:
    with pytest.raises(ConfigError, match="slots=0"):
        Options(slots=0)


class Remembering(Seeker):
    """Looks at the newest picture, in a chunk of two actions, and keeps all it was given."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.given: dict[str, list[Observation]] = {}

    def chunk(self, observation: Observation) -> Float32:
        newest = replace(observation, images={"primary": observation.images["primary"][-1:]})
        return np.repeat(super().chunk(newest) * [[0.5, 0.5, 1, 1, 1, 1, 1]], 2, axis=0).astype(np.float32)

    def act(self, observations: Sequence[Observation]) -> Float32:
        self.given.setdefault("first slot", []).append(observations[0])
        return super().act(observations)


def test_a_policy_with_a_window_sees_the_last_steps_the_first_repeated_also_between_two_questions() -> None:
    policy = Remembering(3)
    (record,) = rollout(SUITE, policy, STATES[:1], Options(1))
    environment = SUITE.environment()
    pictures = [environment.reset(STATES[0]).image] + [environment.step(a).observation.image for a in record.trace]
    given = [observation.images["primary"] for observation in policy.given["first slot"]]
    assert [image.shape for image in given] == [(3, 64, 64, 3)] * record.policy_calls
    for call, image in enumerate(given):  # asked at steps 0, 2, 4, ...
        expected = [pictures[max(0, step)] for step in (2 * call - 2, 2 * call - 1, 2 * call)]
        assert np.array_equal(image, np.stack(expected))


def test_a_window_begins_anew_with_each_episode_and_changes_no_answer_that_does_not_use_it() -> None:
    policy = Remembering(3)
    with_window = sorted(rollout(SUITE, policy, STATES, Options(1)), key=lambda record: record.number)
    assert with_window == episodes(Remembering(1), slots=1)
    firsts = np.cumsum([0, *(record.policy_calls for record in with_window)])[:-1]
    for first, state in zip(firsts, STATES, strict=True):
        image = policy.given["first slot"][first].images["primary"]
        assert np.array_equal(image, np.stack([SUITE.environment().reset(state).image] * 3))


def test_without_a_window_the_environments_own_observation_is_passed_on() -> None:
    given = [Observation.of(np.zeros((4, 4, 3), np.uint8), "x")]
    assert stacked(given) is given[0]
