"""Training through the command line's own function: what is recorded, and that a resumed run is the same run."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from commands import LIGHT, report, train_here
from mlflow import MlflowClient
from places import ROOT

from vlakit.data.shards.reader import ShardFolder
from vlakit.errors import CheckpointMismatch
from vlakit.policy import TrainedPolicy


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, bridge_shards: Path) -> SimpleNamespace:
    """Two steps of lora_r32 in MLflow, then two more from its checkpoint."""
    folder = tmp_path_factory.mktemp("recorded")
    words = ["experiment=lora_r32", "validate_every=2", f"data.root={bridge_shards.parent}"]
    own = [*words, "trainer.log_every_n_steps=1"]
    metrics = train_here(folder, *own, "steps=2")
    first = torch.load(folder / "runs/run/last.ckpt", weights_only=True)
    train_here(folder, *own, "steps=4", f"ckpt_path={folder / 'runs/run/last.ckpt'}")
    second = torch.load(folder / "runs/run/last.ckpt", weights_only=True)
    store = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    return SimpleNamespace(
        folder=folder, own=own, metrics=metrics, first=first, second=second, store=store, shards=bridge_shards
    )


@pytest.fixture
def run(recorded: SimpleNamespace) -> SimpleNamespace:
    return recorded.store.get_run(recorded.first["vlakit"]["mlflow_run_id"])


def test_training_returns_and_records_the_metrics(recorded: SimpleNamespace, run: SimpleNamespace) -> None:
    assert {"train/loss", "val/loss", "val/token_accuracy", "val/l1"} <= recorded.metrics.keys()
    wanted = {"train/loss", "val/loss", "time/samples_per_s", "time/data_wait_share", "memory/peak_GB"}
    assert wanted <= run.data.metrics.keys()
    assert 0 < run.data.metrics["params/trainable"] < run.data.metrics["params/total"]
    assert run.info.status == "FINISHED"


def test_the_record_says_with_which_numbers(run: SimpleNamespace) -> None:
    params = run.data.params
    assert (params["strategy.rank"], params["strategy.alpha"], params["seed"]) == ("32", "16", "7")
    assert params["model.network.vision"] == "tiny_dinosiglip"


def test_the_record_says_on_which_data_and_code(recorded: SimpleNamespace, run: SimpleNamespace) -> None:
    digest = ShardFolder.open(recorded.shards).content_hash
    assert run.data.tags["shards.bridge_orig"] == digest
    (used,) = {entry.dataset.name: entry.dataset.digest for entry in run.inputs.dataset_inputs}.items()
    assert used == ("bridge_orig", digest[:36])
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path.cwd(), capture_output=True, text=True, check=False)
    assert run.data.tags["mlflow.source.git.commit"] == (commit.stdout.strip() or "unknown")
    assert run.data.tags["vlakit.strategy"] == "lora"


def test_the_resolved_configuration_is_filed(recorded: SimpleNamespace, run: SimpleNamespace) -> None:
    names = [file.path for file in recorded.store.list_artifacts(run.info.run_id)]
    assert "config.yaml" in names
    text = (recorded.folder / "runs/run/config.yaml").read_text()
    assert "${" not in text
    assert yaml.safe_load(text)["strategy"]["optimizer"]["lr"] == 2e-3


def test_a_resumed_run_goes_on_in_the_same_record(recorded: SimpleNamespace, run: SimpleNamespace) -> None:
    assert recorded.second["vlakit"]["mlflow_run_id"] == run.info.run_id
    assert (recorded.first["global_step"], recorded.second["global_step"]) == (2, 4)
    losses = recorded.store.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in losses] == sorted({point.step for point in losses})
    assert len(losses) == 4
    assert len(recorded.store.search_runs([run.info.experiment_id])) == 1


def test_a_checkpoint_of_another_strategy_is_not_resumed(recorded: SimpleNamespace) -> None:
    words = [word for word in recorded.own if not word.startswith("experiment")]
    with pytest.raises(CheckpointMismatch, match="strategy is lora, this run's is full"):
        train_here(recorded.folder, "experiment=full", *words, f"ckpt_path={recorded.folder / 'runs/run'}", "steps=6")


def test_score_reports_the_policy_beside_two_baselines(
    recorded: SimpleNamespace, run: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"tracking_uri=sqlite:///{recorded.folder}/runs/mlflow.db"
    found = report(capsys, "score", f"ckpt={recorded.folder / 'runs/run'}", "max_frames=8", uri)
    scores = found["datasets"]["bridge_orig"]["scores"]
    assert set(scores) == {"policy", "mean action", "previous action"}
    assert all(len(score["l1_per_dimension"]) == 7 for score in scores.values())
    out = recorded.folder / "runs/run/evaluation"
    assert json.loads((out / "bridge_orig_val.json").read_text()) == found["datasets"]["bridge_orig"]
    assert (out / "bridge_orig_val.png").read_bytes().startswith(b"\x89PNG")
    metrics = recorded.store.get_run(run.info.run_id).data.metrics
    assert metrics["eval/l1/bridge_orig"] == pytest.approx(scores["policy"]["l1"])


def test_random_base_weights_are_pointed_out(
    tmp_path: Path, bridge_shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = f"data.root={bridge_shards.parent}"
    with caplog.at_level(logging.WARNING):
        train_here(
            tmp_path, "experiment=last_layer", "debug=fast", "model.weights=null", "steps=1", "validate_every=1", root
        )
    assert "the base weights are random" in caplog.text
    assert (tmp_path / "runs/run/last.ckpt").is_file()
    assert not (tmp_path / "runs/mlflow.db").exists()


@pytest.mark.parametrize("experiment", ["pretrain", "full", "lora_r32"])
def test_the_papers_scale_takes_a_step_where_model_and_device_alone_are_small(
    experiment: str, tmp_path: Path, bridge_shards: Path
) -> None:
    """Its precision, clipping and optimizer as they are: together they once ended every run at its first step."""
    small = ["model=tiny", "data=bridge_sample", "trainer=gpu", "trainer.accelerator=cpu", "batch_size=2"]
    short = ["steps=1", "validate_every=1", "trainer.limit_val_batches=1", "num_workers=0", "logger=none"]
    root = f"data.root={bridge_shards.parent}"
    metrics = train_here(tmp_path, f"experiment={experiment}", "scale=paper", *small, *short, root)
    assert metrics["train/loss"] > 0
    stored = torch.load(tmp_path / "runs/run/last.ckpt", weights_only=True)["state_dict"].values()
    half = experiment == "lora_r32"  # bf16-true
    assert {tensor.dtype for tensor in stored} == {torch.bfloat16 if half else torch.float32}


def command(folder: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "VLAKIT_RUNS": str(folder / "runs"), "VLAKIT_DATA": str(folder / "data")}
    return [sys.executable, "train.py", *LIGHT, *words], environment


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    words, environment = command(
        tmp_path, "experiment=full", "steps=100000", "logger=none", f"hydra.run.dir={tmp_path}"
    )
    # A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, **listening)
    try:
        deadline = time.monotonic() + 40
        while not (tmp_path / "config.yaml").is_file() and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "ckpt_path=" in said
    assert "Traceback" not in said
    return tmp_path


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_loads_and_goes_on(interrupted: Path) -> None:
    checkpoint = interrupted / "interrupted.ckpt"
    assert TrainedPolicy.from_checkpoint(checkpoint).card.strategy == "full"
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert step > 0
    words, environment = command(interrupted, "experiment=full", f"steps={step + 2}", "logger=none")
    own = [f"ckpt_path={checkpoint}", f"hydra.run.dir={interrupted / 'on'}"]
    subprocess.run([*words, *own], cwd=ROOT, env=environment, check=True)
    assert torch.load(interrupted / "on/last.ckpt", weights_only=True)["global_step"] == step + 2


def test_a_run_that_started_from_weights_with_other_names_resumes(recorded: SimpleNamespace, tmp_path: Path) -> None:
    """A released folder is `timm` + `llama` with numbers where the configuration says dinosiglip_so400m + llama2_7b."""
    content = torch.load(recorded.folder / "runs/run/last.ckpt", weights_only=True)
    numbers = {"vocab_size": 1536, "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4}
    numbers |= {"num_attention_heads": 4, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "pad_token_id": 1472}
    content["vlakit"]["network"] |= {"llm": "llama", "llm_options": numbers}
    torch.save(content, tmp_path / "base.ckpt")
    words = ["experiment=full", "logger=none", f"model.weights={tmp_path / 'base.ckpt'}"]
    train_here(tmp_path, *words, "steps=2")
    train_here(tmp_path, *words, "steps=4", f"ckpt_path={tmp_path / 'runs/run'}")
    resumed = torch.load(tmp_path / "runs/run/last.ckpt", weights_only=True)
    assert (resumed["global_step"], resumed["vlakit"]["network"]["llm"]) == (4, "llama")
