"""A folder of one's own beside conf/: found by every verb from any place, checked as vlakit's files are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import LIGHT, complaint, report, run, says
from places import ROOT

from vlakit.cli.configuration import check_run, compose_config
from vlakit.cli.suites import split_words, suite_names, suite_settings
from vlakit.cli.train import main as train_main
from vlakit.cli.words import split_folders
from vlakit.configs import FOLDERS, also_in, conf_root, config_file, config_roots
from vlakit.data.specs.spec import load_mixture, load_spec
from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment

FILES = {
    "strategy/projector_only.yaml": """
defaults: [_finetune, override /model@_global_.model: small, _self_]
_target_: own_robot.ProjectorOnly
trainable: ["projector.*"]
""",
    "model/small.yaml": "defaults: [tiny, _self_]\nweights: null\n",
    "experiment/first_try.yaml": """
# @package _global_
defaults: [override /strategy: projector_only, override /data: own_robot]
name: first_try
steps: 2
validate_every: 2
""",
    "data/own_robot.yaml": "defaults: [bridge_sample, _self_]\nmixture: {own_robot: 1, bridge_orig: 1}\n"
    "sources: {own_robot: sample}\n",
    "dataset/own_robot.yaml": (conf_root() / "dataset/bridge_orig.yaml")
    .read_text()
    .replace("bridge_orig", "own_robot"),
    "mixture/own_robots.yaml": "datasets: {own_robot: 2.0, bridge_orig: 1.0}\n",
    "suite/own_dots.yaml": "_target_: fake_suite.FakeSuite\nname: own_dots\ndataset: bridge_orig\nlimit: 4\n",
    "embodiment/own_arm.yaml": (conf_root() / "embodiment/target.yaml").read_text(),
    "table/own_table.yaml": (ROOT / "experiments/table12_libero/table.yaml").read_text(),
}
MODULE = """
from vlakit.strategies.base import Finetune

class ProjectorOnly(Finetune):
    name = "projector_only"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder elsewhere with my_conf/ in it, and its module on the Python path."""
    for name, text in FILES.items():
        file = tmp_path / "my_conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_robot.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "code")
    return tmp_path


def outside(place: Path, *words: str, status: int = 0) -> str:
    """What `python -m vlakit` prints, run in the working folder with the module on PYTHONPATH."""
    code = [str(place / "code"), str(ROOT / "src"), str(ROOT / "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(code), "VLAKIT_DEBUG": "0"}
    command = [sys.executable, "-m", "vlakit", *words]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_explain_from_another_folder_counts_a_strategy_of_ones_own(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = report(capsys, "explain", "--config-dir", "my_conf", "strategy=projector_only")
    projector = sum(row["total"] for row in counted["modules"] if row["module"].startswith("projector"))
    assert counted["strategy"] == "projector_only"
    assert counted["trainable"] == projector > 0


@pytest.mark.slow
def test_a_sweep_side_by_side_from_another_folder_finds_all_that_its_experiment_names(place: Path) -> None:
    words = ["train", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "--config-dir", "my_conf", *LIGHT]
    words += ["experiment=first_try", "seed=0,1", "logger=none", "hydra.sweep.dir=sweep"]
    words += ["evaluate.suite=own_dots", "evaluate.episodes=2", "evaluate.slots=2", "evaluate.gate=false"]
    outside(place, *words)
    for job in ("0", "1"):
        assert json.loads((place / "sweep" / job / "job.json").read_text())["status"] == "finished"
        assert (place / "sweep" / job / "evaluation/own_dots/episodes.jsonl").is_file()
    outside(place, "train", "-m", "continue=sweep")  # the folder of before is known


@pytest.mark.parametrize("words", [["--config-dir", "my_conf"], ["-cd=my_conf"], ["hydra.searchpath=[file://my_conf]"]])
def test_the_folder_may_be_named_in_three_ways(
    place: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train_main([*words, "experiment=first_try", "--cfg", "job"])
    assert "own_robot.ProjectorOnly" in capsys.readouterr().out
    assert FOLDERS not in os.environ


def test_every_kind_of_file_is_found_and_forgotten_again(place: Path) -> None:
    with also_in(["my_conf"]):
        assert config_roots()[1:] == [place / "my_conf"]
        check_run("train", ["experiment=first_try"])
        cfg = compose_config("train", ["experiment=first_try"])
        assert (cfg.model.weights, cfg.strategy.optimizer.lr) == (None, cfg.lr.full)
        assert load_spec("own_robot").name == "own_robot"
        assert load_mixture("own_robots").datasets == {"own_robot": 2.0, "bridge_orig": 1.0}
        assert load_mixture("own_robot").datasets == {"own_robot": 1.0}
        assert suite_settings("own_dots")["_target_"] == "fake_suite.FakeSuite"
        assert load_embodiment("own_arm").name == "own_arm"
        assert suite_settings("tabletop_own_arm")["embodiment"] == "own_arm"
    with pytest.raises(UnknownName, match="no dataset called 'own_robot'"):
        load_spec("own_robot")


def test_a_mixture_of_the_command_line_replaces_the_one_of_a_users_file(place: Path) -> None:
    with also_in(["my_conf"]):
        words = ["data=own_robot", "data.mixture={own_robot: 3}"]
        check_run("train", words)
        assert compose_config("train", words).data.mixture == {"own_robot": 3}


@pytest.mark.parametrize("verb", ["plan", "bench", "explain"])
@pytest.mark.parametrize("words", [[], ["model=tiny"]], ids=str)
def test_a_strategy_chooses_its_model_and_the_command_line_another(place: Path, verb: str, words: list[str]) -> None:
    with also_in(["my_conf"]):
        cfg = compose_config(verb, ["strategy=projector_only", *words])
    assert cfg.model.weights == ("tiny" if words else None)
    assert cfg.strategy.optimizer.lr == cfg.lr.full


def test_a_strategy_keeps_its_model_at_every_scale(place: Path) -> None:
    with also_in(["my_conf"]):
        cfg = compose_config("train", ["strategy=projector_only", "scale=paper"])
    assert (cfg.model.network.llm, cfg.strategy.optimizer.lr) == ("tiny_llama", 2e-5)


def test_a_model_named_without_its_package_says_how(place: Path) -> None:
    file = place / "my_conf/strategy/other.yaml"
    file.write_text("defaults: [_finetune, override /model: small, _self_]\n")
    with also_in(["my_conf"]), pytest.raises(ConfigError, match="means one below strategy") as error:
        check_run("train", ["strategy=other"])
    assert (error.value.where, error.value.do) == (
        "my_conf/strategy/other.yaml",
        "write: override /model@_global_.model: NAME",
    )


def test_an_experiment_without_its_package_says_how(place: Path) -> None:
    file = place / "my_conf/experiment/other.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text("defaults: [override /model: small, _self_]\n")
    with also_in(["my_conf"]), pytest.raises(ConfigError, match="means one below experiment") as error:
        check_run("train", ["experiment=other"])
    assert error.value.do == "begin the file with: # @package _global_"


def test_evaluate_and_table_read_the_users_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["suite=own_dots", "policy=expert", "episodes=2", f"out={place / 'out'}", "tracking_uri=sqlite:///x.db"]
    assert report(capsys, "evaluate", "--config-dir", "my_conf", *words)["episodes"] == 2
    assert run("table", ["name=own_table", "source=paper", "--config-dir=my_conf"]) == 0
    assert "LIBERO" in capsys.readouterr().out


def test_a_name_that_vlakit_has_too_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "my_conf/strategy/lora.yaml").write_text("defaults: [_finetune, _self_]\n")
    message = complaint(capsys, "shards", "--config-dir", "my_conf", "verify=x")
    says(message, "two files are called strategy/lora.yaml", "my_conf/strategy/lora.yaml and conf/strategy/lora.yaml")


def test_a_table_that_vlakit_has_too_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "my_conf/table/oft.yaml").write_text(FILES["table/own_table.yaml"])
    message = complaint(capsys, "table", "name=own_table", "--config-dir", "my_conf")
    says(message, "two tables are called 'oft'", "my_conf/table/oft.yaml")


def test_vlakits_own_folder_may_be_named_as_well() -> None:
    with also_in([conf_root()]):
        assert config_roots() == [conf_root()]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--config-dir"], ["--config-dir names no folder"]),
        (["--config-dir", "nowhere"], ["no such folder", "nowhere"]),
        (["--config-dir", "code"], ["no configuration files here", "code"]),
        (["hydra.searchpath=[pkg://no_such_package]"], ["no package called 'no_such_package'"]),
        (["hydra.searchpath=my_conf"], ["hydra.searchpath is a list"]),
    ],
)
def test_what_is_no_such_folder_is_refused(
    place: Path, words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    says(complaint(capsys, "explain", *words), *parts)


def test_a_folder_inside_a_package_is_found(place: Path) -> None:
    (place / "code/own_package").mkdir()
    (place / "code/own_package/__init__.py").touch()
    assert split_folders(["hydra.searchpath=[pkg://own_package]"]) == ([], [str(place / "code/own_package")])


@pytest.mark.parametrize(
    ("file", "line", "words", "key", "near"),
    [
        ("experiment/first_try.yaml", "batchsize: 3", ["experiment=first_try"], "'batchsize'", "batch_size"),
        ("strategy/projector_only.yaml", "trainabel: x", ["strategy=projector_only"], "trainabel", "trainable"),
        ("dataset/own_robot.yaml", "langauge: x", ["data=own_robot"], "'langauge'", "language"),
        ("mixture/own_robots.yaml", "dataset: x", ["data.mixture=own_robots"], "'dataset'", "datasets"),
        ("data/own_robot.yaml", "agument: true", ["data=own_robot"], "data.agument", "augment"),
    ],
)
def test_a_misspelt_key_of_a_users_file_is_named_with_the_nearest(
    place: Path, file: str, line: str, words: list[str], key: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place / "my_conf" / file
    path.write_text(path.read_text() + line + "\n")
    places = [f"paths.{name}={place / name}" for name in ("runs", "data", "output")]
    message = complaint(capsys, "train", "--config-dir", "my_conf", *words, "steps=1", "logger=none", *places)
    says(message, key, f"my_conf/{file}", near)


def test_a_misspelt_option_is_looked_for_in_both_folders(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = complaint(capsys, "explain", "--config-dir", "my_conf", "strategy=projector_onyl")
    says(message, "conf/strategy, my_conf/strategy", "did you mean projector_only")


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("nowhere.Strategy", ["no module called 'nowhere'", "my_conf/strategy/projector_only.yaml", "PYTHONPATH"]),
        ("own_robot.Absent", ["cannot import own_robot.Absent", "my_conf/strategy/projector_only.yaml", "PYTHONPATH"]),
        ("torn.Strategy", ["No module named 'absent'", "my_conf/strategy/projector_only.yaml", "PYTHONPATH"]),
    ],
)
def test_a_class_that_cannot_be_imported_is_named_with_its_file(
    place: Path, target: str, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "code/torn.py").write_text("import absent\n")
    file = place / "my_conf/strategy/projector_only.yaml"
    file.write_text(file.read_text().replace("own_robot.ProjectorOnly", target))
    says(complaint(capsys, "explain", "--config-dir", "my_conf", "strategy=projector_only"), *parts)


def test_a_suite_for_any_robot_takes_each() -> None:
    (one, other) = suite_settings("tabletop_target"), suite_settings("tabletop", ["suite.embodiment=target"])
    assert one == other
    assert (one["name"], one["embodiment"]) == ("tabletop_target", "target")
    assert suite_settings("tabletop")["name"] == "tabletop"
    assert split_words(["suite=tabletop", "embodiment=d0"]) == (["suite=tabletop"], ["suite.embodiment=d0"])
    with pytest.raises(ConfigError, match=r"'suite\.embodiment' is no key"):
        suite_settings("libero_10", ["suite.embodiment=d0"])
    assert suite_settings("tabletop_ood", ["suite.embodiment=d0"])["name"] == "tabletop_ood_d0"
    assert suite_settings("tabletop_d1", ["suite.name=mine"])["name"] == "mine"
    assert {"tabletop", "tabletop_d0", "tabletop_target", "libero_10"} <= set(suite_names())
    with pytest.raises(UnknownName, match="did you mean tabletop_target"):
        suite_settings("tabletop_tagret")


def test_a_file_is_called_as_the_working_folder_sees_it(place: Path) -> None:
    with also_in(["my_conf"]), pytest.raises(UnknownName) as error:
        config_file("strategy", "lroa")
    assert error.value.where == "conf/strategy, my_conf/strategy"
    assert "lora" in error.value.do
