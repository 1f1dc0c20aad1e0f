"""Like is compared with like: credit where the paper's mean holds half credits; tasks as the unit, too."""

import csv
import io
import runpy
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import complaint, report, run
from places import ROOT
from scipy.stats import ttest_1samp
from table_fills import filled

from vlakit.compare.grids import csv_text
from vlakit.compare.pairs import Settings
from vlakit.errors import VlakitError
from vlakit.reports.rendering import report_of
from vlakit.reports.tables.folder import from_folder
from vlakit.reports.tables.quoted import quoted
from vlakit.reports.tables.runs import Filled, TableRun
from vlakit.reports.tables.spec import load_table, table_files
from vlakit.reports.tables.table import TableReport, from_paper, from_runs, score_of
from vlakit.stats.intervals import errors_possible, standard_error_of_sum
from vlakit.stats.seeds import compare_seeds

Capture = pytest.CaptureFixture[str]
COMMITTED = ROOT / "experiments" / "table1_finetuning" / "runs"
SCRIPT = ROOT / "experiments" / "tables.py"
WITH_RUNS = sorted(folder.parent.name for folder in SCRIPT.parent.glob("*/runs"))


def with_halves(fill: Filled, share: float = 0.5) -> Filled:
    """A share of the failures earns half a credit."""
    rng, runs = np.random.default_rng(3), []
    for run_ in fill.runs:
        assert run_.episodes is not None
        success = run_.episodes.success
        credit = np.where(success, 1.0, 0.5 * (rng.random(len(success)) < share))
        runs.append(replace(run_, episodes=replace(run_.episodes, credit=credit)))
    return Filled(runs, fill.notes)


def judged(score: str | None, name: str = "table1") -> TableReport:
    spec = load_table(name)
    fill = with_halves(filled({"full": 0.8, "last_layer": 0.4, "lora_r32": 0.75}))
    return from_runs(spec, fill, Settings(), "test", score=score)


@pytest.mark.parametrize("name", sorted(table_files()))
def test_credit_is_compared_exactly_where_the_papers_means_hold_half_credits(name: str) -> None:
    spec = load_table(name)
    printed = quoted(spec.paper)
    wanted = {row.paper.rpartition("/")[2] for row in spec.rows if row.paper}
    halves = [row.half_credits for rows in printed.values() for row in rows.values() if row.name in wanted]
    assert score_of(spec, printed) == ("credit" if any(halves) else "success")
    assert from_paper(spec, Settings()).score == score_of(spec, printed)


def test_success_and_credit_stand_beside_each_other_and_the_asked_one_decides() -> None:
    reports = {score: judged(score) for score in (None, "credit", "success")}
    assert (reports[None].score, reports[None].pairs) == ("credit", reports["credit"].pairs)
    for score in ("credit", "success"):
        table = reports[score]
        (line,) = [
            line for line in csv.DictReader(io.StringIO(csv_text(report_of(table)))) if line["row"] == "last_layer"
        ]
        assert line["score"] == score
        by_row = {row.row.name: row.rates[score].rate for row in table.rows if row.rates}
        assert float(line["difference_fraction"]) == pytest.approx(by_row["last_layer"] - by_row["full"])
        assert float(line["credit_fraction"]) > float(line["success_fraction"])
        header = report_of(table).grids[0].header
        assert {"success %", "credit %", "paper: credit %"} <= set(header)
        assert ("- full (credit)" in header) is (score == "credit")
    for one, other in zip(reports["credit"].rows, reports["success"].rows, strict=True):
        assert one.rates == other.rates  # whatever is compared, what was measured does not move


def test_where_the_paper_counts_successes_nobody_is_shown_credits() -> None:
    spec = load_table("table10")
    fill = with_halves(filled({"frozen": 0.4, "finetuned": 0.8}))
    header = report_of(from_runs(spec, fill, Settings(), "test")).grids[0].header
    assert "paper: success %" in header
    assert "credit %" not in header
    assert "credit %" in report_of(from_runs(spec, fill, Settings(), "test", score="credit")).grids[0].header


def test_the_score_is_a_key_of_the_command(capsys: Capture) -> None:
    words = ("table", "name=table1", f"from={COMMITTED}")
    by_credit, by_success = report(capsys, *words), report(capsys, *words, "score=success")
    assert (by_credit["score"], by_success["score"]) == ("credit", "success")
    assert by_credit["rows"][0]["measured"]["success"] == by_success["rows"][0]["measured"]["success"]
    assert "did you mean credit" in complaint(capsys, *words, "score=credits")


def test_compare_and_table_come_to_the_same_verdicts(capsys: Capture) -> None:
    table = report(capsys, "table", "name=table1", f"from={COMMITTED}")
    found = report(capsys, "compare", f"runs=[{COMMITTED}]", "against=table1", "score=credit", "by_task=false")
    claims = {frozenset(claim["pair"]): claim["verdict"] for claim in table["claims"]}
    beside = {frozenset(pair["pair"]): pair["paper"] for pair in found["pairs"]}
    assert {pair: paper["verdict"] for pair, paper in beside.items() if pair in claims} == claims
    assert {paper["verdict"] for pair, paper in beside.items() if pair not in claims} == {"no claim declared"}


@pytest.mark.parametrize("table", ["table1", "table2", "table4", "table6", "table7", "table9", "table11"])
def test_how_many_errors_could_have_been_printed_stands_beside_the_reproduced_one(table: str) -> None:
    for row in (row for rows in quoted([table]).values() for row in rows.values()):
        total = round(2 * row.rate * row.n) / 2
        fits = [h for h in range(2 * row.n + 1) if h / 2 <= total and h % 2 == 2 * total % 2 and total + h / 2 <= row.n]
        values = sorted({round(100 * standard_error_of_sum(total, row.n, h), 1) for h in fits})
        assert errors_possible(total, row.n) == values
        assert row.possible is not None
        assert row.possible == (len(values), round(10 * (values[-1] - values[0])) + 1)
        share = row.possible[0] / row.possible[1]
        assert share > 0.75 if row.n >= 80 else share < 0.7  # of many rollouts nearly any +- is reproduced


def test_the_papers_table_says_how_little_a_reproduction_is_worth(capsys: Capture) -> None:
    assert run("table", ["name=table4", "source=paper"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "+- possible" in out
    assert "17 of 17 tenths" in out
    assert "half credits could have given 97 to 100 % of the tenths" in out


def of_tasks(n_tasks: int, seeds: list[int]) -> TableReport:
    fill, tasks = filled({"full": 0.8, "last_layer": 0.6}, n=30 * n_tasks, seeds=seeds), []
    for run_ in fill.runs:
        assert run_.episodes is not None
        starts = [start._replace(task=f"t{i % n_tasks}") for i, start in enumerate(run_.episodes.starts)]
        tasks.append(replace(run_, episodes=replace(run_.episodes, starts=starts)))
    return from_runs(load_table("table1"), Filled(tasks, []), Settings(), "test")


def means(table: TableReport, row: str, n_tasks: int) -> np.ndarray:
    """Success (S, T) a task."""
    runs = [run_.episodes for run_ in table.runs if run_.row == row and run_.episodes]
    return np.stack([[one.success[i::n_tasks].mean() for i in range(n_tasks)] for one in runs])


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_with_five_tasks_a_line_says_what_other_tasks_would_show(seeds: list[int]) -> None:
    table = of_tasks(5, seeds)
    (over,) = table.over_tasks
    a, b = (means(table, row, 5) for row in ("last_layer", "full"))
    if len(seeds) == 1:
        wanted = ttest_1samp((a - b)[0], 0)
        low, high = wanted.confidence_interval(0.95)
        assert over.finding.p == pytest.approx(wanted.pvalue)
    else:
        low, high = compare_seeds(a, b).interval
        assert over.finding.p == pytest.approx(compare_seeds(a, b).p)
    assert over.finding.interval == pytest.approx((max(-1.0, low), high))
    assert over.finding.n == 5
    (grid,) = [grid for grid in report_of(table).grids if "over other tasks" in grid.title]
    assert grid.rows[0][:3] == ["last_layer", "full", "5"]
    assert not any("over other tasks" in grid.title for grid in report_of(of_tasks(4, seeds)).grids)


def test_a_row_of_one_training_says_what_a_spread_of_seeds_would_do_to_it() -> None:
    fill = filled({"full": 0.7, "last_layer": 0.6}, seeds=[0])
    title = "false alarms % (seeds)"
    grid = report_of(from_runs(load_table("table1"), fill, Settings(), "test")).grids[0]
    cell = dict(zip(grid.header, grid.rows[1], strict=True))[title]
    low, high = (float(word) for word in cell.split(" to "))
    assert 5 < low < high < 100
    several = from_runs(load_table("table1"), filled({"full": 0.7, "last_layer": 0.6}), Settings(), "test")
    assert title not in report_of(several).grids[0].header


@pytest.mark.parametrize("name", WITH_RUNS)
def test_committed_tables_are_what_the_kit_makes_of_their_committed_runs(name: str, tmp_path: Path) -> None:
    for file in runpy.run_path(str(SCRIPT))["write"](name, tmp_path):
        assert file.read_text() == (SCRIPT.parent / name / file.name).read_text(), f"{file.name}: just tables"


def fresh(name: str, steps: int, n: int = 500) -> TableRun:
    """Seed 0 of the committed table's first row, as if another command had trained it, on n of its starts."""
    spec = load_table(name)
    run_ = next(one for one in from_folder(spec, SCRIPT.parent / name / "runs").runs if one.episodes)
    assert run_.episodes is not None
    kept = {
        "starts": run_.episodes.starts[:n],
        "success": run_.episodes.success[:n],
        "credit": run_.episodes.credit[:n],
    }
    record = {**run_.record, "name": f"{run_.row}[scale=table,steps={steps},seed=0]"}
    return replace(run_, run="fresh", record=record, episodes=replace(run_.episodes, **kept))


@pytest.mark.parametrize(
    ("steps", "n", "error"),
    [(4, 500, "differs from those that are there: steps=4 and 800"), (800, 5, "5 shared"), (800, 500, "")],
)
def test_runs_join_a_committed_table_whole_or_not_at_all(tmp_path: Path, steps: int, n: int, error: str) -> None:
    folder = Path(shutil.copytree(SCRIPT.parent / "oft" / "runs", tmp_path / "runs"))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    add = runpy.run_path(str(SCRIPT))["add"]
    with pytest.raises(VlakitError, match=error) if error else nullcontext():
        add("oft", [fresh("oft", steps, n)], folder)
    changed = {file.name for file in folder.iterdir() if before.get(file.name) != file.read_bytes()}
    assert changed == (set() if error else {"runs.csv", "curves.csv", "tokens_1.csv"})


def test_every_folder_of_runs_belongs_to_a_table_of_the_script() -> None:
    assert runpy.run_path(str(SCRIPT))["tables"]() == WITH_RUNS
    assert all(from_folder(load_table(name), SCRIPT.parent / name / "runs").runs for name in WITH_RUNS)
