"""The tabletop's demonstrations: from the command to shards and back into the simulator."""

from pathlib import Path

import numpy as np
import pytest
from commands import report, run

from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import ShardFolder
from vlakit.data.specs.spec import load_spec
from vlakit.evaluation.demonstrator import DemonstrationPlan, demonstrate
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite

pytestmark = pytest.mark.sim


def words(out: Path, *more: str) -> list[str]:
    return ["suite=tabletop_target", "episodes=2", "tasks=[lift,push]", f"out={out}", *more]


def test_shards_of_demonstrations_have_finite_statistics_and_no_rotation(tmp_path: Path) -> None:
    assert run("demonstrate", words(tmp_path / "rlds")) == 0
    convert(tmp_path / "rlds", tmp_path / "shards", load_spec("tabletop_target"), val_fraction=0.25)
    statistics = ShardFolder.open(tmp_path / "shards").statistics
    assert statistics.num_trajectories == 4
    low, high = statistics.q01, statistics.q99
    assert np.isfinite([low, high]).all()
    assert (low[:3] < high[:3]).all()
    for constant in (low, high, statistics.mean, statistics.std, statistics.min, statistics.max):
        assert (constant[3:6] == 0).all()
    assert (statistics.min[6], statistics.max[6]) == (0, 1)


def test_what_the_robot_knows_of_itself_is_recorded_as_it_is_shown(tmp_path: Path) -> None:
    suite = TabletopSuite("target")
    state = suite.training_states("lift", 1, 0)[0]
    found = demonstrate(suite.environment(), state, 40, suite.noise, DemonstrationPlan(noise=0))
    environment = suite.environment()
    shown = [environment.reset(state), *(environment.step(action).observation for action in found.actions[:-1])]
    np.testing.assert_array_equal(found.states, np.concatenate([one.proprio for one in shown]))
    hand, turned, padding, opening = found.states[:, :3], found.states[:, 3:6], found.states[:, 6], found.states[:, 7]
    moved = np.diff(hand, axis=0)
    assert np.corrcoef(moved[:, 2], found.actions[:-1, 2])[0, 1] > 0.9  # metres, in the order of the action
    assert np.abs(turned).max() < 0.1  # radians: it never turns of its own accord
    assert (padding == 0).all()
    assert (opening[0] > 0.9) & (opening[-1] < 0.8)  # closed around the thing
    assert run("demonstrate", words(tmp_path / "rlds")) == 0
    convert(tmp_path / "rlds", tmp_path / "shards", load_spec("tabletop_target"), val_fraction=0.25)
    proprio = ShardFolder.open(tmp_path / "shards").statistics.proprio
    assert proprio is not None
    assert proprio["min"].shape == (8,)
    assert (proprio["min"][:3] < proprio["max"][:3]).all()


def test_demonstrations_without_noise_succeed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demonstrate", words(tmp_path / "rlds", "noise=0")) == 0
    capsys.readouterr()
    found = report(capsys, "replay", "suite=tabletop_target", f"demonstrations={tmp_path / 'rlds'}")
    assert (found["episodes"], found["passed"]) == (4, True)
    assert found["pixels"] < 5
