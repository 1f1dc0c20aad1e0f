"""A table: measured beside quoted, holes named, claims judged by what the data can carry."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scipy.special import stdtrit
from table_fills import filled

from vlakit.compare.grids import csv_text
from vlakit.compare.pairs import Settings
from vlakit.configs import conf_root
from vlakit.errors import ConfigError, InvalidData, UnknownName
from vlakit.reports.page.forest import draw_forest
from vlakit.reports.rendering import report_of
from vlakit.reports.tables import spec as table_spec
from vlakit.reports.tables.formats import to_json
from vlakit.reports.tables.runs import Filled
from vlakit.reports.tables.spec import load_table, table_files
from vlakit.reports.tables.table import TableReport, from_paper, from_runs

RATES = {"full": 0.8, "last_layer": 0.4, "frozen_vision": 0.78, "sandwich": 0.79, "lora_r32": 0.8, "lora_r64": 0.8}


def measured(fill: Filled, margin: float = 0.2) -> TableReport:
    return from_runs(load_table("table1"), fill, Settings(margin=margin), "test")


@pytest.mark.parametrize("name", sorted(table_files()))
def test_every_table_loads_and_its_paper_rows_exist(name: str) -> None:
    spec = load_table(name)
    report = from_paper(spec, Settings(margin=spec.tolerance))
    for row in report.rows:
        assert (row.printed is None) == (row.row.paper is None), row.row.name
    assert all(
        not any(row.row.paper for row in report.rows)  # nothing is printed anywhere: only measured rows can decide
        or claim.verdict.startswith(("agrees", "contradicts", "cannot tell", "equivalent", "at the "))
        for claim in report.claims
    )
    # What a process takes on a CPU never stands beside the memory of the paper's GPU.
    assert not any(column.quoted for column in spec.columns if column.metric == "memory/peak_bytes")


def test_a_table_is_found_by_its_first_word() -> None:
    assert load_table("table1").folder == load_table("table1_finetuning").folder
    with pytest.raises(UnknownName) as caught:
        load_table("tabel1")
    assert "table1" in caught.value.do


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("claims:", "claim:", "'claim'.* claims"),
        ("[finetuned, frozen]", "[tuned, frozen]", "'tuned'.* finetuned"),
        ("[finetuned, frozen]", "[finetuned]", "claims"),
        ("better:", "beter:", "unknown key 'beter'.* better"),
        ("where: {name: full", "were: {name: full", "rows.finetuned.*'were'.* where"),
        ("where: {name: full, model.weights: tiny_grounded}, ", "", "row 'finetuned' needs either where or missing"),
        ("digits: 2", "digits: two", "columns.0.digits.*whole number, got 'two'"),
        ("tolerance: 0.05", "tolerance: [1]", "tolerance"),
        ("sweep: table10", "sweep: python train.py -m hparams_search=table10", "a file of conf/hparams_search"),
    ],
)
def test_what_no_table_has_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, said: str
) -> None:
    text = (load_table("table10").folder / "table.yaml").read_text()
    assert before in text
    (tmp_path / "table.yaml").write_text(text.replace(before, after))
    monkeypatch.setattr(table_spec, "table_files", lambda: {"t": tmp_path / "table.yaml"})
    with pytest.raises(ConfigError, match=re.compile(said, re.DOTALL)) as caught:
        load_table("t")
    assert str(tmp_path / "table.yaml") in str(caught.value)


def test_a_tables_sweep_stands_in_conf_alone() -> None:
    specs = [load_table(name) for name in table_files()]
    searches = {spec.search for spec in specs if spec.search}
    assert "table1" in searches
    assert searches <= {file.stem for file in (conf_root() / "hparams_search").glob("*.yaml")}
    assert load_table("table1").sweep == "python train.py -m hparams_search=table1 seed=0,1,2"
    assert load_table("table12").sweep == ""


def test_a_row_is_judged_against_the_reference_and_the_paper() -> None:
    report = measured(filled(RATES))
    rows = {row.row.name: row for row in report.rows}
    last = rows["last_layer"]
    assert last.judged is not None
    assert last.judged.finding.difference == pytest.approx(-0.4, abs=0.07)
    assert last.judged.finding.seeds == (3, 3)
    assert last.agreement == "agrees"
    assert rows["sandwich"].agreement == "no claim declared"
    verdicts = {claim.claim.says: claim.verdict for claim in report.claims}
    assert rows["lora_r32"].agreement == verdicts["LoRA matches full fine-tuning"] == "equivalent within 20 points"


def test_the_opposite_of_the_paper_contradicts_it() -> None:
    report = measured(filled({**RATES, "full": 0.3, "last_layer": 0.8}))
    assert next(row for row in report.rows if row.row.name == "last_layer").agreement == "contradicts"
    assert report.claims[0].verdict == "contradicts"


def test_equal_where_the_paper_claims_a_large_difference_is_called_equal() -> None:
    report = measured(filled({**RATES, "last_layer": 0.8}))
    assert report.claims[0].verdict == "equivalent within 20 points"


def test_too_few_rollouts_say_how_many_more() -> None:
    report = measured(filled({"full": 0.7, "last_layer": 0.5}, n=8, seeds=[0]))
    verdict = next(row for row in report.rows if row.row.name == "last_layer").agreement
    assert verdict.startswith("cannot tell (")
    assert "more rollouts would" in verdict


def test_measured_and_quoted_never_share_a_cell() -> None:
    rows = {row["row"]: row for row in to_json(measured(filled({"full": 0.8, "last_layer": 0.4})))["rows"]}
    full = rows["full"]
    assert full["measured"]["success"]["n"] == 600
    assert full["measured"]["success"]["interval"][0] < full["measured"]["success"]["rate"]
    assert full["quoted"]["success"]["rate"] == pytest.approx(23 / 33)
    assert (full["measured"]["params/trainable_M"]["mean"], full["quoted"]["params/trainable_M"]) == (1.0, 7188.1)
    assert rows["sandwich"]["measured"] == {}
    assert rows["sandwich"]["holes"] == ["no run yet"]


def test_a_failed_seed_is_a_hole_with_its_reason_and_the_others_count() -> None:
    fill = filled(RATES)
    broken = replace(fill.runs[5], episodes=None, why="LossNotFinite: the loss is nan")
    report = measured(Filled([*fill.runs[:5], broken, *fill.runs[6:17]], []))
    rows = {row.row.name: row for row in report.rows}
    assert rows["last_layer"].holes == ["seed 2: LossNotFinite: the loss is nan"]
    assert rows["lora_r64"].holes == ["seed 2: no run"]
    assert rows["last_layer"].judged is not None
    assert rows["last_layer"].judged.finding.seeds == (2, 3)


def test_one_training_beside_several_is_shown_and_not_tested() -> None:
    fill = filled({"full": 0.8, "last_layer": 0.4})
    report = measured(Filled(fill.runs[:4], []))
    last = next(row for row in report.rows if row.row.name == "last_layer")
    assert last.rate is not None
    assert last.rate.seeds == 1
    assert (last.judged, last.agreement) == (None, "")
    assert any("shown and not tested" in note for note in report.notes)


def test_other_initial_states_are_refused() -> None:
    short, whole = filled({"full": 0.8}, n=50), filled({"last_layer": 0.8}, n=60)
    with pytest.raises(InvalidData, match="not paired"):
        measured(Filled([*short.runs, *whole.runs], []))


def test_rows_that_always_fail_get_no_p_value() -> None:
    report = measured(filled({"full": 0.0 - 9, "last_layer": 0.0 - 9}))
    last = next(row for row in report.rows if row.row.name == "last_layer")
    assert last.judged is not None
    assert last.judged.finding.p is None
    assert last.judged.undecided.startswith("cannot tell (no outcome varies")
    assert last.agreement == "at the floor: no verdict"


def test_the_forest_is_drawn_and_an_empty_one_refused(tmp_path: Path) -> None:
    spec = load_table("table1")
    report = measured(filled(RATES, n=40))
    picture = ElementTree.parse(draw_forest(report, tmp_path / "deep" / "x.svg"))
    drawn = [group.get("class") for group in picture.iter("{http://www.w3.org/2000/svg}g")]
    assert drawn.count("measured") - 1 == len(report.pairs) == drawn.count("quoted") - 1  # one of each is the key
    bare = replace(from_paper(spec, Settings()), rows=[], printed={})
    with pytest.raises(InvalidData, match="no difference to draw"):
        draw_forest(bare, tmp_path / "y.svg")


def test_a_row_without_a_row_of_the_paper_is_judged_too() -> None:
    report = from_runs(load_table("lora_rank"), filled({"r2": 0.3, "r32": 0.8, "r64": 0.78}), Settings(), "test")
    grid = report_of(report).grids[0]
    cells = {row[0]: dict(zip(grid.header, row, strict=True)) for row in grid.rows}
    assert (cells["r2"]["measured"], cells["r2"]["against the paper"]) == ("worse", "no claim declared")
    assert cells["r32"]["measured"] == "reference"
    assert cells["r64"]["measured"].startswith(("cannot tell (", "equivalent"))
    assert cells["r64"]["against the paper"] == cells["r64"]["measured"]  # the claim is that they are the same
    assert "worse" in csv_text(report_of(report)).splitlines()[1]


def test_a_row_agrees_no_sooner_than_its_corrected_p_allows() -> None:
    fill, spec = filled({**RATES, "last_layer": 0.55}, n=24, seeds=[0]), load_table("table1")
    judged = next(j for j in from_runs(spec, fill, Settings(), "test").pairs if (j.a, j.b) == ("last_layer", "full"))
    p, corrected = judged.finding.p, judged.p_holm
    assert p is not None
    assert corrected is not None
    assert p < corrected
    for alpha, said in ((0.5 * (p + corrected), "cannot tell ("), (1.01 * corrected, "agrees")):
        rows = from_runs(spec, fill, Settings(confidence=1 - alpha), "test").rows
        last = next(row for row in rows if row.row.name == "last_layer")
        assert last.judged is not None
        assert last.judged.finding.interval is not None
        assert last.judged.finding.interval[1] < 0
        assert last.agreement.startswith(said)


def test_numbers_have_intervals_of_the_confidence_asked_for() -> None:
    spec, fill = load_table("table1"), filled({"full": 0.8, "last_layer": 0.4}, n=60)
    widths = []
    for confidence in (0.5, 0.95):
        interval = (
            from_runs(spec, fill, Settings(confidence=confidence), "test").rows[0].numbers["memory/peak_bytes"].interval
        )
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert widths[1] / widths[0] == pytest.approx(float(stdtrit(2, 0.975) / stdtrit(2, 0.75)))


def test_a_row_that_stands_alone_is_paired_on_the_users_word_too() -> None:
    fill = filled({"full": 0.8, "last_layer": 0.4}, n=20)
    runs = [replace(r, episodes=replace(r.episodes, doubt="no seeds")) if r.episodes else r for r in fill.runs[:4]]
    with pytest.raises(InvalidData, match="not known to be paired"):
        measured(Filled(runs, []))
    report = from_runs(load_table("table1"), Filled(runs, []), Settings(), "test", "true")
    assert [row.rate.seeds for row in report.rows if row.rate] == [3, 1]
