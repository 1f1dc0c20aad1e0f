"""The store: made once whoever begins, named where it is broken; and no training waits for one that is away."""

import sqlite3
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

from vlakit.errors import ConfigError
from vlakit.files import locked
from vlakit.tracking import points as points_module
from vlakit.tracking.dead import LEFT, close_dead, leave_behind
from vlakit.tracking.mlflow import HOST, OUTPUT, StoreUnreachable, client, experiment_id, gethostname, log_points
from vlakit.tracking.points import Points


def opened(uri: str, start: Any = None) -> None:
    if start is not None:
        start.wait()
    store = client(uri)
    store.create_run(experiment_id(store, "vlakit"))


def begun(target: Any, *args: Any) -> BaseProcess:
    process = get_context("fork").Process(target=target, args=args)
    process.start()
    return process


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    return f"sqlite:///{copy(empty_store, tmp_path)}"


@pytest.mark.slow
def test_four_that_begin_at_once_in_a_new_folder_share_one_store(tmp_path: Path) -> None:
    for trial in range(5):
        uri, start = f"sqlite:///{tmp_path}/{trial}/mlflow.db", get_context("fork").Barrier(4)
        started = [begun(opened, uri, start) for _ in range(4)]
        for process in started:
            process.join()
        assert [process.exitcode for process in started] == [0, 0, 0, 0]
        store = client(uri)
        assert len(store.search_runs([experiment_id(store, "vlakit")])) == 4
        assert sorted(path.name for path in (tmp_path / str(trial)).iterdir()) == ["mlflow.db"]


@pytest.mark.slow
def test_a_kill_while_the_tables_are_made_leaves_a_folder_that_works(tmp_path: Path) -> None:
    for trial in range(6):
        uri = f"sqlite:///{tmp_path}/{trial}/mlflow.db"
        process = begun(opened, uri)
        making, deadline = tmp_path / str(trial) / "mlflow.db.making" / "new.db", time.monotonic() + 60
        while not making.exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.15 * trial)
        process.kill()
        process.join()
        opened(uri)


def test_percent_signs_and_spaces_are_the_folders_own_name(tmp_path: Path, empty_store: Path) -> None:
    folder = tmp_path / "50 %20 x" / "a%b c"
    folder.mkdir(parents=True)
    uri = f"sqlite:///{copy(empty_store, folder)}"
    store = client(uri)
    run_id = store.create_run(experiment_id(store, "vlakit", str(folder / "files"))).info.run_id
    (tmp_path / "note").write_text("x")
    store.log_artifact(run_id, str(tmp_path / "note"))
    assert (folder / "files" / run_id / "artifacts" / "note").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["50 %20 x", "note"]


def test_a_store_left_half_made_is_named_with_what_to_do(uri: str) -> None:
    file = uri.removeprefix("sqlite:///")
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE registered_models")
        connection.execute("DELETE FROM alembic_version")
    with pytest.raises(StoreUnreachable) as caught:
        client(uri)
    assert f"mv '{file}' '{file}.broken'" in caught.value.do


def test_a_file_that_is_no_store_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    began = time.monotonic()
    with pytest.raises(StoreUnreachable, match="not a database"):
        client(f"sqlite:///{tmp_path}/mlflow.db")
    assert time.monotonic() - began < 10


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_server_that_refuses_is_asked_once() -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnreachable, match="does not answer"):
        client("http://127.0.0.1:9")
    assert time.monotonic() - began < 10


def test_a_deleted_experiment_is_one_error(uri: str) -> None:
    store = client(uri)
    number = experiment_id(store, "vlakit")
    store.delete_experiment(number)
    with pytest.raises(ConfigError, match="'vlakit' was deleted") as caught:
        experiment_id(store, "vlakit")
    assert f"restore -x {number}" in caught.value.do


class Store:
    """A store that can be away."""

    def __init__(self) -> None:
        self.away, self.written, self.asked = False, list[tuple[str, int, float]](), 0

    def write(self, points: Any) -> None:
        self.asked += 1
        if self.away:
            raise OSError("database is locked")
        self.written += [point[:3] for point in points]


def test_points_wait_for_a_store_that_is_away_and_the_warning_comes_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(points_module, "PAUSE_S", 0.0)
    store = Store()
    points = Points(store.write)
    for step in range(6):
        store.away = 2 <= step < 5
        points.add({"train/loss": 0.5 * step}, step)
    assert store.written == [("train/loss", step, 0.5 * step) for step in range(6)]
    assert caplog.text.count("does not answer") == 1


def test_a_store_that_is_away_is_not_asked_at_every_step() -> None:
    store = Store()
    store.away, points = True, Points(store.write)
    for step in range(100):
        points.add({"train/loss": 1.0}, step)
    assert store.asked == 1
    assert not points.flush()
    assert len(points.waiting) == 100


def test_a_point_on_record_is_not_written_again() -> None:
    store = Store()
    points = Points(store.write, {("train/loss", 9)})
    points.add({"train/loss": 1.0, "val/loss": 2.0}, 9)
    points.add({"val/loss": 2.0}, 9)
    assert store.written == [("val/loss", 9, 2.0)]


def running(uri: str, folder: Path) -> str:
    store = client(uri)
    tags = {OUTPUT: str(folder), HOST: gethostname()}
    folder.mkdir()
    return store.create_run(experiment_id(store, "vlakit"), tags=tags).info.run_id


def test_only_runs_whose_process_is_gone_are_closed(uri: str, tmp_path: Path) -> None:
    dead, alive, trained = (running(uri, tmp_path / name) for name in ("dead", "alive", "trained"))
    leave_behind(tmp_path / "trained", [("val/loss", 3, 1.5, 1)])
    store = client(uri)
    log_points(store, trained, [("val/loss", 1, 2.5, 1)])
    with locked(tmp_path / "alive"):
        close_dead(store, experiment_id(store, "vlakit"))
    assert [store.get_run(run).info.status for run in (dead, alive, trained)] == ["KILLED", "RUNNING", "FINISHED"]
    assert [point.step for point in store.get_metric_history(trained, "val/loss")] == [1, 3]
    assert not (tmp_path / "trained" / LEFT).exists()
