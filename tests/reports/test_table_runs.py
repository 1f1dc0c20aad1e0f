"""Which runs of a store fill a table: by their parameters, the newest of each seed, those that were evaluated."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from evaluations import outcomes, write_own

from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.records import HEADER
from vlakit.reports import table_runs
from vlakit.reports.table_runs import Filled, from_store
from vlakit.reports.table_spec import load_table
from vlakit.tracking.mlflow import RunRow

SPEC = load_table("table1")


def run(number: int, name: str, seed: int, output: Path | None = None, **changes: object) -> RunRow:
    params = {"name": name, "seed": str(seed), "steps": "600", "batch_size": "32"}
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
    assert [r.run for r in found.runs] == [f"{2:032x}"[:8]]
    assert any("1 older" in note or "2 older" in note for note in found.notes)


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
    other = {"name": "lora_r32", "seed": "0", "steps": "2", "batch_size": "32"}
    store += [sweep(), run(1, "full", 0, evaluated(tmp_path / "a")), run(2, "lora_r32", 0, params=other)]
    with pytest.raises(ConfigError, match="differ in steps: 2, 600"):
        fill()


def test_a_sweep_can_be_named_and_an_unknown_one_is_refused(store: list[RunRow], tmp_path: Path) -> None:
    store += [sweep(), sweep("s2", "sweep steps=600"), run(1, "full", 0, evaluated(tmp_path / "a"), parent="s2")]
    assert fill().runs == []
    assert len(fill("s2").runs) == len(fill(["s1", "s2"]).runs) == len(fill("last").runs) == 1
    with pytest.raises(UnknownName, match="no sweep 's3'"):
        fill("s3")
