"""The paper's figures beside measured ones: what it claims itself, and when a measurement agrees."""

from pathlib import Path

import pytest
from evaluations import outcomes, write_own
from places import FIXTURES, ROOT

from vlakit.compare.gather import gather
from vlakit.compare.pairs import Settings
from vlakit.compare.versus import compare_arms
from vlakit.errors import ConfigError, UnknownName
from vlakit.reports.tables.paper import agreement, check_names, paper_pairs, paper_rows, tables


def test_the_packaged_figures_are_those_the_tests_hold() -> None:
    fixture = FIXTURES / "paper_tables.yaml"
    packaged = ROOT / "src" / "vlakit" / "assets" / "paper_tables.yaml"
    assert packaged.read_bytes() == fixture.read_bytes()
    assert tables()["table1"]["rows"]["full"]["printed"] == 69.7


def test_of_table_1_only_last_layer_is_told_apart_after_correction() -> None:
    pairs = paper_pairs(paper_rows("table1"))
    survivors = {key for key, pair in pairs.items() if pair.p_holm <= 0.05 and pair.difference > 0}
    # peers.md 5.3 lists the same, LoRA of rank 64 left out
    assert survivors == {(row, "last_layer") for row in ("full", "lora_r32", "lora_r64", "sandwich")}
    full = pairs["full", "frozen_vision"]
    assert (round(full.p, 3), full.difference) == (0.023, pytest.approx(0.227))
    assert full.p_holm > 0.2
    assert pairs["frozen_vision", "full"].difference == -full.difference


@pytest.mark.parametrize(("table", "n"), [("table1", 6), ("table2", 3), ("table4", 4), ("table9", 3), ("table11", 3)])
def test_tables_with_errors_are_read(table: str, n: int) -> None:
    assert len(paper_rows(table)) == n


def test_tables_without_errors_are_refused_with_those_that_have_them() -> None:
    with pytest.raises(UnknownName, match="no table 'table_1'") as caught:
        paper_rows("table_1")
    assert "table1" in caught.value.do
    with pytest.raises(UnknownName):
        paper_rows("table10")


@pytest.mark.parametrize(
    ("a", "b", "rates", "word"),
    [
        ("full", "last_layer", (0.9, 0.2), "agrees"),
        ("full", "last_layer", (0.2, 0.9), "contradicts"),
        ("full", "last_layer", (0.5, 0.5), "cannot tell (these"),
        ("full", "lora_r32", (0.9, 0.2), "cannot tell (the paper's"),
    ],
)
def test_a_measurement_agrees_with_what_the_paper_supports_alone(
    tmp_path: Path, a: str, b: str, rates: tuple[float, float], word: str
) -> None:
    paths = {
        name: str(write_own(tmp_path / name, outcomes(60, r, i)))
        for i, (name, r) in enumerate(zip((a, b), rates, strict=True))
    }
    judged = compare_arms(gather(paths), Settings()).pairs[0]
    assert agreement(judged, paper_pairs(paper_rows("table1"))[a, b], 0.05).startswith(word)


def test_what_holm_does_not_let_pass_does_not_agree(tmp_path: Path) -> None:
    credits_ = {"full": [1, 0] * 30, "last_layer": [1, 0] * 26 + [0] * 8, "sandwich": [0, 1] * 30}
    paths = {name: str(write_own(tmp_path / name, values)) for name, values in credits_.items()}
    alone = compare_arms(gather(paths), Settings(), pairs=[("full", "last_layer")]).pairs[0]
    judged = compare_arms(gather(paths), Settings()).pairs[0]
    printed = paper_pairs(paper_rows("table1"))["full", "last_layer"]
    assert judged.finding.p is not None
    assert judged.p_holm is not None
    assert judged.finding.p <= 0.15 < judged.p_holm
    assert agreement(alone, printed, 0.15) == "agrees"
    assert agreement(judged, printed, 0.15).startswith("cannot tell (these")
    assert agreement(judged, printed, judged.p_holm) == "agrees"
    assert agreement(judged, printed, printed.p_holm / 2).startswith("cannot tell (the paper's")


def test_runs_must_be_called_as_the_papers_rows() -> None:
    with pytest.raises(ConfigError, match="no two runs are called"):
        check_names(paper_rows("table1"), ["full", "mine"], "table1")
