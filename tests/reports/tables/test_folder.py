"""Outcomes kept as CSV give the same table again, and say so when they do not."""

from dataclasses import replace
from pathlib import Path

import pytest
from table_fills import filled

from vlakit.compare.pairs import Settings
from vlakit.errors import CorruptRecord, InvalidData
from vlakit.reports.tables.folder import from_folder, save
from vlakit.reports.tables.formats import to_json
from vlakit.reports.tables.runs import Filled
from vlakit.reports.tables.spec import load_table
from vlakit.reports.tables.table import from_runs

SPEC = load_table("table1")


def test_a_saved_table_is_the_same_table(tmp_path: Path) -> None:
    fill = filled({"full": 0.7, "lora_r32": 0.6}, n=30)
    broken = replace(fill.runs[1], episodes=None, why="=GateClosed: 3 of 40, and a comma")
    fill = Filled([fill.runs[0], broken, *fill.runs[2:]], [])
    files = save(fill, SPEC, tmp_path)
    assert [file.name for file in files] == ["runs.csv", "full.csv", "lora_r32.csv"]
    before, after = (
        to_json(from_runs(SPEC, f, Settings(), "x")) for f in (fill, replace(from_folder(SPEC, tmp_path), notes=[]))
    )
    assert before == after


def test_a_reviewer_can_count_the_successes(tmp_path: Path) -> None:
    fill = filled({"full": 0.7}, n=30, seeds=[4])
    save(fill, SPEC, tmp_path)
    lines = (tmp_path / "full.csv").read_text().splitlines()
    assert lines[0] == "run,experiment,seed,suite,task,initial_state,success,credit"
    assert lines[1].startswith("full-4,full,4,tabletop_target,lift,s000 seed 0,")
    assert sum(line.split(",")[6] == "1" for line in lines[1:]) == fill.runs[0].episodes.success.sum()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (",1,1\n", ",1\n", "number of fields"),
        (",1,1\n", ",yes,1\n", "not a number"),
        ("seed,suite", "sead,suite", "header"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, before: str, after: str, said: str) -> None:
    save(filled({"full": 0.7}, n=30), SPEC, tmp_path)
    file = tmp_path / "full.csv"
    file.write_text(file.read_text().replace(before, after, 1))
    with pytest.raises(CorruptRecord, match=said):
        from_folder(SPEC, tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no results here"):
        from_folder(SPEC, tmp_path)
