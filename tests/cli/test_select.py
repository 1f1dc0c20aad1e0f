"""`vlakit select`: whole rounds by the ordinary training, going on to the same ids, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import complaint, report, run, says
from selection.test_pool import write_pool

from vlakit.selection.rounds import read_rounds
from vlakit.tracking.mlflow import PARENT, client, runs

LORA = ("experiment=lora_r32", "strategy.rank=2", "strategy.dropout=0.3")
SHORT = (
    "steps=2",
    "validate_every=2",
    "batch_size=2",
    "trainer.limit_val_batches=1",
    "trainer.enable_progress_bar=false",
)


def words(folder: Path, *train: str, **keys: object) -> list[str]:
    own: dict[str, object] = {"first": 3, "batch": 2, "rounds": 2, "passes": 2, "out": folder / "out", **keys}
    pool = [f"pool={folder / 'pool'}", "dataset=tabletop_target", f"paths.runs={folder / 'runs'}"]
    trained = [f"train.{word}" for word in (*LORA, *SHORT, *(train or ["logger=none"]))]
    return [*pool, *trained, *(f"{key}={value}" for key, value in own.items())]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pool(tmp_path / "pool", 8)
    return tmp_path


@pytest.mark.slow
def test_rounds_train_score_and_acquire_and_the_same_command_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pool" / "outliers.json").write_text('{"1": "noise", "5": "noise"}')
    told = report(capsys, "select", *words(folder, acquisition="bald"))
    assert [len(one["labelled"]) for one in told["rounds"]] == [3, 5]
    assert told["rounds"][0]["metrics"]["val/loss"] > 0
    assert told["rounds"][0]["outlier_share"] is not None
    assert "round_1" in {file.name for file in (folder / "out").iterdir()}
    assert Path(told["page"]).read_text().startswith("<!doctype html>")
    lines = (folder / "out" / "rounds.jsonl").read_text().splitlines()
    (folder / "out" / "rounds.jsonl").write_text(lines[0] + "\n")  # as a kill in the second round leaves it
    again = report(capsys, "select", *words(folder, acquisition="bald"))
    assert again["rounds"] == told["rounds"]
    says(complaint(capsys, "select", *words(folder, acquisition="random")), "another acquisition", "out=DIR")


@pytest.mark.slow
def test_one_run_in_mlflow_lies_above_the_rounds_and_a_map_leaves_demonstrations_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"acquisition": "coreset_vision", "map": "train", "drop": 0.25, "rounds": 1, "val_fraction": 0.3}
    told = report(capsys, "select", *words(folder, "steps=20", "logger.system_metrics=false", **keys))
    settings = json.loads((folder / "out" / "selection.json").read_text())
    assert len(settings["left_out"]) == 2
    assert not set(settings["left_out"]) & set(told["rounds"][0]["labelled"])
    assert "Dataset map" in Path(told["page"]).read_text()
    uri = f"sqlite:///{folder}/runs/mlflow.db"
    parent = (folder / "out" / "mlflow_parent").read_text().strip()
    assert sorted(one.name for one in runs(uri) if one.parent == parent) == ["map", "round 0, 3 demonstrations"]
    assert client(uri).get_run(parent).info.status == "FINISHED"
    assert PARENT not in client(uri).get_run(parent).data.tags


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"acquisition": "bold"}, ["no acquisition called 'bold'", "bald"]),
        ({"first": 5, "batch": 4}, ["9 demonstrations are asked for, 8"]),
        ({"drop": 0.5}, ["no map", "map=train"]),
        ({"map": "nowhere.csv"}, ["no such file", "nowhere.csv"]),
        ({"train.data.root": "x"}, ["train.data.root is the selection's"]),
        ({"train.stepz": 3}, ["stepz"]),
        ({"dataset": "tabletop_targat"}, ["tabletop_target"]),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(
    folder: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, object], parts: list[str]
) -> None:
    given = [word for word in words(folder) if word.partition("=")[0] not in keys]
    says(complaint(capsys, "select", *given, *(f"{key}={value}" for key, value in keys.items())), *parts)
    assert not (folder / "out" / "round_0").exists()


def test_a_map_of_another_pool_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "map.csv").write_text("id,confidence,variability,correctness,bucket\n0,0.5,0.1,0.5,medium\n")
    says(complaint(capsys, "select", *words(folder, map=folder / "map.csv")), "1 demonstrations", "8")


@pytest.mark.slow
def test_a_policy_without_dropout_is_refused_with_the_remedy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "select", *words(folder, "strategy.dropout=0.0", "logger=none", acquisition="bald"))
    says(said, "no dropout", "strategy.dropout=0.1")
    assert read_rounds(folder / "out") == []
    assert run("select", words(folder, "strategy.dropout=0.0", "logger=none", acquisition="bald")) == 1
