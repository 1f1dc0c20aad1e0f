"""A multirun: one MLflow parent, a child for each job, one table at the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import LIGHT

from vlakit.cli.sweep import closed_early, parent_of
from vlakit.tracking.mlflow import runs

ROOT = Path(__file__).parents[2]


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VLAKIT_RUNS": str(folder / "runs"), "VLAKIT_DATA": str(folder / "data")}
    command = [sys.executable, "train.py", "-m", *LIGHT, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_folder_without_a_record_has_no_parent(tmp_path: Path) -> None:
    assert parent_of(tmp_path) is None
    (tmp_path / "mlflow_parent").write_text("abc\n")
    assert parent_of(tmp_path) == "abc"


def test_without_a_parent_a_failing_job_just_fails() -> None:
    with pytest.raises(ZeroDivisionError), closed_early({}, None):  # type: ignore[arg-type]
        _ = 1 / 0


@pytest.mark.slow
def test_a_sweep_is_one_parent_with_a_child_a_job_and_a_table(tmp_path: Path) -> None:
    done = sweep(tmp_path, "experiment=last_layer", "steps=2", "validate_every=2", "seed=0,1")
    assert done.returncode == 0, done.stderr
    recorded = runs(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (parent,) = [run for run in recorded if run.tags.get("vlakit.kind") == "sweep"]
    children = [run.name for run in recorded if run.parent == parent.run_id]
    assert [(name.partition("[")[0], name[-7:]) for name in children] == [("last_layer", f"seed={n}]") for n in (0, 1)]
    assert {run.status for run in recorded} == {"FINISHED"}
    assert f"vlakit compare parent={parent.run_id}" in done.stdout
    assert " +- " in done.stdout


@pytest.mark.slow
def test_a_sweep_that_fails_is_recorded_as_failed(tmp_path: Path) -> None:
    done = sweep(tmp_path, "experiment=full", "model.weights=nothere.ckpt", "seed=0,1")
    assert done.returncode == 1
    assert "no checkpoint here" in done.stderr
    assert "Traceback" not in done.stderr
    assert [run.status for run in runs(f"sqlite:///{tmp_path}/runs/mlflow.db")] == ["FAILED"]
