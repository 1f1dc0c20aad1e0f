"""Proofs by killing: whatever ends a training or a sweep, on record is what an unbroken one records."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import LIGHT, train_here
from mlflow import MlflowClient
from places import ROOT
from torch.utils._pytree import tree_flatten_with_path

from vlakit.cli.errors import readable_errors
from vlakit.tracking.mlflow import runs

pytestmark = pytest.mark.slow
KILLS = 20
SIGNALS = int(os.environ.get("VLAKIT_SIGNALS", "8"))
LORA = ("experiment=lora_r32", "strategy.rank=4", "strategy.dropout=0.1", "num_workers=1", "steps=120")
EVERY = ("validate_every=5", "trainer.log_every_n_steps=1", "logger.system_metrics=false", "logger.checkpoint=none")


def curves(uri: str) -> dict[str, list[tuple[int, float]]]:
    """Name -> every point (step, value) of train and val curves of a store's one run, as often as it stands there."""
    (run,) = runs(uri)
    store = MlflowClient(uri)
    names = [name for name in run.metrics if name.startswith(("train/", "val/"))]
    return {n: sorted((p.step, p.value) for p in store.get_metric_history(run.run_id, n)) for n in names}


def until(true: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_twenty_kills_leave_no_point_doubled_and_none_lost(tmp_path: Path, bridge_shards: Path) -> None:
    """Each kill comes at another moment; the run goes on from last.ckpt in a new process."""
    words = [*LORA, *EVERY, f"data.root={bridge_shards.parent}"]
    context = get_context("fork")  # a new interpreter would take twenty seconds to import what is here already

    def begun(folder: Path, *more: str) -> Any:
        process = context.Process(target=train_here, args=(folder, *words, *more))
        process.start()
        return process

    whole = begun(tmp_path / "whole")
    broken, last, kills = tmp_path / "broken", tmp_path / "broken/runs/run/last.ckpt", 0
    draw = random.Random(0)
    process = begun(broken)
    until(last.is_file)
    while kills < KILLS and process.is_alive():
        process.join(draw.uniform(0, 1.5))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
            process.join()
            before = last.stat().st_mtime_ns
            process = begun(broken, f"ckpt_path={last}")
            until(lambda before=before, process=process: last.stat().st_mtime_ns > before or not process.is_alive())
    process.join()
    whole.join()
    print(f"{kills} kills")
    assert (kills, process.exitcode, whole.exitcode) == (KILLS, 0, 0)
    stores = [f"sqlite:///{folder}/runs/mlflow.db" for folder in (tmp_path / "whole", broken)]
    unbroken, found = (curves(uri) for uri in stores)
    assert found == unbroken
    assert [step for step, _ in found["train/loss"]] == list(range(120))
    assert [step for step, _ in found["val/loss"]] == list(range(4, 120, 5))


def requeued(folder: Path, *words: object) -> None:
    """What the console script does in a process of its own: an exit code for a signal, no traceback."""
    with readable_errors():
        train_here(folder, *words, "ckpt_path=auto")


def same_training(one: Path, other: Path) -> None:
    """Weights, moments and generators of two last.ckpt are equal to the bit."""
    parts = [torch.load(file, weights_only=True) for file in (one, other)]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "random_states", "global_step"):
        first, second = (tree_flatten_with_path(part[key])[0] for part in parts)
        assert [path for path, _ in first] == [path for path, _ in second]
        pairs = zip(first, second, strict=True)
        equal = [torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for (_, a), (_, b) in pairs]
        assert all(equal), key


def test_a_command_given_again_after_every_signal_ends_with_the_weights_of_an_unbroken_run(
    tmp_path: Path, bridge_shards: Path
) -> None:
    """SIGTERM and SIGUSR1 at random times, before the first step too; the command is the same each time."""
    words = [*LORA[:-1], "steps=40", "validate_every=15", "logger=none", f"data.root={bridge_shards.parent}"]
    context, draw, codes = get_context("fork"), random.Random(1), []
    whole = context.Process(target=requeued, args=(tmp_path / "whole", *words))
    started = time.monotonic()
    whole.start()
    whole.join()
    takes = time.monotonic() - started
    assert whole.exitcode == 0
    while not codes or codes[-1] != 0:
        process = context.Process(target=requeued, args=(tmp_path / "broken", *words))
        process.start()
        process.join(draw.uniform(0, takes) if len(codes) < SIGNALS else None)
        if process.is_alive():
            os.kill(process.pid or 0, draw.choice([signal.SIGTERM, signal.SIGUSR1]))
        process.join()
        codes.append(process.exitcode)
    print(f"{len(codes) - 1} signals: {codes}")
    untrained = {-signal.SIGTERM, -signal.SIGUSR1}  # it came before the first step: a shell sees 143 and 138 too
    assert set(codes[:-1]) <= {128 + signal.SIGTERM, 128 + signal.SIGUSR1, *untrained}
    assert set(codes[:-1]) - untrained
    same_training(tmp_path / "whole/runs/run/last.ckpt", tmp_path / "broken/runs/run/last.ckpt")


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "VLAKIT_RUNS": str(folder / "runs"),
        "VLAKIT_DATA": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
    }


def command(*words: str) -> list[str]:
    return [sys.executable, "train.py", *LIGHT, *words]


def listening() -> None:
    """A shell starts what it puts into the background with SIGINT ignored, nohup with SIGHUP; children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT], ids=str)
@pytest.mark.parametrize("to_group", [False, True])
def test_a_signal_leaves_a_checkpoint_from_which_the_run_goes_on(
    tmp_path: Path, bridge_shards: Path, number: signal.Signals, to_group: bool
) -> None:
    words = [*LORA[:-1], "steps=100000", *EVERY, f"data.root={bridge_shards.parent}", "logger=none"]
    words = [word for word in words if not word.startswith("logger.")]
    begun = command(*words, f"hydra.run.dir={tmp_path}")
    own: dict[str, Any] = {"start_new_session": True, "preexec_fn": listening}
    process = subprocess.Popen(begun, cwd=ROOT, env=environment(tmp_path), stderr=subprocess.PIPE, text=True, **own)
    try:
        until((tmp_path / "last.ckpt").is_file)
        (os.killpg if to_group else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, said
    checkpoint = tmp_path / "interrupted.ckpt"
    assert f"ckpt_path={checkpoint}" in said
    assert "Traceback" not in said
    assert torch.load(checkpoint, weights_only=True)["global_step"] >= 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=str)
def test_a_killed_sweep_leaves_no_process_and_trains_no_job_twice(
    tmp_path: Path, bridge_shards: Path, number: signal.Signals
) -> None:
    """Two jobs in two processes; the sweep is killed in the middle of both and continued at once."""
    place = tmp_path / "sweep"
    words = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={place}", "seed=0,1"]
    words += ["experiment=full", "steps=120", *EVERY, f"data.root={bridge_shards.parent}"]
    process = subprocess.Popen(
        command(*words), cwd=ROOT, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: all((place / job / "last.ckpt").is_file() for job in "01"), 240)
    process.send_signal(number)
    process.wait()
    again = [sys.executable, "train.py", "-m", f"continue={place}"]
    done = subprocess.run(again, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    recorded = runs(uri)
    (parent,) = [run for run in recorded if run.tags.get("vlakit.kind") == "sweep"]
    children = [run for run in recorded if run.parent == parent.run_id]
    assert len(recorded) == 3
    assert sorted(run.params["seed"] for run in children) == ["0", "1"]
    assert {run.status for run in recorded} == {"FINISHED"}
    for child in children:
        points = MlflowClient(uri).get_metric_history(child.run_id, "train/loss")
        assert sorted(point.step for point in points) == list(range(120))


def test_four_trainings_that_begin_at_once_in_a_new_folder_all_train(tmp_path: Path, bridge_shards: Path) -> None:
    words = ["experiment=full", "steps=2", "validate_every=2", f"data.root={bridge_shards.parent}", *EVERY[1:]]
    for trial in range(3):
        folder, context = tmp_path / str(trial), get_context("fork")
        own = [f"paths.output={folder}/{number}" for number in range(4)]
        started = [context.Process(target=train_here, args=(folder, *words, word)) for word in own]
        for process in started:
            process.start()
        for process in started:
            process.join()
        assert [process.exitcode for process in started] == [0, 0, 0, 0]
        assert [run.status for run in runs(f"sqlite:///{folder}/runs/mlflow.db")] == ["FINISHED"] * 4
