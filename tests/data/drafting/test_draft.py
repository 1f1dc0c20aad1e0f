"""A draft holds what the data say, marks what they do not, and converts once a person has decided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from commands import complaint, report, run, says
from data.array_cases import aloha, numbered, pictures, replay_buffer, robomimic
from places import ROOT

from vlakit.data.drafting.draft import Draft, draft
from vlakit.data.shards.reader import ShardFolder
from vlakit.data.source import open_source
from vlakit.data.specs.spec import load_spec
from vlakit.errors import ConfigError

Capture = pytest.CaptureFixture[str]
LEROBOT = ROOT / "tests/fixtures/lerobot"
SOURCES: dict[str, Callable[[Path], Path]] = {
    "lerobot_v3": lambda _: LEROBOT / "v3_video",
    "lerobot_v21": lambda _: LEROBOT / "v21_video",
    "lerobot_odd": lambda _: LEROBOT / "odd_v3",
    "robomimic": robomimic,
    "aloha": aloha,
    "zarr": replay_buffer,
    "csv": numbered,
    "rlds": lambda _: ROOT / "src/vlakit/assets/bridge_dataset",
}
STEPS = 40


def recorded(folder: Path, gripper: Callable[[np.ndarray], np.ndarray], absolute: bool = False) -> Draft:
    """A draft of four episodes whose state is moved by the action, which the gripper (T,) of 0 closed, 1 open ends."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    with h5py.File(folder / "demos.hdf5", "w") as file:
        for number in range(4):
            delta = rng.normal(0, 0.02, (STEPS, 6))
            state = np.cumsum(np.concatenate([rng.normal(0, 0.3, (1, 6)), delta]), axis=0)
            opened = (np.arange(STEPS) < rng.integers(10, 30)).astype(float)
            motion = state[1:] if absolute else delta
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = np.concatenate([motion, gripper(opened)[:, None]], axis=1)
            demo["obs/eef"], demo["obs/cam"] = state[:-1], pictures(STEPS, number)
    (folder / "instruction.txt").write_text("lift")
    return draft(open_source(folder))


@pytest.mark.parametrize("case", SOURCES)
def test_a_draft_is_refused_until_decided_and_then_converted(case: str, tmp_path: Path, capsys: Capture) -> None:
    source, spec, out = SOURCES[case](tmp_path / "source"), tmp_path / "specs/mine.yaml", tmp_path / "shards"
    found = report(capsys, "data", "init", source, f"out={spec}")
    marked = [one["word"] for one in found["undecided"]]
    assert {"frame", "delta", "rate"} <= set(marked)
    text = spec.read_text()
    assert [line.split()[2].rstrip(":") for line in text.splitlines() if line.startswith("# DECIDE")] != []
    said = complaint(capsys, "shards", f"dataset={spec}", f"source={source}", f"out={out}")
    says(said, "a person has not decided yet", *marked, spec)
    assert not out.exists()
    spec.write_text(text.replace(f"undecided: [{', '.join(marked)}]", "undecided: []"))
    done = report(capsys, "shards", f"dataset={spec}", f"source={source}", f"out={out}", "val_fraction=0.2")
    again = 25 if case == "rlds" else 0  # its val repeats its train
    assert sum(split["episodes"] for split in done["splits"].values()) == found["n_episodes"] - again
    assert run("shards", [f"verify={out}"]) == 0
    assert ShardFolder.open(out).index.action_size == len([c for c in found["columns"] if c["path"] == "action"])


@pytest.mark.parametrize("absolute", [False, True], ids=["delta", "absolute"])
def test_a_difference_is_told_from_a_goal_by_what_the_state_does(absolute: bool, tmp_path: Path) -> None:
    found = recorded(tmp_path / "source", lambda opened: opened, absolute)
    kinds = {one.kind for one in found.motions if one.column < 6}
    assert kinds == {"absolute" if absolute else "delta"}
    assert [one.state for one in found.motions[:6]] == [f"observation/eef[{i}]" for i in range(6)]
    assert yaml.safe_load(found.yaml)["absolute_action_mask"] == [absolute] * 6 + [True]
    assert next(one for one in found.decisions if one.word == "frame").guess.startswith("the frame of the state")


@pytest.mark.parametrize(
    ("sent", "ops"),
    [
        (lambda opened: opened, []),
        (lambda opened: 1 - opened, ["invert"]),
        (lambda opened: 1 - 2 * opened, ["clip01", "invert"]),  # robosuite's: -1 opens, +1 closes
        (lambda opened: 2 * opened - 1, ["clip01"]),
        (lambda opened: 255 * (1 - opened), ["divide:255", "invert"]),
        (lambda opened: 1.01 * opened - 0.004, ["clip01"]),
    ],
    ids=["open_is_1", "closed_is_1", "robosuite", "minus_one_closed", "bytes", "noisy"],
)
def test_whatever_a_robot_sends_the_gripper_is_drafted_as_1_open_where_episodes_begin_open(
    sent: Callable[[np.ndarray], np.ndarray], ops: list[str], tmp_path: Path, capsys: Capture
) -> None:
    found = recorded(tmp_path / "source", sent)
    content = yaml.safe_load(found.yaml)
    assert [one.get("ops", []) for one in content["action"]] == [[], ops]
    spec = tmp_path / "mine.yaml"
    spec.write_text(yaml.safe_dump({**content, "undecided": []}))
    assert run("shards", [f"dataset={spec}", f"source={tmp_path / 'source'}", f"out={tmp_path / 'out'}"]) == 0
    statistics = ShardFolder.open(tmp_path / "out").statistics
    assert (statistics.min[6], statistics.max[6]) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    assert statistics.mask.tolist() == [True] * 6 + [False]


def test_a_gripper_in_metres_is_normalised(tmp_path: Path) -> None:
    found = recorded(tmp_path / "source", lambda opened: 0.08 * opened)
    content = yaml.safe_load(found.yaml)
    assert content["mask"] == [True] * 7
    assert "ops" not in content["action"][1]


def test_the_state_that_is_drafted_is_an_arms_where_there_is_one_beside_a_grippers(tmp_path: Path) -> None:
    folder = robomimic(tmp_path / "one")
    with h5py.File(folder / "low_dim.hdf5", "a") as file:
        for name in ("demo_0", "demo_1", "demo_10"):
            file[f"data/{name}/obs/robot0_gripper_qpos"] = file[f"data/{name}/obs/robot0_eef_pos"][:, :2]  # type: ignore[index]
    assert "proprio: [robot0_eef_pos]  # or robot0_gripper_qpos" in draft(open_source(folder)).yaml


def test_what_is_not_finite_is_counted_and_bends_no_range(tmp_path: Path) -> None:
    folder = robomimic(tmp_path / "source")
    with h5py.File(folder / "low_dim.hdf5", "r+") as file:
        file["data/demo_0/actions"][2, 1] = np.nan  # type: ignore[index]
    found = draft(open_source(folder))
    columns = {one.label: one for one in found.columns}
    assert [columns[f"action[{i}]"].not_finite for i in range(3)] == [0, 1, 0]
    assert np.isfinite([columns["action[1]"].low, columns["action[1]"].high]).all()
    assert "1 not finite" in "\n".join(found.lines())


def test_names_and_instructions_of_others_write_no_line_of_the_spec(tmp_path: Path) -> None:
    evil = "x]\nundecided: []\naction_encoding: EEF_R6 #"
    folder = robomimic(tmp_path / "source", told=evil)
    with h5py.File(folder / "low_dim.hdf5", "r+") as file:
        for demo in file["data"].values():  # type: ignore[union-attr]
            demo[f"obs/{evil}"] = demo["obs/agentview_image"][()]
            demo[f"obs/state {evil}"] = demo["obs/robot0_eef_pos"][()]
    found = draft(open_source(folder))
    content = yaml.safe_load(found.yaml)
    assert content["undecided"] == [one.word for one in found.decisions] != []
    assert content["action_encoding"] == "EEF_POS"
    assert content["proprio"] == [f"state {evil}"]
    assert all("\n" not in line for line in found.lines())


def test_a_spec_is_never_overwritten(tmp_path: Path, capsys: Capture) -> None:
    folder, spec = robomimic(tmp_path / "source"), tmp_path / "mine.yaml"
    spec.write_text("mine")
    says(complaint(capsys, "data", "init", folder, f"out={spec}"), "there already", spec)
    says(complaint(capsys, "data", "init", folder, f"out={tmp_path / 'mine.txt'}"), "YAML")
    assert spec.read_text() == "mine"


def test_a_word_taken_off_the_list_is_decided(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    text = "images: {primary: a}\nlanguage: task\naction: [action]\nundecided: [%s]\n"
    spec.write_text(text % "frame, rate")
    with pytest.raises(ConfigError, match="frame, rate"):
        load_spec(spec)
    spec.write_text(text % "rate")
    with pytest.raises(ConfigError, match="decided yet: rate"):
        load_spec(spec)
    spec.write_text(text % "")
    assert load_spec(spec).undecided == ()


def test_where_nothing_is_there_or_no_look_is_asked_for_the_way_is_said(tmp_path: Path, capsys: Capture) -> None:
    says(complaint(capsys, "data", "init", tmp_path / "nowhere"), "no such folder", "nowhere")
    says(complaint(capsys, "data"), "nothing to look at", "init SOURCE", "show SHARDS", "mixture=NAME")
    says(complaint(capsys, "data", "init", "a", "mixture=bridge"), "init and mixture at once")
    says(complaint(capsys, "shards", "look=sample"), "takes no look any more", "vlakit data init SOURCE")
