"""Every op against arrays worked out by hand; the two that look along time also against a walk through it."""

import zlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlakit.data.specs import ops
from vlakit.errors import ConfigError, CorruptRecord, InvalidData, UnknownName

RELATIVE = {
    "no_event_is_open_throughout": ([0.0, 0.05, -0.1], [1, 1, 1]),
    "closing_first_was_open_before": ([0.0, 1.0, 0.0], [1, 0, 0]),
    "opening_first_was_closed_before": ([0.0, -1.0, 0.0], [0, 1, 1]),
    "an_event_at_the_first_step": ([1.0, 0.0, -1.0], [0, 0, 1]),
    "an_event_at_the_last_step": ([0.0, 0.0, 1.0], [1, 1, 0]),
    "one_step_without_event": ([0.0], [1]),
    "one_step_closing": ([1.0], [0]),
    "one_step_opening": ([-1.0], [1]),
    "a_repeated_event_changes_nothing": ([1.0, 1.0, 0.0, -1.0, -1.0], [0, 0, 0, 1, 1]),
    "empty": ([], []),
}
POSITION = {
    "decided_values_snap": ([0.96, 0.04, 1.0], [1, 0, 1]),
    "in_between_takes_the_next_decided": ([0.5, 0.5, 0.0, 0.5, 1.0], [0, 0, 0, 1, 1]),
    "all_in_between_keep_the_last_raw": ([0.2, 0.5, 0.75], [0.75, 0.75, 0.75]),
    "trailing_in_between_keep_the_last_raw": ([1.0, 0.5, 0.25], [1, 0.25, 0.25]),
    "thresholds_themselves_are_in_between": ([0.95, 0.05, 0.0], [0, 0, 0]),
    "one_step_in_between": ([0.5], [0.5]),
    "one_step_decided": ([0.99], [1]),
    "empty": ([], []),
}


def column(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize(("given", "expected"), RELATIVE.values(), ids=RELATIVE)
def test_relative_gripper_events_are_held(given, expected):
    assert ops.gripper_rel2abs(column(given)).tolist() == column(expected).tolist()


@pytest.mark.parametrize(("given", "expected"), POSITION.values(), ids=POSITION)
def test_gripper_position_rounds_to_where_it_goes_next(given, expected):
    assert ops.gripper_binarize(column(given)).tolist() == column(expected).tolist()


def hold_events(values: np.ndarray) -> list[float]:
    events = [-1 if x > 0.1 else int(x < -0.1) for x in values]
    first = next((event for event in events if event), -1)
    state, states = -first, []
    for event in events:
        state = event or state
        states.append((state + 1) / 2)
    return states


def round_backwards(values: np.ndarray) -> list[float]:
    state, states = float(values[-1]), []
    for x in values[::-1]:
        state = 1.0 if x > 0.95 else 0.0 if x < 0.05 else state
        states.append(state)
    return states[::-1]


@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_gripper_ops_equal_a_walk_through_time(length):
    rng = np.random.default_rng(length)
    for _ in range(50):
        relative = rng.choice([-1, -0.1, 0, 0.05, 0.1, 1], length).astype(np.float32)
        position = rng.choice([0, 0.05, 0.3, 0.7, 0.95, 1], length).astype(np.float32)
        np.testing.assert_array_equal(ops.gripper_rel2abs(relative), hold_events(relative))
        np.testing.assert_allclose(ops.gripper_binarize(position), round_backwards(position))


@pytest.mark.parametrize("op", [ops.gripper_rel2abs, ops.gripper_binarize])
def test_gripper_ops_keep_the_shape_and_leave_their_input_alone(op):
    values = np.array([0.5, 1.0, -1.0])
    assert op(values).shape == (3,)
    assert op(values[:, None]).shape == (3, 1)
    assert values.tolist() == [0.5, 1.0, -1.0]


def test_random_quaternions_turn_as_scipy_says():
    quaternions = np.random.default_rng(0).normal(size=(500, 4))
    expected = Rotation.from_quat(quaternions).as_euler("xyz")
    np.testing.assert_allclose(ops.quat_xyzw_to_euler(quaternions), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Gimbal lock")
@pytest.mark.parametrize("pitch", [90, -90])
@pytest.mark.parametrize(("roll", "yaw"), [(30, 50), (170, 120), (0, 0), (-100, 100), (-170, 170)])
def test_straight_up_and_down_put_the_whole_turn_into_roll(pitch, roll, yaw):
    quaternion = Rotation.from_euler("xyz", [roll, pitch, yaw], degrees=True).as_quat()[None]
    angles = ops.quat_xyzw_to_euler(quaternion)[0].astype(np.float64)
    expected = Rotation.from_euler("xyz", [roll - np.sign(pitch) * yaw, pitch, 0], degrees=True)
    assert angles[2] == 0
    assert abs(angles[0]) <= np.pi + 1e-6
    np.testing.assert_allclose(Rotation.from_euler("xyz", angles).as_matrix(), expected.as_matrix(), atol=1e-6)


def test_a_quaternion_of_no_length_names_its_step():
    with pytest.raises(InvalidData, match="step 1 "):
        ops.quat_xyzw_to_euler(np.array([[0, 0, 0, 1.0], [0, 0, 0, 0]]))


def test_as_column_keeps_the_first_of_several_columns():
    assert ops.as_column(np.array([[1, 2], [3, 4]])).tolist() == [[1], [3]]


def test_casts_and_arithmetic_give_floats():
    assert ops.cast_f32(np.array([3], np.int64)).dtype == np.float32
    assert ops.invert(np.array([0, 2], np.uint8)).tolist() == [1.0, -1.0]
    assert ops.invert(np.array([True])).tolist() == [0.0]
    assert ops.clip01(np.array([-0.5, 0.25, 7])).tolist() == [0, 0.25, 1]
    assert ops.depth_channel0_f32(np.arange(12, dtype=np.uint16).reshape(1, 2, 2, 3)).tolist() == [[[0, 3], [6, 9]]]


def test_zlib_rows_inflate_and_inflated_rows_only_take_the_shape():
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    packed = [zlib.compress(row.tobytes()) for row in rows]
    inflate = ops.find("zlib_f32:3")
    np.testing.assert_array_equal(inflate(packed), rows)
    np.testing.assert_array_equal(inflate(rows), rows)
    np.testing.assert_array_equal(ops.zlib_f32(np.array([1.0, 2.0])), [[1], [2]])


@pytest.mark.parametrize("packed", [b"", b"\x00\x00", zlib.compress(b"123"), zlib.compress(b"1234")])
def test_bytes_that_are_no_float_rows_are_corrupt(packed):
    with pytest.raises(CorruptRecord):
        ops.zlib_f32([packed], 2)


def test_code_points_become_utf8_and_end_at_the_first_nul():
    codes = np.array([[112, 0x20AC, 0, 120], [0, 97, 0, 0], [0xD800, 0x110000, -1, 98]])
    encoded = ops.cut_at_nul(ops.unicode_codepoints_to_str(codes))
    assert [text.decode() for text in encoded] == ["p€", "", "\ufffd\ufffd\ufffdb"]


def test_dropped_steps_leave_every_field():
    steps = {"action": np.arange(3), "text": [b"a", b"b", b"c"]}
    dropped = ops.drop_first_steps(steps, 2)
    assert dropped["action"].tolist() == [2]
    assert dropped["text"] == [b"c"]


@pytest.mark.parametrize("length", [0, 1, 3])
def test_relabelled_motion_is_the_state_difference_and_loses_a_step(length):
    state = np.cumsum(np.ones((length, 7)), axis=0) ** 2
    action = np.concatenate([np.full((length, 6), 9.0), np.arange(length)[:, None]], axis=1)
    relabelled = ops.relabel_motion_from_state(action, {"observation/state": state})
    assert relabelled.tolist() == [[3.0] * 6 + [0.0], [5.0] * 6 + [1.0]][: max(length - 1, 0)]


def test_only_motion_above_the_normalised_tolerance_counts():
    action = np.zeros((6, 7))
    action[:, 6] = 1
    action[1, 0], action[2, 5], action[3, 0], action[4, 3] = 1e-4, -1e-4, 7e-6, 8e-6
    assert ops.drop_zero_motion(action).tolist() == [False, True, True, False, True, False]


def test_cameras_swap_by_content_about_half_the_time():
    cameras: dict[str, str | None] = {"primary": "left", "secondary": "right", "wrist": "hand"}
    drawn = [ops.swap_exterior_cameras(cameras, str(seed).encode()) for seed in range(400)]
    again = [ops.swap_exterior_cameras(cameras, str(seed).encode()) for seed in range(400)]
    swapped = sum(draw == {"primary": "right", "secondary": "left", "wrist": "hand"} for draw in drawn)
    assert drawn == again
    assert 160 < swapped < 240
    assert drawn.count(cameras) == 400 - swapped


def test_all_ops_of_the_vocabulary_are_registered():
    vocabulary = "as_column cast_f32 clip01 invert gripper_rel2abs gripper_binarize quat_xyzw_to_euler zlib_f32"
    vocabulary += " depth_channel0_f32 unicode_codepoints_to_str cut_at_nul relabel_motion_from_state drop_first_steps"
    vocabulary += " drop_zero_motion swap_exterior_cameras_p0.5"
    assert set(vocabulary.split()) <= set(ops.OPS.names())


def test_an_unknown_op_names_the_nearest():
    with pytest.raises(UnknownName, match="gripper_binarize"):
        ops.find("gripper_binarise")


def test_an_op_of_another_role_is_refused():
    with pytest.raises(UnknownName, match="no column op"):
        ops.find("relabel_motion_from_state")


@pytest.mark.parametrize("op", ["invert:2", "zlib_f32:seven", "zlib_f32:0"])
def test_an_argument_that_an_op_cannot_take_is_refused(op):
    with pytest.raises(ConfigError):
        ops.find(op)


def test_an_op_may_live_in_another_package():
    assert ops.find("numpy:negative")(np.array([1.0])).tolist() == [-1.0]
