"""`vlakit table`: one table in five formats, from a store, a folder or the paper; refusals; speed."""

import csv
import io
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from commands import complaint, report, run, says
from evaluations import outcomes, write_own
from places import ROOT
from table_fills import filled

from vlakit.reports.tables.folder import save
from vlakit.reports.tables.spec import load_table
from vlakit.tracking.mlflow import client, end_run, experiment_id, log_params

Capture = pytest.CaptureFixture[str]
RATES = {"full": 0.8, "last_layer": 0.4, "lora_r32": 0.78}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(filled(RATES, n=60), load_table("table1"), tmp_path / "episodes")
    return tmp_path / "episodes"


def test_the_papers_own_table_as_json(capsys: Capture) -> None:
    found = report(capsys, "table", "name=table1", "source=paper")
    assert len(found["pairs"]) == 15
    assert {"pair", "difference", "p", "p_holm", "verdict"} <= found["pairs"][0].keys()
    first = next(pair for pair in found["pairs"] if pair["pair"] == ["full", "last_layer"])
    assert (first["verdict"], round(first["difference"], 3)) == ("full better", 0.394)
    assert [claim["verdict"] == "agrees" for claim in found["claims"]] == [True, *[False] * 5]
    assert "+- reproduced: 6 of 6 printed ones" in found["notes"]


def test_a_committed_folder_needs_no_store(folder: Path, capsys: Capture) -> None:
    found = report(capsys, "table", "name=table1", f"from={folder}", "tracking_uri=sqlite:////nowhere/x.db")
    rows = {row["row"]: row for row in found["rows"]}
    assert rows["last_layer"]["verdict"] == "agrees"
    assert rows["sandwich"]["holes"] == ["no run yet"]
    assert {pair["pair"][1] for pair in found["pairs"]} == {"full"}


def test_every_format_marks_what_is_quoted(folder: Path, capsys: Capture) -> None:
    for name, mark in (
        ("text", "paper:"),
        ("markdown", "| paper: credit % |"),
        ("latex", r"paper: credit \%"),
    ):
        assert run("table", ["name=table1", f"from={folder}", f"format={name}"]) == 0
        says(capsys.readouterr().out, mark, "agrees", "69.7")
    assert run("table", ["name=table1", f"from={folder}", "format=csv"]) == 0
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert float(rows["full"]["quoted_credit_fraction"]) == pytest.approx(23 / 33)
    assert (rows["sandwich"]["success_fraction"], rows["sandwich"]["holes"]) == ("", "no run yet")


def test_a_table_without_a_run_shows_the_committed_ones_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """As after pip install, far from a checkout; a wheel holds experiments/*/runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    committed = f"from={load_table('table1').folder / 'runs'}"
    found, wanted = report(capsys, "table", "name=table1"), report(capsys, "table", "name=table1", committed)
    assert (found["rows"], found["pairs"], found["claims"]) == (wanted["rows"], wanted["pairs"], wanted["claims"])
    assert found["source"] == "experiments/table1_finetuning/runs"
    assert "no run of this table" in found["notes"][0]
    assert list(tmp_path.iterdir()) == []  # asking makes no store
    parts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert "experiments/*/runs/*.csv" in set(parts["wheel"]["include"]) & set(parts["sdist"]["include"])
    assert report(capsys, "table", "name=table1", "parent=all")["rows"][0]["holes"] == ["no run yet"]
    assert report(capsys, "table", "name=table12")["rows"][0]["measured"] == {}


def test_a_run_that_fills_no_row_does_not_hide_the_committed_ones(tmp_path: Path, capsys: Capture) -> None:
    """Such as one on other data, which ended without an evaluation; it is named."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = client(uri)
    run_id = store.create_run(experiment_id(store, "vlakit"), run_name="lora_r32").info.run_id
    log_params(store, run_id, {"name": "lora_r32", "model.weights": "tiny", "seed": "7"})
    end_run(uri, run_id, "FINISHED")
    found = report(capsys, "table", "name=table1", f"tracking_uri={uri}")
    assert found["source"] == "experiments/table1_finetuning/runs"
    assert found["notes"][1].startswith("lora_r32, seed 7, does not count: ")
    (row,) = [row for row in found["rows"] if row["row"] == "lora_r32"]
    assert row["measured"]["success"]["seeds"] == 6


def test_programs_read_numbers_under_names_with_their_unit(folder: Path, capsys: Capture) -> None:
    found = report(capsys, "table", "name=table1", f"from={folder}")
    assert {"success", "difference", "needed"} <= found["units"].keys()
    assert set(found["rows"][0]["quoted"]) == {"success", "params/trainable_M", "memory/vram_peak_GB"}
    assert run("table", ["name=table1", f"from={folder}", "format=csv"]) == 0
    header = capsys.readouterr().out.splitlines()[0].split(",")
    plain = {"row", "seeds", "score", "p", "p_holm", "measured", "verdict", "holes"}
    assert [name for name in header if name not in plain and not re.search(r"_(fraction|episodes|M|GB)$", name)] == []


def test_what_is_wrong_is_said_in_three_lines(tmp_path: Path, capsys: Capture) -> None:
    says(complaint(capsys, "table", "name=tabel1", "source=paper"), "table1")
    says(complaint(capsys, "table", "name=table1", "source=papr"), "did you mean paper")
    says(complaint(capsys, "table", "name=table1", "source=paper", "margin=5"), "fraction between 0 and 1")
    says(complaint(capsys, "table", "name=table1", "source=paper", "paired=flase"), "did you mean false")
    says(complaint(capsys, "table", "name=table1", "where=tiny"), "where=tiny cannot be used", "give pairs {NAME: ")
    says(complaint(capsys, "table", "name=table1", f"from={tmp_path}"), "no results here")


@pytest.mark.slow
def test_the_command_line_says_what_runs_must_have(tmp_path: Path, capsys: Capture) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    home = experiment_id(client(uri), "vlakit", str(tmp_path))
    made = client(uri).create_run(home, tags={"vlakit.error": "LossNotFinite"}).info.run_id
    log_params(client(uri), made, {"name": "full", "seed": 0, "model.weights": "/w/openvla"})
    end_run(uri, made, "FAILED")
    words = ["name=table1", f"tracking_uri={uri}"]
    for more, hole in (((), "no run yet"), (("where={model.weights: /w/openvla}",), "seed 0: LossNotFinite")):
        assert report(capsys, "table", *words, *more)["rows"][0]["holes"] == [hole]


@pytest.fixture(scope="module")
def thousand_runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of a table's sweep, 18 runs of 200 episodes, among 981 others; written past MLflow, for speed."""
    place = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    home = int(experiment_id(client(uri), "vlakit", str(place)))
    with sqlite3.connect(place / "mlflow.db") as db:
        _insert(db, home, "sweep", "sweep hparams_search=table1 seed=0,1,2", {}, {"vlakit.kind": "sweep"})
        for number in range(999):
            name = ("full", "last_layer", "frozen_vision", "sandwich", "lora_r32", "lora_r64")[number % 6]
            params = {f"key{i}": "x" for i in range(100)} | {"name": name, "seed": str(number // 6), "steps": "9"}
            params["model.weights"] = "tiny"
            tags = {"vlakit.output": str(place / str(number))} | {f"shards.{i}": "x" for i in range(5)}
            if number < 18:
                write_own(place / str(number) / "evaluation" / "tabletop_target", outcomes(200, 0.5, number))
                tags["mlflow.parentRunId"] = "sweep"
            _insert(db, home, f"{number:032x}", name, params, tags)
    return uri


def _insert(
    db: sqlite3.Connection, home: int, key: str, name: str, params: dict[str, str], tags: dict[str, str]
) -> None:
    db.execute(
        "insert into runs(run_uuid, name, user_id, source_type, status, start_time, lifecycle_stage, artifact_uri,"
        " experiment_id) values (?, ?, 'u', 'LOCAL', 'FINISHED', 1, 'active', '', ?)",
        (key, name, home),
    )
    for table, pairs in (("params", params), ("tags", tags)):
        db.executemany(
            f"insert into {table}(key, value, run_uuid) values (?, ?, ?)", [(k, v, key) for k, v in pairs.items()]
        )
    metrics = [(f"train/m{i}", key) for i in range(20)]
    db.executemany(
        "insert into latest_metrics(key, value, timestamp, step, is_nan, run_uuid) values (?, 1, 1, 1, 0, ?)", metrics
    )


@pytest.mark.slow
def test_a_table_from_a_thousand_runs_takes_five_seconds(thousand_runs: str) -> None:
    before = os.times()
    words = ["name=table1", f"tracking_uri={thousand_runs}", "format=json"]
    code = f"from vlakit.cli.app import run_verb; run_verb('table', {words!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    after = os.times()
    assert '"n": 600' in done.stdout
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 5  # processor time: the machine may be shared
