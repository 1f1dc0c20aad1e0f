"""Meta-World as a suite: sentences and mapping need no simulator; what is drawn or stepped is marked `sim`."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from vlakit.errors import ConfigError, PartMissing, UnknownName
from vlakit.evaluation.demonstrator import DemonstrationPlan, Demonstrator
from vlakit.evaluation.suites.metaworld import suite as metaworld
from vlakit.evaluation.suites.metaworld.suite import (
    LIMIT,
    REACH,
    MetaWorld,
    MetaWorldEnvironment,
    own_action,
    vlakit_action,
)
from vlakit.evaluation.suites.metaworld.tasks import BENCHMARKS, SENTENCES
from vlakit.evaluation.suites.metaworld.world import simulator

NAMED = ("reach-v3", "drawer-open-v3")


@pytest.fixture(autouse=True)
def _package(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("sim") and find_spec("metaworld") is None:
        pytest.skip("needs the extra: pip install 'vlakit[metaworld]'")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were installed: for what never imports it."""
    monkeypatch.setattr(metaworld, "find_spec", lambda name: object())


def test_every_task_has_its_own_short_sentence() -> None:
    assert len(set(SENTENCES.values())) == len(SENTENCES) == 50
    assert all(2 <= len(said.split()) <= 9 and said == said.lower().strip() for said in SENTENCES.values())


@pytest.mark.sim
def test_tasks_are_those_of_the_package() -> None:
    known = set(simulator().environments)
    from metaworld.env_dict import MT10_V3, MT50_V3  # after the backend is chosen

    assert list(BENCHMARKS["MT10"]) == list(MT10_V3)
    assert set(BENCHMARKS["MT50"]) == set(MT50_V3) == known


@pytest.mark.parametrize("repeat", [1, 5, 10])
def test_an_action_survives_the_trip_to_meta_world_and_back(repeat: int) -> None:
    own = np.random.default_rng(0).uniform(-1, 1, (20, 4))
    there = np.stack([own_action(vlakit_action(action, repeat), repeat) for action in own])
    np.testing.assert_allclose(there, own, atol=1e-6)


def test_an_open_gripper_is_effort_minus_one() -> None:
    opened, closed = np.zeros(7, np.float32), np.zeros(7, np.float32)
    opened[6] = 1
    assert (own_action(opened, 5)[3], own_action(closed, 5)[3]) == (-1, 1)


def test_what_is_out_of_reach_is_cut_off() -> None:
    far = np.array([9, -9, 0, 3, 3, 3, 7], np.float32)
    assert own_action(far, 5).tolist() == [1, -1, 0, -1]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metaworld, "find_spec", lambda name: None)
    with pytest.raises(PartMissing, match=r"pip install 'vlakit\[metaworld\]'"):
        MetaWorld("MT10")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("settings", "near"),
    [
        ({"benchmark": "MT11"}, "MT10"),
        ({"tasks": ["door-opne-v3"]}, "door-open-v3"),
        ({"tasks": ["hammer-v3"]}, "known: "),  # of MT50, not of MT10
        ({"camera": "corner5"}, "corner4"),
    ],
    ids=str,
)
def test_an_unknown_name_tells_the_nearest(settings: dict[str, object], near: str) -> None:
    with pytest.raises(UnknownName, match=near):
        MetaWorld(**settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("settings", [{"repeat": 0}, {"repeat": LIMIT + 1}, {"image_size": 4}], ids=str)
def test_a_setting_without_sense_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        MetaWorld("MT10", **settings)


@pytest.mark.usefixtures("installed")
def test_an_episode_lasts_no_longer_than_the_package_allows() -> None:
    for repeat in (1, 5, 6, 7):
        suite = MetaWorld("MT10", repeat=repeat)
        assert LIMIT - repeat < suite.max_steps("reach-v3") * repeat <= LIMIT
        assert suite.control_hz == 80 / repeat


def test_stepping_before_a_reset_says_so() -> None:
    with pytest.raises(ConfigError, match="no episode has begun"):
        MetaWorldEnvironment(5, 64, "corner4", "x").step(np.zeros(7, np.float32))


@pytest.fixture(scope="module")
def suite() -> MetaWorld:
    return MetaWorld("MT10", tasks=NAMED)


@pytest.fixture
def environment(suite: MetaWorld):
    environment = suite.environment()
    yield environment
    environment.close()


def roll(environment: MetaWorldEnvironment, state, n: int) -> list[bytes]:
    """The bytes of n images, of the scripted policy's actions between them, and of the joints at the end."""
    seen = [environment.reset(state).image.tobytes()]
    for _ in range(n):
        action = environment.expert()
        seen += [action.tobytes(), environment.step(action).observation.image.tobytes()]
    return [*seen, environment._running.env.data.qpos.tobytes()]


@pytest.mark.sim
def test_a_start_is_the_same_to_the_last_bit_whatever_came_before(
    suite: MetaWorld, environment: MetaWorldEnvironment
) -> None:
    first, second = suite.initial_states("drawer-open-v3", 2)
    before = roll(environment, first, 4)
    assert roll(environment, second, 6) != before
    roll(environment, suite.initial_states("reach-v3", 1)[0], 1)
    assert roll(environment, first, 4) == before


@pytest.mark.sim
def test_two_environments_in_a_process_do_not_disturb_each_other(
    suite: MetaWorld, environment: MetaWorldEnvironment
) -> None:
    states = [suite.initial_states(task, 1)[0] for task in NAMED]
    alone = [roll(environment, state, 3) for state in states]
    other = suite.environment()
    images = [[environment.reset(states[0]).image.tobytes()], [other.reset(states[1]).image.tobytes()]]
    for _ in range(3):
        for slot, seen in zip((environment, other), images, strict=True):
            seen.append(slot.step(slot.expert()).observation.image.tobytes())
    other.close()
    assert images == [[seen[0], *seen[2:-1:2]] for seen in alone]


@pytest.mark.sim
def test_asking_the_expert_changes_nothing(suite: MetaWorld, environment: MetaWorldEnvironment) -> None:
    environment.reset(suite.initial_states("drawer-open-v3", 1)[0])
    first = environment.expert()
    np.testing.assert_array_equal(environment.expert(), first)
    hold = environment.hold()
    once = environment.step(hold).observation.image
    environment.reset(suite.initial_states("drawer-open-v3", 1)[0])
    np.testing.assert_array_equal(environment.step(hold).observation.image, once)


@pytest.mark.sim
def test_more_starts_begin_with_fewer_and_no_training_start_is_evaluated(suite: MetaWorld) -> None:
    assert suite.initial_states("reach-v3", 2) == MetaWorld("MT10", tasks=NAMED).initial_states("reach-v3", 4)[:2]
    streams = [suite.initial_states("reach-v3", 4), *(suite.training_states("reach-v3", 4, seed) for seed in (0, 1))]
    drawn = [tuple(state.content["rand_vec"]) for states in streams for state in states]
    assert len(set(drawn)) == len({state.name for states in streams for state in states}) == 12


@pytest.mark.sim
def test_an_action_moves_the_hand_by_its_metres(suite: MetaWorld, environment: MetaWorldEnvironment) -> None:
    environment.reset(suite.initial_states("reach-v3", 1)[0])
    mocap = environment._running.env.data.mocap_pos[0]
    before = mocap.copy()
    wanted = np.array([0.02, 0.03, -0.01, 0, 0, 0, 1], np.float32)
    environment.step(wanted)
    moved = environment._running.env.data.mocap_pos[0] - before
    np.testing.assert_allclose(moved, wanted[:3], atol=1e-6)
    assert np.all(np.abs(wanted[:3]) <= REACH * suite.repeat)


@pytest.mark.sim
def test_pictures_have_the_asked_size_and_show_the_same_moment(
    suite: MetaWorld, environment: MetaWorldEnvironment
) -> None:
    image = environment.reset(suite.initial_states("reach-v3", 1)[0]).image
    large = environment.picture(256)
    assert (image.shape, large.shape, image.dtype) == ((64, 64, 3), (256, 256, 3), np.uint8)
    small = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - image).mean() < 12
    assert image.std() > 20


@pytest.mark.sim
def test_the_expert_succeeds_also_when_disturbed(suite: MetaWorld) -> None:
    demonstrator = Demonstrator(lambda: suite, DemonstrationPlan(episodes=3, noise=0.3))
    assert len(list(demonstrator)) == 6
    assert all(tally.tried <= 4 for tally in demonstrator.tallies.values())
