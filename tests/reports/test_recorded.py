"""Recorded runs side by side: what is pooled, and what the +- is."""

from pathlib import Path
from shutil import copy
from statistics import stdev

import pytest
from commands import complaint, report, run

from vlakit.compare.gather import kind
from vlakit.errors import ConfigError, UnknownName
from vlakit.reports.recorded import compare_runs, render, to_json
from vlakit.tracking.mlflow import PARENT, client, end_run, experiment_id, start_parent

ACCURACIES = {0: 0.5, 1: 0.75, 2: 0.625}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    """Two sweeps and a run that failed, filed through MLflow's own client."""
    address = f"sqlite:///{copy(empty_store, tmp_path_factory.mktemp('store'))}"
    store = client(address)
    number = experiment_id(store, "vlakit")

    def file(name: str, seed: int, parent: str | None, status: str = "FINISHED", **metrics: float) -> None:
        tags = {PARENT: parent} if parent else {}
        run_id = store.create_run(number, run_name=name, tags=tags).info.run_id
        store.log_param(run_id, "seed", seed)
        for metric, value in {"params/trainable": 5.0, "params/total": 20.0, **metrics}.items():
            store.log_metric(run_id, metric.replace("__", "/"), value)
        store.set_terminated(run_id, status)

    old = start_parent(address, "sweep old", "vlakit", None)
    file("full[seed=0]", 0, old, val__token_accuracy=0.9, memory__peak_bytes=2e6)
    end_run(address, old, "FINISHED")
    new = start_parent(address, "sweep new", "vlakit", None)
    for seed, accuracy in ACCURACIES.items():
        file(f"lora_r32[seed={seed}]", seed, new, val__token_accuracy=accuracy, eval__l1__bridge_orig=0.1)
    file("last_layer[seed=0]", 0, new, val__token_accuracy=0.25)
    end_run(address, new, "FINISHED")
    file("sandwich[seed=0]", 0, None, "FAILED", val__token_accuracy=0.1)
    return address


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lora_r32", "lora_r32"),
        ("lora_r32[seed=0]", "lora_r32"),
        ("lora_r32[steps=3,seed=12]", "lora_r32[steps=3]"),
        ("lora_r32[seed=0,steps=3]", "lora_r32[steps=3]"),
        ("lora_r32[a=1,seed=0,steps=3]", "lora_r32[a=1,steps=3]"),
        ("lora_r32[data.seed=4]", "lora_r32[data.seed=4]"),
    ],
)
def test_runs_that_differ_in_the_seed_alone_are_of_one_kind(name: str, expected: str) -> None:
    assert kind(name) == expected


def test_seeds_are_pooled_into_mean_and_sample_standard_deviation(uri: str) -> None:
    rows = {row.name: row for row in compare_runs(uri, parent="last")}
    assert set(rows) == {"lora_r32", "last_layer"}
    assert rows["lora_r32"].seeds == ["0", "1", "2"]
    cell = rows["lora_r32"].cells["val token acc."]
    assert cell.mean == pytest.approx(0.625)
    assert cell.spread == pytest.approx(stdev(ACCURACIES.values())) == pytest.approx(0.125)
    assert str(cell) == "0.625 +- 0.125"


def test_one_seed_has_no_spread(uri: str) -> None:
    (row,) = compare_runs(uri, names=["last_layer[seed=0]"])
    assert str(row.cells["val token acc."]) == "0.250"
    assert str(row.cells["share %"]) == "25.0"
    assert str(row.cells["trainable"]) == "5"


def test_runs_that_did_not_finish_are_left_out(uri: str) -> None:
    assert {row.name for row in compare_runs(uri)} == {"full", "lora_r32", "last_layer"}
    with pytest.raises(ConfigError, match="no finished run"):
        compare_runs(uri, names=["sandwich[seed=0]"])


def test_rows_can_be_sorted_by_a_column(uri: str) -> None:
    names = [row.name for row in compare_runs(uri, sort="val token acc.")]
    assert names == ["last_layer", "lora_r32", "full"]
    with pytest.raises(ConfigError, match="no column 'val acc'") as caught:
        compare_runs(uri, sort="val acc")
    assert "val token acc." in caught.value.do


def test_a_run_that_is_not_there_is_named_with_the_nearest(uri: str) -> None:
    with pytest.raises(UnknownName, match="no run 'last_layer'") as caught:
        compare_runs(uri, names=["last_layer"])
    assert "last_layer[seed=0]" in caught.value.do
    with pytest.raises(UnknownName, match="no sweep 'abc'"):
        compare_runs(uri, parent="abc")


def test_an_empty_store_says_what_to_do(uri: str) -> None:
    with pytest.raises(ConfigError, match="no finished run") as caught:
        compare_runs(uri, experiment="another")
    assert "train.py" in caught.value.do
    with pytest.raises(UnknownName, match="no sweep 'last'"):
        compare_runs(uri, experiment="another", parent="last")


def test_text_is_aligned_and_csv_holds_the_same_words(uri: str) -> None:
    rows = compare_runs(uri)
    header, rule, *lines = render(rows, "text").splitlines()
    assert {len(line) for line in lines} == {len(header)} == {len(rule)}
    assert "peak MB" in header
    table = [line.split(",") for line in render(rows, "csv").splitlines()]
    assert table[0][:2] == ["run", "seeds"]
    assert {len(line) for line in table} == {len(table[0])}
    assert [line[0] for line in table[1:]] == [line.split()[0] for line in lines]
    assert "-" in table[2]


def test_the_verb_prints_json_text_and_csv(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"tracking_uri={uri}", "parent=last"]
    assert report(capsys, "compare", *words) == to_json(compare_runs(uri, parent="last"))
    assert run("compare", words) == 0
    assert "0.625 +- 0.125" in capsys.readouterr().out
    assert run("compare", [*words, "format=csv"]) == 0
    assert capsys.readouterr().out.startswith("run,seeds,trainable")


def test_the_verb_names_what_is_missing(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean full[seed=0]" in complaint(capsys, "compare", f"tracking_uri={uri}", "runs='full[seed=1]'")
    assert "tracking_uri" in complaint(capsys, "compare", "tracking_uri=sqlite:////proc/none/mlflow.db")


def test_a_repeated_seed_is_no_further_evidence(tmp_path: Path, empty_store: Path) -> None:
    address = f"sqlite:///{copy(empty_store, tmp_path)}"
    store = client(address)
    number = experiment_id(store, "vlakit")
    for seed, shards, accuracy in ((1, "a", 0.2), (1, "a", 0.4), (2, "a", 0.6), (1, "b", 0.9)):
        run_id = store.create_run(
            number, run_name=f"full[seed={seed}]", tags={"shards.bridge_orig": shards}
        ).info.run_id
        store.log_param(run_id, "seed", seed)
        store.log_metric(run_id, "val/token_accuracy", accuracy)
        store.set_terminated(run_id, "FINISHED")
    first, other = compare_runs(address)
    assert (sorted(first.seeds), other.seeds) == (["1", "2"], ["1"])  # other shards are another experiment
    assert first.cells["val token acc."].mean == pytest.approx(0.5)  # the newest run of seed 1 counts


@pytest.mark.parametrize(
    ("trained", "arms"),
    [
        ([(0, "a"), (1, "b"), (2, "c")], [["0", "1", "2"]]),  # scale=table: each seed has demonstrations of its own
        ([(0, "a"), (1, "a"), (2, "b")], [["0", "1"], ["2"]]),
        ([(0, "a"), (0, "b")], [["0"], ["0"]]),
    ],
)
def test_seeds_with_data_of_their_own_are_repetitions(
    tmp_path: Path, empty_store: Path, trained: list[tuple[int, str]], arms: list[list[str]]
) -> None:
    address = f"sqlite:///{copy(empty_store, tmp_path)}"
    store = client(address)
    for seed, digest in trained:
        tags = {"shards.tabletop_target": digest}
        run_id = store.create_run(experiment_id(store, "vlakit"), run_name=f"full[seed={seed}]", tags=tags).info.run_id
        store.log_param(run_id, "seed", seed)
        store.log_param(run_id, "evaluate.suite", "tabletop_target")
        store.log_metric(run_id, "eval/success/tabletop_target", 0.5 + seed / 10)
        store.set_terminated(run_id, "FINISHED")
    rows = compare_runs(address)
    assert [row.seeds for row in rows] == arms
    assert rows[0].cells["success tabletop_target"].mean == pytest.approx(
        0.5 + sum(map(int, arms[0])) / 10 / len(arms[0])
    )
