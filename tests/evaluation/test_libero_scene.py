"""LIBERO's real scenes, starts and success, with boxes in place of its meshes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from libero_assets import write_assets

from vlakit.errors import InvalidData, PartMissing
from vlakit.evaluation.suites.libero import setup as libero_setup
from vlakit.evaluation.suites.libero.suite import LiberoEnvironment, LiberoSuite

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(find_spec("libero") is None, reason="the extra 'libero' is not installed"),
]
MILK = "pick_up_the_milk_and_place_it_in_the_basket"
OPEN, CLOSED = np.float32([0] * 6 + [1]), np.float32([0] * 6 + [0])


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> LiberoSuite:
    return LiberoSuite("libero_object", str(write_assets(tmp_path_factory.mktemp("libero") / "assets")))


@pytest.fixture(scope="module")
def environment(suite: LiberoSuite) -> Iterator[LiberoEnvironment]:
    made = suite.environment()
    yield made
    made.close()


def test_a_reset_repeats_to_the_last_bit_and_leaves_the_global_generator_alone(
    suite: LiberoSuite, environment: LiberoEnvironment
) -> None:
    first, second = suite.initial_states(MILK, 2)
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.RandomState(3).rand()
    seen = environment.reset(first)
    state = environment._world.get_sim_state()
    other = environment.reset(second)
    assert np.random.rand() == expected  # noqa: NPY002
    assert not np.array_equal(environment._world.get_sim_state()[1:], state[1:])
    again = environment.reset(first)
    assert np.array_equal(environment._world.get_sim_state(), state)
    assert np.array_equal(again.image, seen.image)
    assert not np.array_equal(other.image, seen.image)
    assert (seen.image.shape, seen.instruction) == ((256, 256, 3), "pick up the milk and place it in the basket")


def test_ten_settling_steps_come_before_the_first_observation(
    suite: LiberoSuite, environment: LiberoEnvironment
) -> None:
    (state,) = suite.initial_states(MILK, 1)
    environment.reset(state)
    assert environment._world.env.timestep == 10
    recorded = libero_setup.start_vectors("libero_object", MILK)[0]
    assert environment._world.get_sim_state()[0] - recorded[0] == pytest.approx(10 / suite.control_hz)


def test_actions_move_the_hand_along_their_axis_and_the_gripper_as_told(
    suite: LiberoSuite, environment: LiberoEnvironment
) -> None:
    (state,) = suite.initial_states(MILK, 1)
    environment.reset(state)

    def hand() -> np.ndarray:
        return environment._world.env._get_observations()["robot0_eef_pos"].copy()

    def width() -> float:
        return float(np.ptp(environment._world.env._get_observations()["robot0_gripper_qpos"]))

    before, opened = hand(), width()
    for _ in range(8):
        environment.step(np.float32([0.5, 0, 0, 0, 0, 0, 0]))
    moved = hand() - before
    assert 0.01 < moved[0] < 8 * 0.5 * 0.05  # the controller lags behind what it was asked for
    assert np.abs(moved[1:]).max() < 0.5 * moved[0]
    assert width() < 0.5 * opened
    assert np.array_equal(environment.hold(), CLOSED)
    environment.step(OPEN)
    assert np.array_equal(environment.hold(), OPEN)


def test_success_is_what_libero_calls_done(suite: LiberoSuite, environment: LiberoEnvironment) -> None:
    (state,) = suite.initial_states(MILK, 1)
    environment.reset(state)
    step = environment.step(OPEN)
    assert (step.done, step.credit) == (False, 0.0)
    data = environment._world.sim.data
    basket = data.get_joint_qpos("basket_1_joint0")
    on_top = np.array([0, 0, 0.0405, 0, 0, 0, 0])
    data.set_joint_qpos("milk_1_joint0", basket + on_top)
    steps = [environment.step(OPEN) for _ in range(4)]
    assert (steps[-1].done, steps[-1].credit) == (True, 1.0)


def test_another_environment_in_the_process_changes_no_picture(
    suite: LiberoSuite, environment: LiberoEnvironment
) -> None:
    state, other_state = suite.initial_states(MILK, 2)
    environment.reset(state)
    alone = [environment.step(OPEN).observation.image for _ in range(3)]
    environment.reset(state)
    other = suite.environment()
    other.reset(other_state)
    found = [environment.step(OPEN).observation.image]
    other.step(CLOSED)
    found.append(environment.step(OPEN).observation.image)
    other.close()
    found.append(environment.step(OPEN).observation.image)
    assert [np.array_equal(a, b) for a, b in zip(alone, found, strict=True)] == [True] * 3


def test_a_picture_for_people_has_the_size_they_ask_for(suite: LiberoSuite, environment: LiberoEnvironment) -> None:
    seen = environment.reset(suite.initial_states(MILK, 1)[0])
    assert np.array_equal(environment.picture(256), seen.image)
    assert environment.picture(160).shape == (160, 160, 3)


def test_a_missing_mesh_and_a_scene_of_another_version_are_told_apart(suite: LiberoSuite, tmp_path: Path) -> None:
    assets = write_assets(tmp_path / "assets")
    (assets / "stable_hope_objects" / "milk" / "milk.xml").unlink()
    broken = LiberoSuite("libero_object", str(assets))
    with pytest.raises(PartMissing, match=r"milk\.xml") as caught:
        broken.environment().reset(broken.initial_states(MILK, 1)[0])
    assert "assets" in caught.value.do
    libero_setup.simulator_class(libero_setup.find_assets(suite.assets))  # the package reads one folder a process
    strange = LiberoEnvironment("libero_spatial", suite.dataset, _milk_scene(suite))
    other = LiberoSuite("libero_spatial")
    with pytest.raises(InvalidData, match="its recorded start 92"):
        strange.reset(other.initial_states(other.tasks[0], 1)[0])
    strange.close()


def _milk_scene(suite: LiberoSuite):
    file = libero_setup.package_folder() / "bddl_files" / "libero_object" / f"{MILK}.bddl"
    simulator = libero_setup.simulator_class(libero_setup.find_assets(suite.assets))
    return lambda **options: simulator(**{**options, "bddl_file_name": str(file)})
