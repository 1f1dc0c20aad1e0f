"""Which runs of a store fill a table: by their parameters, the newest of each seed, those that were evaluated."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import outcomes, write_own

from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.records import HEADER
from vlakit.reports.tables import runs as table_runs
from vlakit.reports.tables.runs import Filled, from_store
from vlakit.reports.tables.spec import load_table
from vlakit.tracking.mlflow import RunRow, client, end_run, experiment_id, log_params

SPEC = load_table("table1")


def run(number: int, name: str, seed: int, output: Path | None = None, **changes: object) -> RunRow:
    params = {"name": name, "seed": str(seed), "steps": "600", "batch_size": "32", "model.weights": "tiny"}
    params |= changes.pop("params", {})  # type: ignore[arg-type]
    tags = {"vlakit.output": str(output)} if output else {}
    values = {"status": "FINISHED", "start_ms": number, "parent": "s1", "params": params, "tags": tags, **changes}
    return RunRow(f"{number:032x}", f"{name}[seed={seed}]", **values)  # type: ignore[arg-type]


def sweep(run_id: str = "s1", name: str = "sweep hparams_search=table1 seed=0,1") -> RunRow:
    return RunRow(run_id, name, "FINISHED", 0, None, tags={"vlakit.kind": "sweep"})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> list[RunRow]:
    """A store of these runs that knows two filters: sweeps, and children of one."""
    recorded: list[RunRow] = []

    def runs(uri: str, experiment: str, where: str) -> list[RunRow]:
        if where == table_runs.SWEEPS:
            return [row for row in recorded if row.tags.get("vlakit.kind") == "sweep"]
        return [row for row in recorded if row.parent and f"'{row.parent}'" in where]

    monkeypatch.setattr(table_runs, "runs", runs)
    return recorded


def fill(parent: str | Sequence[str] = "auto") -> Filled:
    return from_store(SPEC, "uri", "vlakit", parent)


def evaluated(folder: Path) -> Path:
    write_own(folder / "evaluation" / "tabletop_target", outcomes(10, 0.5, 0))
    return folder


def test_a_run_is_of_the_row_whose_parameters_it_has(store: list[RunRow], tmp_path: Path) -> None:
    store += [sweep(), run(1, "full", 0, evaluated(tmp_path / "a")), run(2, "qlora", 0)]
    (found,) = fill().runs
    assert (found.row, found.seed, found.why) == ("full", "0", "")
    assert found.episodes is not None
    assert len(found.episodes) == 10


def test_the_newest_finished_run_of_a_seed_counts(store: list[RunRow], tmp_path: Path) -> None:
    places = [evaluated(tmp_path / name) for name in "ab"]
    store += [sweep(), run(1, "full", 0, places[0]), run(2, "full", 0, places[1]), run(3, "full", 0, status="FAILED")]
    found = fill()
    assert [r.record["id"] for r in found.runs] == [f"{2:032x}"]
    assert "1 other runs of the same row and seed were left out" in found.notes


def test_why_a_run_does_not_count_is_said(store: list[RunRow], tmp_path: Path) -> None:
    unended = evaluated(tmp_path / "unended") / "evaluation" / "tabletop_target" / HEADER
    unended.write_text(json.dumps({"settings": {"suite": "tabletop"}}))
    store += [
        sweep(),
        run(1, "full", 0, status="FAILED", tags={"vlakit.error": "LossNotFinite: nan"}),
        run(2, "full", 1, status="RUNNING"),
        run(3, "full", 2, status="KILLED"),
        run(4, "full", 3, tmp_path / "nowhere"),
        run(5, "full", 4, tmp_path / "unended"),
        run(6, "full", 5),
    ]
    whys = {r.seed: r.why for r in fill().runs}
    assert whys == {
        "0": "LossNotFinite: nan",
        "1": "still running",
        "2": "killed",
        "3": "not evaluated in tabletop_target",
        "4": "its evaluation in tabletop_target did not end",
        "5": "its record names no folder",
    }


def test_runs_of_other_lengths_are_refused(store: list[RunRow], tmp_path: Path) -> None:
    store += [sweep(), run(1, "full", 0, evaluated(tmp_path / "a")), run(2, "lora_r32", 0, params={"steps": "2"})]
    with pytest.raises(ConfigError, match="differ in steps: 2, 600"):
        fill()


def test_a_sweep_can_be_named_and_an_unknown_one_is_refused(store: list[RunRow], tmp_path: Path) -> None:
    store += [sweep(), sweep("s2", "sweep steps=600"), run(1, "full", 0, evaluated(tmp_path / "a"), parent="s2")]
    assert fill().runs == fill("last").runs == []
    assert len(fill("s2").runs) == len(fill(["s1", "s2"]).runs) == 1
    with pytest.raises(UnknownName, match="no sweep 's3'"):
        fill("s3")


def test_last_is_the_newest_sweep_of_this_table(store: list[RunRow], tmp_path: Path) -> None:
    store += [sweep("s1"), sweep("s2"), sweep("s3", "sweep hparams_search=table7 seed=0")]
    store += [run(i, "full", i, evaluated(tmp_path / str(i)), parent=f"s{i}") for i in (1, 2, 3)]
    assert [found.seed for found in fill("last").runs] == ["2"]
    del store[:2]
    with pytest.raises(UnknownName, match="no sweep 'last' of table1"):
        fill("last")


@pytest.mark.parametrize(
    ("params", "tags", "said"),
    [
        ({"strategy.optimizer.lr": "0.1"}, {}, "row full differ in strategy.optimizer.lr: 0.001, 0.1"),
        ({"model.weights": "None"}, {}, "one table differ in model.weights: None, tiny"),
    ],
)
def test_runs_that_were_trained_otherwise_are_refused(
    store: list[RunRow], tmp_path: Path, params: dict[str, str], tags: dict[str, str], said: str
) -> None:
    spec = replace(SPEC, rows=[replace(row, where={**row.where, "model.weights": "*"}) for row in SPEC.rows])
    output = {"vlakit.output": str(evaluated(tmp_path / "a")), "shards.toy": "a" * 64}
    first = run(1, "full", 0, tags=output, params={"strategy.optimizer.lr": "0.001"})
    store += [
        sweep(),
        first,
        run(2, "full", 1, tags={**output, **tags}, params={**first.params, "seed": "1", **params}),
    ]
    with pytest.raises(ConfigError, match=said):
        from_store(spec, "uri", "vlakit", "auto")


def with_shards(tmp_path: Path, *shards: tuple[str, int, str]) -> list[RunRow]:
    """A run for each (name, seed, shards)."""
    return [
        run(i, name, seed, tags={"vlakit.output": str(evaluated(tmp_path / str(i))), **{f"shards.{which}": which * 64}})
        for i, (name, seed, which) in enumerate(shards, 1)
    ]


@pytest.mark.parametrize(
    "shards",
    [
        [("full", 0, "a"), ("lora_r32", 0, "b")],  # one seed, two sets of data
        [("full", 0, "a"), ("full", 1, "a"), ("full", 2, "b")],  # neither the same for all nor each seed's own
        [("full", 0, "a"), ("full", 1, "b"), ("lora_r32", 1, "a")],
    ],
)
def test_runs_on_other_shards_are_refused(
    store: list[RunRow], tmp_path: Path, shards: list[tuple[str, int, str]]
) -> None:
    store += [sweep(), *with_shards(tmp_path, *shards)]
    with pytest.raises(ConfigError, match="one table differ in shards: a aaaaaaaaaaaa, b bbbbbbbbbbbb"):
        fill()


def test_demonstrations_may_be_each_seeds_own_if_all_rows_learn_from_the_same(
    store: list[RunRow], tmp_path: Path
) -> None:
    """As `scale=table` makes them."""
    names = ("full", "lora_r32")
    store += [sweep(), *with_shards(tmp_path, *((name, seed, "abc"[seed]) for name in names for seed in range(3)))]
    assert len(fill().runs) == 6


def test_a_row_that_names_its_weights_may_differ_in_them(store: list[RunRow], tmp_path: Path) -> None:
    store += [
        sweep("s1", "sweep hparams_search=table7 seed=0"),
        *(
            run(i, "full", 0, evaluated(tmp_path / str(i)), params={"model.weights": weights})
            for i, weights in enumerate(("tiny", "tiny_grounded", "None"))
        ),
    ]
    found = from_store(load_table("table7"), "uri", "vlakit", "auto").runs
    assert [r.row for r in found] == ["openvla", "openvla_scratch", "random_weights"]


def test_runs_that_were_evaluated_in_another_suite_alone_are_left_out(store: list[RunRow], tmp_path: Path) -> None:
    other = {"evaluate.suite": "tabletop_select"}
    store += [
        sweep(),
        run(1, "full", 0, evaluated(tmp_path / "a"), params=other),
        run(2, "full", 1, tmp_path / "b", params={**other, "strategy.optimizer.lr": "9"}),
    ]
    found = fill()
    assert [r.seed for r in found.runs] == ["0"]
    assert "1 runs of other suites were left out" in found.notes


def test_an_evaluated_run_stays_until_its_successor_is_evaluated(store: list[RunRow], tmp_path: Path) -> None:
    store += [sweep(), run(1, "full", 0, evaluated(tmp_path / "a")), run(2, "full", 0, tmp_path / "b")]
    assert fill().runs[0].record["id"] == f"{1:032x}"
    evaluated(tmp_path / "b")
    assert fill().runs[0].record["id"] == f"{2:032x}"


def test_what_is_said_of_runs_holds_no_place_and_no_password(store: list[RunRow]) -> None:
    secret = "http" + "://me:secret@host/x"
    store += [
        sweep(name=f"sweep hparams_search=table1 data.root=/mnt/disk/toy logger.tracking_uri={secret}"),
        run(1, "full", 0, status="FAILED", tags={"vlakit.error": "no file '/home/me/x y/weights.pt' and/or 1/2"}),
    ]
    found = fill()
    assert "data.root=toy logger.tracking_uri=http" + "://host/x" in found.notes[0]
    assert found.runs[0].why.endswith("and/or 1/2")
    assert "/home" not in found.runs[0].why


@pytest.mark.slow
def test_runs_of_any_origin_are_those_whose_parameters_a_row_has(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    home = experiment_id(client(uri), "vlakit", str(tmp_path))
    for number, changes in enumerate(({}, {"name": "loraXr32"}, {"model.weights": "tiny_grounded"}, {"name": "qlora"})):
        made = client(uri).create_run(home, tags={"vlakit.output": str(evaluated(tmp_path / str(number)))})
        log_params(client(uri), made.info.run_id, {**run(0, "lora_r32", 0).params, **changes})
        end_run(uri, made.info.run_id, "FINISHED")
    for parent in ("all", "auto"):
        (found,) = from_store(SPEC, uri, "vlakit", parent).runs
        assert (found.row, found.seed, found.why) == ("lora_r32", "0", "")
