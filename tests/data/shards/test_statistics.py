"""Statistics are exact, in OpenVLA's layout, and survive the trip through JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

from vlakit.data.shards.statistics import NAMES, compute_statistics, load_statistics, proprio_columns, save_statistics
from vlakit.errors import InvalidData, StatisticsMissing
from vlakit.schema import DatasetStatistics

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


def foreign(tmp_path: Path, **changes: object) -> DatasetStatistics:
    numbers = {"mean": 0.5, "std": 0.5, "max": 1.0, "min": 0.0, "q01": 0.0, "q99": 1.0}
    action = {name: [value] * 3 for name, value in numbers.items()} | {"mask": [True, True, False]} | changes
    (tmp_path / "s.json").write_text(json.dumps({"old": {"action": {k: v for k, v in action.items() if v != []}}}))
    return load_statistics(tmp_path / "s.json")["old"]


def test_without_a_mask_every_column_is_normalised_as_in_the_original_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert foreign(tmp_path, mask=[]).mask.tolist() == [True, True, True]
    assert "has no mask: every column is normalised" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q99": [1.0, float("nan"), 1.0]}, "q99 of column 1 is nan"),
        ({"q01": [0.0, 0.0, float("-inf")]}, "q01 of column 2 is -inf"),
        ({"mean": [0.0, None, 0.0]}, "mean of column 1 is nan"),
        ({"q01": [0.0, 2.0, 0.0]}, "q01 2.0 is above q99 1.0 in column 1"),
        ({"min": [0.0, 0.0, 3.0]}, "min 3.0 is above max 1.0 in column 2"),
        ({"min": [1.0, 0.0, 0.0]}, "min = max = 1.0 in column 0, and q01, q99 are others"),
        ({"mask": [1, 1, 0]}, "mask holds 1"),
        ({"mask": ["true", True, False]}, "mask holds 'true'"),
        ({"mask": [True, False]}, "different lengths"),
        ({"mask": True}, "garble"),
    ],
)
def test_statistics_from_outside_are_finite_in_order_and_have_a_mask_of_booleans(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    assert foreign(tmp_path).mask.tolist() == [True, True, False]
    with pytest.raises(InvalidData, match=message):
        foreign(tmp_path, **changes)


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
