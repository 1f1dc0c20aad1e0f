"""Demonstrations: what is recorded, what is kept, and that processes change nothing."""

from functools import partial

import numpy as np
import pytest
from suites import SIZE, TASKS, LineSuite

from vlakit.data.rlds.images import decode_image
from vlakit.errors import ConfigError, InvalidData, UnknownName
from vlakit.evaluation.demonstrator import Demonstration, DemonstrationPlan, Demonstrator, demonstrate

QUIET = DemonstrationPlan(episodes=4, noise=0.0)
NOISY = DemonstrationPlan(episodes=6, noise=0.5)


def contents(episodes: list[Demonstration]) -> list[tuple[str, bytes, bytes]]:
    return [(d.state.name, b"".join(d.images), d.actions.tobytes()) for d in episodes]


def test_every_task_gets_as_many_successful_episodes_as_asked() -> None:
    demonstrator = Demonstrator(LineSuite, NOISY)
    episodes = list(demonstrator)
    assert all(d.success for d in episodes)
    assert [sum(d.state.task == task for d in episodes) for task in TASKS] == [6, 6]
    assert {task: tally.kept for task, tally in demonstrator.tallies.items()} == dict.fromkeys(TASKS, 6)
    assert sum(tally.steps for tally in demonstrator.tallies.values()) == sum(len(d.actions) for d in episodes)


def test_failures_are_counted_and_made_up_for_by_later_starts() -> None:
    demonstrator = Demonstrator(LineSuite, DemonstrationPlan(episodes=30, noise=1.0))
    names = [d.state.name for d in demonstrator]
    assert all(tally.tried > tally.kept == 30 for tally in demonstrator.tallies.values())
    assert len(set(names)) == 60


def test_the_label_of_a_disturbed_action_is_what_the_expert_wanted() -> None:
    suite = LineSuite()
    environment = suite.environment()
    state = suite.training_states("right", 1, 0)[0]
    always = DemonstrationPlan(noise=1.0)
    found = demonstrate(environment, state, 20, suite.noise, always)
    carried_out = np.stack(environment.actions)
    assert found.success
    assert not np.isclose(found.actions[:, 0], carried_out[:, 0]).any()
    np.testing.assert_array_equal(found.actions[:, 1:], carried_out[:, 1:])  # no noise where its scale is 0
    x = np.concatenate([[state.content["x"]], state.content["x"] + np.cumsum(carried_out[:-1, 0].clip(-0.25, 0.25))])
    np.testing.assert_allclose(found.actions[:, 0], (1 - x).clip(-0.25, 0.25), atol=1e-6)


def test_without_noise_what_is_recorded_is_what_was_done() -> None:
    suite = LineSuite()
    environment = suite.environment()
    found = demonstrate(environment, suite.training_states("left", 1, 0)[0], 20, suite.noise, QUIET)
    np.testing.assert_array_equal(found.actions, np.stack(environment.actions))


def test_the_image_is_what_was_seen_before_the_action() -> None:
    suite = LineSuite()
    state = suite.training_states("left", 1, 0)[0]
    found = demonstrate(suite.environment(), state, 20, suite.noise, QUIET)
    seen = [decode_image(image).mean(axis=(0, 2)).argmax() for image in found.images]
    x = state.content["x"] + np.concatenate([[0], np.cumsum(found.actions[:-1, 0])])
    assert seen == [int((value + 1.5) / 3 * SIZE) for value in x]


def test_steps_are_marked_at_both_ends_and_rewarded_at_the_last() -> None:
    found = next(iter(Demonstrator(LineSuite, QUIET)))
    steps = found.steps()
    assert [step["is_first"] for step in steps] == [True] + [False] * (len(steps) - 1)
    ends = [False] * (len(steps) - 1) + [True]
    assert [step["is_last"] for step in steps] == [step["is_terminal"] for step in steps] == ends
    assert [step["reward"] for step in steps] == ends
    assert {step["language_instruction"] for step in steps} == {found.state.instruction}


@pytest.mark.slow
def test_processes_change_nothing() -> None:
    alone = contents(list(Demonstrator(LineSuite, NOISY)))
    assert contents(list(Demonstrator(LineSuite, NOISY, workers=2))) == alone


def test_another_seed_gives_other_starts_and_disturbances() -> None:
    first, again, other = (
        contents(list(Demonstrator(LineSuite, DemonstrationPlan(4, seed, 0.5)))) for seed in (0, 0, 1)
    )
    assert first == again
    assert not {name for name, *_ in first} & {name for name, *_ in other}


def test_no_evaluation_start_is_demonstrated() -> None:
    suite = LineSuite()
    evaluated = {state.name for task in TASKS for state in suite.initial_states(task, 50)}
    assert not evaluated & {d.state.name for d in Demonstrator(LineSuite, NOISY)}


def test_the_environment_is_closed_when_the_reader_stops_early() -> None:
    suites: list[LineSuite] = []

    def build() -> LineSuite:
        suites.append(LineSuite())
        return suites[-1]

    episodes = iter(Demonstrator(build, QUIET))
    next(episodes)
    episodes.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert [environment.closed for suite in suites for environment in suite.environments] == [True]


def test_an_expert_that_cannot_ends_the_command_with_its_rate() -> None:
    with pytest.raises(InvalidData, match="succeeds in 0 of 30 episodes of 'left'"):
        list(Demonstrator(partial(LineSuite, gain=0.0), DemonstrationPlan(episodes=30)))


def test_a_suite_that_runs_out_of_starts_says_so() -> None:
    with pytest.raises(InvalidData, match="'left' has only 5 training starts"):
        list(Demonstrator(partial(LineSuite, n_starts=5), QUIET.__class__(episodes=6)))


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean right"):
        list(Demonstrator(LineSuite, DemonstrationPlan(tasks=("rihgt",))))


@pytest.mark.parametrize("plan", [DemonstrationPlan(episodes=0), DemonstrationPlan(noise=1.5)], ids=str)
def test_a_plan_without_sense_is_refused(plan: DemonstrationPlan) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        list(Demonstrator(LineSuite, plan))
