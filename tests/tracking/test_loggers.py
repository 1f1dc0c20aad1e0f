"""What a run leaves in its record besides metrics: the same run on resuming, a checkpoint, a registered model."""

import os
import sys
import time
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from commands import train_here
from mlflow import MlflowClient

from vlakit.checkpoints.card import CARD
from vlakit.checkpoints.file import read_checkpoint
from vlakit.errors import ConfigError, PartMissing
from vlakit.tracking import loggers
from vlakit.tracking.loggers import Begun, MlflowRun, WandbRun, chosen
from vlakit.tracking.mlflow import EXPERIMENT, client, experiment_id


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    folder = tmp_path_factory.mktemp("store")
    address = f"sqlite:///{copy(empty_store, folder)}"
    experiment_id(client(address), EXPERIMENT, str(folder / "files"))
    return address


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A run's folder; the last checkpoint is too large for auto, the best is not."""
    (tmp_path / "last.ckpt").write_bytes(b"the last of all")
    (tmp_path / "best.ckpt").write_bytes(b"the best")
    return tmp_path


def ended(uri: str, output: Path, **options: Any) -> MlflowRun:
    """A run that trained nothing and kept what lies in `output`."""
    run = MlflowRun(uri, Begun("run"), system_metrics=False, **options)
    run.record({"seed": 1}, {"robot": "toy"}, {"dots": "1f" * 32}, [])
    run.finalize()
    run.keep(output)
    run.close({"eval/success": 2 / 3, "val/loss": 1.0})
    return run


def filed(run: MlflowRun) -> list[str]:
    return [file.path for file in run.experiment.list_artifacts(str(run.run_id), "checkpoint")]


def test_a_resumed_run_goes_on_in_its_record_and_is_running_again(uri: str) -> None:
    first = MlflowRun(uri, Begun("run"))
    first.log_metrics({"val/loss": 2.0}, step=1)
    first.finalize()
    again = MlflowRun(uri, Begun("run", card={"mlflow_run_id": first.run_id}))
    assert again.run_id == first.run_id
    assert again.experiment.get_run(again.run_id).info.status == "RUNNING"


def test_a_run_of_another_store_goes_on_in_a_new_record(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    run = MlflowRun(uri, Begun("run", card={"mlflow_run_id": "f" * 32}))
    assert run.run_id != "f" * 32
    assert f"{'f' * 32} is not in" in caplog.text


def test_the_checkpoint_asked_for_is_an_artefact(uri: str, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filed(ended(uri, output)) == ["checkpoint/last.ckpt"]
    assert filed(ended(uri, output, checkpoint="best")) == ["checkpoint/best.ckpt"]
    assert filed(ended(uri, output, checkpoint="none")) == []
    monkeypatch.setattr(loggers, "SMALL", 10)
    assert filed(ended(uri, output)) == []
    assert filed(ended(uri, output, checkpoint="last")) == ["checkpoint/last.ckpt"]


def test_a_missing_checkpoint_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert chosen(tmp_path, "best") is None
    assert "best.ckpt" in caplog.text


def test_each_registration_is_a_version_and_the_alias_moves(
    uri: str, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "SMALL", 10)  # what is registered is kept whatever its size
    ended(uri, output, register="robot", alias="champion")
    run = ended(uri, output, register="robot", alias="champion")
    version = run.experiment.get_model_version_by_alias("robot", "champion")
    assert (version.version, version.run_id, version.tags) == (2, run.run_id, {"eval/success": "0.6667"})
    assert version.source == f"{run.experiment.get_run(run.run_id).info.artifact_uri}/checkpoint"


def test_a_model_that_another_process_registers_at_the_same_moment_is_taken(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(uri).create_registered_model("raced")
    search, asked = MlflowClient.search_registered_models, list[str]()

    def late(self: MlflowClient, words: str) -> Any:
        asked.append(words)
        return search(self, words) if len(asked) > 1 else []

    monkeypatch.setattr(MlflowClient, "search_registered_models", late)
    assert MlflowRun(uri, Begun("run"), register="raced").register == "raced"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint": "bets"}, "checkpoint=bets"),
        ({"register": "robot", "alias": "latest"}, "cannot be an alias"),
        ({"register": "robot", "alias": "v2"}, "cannot be an alias"),
        ({"register": "robot", "checkpoint": "none"}, "without its checkpoint"),
        ({"register": "a/b"}, "no model can be registered"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_training(uri: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MlflowRun(uri, Begun("run"), **options)  # type: ignore[arg-type]


def test_system_metrics_are_recorded_until_the_run_ends(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    run = MlflowRun(uri, Begun("run"))
    run.record({}, {}, {}, [])
    assert run.monitor is not None
    thread, deadline = run.monitor._process, time.monotonic() + 20
    while run.monitor._logging_step < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    run.finalize()
    assert not thread.is_alive()
    assert "MLFLOW_TRACKING_URI" not in os.environ  # or the next run would be filed in this one's store
    assert "system/cpu_utilization_percentage" in run.experiment.get_run(run.run_id).data.metrics


def test_without_wandb_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PartMissing, match="not installed") as caught:
        WandbRun(Begun("run"), project="x", folder=str(tmp_path))
    assert "vlakit[wandb]" in caught.value.do


@pytest.mark.slow
def test_wandb_is_one_override_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bridge_shards: Path
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ["experiment=full", "logger=wandb", "validate_every=2", f"data.root={bridge_shards.parent}"]
    train_here(tmp_path, *words, "steps=2")
    checkpoint = tmp_path / "runs" / "run" / "last.ckpt"
    run_id = read_checkpoint(checkpoint)[CARD]["wandb_run_id"]
    train_here(tmp_path, *words, "steps=4", f"ckpt_path={checkpoint}")
    written = sorted((tmp_path / "runs" / "wandb").glob("offline-run-*"))
    assert [folder.name.rpartition("-")[2] for folder in written] == [run_id, run_id]
    assert all((folder / f"run-{run_id}.wandb").stat().st_size > 1000 for folder in written)
    assert not (tmp_path / "runs" / "mlflow.db").exists()
