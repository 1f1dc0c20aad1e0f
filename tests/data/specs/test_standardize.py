"""Standardisation equals the recorded outputs of OpenVLA's functions, and says what is wrong with unusable data."""

from dataclasses import replace

import numpy as np
import pytest
from parity.check_transforms import check_folder
from places import FIXTURES

from vlakit.data.shards.statistics import proprio_columns
from vlakit.data.specs.spec import load_spec
from vlakit.data.specs.standardize import standardize, standardize_raw
from vlakit.errors import ActionNotFinite, CorruptRecord, FeatureMissing, InvalidData

RECORDED = FIXTURES / "oxe_transforms"


def bridge_steps(length: int) -> dict[str, np.ndarray | list[bytes]]:
    """Step t is at state t, commands a motion of 9 and shows image b't'; the gripper closes halfway."""
    action = np.full((length, 7), 9.0, np.float32)
    action[:, 6] = np.linspace(1, 0, length)
    return {
        "action": action,
        "language_instruction": [b"Put the POT on the stove"] * length,
        "observation/state": np.arange(length, dtype=np.float32)[:, None].repeat(7, 1),
        "observation/image_0": [str(step).encode() for step in range(length)],
        "observation/image_1": [b"second"] * length,
    }


def droid_steps(length: int) -> dict[str, np.ndarray | list[bytes]]:
    """Every odd step stands still."""
    velocity = np.zeros((length, 6))
    velocity[::2, 0] = 0.1
    return {
        "action_dict/cartesian_velocity": velocity,
        "action_dict/gripper_position": np.zeros((length, 1)),
        "language_instruction": [b""] * length,
        "observation/cartesian_position": np.arange(length)[:, None].repeat(6, 1) * 1.0,
        "observation/gripper_position": np.zeros(length),
        "observation/exterior_image_1_left": [b"left %d" % step for step in range(length)],
        "observation/exterior_image_2_left": [b"right %d" % step for step in range(length)],
        "observation/wrist_image_left": [b"hand"] * length,
    }


def test_all_recorded_transforms_agree():
    lines, passed = check_folder(RECORDED)
    assert passed, "\n".join(lines)
    assert lines[-1] == "44 of 44 datasets agree"


def test_the_check_sees_a_wrong_value_a_wrong_word_and_an_unknown_dataset(tmp_path):
    with np.load(RECORDED / "kuka.npz") as archive:
        recording = {key: archive[key] for key in archive.files}
    wrong_number = recording | {"out/0/action": recording["out/0/action"] + np.float32(1e-3)}
    wrong_word = recording | {"out/1/language": np.full_like(recording["out/1/language"], b"none")}
    for name, content in {"kuka": wrong_number, "toto": wrong_word, "kukaa": recording}.items():
        np.savez(tmp_path / f"{name}.npz", **content)
    lines, passed = check_folder(tmp_path)
    assert not passed
    assert lines[-1] == "0 of 3 datasets agree"


def test_an_empty_folder_does_not_pass(tmp_path):
    assert check_folder(tmp_path) == (["0 of 0 datasets agree"], False)


def test_bridge_moves_by_its_states_and_loses_its_first_and_last_step():
    trajectory = standardize(bridge_steps(5), load_spec("bridge_orig"), metadata={"episode_id": 7})
    assert trajectory.action.dtype == np.float32
    assert trajectory.action.tolist() == [[1.0] * 6 + [0.0]] * 3
    assert trajectory.images["primary"] == [b"1", b"2", b"3"]
    assert trajectory.proprio["EEF_state"][:, 0].tolist() == [1, 2, 3]
    assert trajectory.instructions == ["Put the POT on the stove"] * 3
    assert (trajectory.dataset, trajectory.metadata) == ("bridge_orig", {"episode_id": 7})
    assert set(trajectory.images) == {"primary", "secondary"}


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_trajectory_too_short_for_its_drops_comes_out_empty(length):
    trajectory = standardize(bridge_steps(length), load_spec("bridge_orig"))
    assert trajectory.action.shape == (0, 7)
    assert trajectory.images == {"primary": [], "secondary": []}


def test_no_steps_at_all_need_no_columns():
    spec = load_spec("bridge_orig")
    assert standardize(dict.fromkeys(spec.keys(), np.zeros(0)), spec).action.shape == (0, 7)


def test_nulls_of_the_proprio_list_are_columns_of_zeros():
    spec = load_spec("bridge_orig")
    trajectory = standardize(bridge_steps(4), spec)
    vector = proprio_columns(trajectory.proprio, spec.proprio, len(trajectory))
    assert vector.tolist() == [
        [1.0] * 6 + [0.0, 1.0],
        [2.0] * 6 + [0.0, 2.0],
    ]


def test_only_the_wanted_cameras_are_needed():
    steps = bridge_steps(4)
    del steps["observation/image_1"]
    assert list(standardize(steps, load_spec("bridge_orig"), cameras=["primary"]).images) == ["primary"]


def test_droid_drops_standing_still_in_every_field():
    trajectory = standardize(droid_steps(5), load_spec("droid"))
    assert trajectory.action[:, 0].tolist() == pytest.approx([0.1] * 3)
    assert trajectory.proprio["proprio"][:, 0].tolist() == [0, 2, 4]
    assert {trajectory.images["primary"][2], trajectory.images["secondary"][2]} == {b"left 4", b"right 4"}


def test_droid_swaps_cameras_by_trajectory_and_always_the_same_way():
    first = [standardize(droid_steps(length), load_spec("droid")).images["primary"][0] for length in range(1, 30)]
    again = [standardize(droid_steps(length), load_spec("droid")).images["primary"][0] for length in range(1, 30)]
    assert set(first) == {b"left 0", b"right 0"}
    assert first == again


def test_a_one_dimensional_field_counts_as_a_column():
    steps = droid_steps(3)
    flat = steps | {"action_dict/gripper_position": np.array([0.0, 0.25, 1.0])}
    assert standardize_raw(flat, load_spec("droid")).action[:, 6].tolist() == [1, 0.75, 0]


def test_plain_lists_of_numbers_are_arrays():
    steps = bridge_steps(3)
    listed = steps | {"action": [list(row) for row in np.asarray(steps["action"])]}
    assert len(standardize(listed, load_spec("bridge_orig"))) == 1


def test_a_missing_field_names_dataset_key_place_and_the_nearest_present():
    steps = bridge_steps(3)
    steps["observation/image0"] = steps.pop("observation/image_0")
    with pytest.raises(FeatureMissing) as caught:
        standardize(steps, load_spec("bridge_orig"), where="train, record 3")
    assert "'bridge_orig'" in caught.value.what
    assert "'observation/image_0'" in caught.value.what
    assert caught.value.where == "train, record 3"
    assert "observation/image0" in caught.value.do


def test_an_action_of_another_width_says_got_and_expected():
    steps = bridge_steps(3) | {"action": np.ones((3, 6), np.float32)}
    spec = replace(load_spec("tdroid_flip_pot_upright"), observation={}, proprio=(), images={})
    assert standardize(steps, spec).action.shape == (3, 7)
    with pytest.raises(InvalidData, match=r"shape \(3, 6\), expected \(T, 7\)"):
        standardize(steps, load_spec("dobbe"), cameras=[])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_names_its_raw_step(bad):
    steps = bridge_steps(5)
    np.asarray(steps["observation/state"])[3, 2] = bad
    with pytest.raises(ActionNotFinite, match="step 2 "):  # the motion from step 2 to step 3
        standardize(steps, load_spec("bridge_orig"))


def test_nan_in_a_dropped_step_does_no_harm():
    steps = bridge_steps(5)
    np.asarray(steps["action"])[0] = np.nan
    assert len(standardize(steps, load_spec("bridge_orig"))) == 3


@pytest.mark.parametrize("path", ["language_instruction", "observation/image_0", "observation/state"])
def test_fields_of_unequal_length_are_refused(path):
    steps = bridge_steps(5)
    with pytest.raises(InvalidData, match="differ in length"):
        standardize(steps | {path: steps[path][:4]}, load_spec("bridge_orig"))


def test_what_an_op_stumbles_over_names_the_place():
    spec = load_spec("kuka")
    steps = dict.fromkeys(spec.keys(), np.ones((2, 3), np.float32))
    steps |= {str(spec.language.take): [b"a", b"b"], "observation/gripper_closed": [b"no", b"zlib"]}
    with pytest.raises(CorruptRecord, match="record 9, observation/gripper_closed"):
        standardize_raw(steps, spec, observations=["gripper_closed"], where="record 9")
    with pytest.raises(InvalidData, match="op as_column cannot use"):
        standardize_raw(steps | {"action/gripper_closedness_action": [b"a", b"b"]}, spec)


def test_numbers_are_no_instruction():
    steps = bridge_steps(3) | {"language_instruction": np.arange(3)}
    with pytest.raises(InvalidData, match="where an instruction belongs"):
        standardize(steps, load_spec("bridge_orig"))
