"""`train.py dataset=my_robot.yaml source=DIR`: a robot of one's own in one command."""

from pathlib import Path

import pytest
from commands import says, train_here
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from question_folders import question_folder

from vlakit.cli.configuration import check_run, compose_config
from vlakit.cli.errors import as_vlakit_error
from vlakit.cli.own_data import with_own_data
from vlakit.data.shards.reader import ShardFolder
from vlakit.errors import ConfigError, InvalidData, VlakitError
from vlakit.files import ASSETS

SPEC = """
images: {primary: image_0}
action_encoding: EEF_POS
control_hz: 5
language: language_instruction
action:
  - {take: action}
"""


@pytest.fixture
def my_robot(tmp_path: Path) -> Path:
    spec = tmp_path / "my_robot.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    return spec


@pytest.mark.parametrize("folder", ["plain", "a b", "a,b", "a[0]", "it's", 'a "b"', "größe=1", "a\\b"])
def test_any_folder_reaches_the_data_as_typed(my_robot: Path, tmp_path: Path, folder: str) -> None:
    words = with_own_data(["experiment=lora_r32", f"dataset={my_robot}", f"source={tmp_path / folder}"])
    check_run("train", words)
    data = OmegaConf.to_container(compose_config("train", words).data)
    assert isinstance(data, dict)
    assert data["mixture"] == {"my_robot": 1}
    assert data["sources"] == {"my_robot": str(tmp_path / folder)}
    assert data["specs"] == {"my_robot": str(my_robot)}


def test_it_is_converted_and_trained_on(my_robot: Path, tmp_path: Path) -> None:
    source = ASSETS / "bridge_dataset"
    train_here(tmp_path, *with_own_data([f"dataset={my_robot}", f"source={source}", "steps=1"]))
    assert ShardFolder.open(tmp_path / "data" / "my_robot").episodes("train")
    again = [f"dataset={my_robot}", "steps=1", f"paths.output={tmp_path / 'second'}"]
    assert train_here(tmp_path, *with_own_data(again)).keys() >= {"train/loss"}  # its shards are there already


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["model.weights={there}/none.ckpt"], "no checkpoint here"),
        (["model.weights={there}"], "no checkpoint here"),
        (["data.questions={{asked: {there}/questions}}", "+model.network.head=parallel"], "openvla with head=parallel"),
        (["data.questions={{asked: {there}/none}}"], "no questions here"),
        (["data.mix.robot=.5"], "no questions to mix in"),
        (["strategy.feature_cache={there}/features"], "trains the vision towers"),
        (
            [
                "experiment=last_layer",
                "strategy.feature_cache={there}/f",
                "data.questions={{asked: {there}/questions}}",
            ],
            "frames of shards",
        ),
    ],
)
def test_what_the_run_cannot_do_is_said_before_data_are_converted(
    my_robot: Path, tmp_path: Path, words: list[str], error: str
) -> None:
    question_folder(tmp_path / "questions")
    own = with_own_data([f"dataset={my_robot}", f"source={ASSETS / 'bridge_dataset'}", "steps=1"])
    with pytest.raises((VlakitError, InstantiationException), match=error):
        train_here(tmp_path, *own, *(word.format(there=tmp_path) for word in words))
    assert not (tmp_path / "data" / "my_robot").exists()


def test_a_name_of_conf_needs_no_file() -> None:
    words = with_own_data(["dataset=bridge_orig", "source=sample", "data=bridge_sample"])
    data = compose_config("train", words).data
    assert (dict(data.mixture), dict(data.sources), dict(data.specs)) == (
        {"bridge_orig": 1},
        {"bridge_orig": "sample"},
        {},
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["source=/data/mine"], ["source=DIR names no dataset", "dataset=FILE.yaml"]),
        (["dataset=a,b", "source=/data/mine"], ["a,b are several datasets", "data.mixture={A: 1, B: 2}"]),
        (["dataset=absent.yaml", "source=/data/mine"], ["no such file", "dataset=absent.yaml"]),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        with_own_data(words)
    says(str(caught.value), *parts)


def test_demonstrations_that_are_not_there_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(InstantiationException) as caught:
        train_here(tmp_path, "experiment=full", "data=tabletop_seeded", "seed=3", "logger=none", "model.weights=tiny")
    wanted = (
        f"vlakit demonstrate suite=tabletop_target episodes=48 seed=3 out={tmp_path}/data/rlds/tabletop_target_seed3"
    )
    error = as_vlakit_error(caught.value)
    assert isinstance(error, InvalidData)
    assert error.do == wanted


def test_a_package_that_a_library_lacks_is_named_with_the_command_that_brings_it() -> None:
    for name, said in (("absent.part", "pip install absent,"), ("vlakit.absent", "mend that"), (None, "mend that")):
        refused = InstantiationException("Error in call to target 'a.logger'\nfull_key: logger")
        refused.__cause__ = ModuleNotFoundError(f"No module named {name}", name=name)
        error = as_vlakit_error(refused)
        assert error is not None
        assert error.where == "logger"
        assert said in error.do
