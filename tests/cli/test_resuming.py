"""Going on: a resumed run does what its command says, or says which word it will not follow."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from commands import train_here
from mlflow import MlflowClient

from vlakit.cli.resuming import Resumed, newest
from vlakit.cli.train import main
from vlakit.errors import ConfigError, StatisticsMissing
from vlakit.files import FolderBusy, locked
from vlakit.tracking.mlflow import runs
from vlakit.tracking.params import params_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, bridge_shards: Path) -> SimpleNamespace:
    """Two steps of full, in a record."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["experiment=full", "validate_every=2", f"data.root={bridge_shards.parent}", "trainer.log_every_n_steps=1"]
    train_here(folder, *words, "steps=2", "+tags.robot=widowx")
    return SimpleNamespace(folder=folder, words=words, ckpt=f"ckpt_path={folder / 'runs/run'}")


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("lr.full=1e-5", "strategy.optimizer.lr: 0.0005 in the run, 1e-05 here"),
        ("strategy.optimizer.weight_decay=0.1", "strategy.optimizer.weight_decay"),
        ("scheduler@strategy.scheduler=cosine", "strategy.scheduler._target_: constant in the run, cosine here"),
        ("data.augment=true", "data.augment"),
        ("data.shuffle_shards=2", "data.shuffle_shards"),
        ("gradient_clip=0.5", "trainer.gradient_clip_val"),
    ],
)
def test_a_key_that_differs_is_refused_by_name(trained: SimpleNamespace, word: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train_here(trained.folder, *trained.words, trained.ckpt, "steps=4", word)
    assert key in caught.value.what


@pytest.mark.parametrize("steps", [1, 2])
def test_steps_that_leave_nothing_to_do_are_an_error(trained: SimpleNamespace, steps: int) -> None:
    with pytest.raises(ConfigError, match="nothing is left to train"):
        train_here(trained.folder, *trained.words, trained.ckpt, f"steps={steps}")


def test_auto_goes_on_from_the_newest_checkpoint_that_is_whole_and_names_those_that_are_not(
    trained: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (trained.folder / "runs/run/last.ckpt").read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1  # a weight, which torch alone would read without a word
    caplog.set_level("INFO")
    assert newest(tmp_path / "none") is None
    for name, found in {"a": content, "b": content, "flipped": bytes(flipped), "torn": content[:-100]}.items():
        (tmp_path / f"{name}.ckpt").write_bytes(found)
        at = 10**9 + len(list(tmp_path.iterdir()))
        os.utime(tmp_path / f"{name}.ckpt", (at, at))
    assert newest(tmp_path) == tmp_path / "b.ckpt"
    exported = torch.load(tmp_path / "b.ckpt", weights_only=True)
    del exported["loops"]
    torch.save(exported, tmp_path / "b.ckpt")
    (tmp_path / "a.ckpt").unlink()
    assert newest(tmp_path) is None
    none, chosen, passed = (record.getMessage() for record in caplog.records)
    assert none == "ckpt_path=auto: begins anew"
    assert chosen.startswith(f"ckpt_path=auto: goes on from {tmp_path}/b.ckpt, step 2; passed over torn.ckpt: ")
    assert "flipped.ckpt: the file is damaged" in chosen
    assert passed.startswith("ckpt_path=auto: begins anew; passed over b.ckpt: the checkpoint holds weights alone")


def test_the_same_command_trains_goes_on_and_files_what_is_done(
    trained: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    words = *trained.words, "ckpt_path=auto", "logger=none"
    _, ended, again = (train_here(tmp_path, *words, f"steps={steps}") for steps in (2, 4, 4))
    assert "val/loss" in ended  # and what a process that did no step says of it, as after a kill behind the last one
    assert {name: value for name, value in again.items() if name.startswith("val/")} == {
        name: value for name, value in ended.items() if name.startswith("val/")
    }
    said = [record.getMessage() for record in caplog.records if "ckpt_path=auto" in record.getMessage()]
    file = tmp_path / "runs/run/last.ckpt"
    assert said == [
        "ckpt_path=auto: begins anew",
        f"ckpt_path=auto: goes on from {file}, step 2",
        f"ckpt_path=auto: goes on from {file}, step 4",
    ]
    whole = torch.load(trained_to_four(trained, tmp_path / "whole"), weights_only=True)["state_dict"]
    state = torch.load(file, weights_only=True)["state_dict"]
    assert [name for name in whole if not torch.equal(whole[name], state[name])] == []


def test_it_is_said_that_other_steps_bend_a_schedule_and_not_a_constant_rate(
    trained: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for scheduler, said in (("constant", 0), ("cosine", 1)):
        words = *trained.words, "logger=none", f"scheduler@strategy.scheduler={scheduler}", "evaluate.suite=null"
        folder = tmp_path / scheduler
        train_here(folder, *words, "steps=2")
        for steps in (4, 4):  # the second: its checkpoint says what it was asked for
            train_here(folder, *words, "ckpt_path=auto", f"steps={steps}")
        bent = [r.getMessage() for r in caplog.records if "that length up to step 2" in r.getMessage()]
        assert len(bent) == said


def trained_to_four(trained: SimpleNamespace, folder: Path) -> Path:
    train_here(folder, *trained.words, "steps=4", "logger=none")
    return folder / "runs/run/last.ckpt"


def test_auto_asks_for_a_folder_that_stays(capsys: pytest.CaptureFixture[str]) -> None:
    for words, named in ((["seed=1"], "hydra.run.dir=DIR"), (["-m", "seed=1,2"], "hydra.sweep.dir=DIR")):
        with pytest.raises(SystemExit):
            main([*words, "ckpt_path=auto", "logger=none"])
        assert f"do:    name the folder: {named}" in capsys.readouterr().err


def test_an_older_checkpoint_is_held_against_the_configuration_beside_it(
    trained: SimpleNamespace, tmp_path: Path
) -> None:
    old = torch.load(trained.folder / "runs/run/last.ckpt", weights_only=True)
    del old["callbacks"]["Record"]
    torch.save(old, tmp_path / "last.ckpt")
    config = yaml.safe_load((trained.folder / "runs/run/config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"strategy\.optimizer\.lr"):
        train_here(trained.folder, *trained.words, f"ckpt_path={tmp_path}", "steps=4", "lr.full=1e-5")


def test_another_number_of_devices_says_which_batch_size_is_the_same() -> None:
    before = {"config": {"data.batch_size": 16}, "devices": 2}
    resumed = Resumed(Path("last.ckpt"), None, 2, before)  # type: ignore[arg-type]
    cfg = SimpleNamespace(data=SimpleNamespace(batch_size=16))
    with pytest.raises(ConfigError) as caught:
        resumed.check_devices(cfg, SimpleNamespace(world_size=1))  # type: ignore[arg-type]
    assert caught.value.do == "batch_size=32: 16 x 2 / 1"
    cfg.data.batch_size = 32
    resumed.check_devices(cfg, SimpleNamespace(world_size=1))  # type: ignore[arg-type]


def test_a_folder_has_one_training(trained: SimpleNamespace) -> None:
    with locked(trained.folder / "runs/run"), pytest.raises(FolderBusy, match="another training"):
        train_here(trained.folder, *trained.words, "steps=4")


def test_the_end_of_a_training_is_looked_at_before_it_begins(tmp_path: Path, bridge_shards: Path) -> None:
    words = ["experiment=full", "steps=2", "logger=none", f"data.root={bridge_shards.parent}"]
    with pytest.raises(ConfigError, match="no suite called"):
        train_here(tmp_path, *words, "evaluate.suite=tabeltop")
    for word in ("evaluate.episodes=-1", "evaluate.episodes=abc", "+evaluate.epsodes=3"):
        with pytest.raises(ConfigError, match=r"episodes|epsodes"):
            train_here(tmp_path, *words, "evaluate.suite=tabletop_target", word)
    with pytest.raises(StatisticsMissing):
        train_here(tmp_path, *words, "evaluate.suite=tabletop_target")
    assert not (tmp_path / "runs/run/config.yaml").exists()


def test_steps_that_grow_and_the_learning_rate_are_on_record(trained: SimpleNamespace) -> None:
    place, uri = trained.folder, f"sqlite:///{trained.folder}/runs/mlflow.db"
    (first,) = runs(uri)
    train_here(place, *trained.words, trained.ckpt, "steps=4", f"paths.output={place / 'runs/on'}")
    (run,) = runs(uri)
    store = MlflowClient(uri)
    assert (first.params["steps"], run.params["steps"]) == ("2", "4")
    assert yaml.safe_load((place / "runs/on/config.yaml").read_text())["steps"] == 4
    rates = store.get_metric_history(run.run_id, "train/learning_rate")
    assert [(point.step, point.value) for point in rates] == [(step, pytest.approx(5e-4)) for step in range(4)]
    assert [point.step for point in store.get_metric_history(run.run_id, "val/loss")] == [1, 3]


def test_parameters_are_what_a_run_is_and_tags_are_tags(trained: SimpleNamespace) -> None:
    run = MlflowClient(f"sqlite:///{trained.folder}/runs/mlflow.db").search_runs(["1"])[0]
    params = run.data.params
    assert (params["strategy"], params["learning_rate"]) == ("full", "0.0005")
    assert not [key for key, value in params.items() if "/" in value or "_target_" in key + value]
    assert run.data.tags["tags.robot"] == "widowx"
    assert not [key for key in params if key.startswith("tags.")]


def test_a_file_to_start_from_is_known_by_its_hash() -> None:
    config = {"model": {"weights": "runs/a/last.ckpt"}, "strategy": {"rank": 4, "weights": "runs/a/last.ckpt"}}
    assert params_of(config, "ab" * 32)["model.weights"] == "sha256:abababababab"
    assert params_of(config)["model.weights"] == "last.ckpt"
    assert params_of({"model": {"weights": "tiny"}})["model.weights"] == "tiny"
    assert list(params_of(json.loads(json.dumps(config))))[:1] == ["rank"]
