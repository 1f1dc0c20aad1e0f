"""The tabletop's demonstrations: from the command to shards and back into the simulator."""

from pathlib import Path

import numpy as np
import pytest
from commands import report, run

from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import ShardFolder
from vlakit.data.specs.spec import load_spec

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


def test_demonstrations_without_noise_succeed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demonstrate", words(tmp_path / "rlds", "noise=0")) == 0
    capsys.readouterr()
    found = report(capsys, "replay", "suite=tabletop_target", f"demonstrations={tmp_path / 'rlds'}")
    assert (found["episodes"], found["passed"]) == (4, True)
    assert found["pixels"] < 5
