"""The store: made on first use, read back as plain rows, and an error where it does not answer."""

from pathlib import Path

import pytest

from vlakit.tracking.mlflow import (
    PARENT,
    StoreUnreachable,
    client,
    end_run,
    experiment_id,
    histories,
    record_evaluation,
    runs,
    start_parent,
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("store")
    address = f"sqlite:///{folder}/not/yet/there/mlflow.db"
    client(address)
    return address


def test_an_experiment_is_made_once_and_its_files_lie_where_asked(uri: str, tmp_path: Path) -> None:
    store = client(uri)
    number = experiment_id(store, "one", str(tmp_path / "files"))
    assert experiment_id(store, "one") == number
    assert store.get_experiment(number).artifact_location == (tmp_path / "files").as_uri()


def test_a_sweep_and_its_child_are_read_back_oldest_first(uri: str) -> None:
    parent = start_parent(uri, "sweep of two", "two", None)
    store = client(uri)
    child = store.create_run(experiment_id(store, "two"), run_name="child", tags={PARENT: parent}).info.run_id
    store.log_metric(child, "val/loss", 2.0, step=1)
    store.log_metric(child, "val/loss", 1.0, step=2)
    store.log_param(child, "seed", 3)
    end_run(uri, parent, "FAILED")
    first, second = runs(uri, "two")
    assert (first.run_id, first.name, first.status, first.parent) == (parent, "sweep of two", "FAILED", None)
    assert first.tags["vlakit.kind"] == "sweep"
    assert (second.name, second.parent) == ("child", parent)
    assert (second.params, second.metrics) == ({"seed": "3"}, {"val/loss": 1.0})


def test_an_unknown_experiment_has_no_runs(uri: str) -> None:
    assert runs(uri, "never") == []


def test_an_evaluation_is_added_to_its_run_and_refused_for_a_stranger(uri: str, tmp_path: Path) -> None:
    store = client(uri)
    run_id = store.create_run(experiment_id(store, "three", str(tmp_path))).info.run_id
    file = tmp_path / "numbers.json"
    file.write_text("{}")
    assert record_evaluation(uri, run_id, {"eval/l1/toy": 0.5}, [file])
    assert store.get_run(run_id).data.metrics == {"eval/l1/toy": 0.5}
    assert [found.path for found in store.list_artifacts(run_id, "evaluation")] == ["evaluation/numbers.json"]
    assert not record_evaluation(uri, "f" * 32, {"eval/l1/toy": 0.5}, [file])


def test_a_store_that_cannot_be_opened_says_which(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    address = f"sqlite:///{tmp_path}/file/mlflow.db"
    with pytest.raises(StoreUnreachable, match="does not answer") as caught:
        client(address)
    assert caught.value.where == address
    assert "tracking_uri" in caught.value.do


def test_a_history_keeps_the_last_value_of_each_step_and_drops_what_is_no_number(uri: str) -> None:
    store = client(uri)
    one, other = (store.create_run(experiment_id(store, "four")).info.run_id for _ in range(2))
    for value, timestamp, step in ((3.0, 1, 10), (1.0, 3, 20), (float("nan"), 4, 30), (2.0, 2, 20), (0.5, 5, 40)):
        store.log_metric(one, "loss", value, timestamp=timestamp, step=step)
    found = histories(uri, [one, other], ["loss", "absent"])
    assert found == {one: {"loss": [(10, 3.0), (20, 1.0), (40, 0.5)]}, other: {}}
