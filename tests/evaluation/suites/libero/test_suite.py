"""LIBERO against its real package: what needs no meshes always, and scenes of boxes in place of meshes under `sim`."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from places import ROOT

from vlakit.data.specs.spec import load_spec
from vlakit.errors import ConfigError, InvalidData, PartMissing, UnknownName
from vlakit.evaluation.suites.libero import setup as libero_setup
from vlakit.evaluation.suites.libero.suite import MAX_STEPS, LiberoEnvironment, LiberoSuite, to_simulator, upright
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor

pytestmark = pytest.mark.skipif(find_spec("libero") is None, reason="the extra 'libero' is not installed")
SUITES = list(MAX_STEPS)
MILK = "pick_up_the_milk_and_place_it_in_the_basket"
SIZES = {  # values of a start: time, positions and velocities of one scene
    "libero_spatial": {92},
    "libero_object": {110},
    "libero_goal": {79},
    "libero_10": {45, 47, 51, 71, 84, 123},
}
IMAGES = np.load(ROOT / "tests/fixtures/image_ops/expected.npz")


@pytest.fixture(autouse=True)
def _no_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.delenv("LIBERO_CONFIG_PATH", raising=False)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("LIBERO asked on the terminal"))


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_ten_tasks_with_fifty_starts_each(name: str) -> None:
    suite = LiberoSuite(name)
    assert len(set(suite.tasks)) == 10
    for task in suite.tasks:
        vectors = libero_setup.start_vectors(name, task)
        assert (vectors.shape[0], vectors.dtype, np.isfinite(vectors).all()) == (50, np.float64, True)
        assert vectors.shape[1] in SIZES[name]


@pytest.mark.parametrize(
    ("name", "number", "sentence"),
    [
        ("libero_spatial", 0, "pick up the black bowl between the plate and the ramekin and place it on the plate"),
        ("libero_object", 7, "pick up the milk and place it in the basket"),
        ("libero_goal", 0, "open the middle drawer of the cabinet"),
        ("libero_10", 0, "put both the alphabet soup and the tomato sauce in the basket"),
    ],
)
def test_sentences_come_from_task_names_without_their_scene(name: str, number: int, sentence: str) -> None:
    suite = LiberoSuite(name)
    (state,) = suite.initial_states(suite.tasks[number], 1)
    assert state.instruction == sentence


def test_step_limits_are_those_of_the_protocol() -> None:
    found = {name: LiberoSuite(name).max_steps(LiberoSuite(name).tasks[3]) for name in SUITES}
    assert found == {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}


def test_starts_are_named_once_and_plain_json() -> None:
    suite = LiberoSuite("libero_goal")
    states = [state for task in suite.tasks for state in suite.initial_states(task, 50)]
    assert len({state.name for state in states}) == 500
    assert json.loads(json.dumps(dict(states[51].content))) == {"index": 1}
    assert {state.seed for state in states} == {0}


def test_what_is_not_there_is_named_with_what_is() -> None:
    suite = LiberoSuite("libero_object")
    with pytest.raises(ConfigError, match="50 starts") as caught:
        suite.initial_states(MILK, 51)
    assert "episodes=500" in caught.value.do
    with pytest.raises(UnknownName, match="did you mean pick_up_the_milk"):
        suite.max_steps(MILK.replace("milk", "mlik"))
    with pytest.raises(UnknownName, match="did you mean libero_goal"):
        LiberoSuite("libero_gaol")


@pytest.mark.parametrize(("gripper", "sent"), [(0.0, 1), (0.4, 1), (0.5, 0), (0.6, -1), (1.0, -1)])
def test_an_open_gripper_is_sent_as_minus_one(gripper: float, sent: float) -> None:
    action = np.array([0.1, -0.2, 0.3, 0, 0.5, -1, gripper], np.float32)
    assert to_simulator(action).tolist() == [*action[:6].astype(float), sent]
    assert action[6] == np.float32(gripper)


@pytest.mark.parametrize("name", SUITES)
def test_the_mapping_undoes_what_the_dataset_spec_does(name: str) -> None:
    gripper = load_spec(LiberoSuite(name).dataset).action[-1]
    assert gripper.ops == ("clip01", "invert")
    for sent in (-1.0, 1.0):
        assert to_simulator(np.array([0] * 6 + [1 - np.clip(sent, 0, 1)], np.float32))[6] == sent


@pytest.mark.parametrize("i", [0, 1])
def test_the_picture_meets_the_processor_as_in_the_peers_evaluation(i: int) -> None:
    rendered = IMAGES[f"decoded_{i}"][::-1, ::-1]  # upside down and mirrored, as robosuite returns it
    names = TokenSettings(image_size=224, channel_statistics=("half",), tokenizer="none", jpeg=True, center_crop=0.9)
    pixels = TokenProcessor(names).observed_pixels(upright(rendered)).numpy().transpose(1, 2, 0)
    expected = IMAGES[f"center_crop_224_{i}"]
    levels = (pixels * 0.5 + 0.5) * 255
    assert np.abs(levels - expected).max() < 1.01
    assert (np.abs(levels - expected) > 0.01).mean() < 5e-4


@pytest.mark.parametrize("part", ["training_states", "expert"])
def test_there_is_no_expert(part: str) -> None:
    suite = LiberoSuite("libero_goal")
    ask = LiberoEnvironment("libero_goal", suite.dataset, object).expert if part == "expert" else None
    with pytest.raises(PartMissing, match="no scripted expert") as caught:
        ask() if ask else suite.training_states(suite.tasks[0], 1, 0)
    assert "libero_goal_no_noops" in caught.value.do


def test_absent_meshes_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(PartMissing, match="assets") as caught:
        LiberoSuite("libero_goal").environment()
    assert str(libero_setup.package_folder() / "assets") in caught.value.where
    assert ".cache/libero/assets" in caught.value.do
    with pytest.raises(PartMissing, match="assets") as caught:
        LiberoSuite("libero_goal", str(tmp_path)).environment()
    assert caught.value.where == str(tmp_path)


def test_an_incomplete_folder_of_meshes_says_what_it_lacks(tmp_path: Path) -> None:
    for name in libero_setup.ASSET_FOLDERS[1:]:
        (tmp_path / name).mkdir()
    with pytest.raises(PartMissing, match="articulated_objects missing"):
        libero_setup.find_assets(tmp_path)
    (tmp_path / "articulated_objects").mkdir()
    assert libero_setup.find_assets(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("mujoco", "robosuite", "said"),
    [
        ("3.3.0", "1.4.0", []),
        ("3.3.2", "1.4.1", []),
        ("3.3.3", "1.4.0", ["68-70"]),
        ("3.10.0", "1.4.0", ["68-70"]),
        ("4.0.0", "1.5.1", ["68-70", "1.4.1"]),
    ],
)
def test_versions_that_draw_otherwise_are_warned_of(mujoco: str, robosuite: str, said: list[str]) -> None:
    found = libero_setup.drift({"mujoco": mujoco, "robosuite": robosuite})
    assert [fact in warning for fact, warning in zip(said, found, strict=True)] == [True] * len(said)


def test_the_installed_versions_draw_as_published() -> None:
    assert libero_setup.drift({name: libero_setup.version(name) for name in ("mujoco", "robosuite")}) == []


def test_starts_are_read_from_the_package_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.pruned_init").write_bytes(pickle.dumps("code"))
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    up = "/".join([".."] * 20)
    with pytest.raises(InvalidData, match="no initial states"):
        libero_setup.start_vectors("libero_goal", f"{up}{tmp_path}/evil")


def test_the_config_file_is_written_once_and_never_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = libero_setup.write_config()
    assert Path(os.environ["LIBERO_CONFIG_PATH"]) == written.parent
    paths = yaml.safe_load(written.read_text())
    assert Path(paths["bddl_files"], "libero_goal").is_dir()
    assert set(paths) == {"benchmark_root", "bddl_files", "init_states", "datasets", "assets"}
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    assert libero_setup.write_config().read_text() == "mine: 1\n"


@pytest.mark.parametrize("name", SUITES)
def test_a_configuration_builds_its_suite(name: str) -> None:
    settings = yaml.safe_load((ROOT / "conf" / "suite" / f"{name}.yaml").read_text())
    assert settings.pop("_target_") == f"{LiberoSuite.__module__}.LiberoSuite"
    suite = LiberoSuite(**settings)
    assert (suite.name, suite.dataset) == (name, f"{name}_no_noops")
    assert pickle.loads(pickle.dumps(suite)).tasks == suite.tasks


@pytest.mark.slow
def test_importing_asks_nothing_and_needs_no_home() -> None:
    code = "from vlakit.evaluation.suites.libero.suite import LiberoSuite; print(len(LiberoSuite('libero_10').tasks))"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HOME", "XDG", "LIBERO"))}
    environment["HOME"] = "/proc/none"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("10\n", 0), done.stderr
