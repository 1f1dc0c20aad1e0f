"""A sweep through train.py into a real MLflow server with a database, read back over HTTP."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from commands import LIGHT
from places import ROOT

from vlakit.tracking.mlflow import RunRow, client, runs

pytestmark = [pytest.mark.slow, pytest.mark.allow_hosts(["127.0.0.1"])]
START_S = 300  # ten on an idle machine


def answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=5) as reply:
            return reply.status == 200
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on a free port, with a sqlite database and a folder of artefacts."""
    place = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place / "files")]
    words += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *words]
    plain = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (place / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=plain, start_new_session=True)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        while not answers(address):
            assert server.poll() is None, (place / "log").read_text()
            assert time.monotonic() < deadline, (place / "log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its workers too; nothing in it outlives the test
        server.wait()


@pytest.fixture(scope="module")
def swept(uri: str, tmp_path_factory: pytest.TempPathFactory, bridge_shards: Path) -> SimpleNamespace:
    """A sweep of one job of two steps: the server's parent and child, and the job's folder."""
    place = tmp_path_factory.mktemp("swept")
    words = [
        "experiment=full",
        "steps=2",
        "validate_every=2",
        "seed=3",
        "trainer.log_every_n_steps=1",
        f"data.root={bridge_shards.parent}",
    ]
    words += ["logger.register=robot", "logger.alias=champion", f"hydra.sweep.dir={place / 'sweep'}"]
    environment = {
        **os.environ,
        "VLAKIT_RUNS": str(place / "runs"),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.05",
    }
    command = [sys.executable, "train.py", "-m", *LIGHT, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parent, child = runs(uri)
    return SimpleNamespace(parent=parent, child=child, folder=place / "sweep" / "0")


def test_parent_and_child_are_on_the_server_with_what_the_run_is(swept: SimpleNamespace) -> None:
    parent: RunRow = swept.parent
    child: RunRow = swept.child
    assert (parent.status, parent.tags["vlakit.kind"]) == ("FINISHED", "sweep")
    assert (child.status, child.parent, child.params["seed"]) == ("FINISHED", parent.run_id, "3")
    assert {"train/loss", "val/loss", "params/trainable", "system/cpu_utilization_percentage"} <= child.metrics.keys()
    assert {"mlflow.source.git.commit", "mlflow.source.git.branch", "git.dirty"} <= child.tags.keys()


def test_data_and_files_are_on_the_server(uri: str, swept: SimpleNamespace) -> None:
    store = client(uri)
    (used,) = store.get_run(swept.child.run_id).inputs.dataset_inputs
    assert swept.child.tags["shards.bridge_orig"].startswith(used.dataset.digest)
    assert {file.path for file in store.list_artifacts(swept.child.run_id)} == {"checkpoint", "config.yaml"}


def test_the_registered_model_is_fetched_by_its_alias(
    uri: str, swept: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    assert client(uri).get_model_version_by_alias("robot", "champion").run_id == swept.child.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    fetched = mlflow.artifacts.download_artifacts("models:/robot@champion", dst_path=str(tmp_path))
    assert (Path(fetched) / "last.ckpt").read_bytes() == (swept.folder / "last.ckpt").read_bytes()
