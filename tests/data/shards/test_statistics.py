"""Statistics are exact, in OpenVLA's layout, and survive the trip through JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

from vlakit.data.shards.statistics import NAMES, compute_statistics, load_statistics, proprio_columns, save_statistics
from vlakit.errors import InvalidData, StatisticsMissing

RNG = np.random.default_rng(0)
ACTIONS = RNG.normal(size=(1000, 7)).astype(np.float32)
PROPRIO = RNG.normal(size=(1000, 3)).astype(np.float32)


def blocks(values: np.ndarray, *ends: int) -> list[np.ndarray]:
    return [part.T for part in np.split(values, ends)]


def test_statistics_in_blocks_are_those_of_the_whole() -> None:
    found = compute_statistics(blocks(ACTIONS, 10, 400), blocks(PROPRIO, 500), 5)
    whole = ACTIONS.astype(np.float64)
    assert np.array_equal(found.q01, np.quantile(whole, 0.01, axis=0))
    assert np.array_equal(found.q99, np.quantile(whole, 0.99, axis=0))
    assert np.array_equal(found.max, whole.max(axis=0))
    assert np.array_equal(found.min, whole.min(axis=0))
    np.testing.assert_allclose(found.mean, whole.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.std, whole.std(axis=0), rtol=1e-12)
    assert (found.num_transitions, found.num_trajectories) == (1000, 5)


def test_only_the_gripper_is_left_unnormalised_by_default() -> None:
    assert compute_statistics([ACTIONS.T], [], 1).mask.tolist() == [True] * 6 + [False]


@pytest.mark.parametrize("proprio", [[], [PROPRIO.T]], ids=["none", "some"])
def test_saved_statistics_load_exactly(tmp_path: Path, proprio: list[np.ndarray]) -> None:
    before = compute_statistics([ACTIONS.T], proprio, 3)
    save_statistics(tmp_path / "s.json", {"toy": before})
    after = load_statistics(tmp_path / "s.json")["toy"]
    assert all(np.array_equal(getattr(after, name), getattr(before, name)) for name in NAMES)
    assert (after.proprio is None) == (before.proprio is None)
    assert after.num_transitions == 1000


def test_layout_is_that_of_openvla(tmp_path: Path) -> None:
    save_statistics(tmp_path / "s.json", {"toy": compute_statistics([ACTIONS.T], [], 3)})
    entry = json.loads((tmp_path / "s.json").read_text())["toy"]
    assert list(entry) == ["action", "proprio", "num_transitions", "num_trajectories"]
    assert set(entry["action"]) == {*NAMES, "mask"}
    assert entry["proprio"] == {name: [0.0] * 7 for name in NAMES}


def test_foreign_file_without_mask_leaves_the_gripper(tmp_path: Path) -> None:
    action = {name: [0.5, 1.0, 2.0] for name in NAMES}
    (tmp_path / "s.json").write_text(json.dumps({"old": {"action": action}}))
    assert load_statistics(tmp_path / "s.json")["old"].mask.tolist() == [True, True, False]


@pytest.mark.parametrize("content", ["[]", "nope", '{"a": {}}', '{"a": {"action": {"mean": [1]}}}', '{"a": 3}'])
def test_garbled_statistics_are_invalid_data(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InvalidData, match=r"s\.json"):
        load_statistics(tmp_path / "s.json")


def test_absent_statistics_are_missing(tmp_path: Path) -> None:
    with pytest.raises(StatisticsMissing):
        load_statistics(tmp_path / "s.json")


def test_no_transition_gives_no_statistics() -> None:
    with pytest.raises(InvalidData):
        compute_statistics([np.zeros((7, 0), np.float32)], [], 0)


def test_null_of_the_proprio_order_is_one_column_of_zeros() -> None:
    columns = proprio_columns({"b": PROPRIO[:, :2], "a": PROPRIO[:, 2:]}, ["a", None, "b"], 1000)
    assert columns.shape == (1000, 4)
    assert not columns[:, 1].any()
    assert np.array_equal(columns[:, 0], PROPRIO[:, 2])
