"""A multirun: one MLflow parent, a child for each job, one table at the end; failures stay alone, and it goes on."""

import io
import logging
import os
import pickle
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import joblib
import pytest
import yaml
from commands import LIGHT
from omegaconf import DictConfig, OmegaConf
from places import ROOT

from vlakit.cli.configuration import whole
from vlakit.cli.hydra_run import sweep_first
from vlakit.cli.sweep import Job, SweepRun, closed_early, continued, parent_of, read_note, sign_lines, start_as_usual
from vlakit.cli.train import _run_name
from vlakit.errors import ConfigError, LossNotFinite
from vlakit.files import locked
from vlakit.tracking import mlflow
from vlakit.tracking.mlflow import runs


def sweep(folder: Path, *words: str, light: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VLAKIT_RUNS": str(folder / "runs"), "VLAKIT_DATA": str(folder / "data")}
    command = [sys.executable, "train.py", "-m", *(LIGHT if light else ()), *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_folder_without_a_record_has_no_parent(tmp_path: Path) -> None:
    assert parent_of(tmp_path) is None
    (tmp_path / "mlflow_parent").write_text("abc\n")
    assert parent_of(tmp_path) == "abc"


def test_the_option_for_a_sweep_may_stand_between_the_words() -> None:
    words = ["experiment=full", "-m", "seed=0,1", "--config-dir", "conf"]
    assert sweep_first(words) == ["-m", "experiment=full", "seed=0,1", "--config-dir", "conf"]


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
def test_a_failing_job_is_recorded_with_its_reason_and_only_it_runs_again(tmp_path: Path) -> None:
    place, uri = tmp_path / "runs" / "s", f"sqlite:///{tmp_path}/runs/mlflow.db"
    words = [
        "experiment=full",
        "model.weights=nothere.ckpt,null",
        "steps=2",
        "validate_every=2",
        f"hydra.sweep.dir={place}",
    ]
    done = sweep(tmp_path, *words)
    assert done.returncode == 1
    assert "no checkpoint here" in done.stderr
    assert "1 of 2 jobs failed" in done.stderr
    assert "Traceback" not in done.stderr
    recorded = runs(uri)
    parent, failed, finished = recorded
    assert [run.status for run in recorded] == ["FAILED", "FAILED", "FINISHED"]
    assert {failed.parent, finished.parent} == {parent.run_id}
    assert failed.tags["vlakit.error"] == "CheckpointMismatch: no checkpoint here"
    assert (failed.params["name"], failed.params["model.weights"]) == ("full", "nothere.ckpt")
    again = sweep(tmp_path, f"continue={place}", light=False)
    assert again.returncode == 1
    assert "finished before: full" in again.stdout + again.stderr
    assert [run.status for run in runs(uri) if run.run_id == parent.run_id] == ["FAILED"]
    assert [run.run_id for run in runs(uri) if run.status == "FINISHED"] == [finished.run_id]


def test_names_say_what_was_run_and_not_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["hparams_search=table1", "seed=0,1", "model.weights=tiny"]
    places = [
        "data.root=/home/me",
        "logger.tracking_uri=http://me:secret@host",
        "+evaluate.videos=5",
        "++paths.runs=/r",
    ]
    places.append("model.processor.tokenizer_path=/home/me/words")
    monkeypatch.setattr(mlflow, "start_parent", lambda uri, name, *rest: name)
    hydra = {"sweep": {"dir": str(tmp_path)}, "overrides": {"task": [*words, *places]}}
    to = {"tracking_uri": "x", "experiment": "vlakit", "artifacts": None}
    SweepRun().on_multirun_start(OmegaConf.create({"hydra": hydra, "logger": to}))
    assert parent_of(tmp_path) == "sweep hparams_search=table1 seed=0,1 model.weights=tiny"
    assert _run_name(config(), ["experiment=full", "seed=0", *places]) == "full[seed=0]"
    mixed = whole(["data.mixture={a: 1}", "data.sources={a: /home/me}"])
    assert _run_name(config(), mixed) == "full[data.mixture={a: 1}]"
    asked = ["experiment=full", "data.questions=null", "data.questions={a: q.json}"]
    assert _run_name(config(), asked) == "full[data.questions={a: q.json}]"


def config() -> DictConfig:
    return OmegaConf.create({"name": "full", "seed": 0, "ckpt_path": None, "logger": {}})


def job(folder: Path, *overrides: str) -> Job:
    return Job(folder / "0", overrides, "full", None)


def fails() -> dict[str, float]:
    raise LossNotFinite("the loss is nan", where="step 3", do="lower lr")


def test_a_finished_job_is_not_run_again(tmp_path: Path) -> None:
    assert job(tmp_path, "seed=0").run(config(), lambda: {"val/loss": 1.5}) == {"val/loss": 1.5}
    assert job(tmp_path, "seed=0").run(config(), fails) == {"val/loss": 1.5}


def test_a_failure_is_said_and_noted_and_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(tmp_path, "seed=0").run(config(), fails) == {}
    assert "LossNotFinite: the loss is nan" in capsys.readouterr().err
    assert read_note(tmp_path / "0")["why"] == "LossNotFinite: the loss is nan"
    assert job(tmp_path, "seed=0").run(config(), lambda: {"val/loss": 1.0}) == {"val/loss": 1.0}


def test_an_interrupt_stops_the_sweep_and_the_job_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def interrupted() -> dict[str, float]:
        (tmp_path / "0" / "last.ckpt").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, "seed=0").run(config(), interrupted)
    cfg = config()
    job(tmp_path, "seed=0").run(cfg, dict)
    assert cfg.ckpt_path == "auto"  # the newest whole checkpoint of its folder: tests/cli/test_resuming.py


def test_another_sweeps_folder_is_refused(tmp_path: Path) -> None:
    job(tmp_path, "seed=0").run(config(), dict)
    with pytest.raises(ConfigError, match="holds the job seed=0"):
        job(tmp_path, "seed=1").run(config(), dict)


def test_a_sweep_goes_on_with_the_words_it_began_with(tmp_path: Path) -> None:
    asked = {"task": ["seed=0,1", "hparams_search=table1"], "hydra": ["hydra.sweep.dir=old", "hydra.mode=MULTIRUN"]}
    sources = [{"path": "hydra.conf", "provider": "hydra"}, {"path": "/srv/mine", "provider": "vlakit"}]
    begun = {"overrides": asked, "runtime": {"config_sources": sources}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": begun}))
    again = ["-m", "--config-dir=/srv/mine", "seed=0,1", "hparams_search=table1", f"hydra.sweep.dir='{tmp_path}'"]
    assert continued(["-m", f"continue={tmp_path}"]) == again
    assert continued(["experiment=full"]) == ["experiment=full"]
    with pytest.raises(ConfigError, match="without other words"):
        continued([f"continue={tmp_path}", "seed=3"])
    with pytest.raises(ConfigError, match="no sweep here"):
        continued([f"continue={tmp_path / 'x'}"])


def signed(name: str) -> str:
    """What a job's process writes to its terminal."""
    terminal = io.StringIO()
    logging.getLogger().handlers = [logging.StreamHandler(terminal)]
    sign_lines(name)
    logging.getLogger("vlakit").warning("checkpoint: last.ckpt")
    return terminal.getvalue()


def test_lines_of_jobs_side_by_side_say_whose_they_are() -> None:
    with get_context("fork").Pool(1) as launched:
        assert launched.apply(signed, ["full[seed=0]"]) == "[full[seed=0]] checkpoint: last.ckpt\n"


def test_the_callback_of_a_running_sweep_travels_to_its_jobs(tmp_path: Path) -> None:
    """The joblib launcher pickles it, while this process holds the sweep's folder."""
    callback = SweepRun()
    with callback._alone as held:
        held.enter_context(locked(tmp_path))
        assert isinstance(pickle.loads(pickle.dumps(callback)), SweepRun)


def child_of_a_job(method: str) -> int:
    start_as_usual()
    with get_context(method).Pool(1) as pool:
        return pool.apply(abs, [-3])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_jobs_of_joblib_may_have_processes_of_their_own(method: str) -> None:
    """Loaders' and environments' workers: a child of joblib's process would look for a start method called loky."""
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(child_of_a_job)(method) for _ in range(2)) == [3, 3]
