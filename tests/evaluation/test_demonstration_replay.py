"""Demonstrations on disk replay in the suite they came from, and in no other."""

from pathlib import Path

import numpy as np
import pytest
from fake_suite import FakeEnvironment, FakeSuite

from vlakit.errors import ConfigError, InvalidData
from vlakit.evaluation.demonstration_replay import recorded_demonstrations, replay_demonstrations
from vlakit.evaluation.demonstration_writer import write_demonstrations
from vlakit.evaluation.demonstrator import DemonstrationPlan, Demonstrator
from vlakit.schema import Float32, Observation

SUITE = FakeSuite()


def unchanged(actions: Float32) -> Float32:
    return actions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rlds") / "fake_dots"
    write_demonstrations(Demonstrator(FakeSuite, DemonstrationPlan(episodes=5, noise=0.0, seed=3)), out)
    return out


def test_recorded_actions_succeed_again_and_first_frames_match(folder: Path) -> None:
    result = replay_demonstrations(SUITE, folder, unchanged, 10)
    assert (result.episodes, result.successes, result.passed) == (10, 10, True)
    assert result.pixels is not None
    assert 0 < result.pixels < 5
    assert "grey levels" in str(result)


def test_only_so_many_as_are_asked_for_are_read(folder: Path) -> None:
    assert replay_demonstrations(SUITE, folder, unchanged, 3).episodes == 3
    assert next(recorded_demonstrations(folder)).initial_state.startswith("train-")


def test_a_flipped_picture_closes_the_gate_though_every_replay_succeeds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = FakeEnvironment._observation

    def upside_down(self: FakeEnvironment) -> Observation:
        seen = plain(self)
        return Observation.of(np.ascontiguousarray(255 - seen.image[::-1]), seen.instruction, seen.dataset)

    monkeypatch.setattr(FakeEnvironment, "_observation", upside_down)
    result = replay_demonstrations(SUITE, folder, unchanged, 4)
    assert (result.success, result.passed) == (1.0, False)


def test_broken_actions_close_the_gate(folder: Path) -> None:
    assert not replay_demonstrations(SUITE, folder, lambda actions: -actions, 4).passed


def test_demonstrations_of_another_suite_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidData, match="demonstrations of suite fake, not other"):
        replay_demonstrations(FakeSuite(name="other"), folder, unchanged, 4)


def test_disturbed_demonstrations_are_refused_as_their_records_are_not_what_was_done(tmp_path: Path) -> None:
    write_demonstrations(Demonstrator(FakeSuite, DemonstrationPlan(episodes=1, noise=0.3)), tmp_path / "noisy")
    with pytest.raises(ConfigError, match=r"noise=0\.3") as caught:
        replay_demonstrations(SUITE, tmp_path / "noisy", unchanged, 4)
    assert "noise=0" in caught.value.do


def test_a_folder_that_holds_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"demonstrations\.json"):
        replay_demonstrations(SUITE, tmp_path, unchanged, 4)
