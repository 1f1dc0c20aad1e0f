"""Going on: a resumed run does what its command says, or says which word it will not follow."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from commands import train_here
from mlflow import MlflowClient

from vlakit.cli.resuming import Resumed
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
