"""One report in every format: the same rows, words for people, plain values for programs."""

import csv
import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace as Row

import pytest
from places import ROOT

from vlakit.compare.grids import (
    FORMATS,
    WIDTH,
    Column,
    Grid,
    Report,
    at,
    csv_lines,
    grid,
    latex,
    limits,
    plain_lines,
    points,
    unquoted,
)
from vlakit.errors import ConfigError

COLUMNS = [
    Column("row", at("name"), fields=["row"]),
    Column("success %", at("rate.mean"), points, ["success"]),
    Column("95 %", at("rate.interval"), limits, ["low", "high"]),
    Column("", at("rate.n"), fields=["n"]),
    Column("what", at("why")),
]
ROWS = [
    Row(name="full", rate=Row(mean=0.5, interval=(0.25, 0.75), n=8), why="a_b"),
    Row(name="lora", rate=None, why=""),
]
REPORT = Report([grid("rows", COLUMNS, ROWS)], plain_lines(COLUMNS, ROWS), {"rows": 2}, ["a note"], ["a comment"])


def test_a_column_is_a_word_for_people_and_plain_values_for_programs() -> None:
    assert REPORT.grids[0].rows == [["full", "50.0", "25.0 to 75.0", "a_b"], ["lora", "-", "-", ""]]
    lines = list(csv.DictReader(io.StringIO(FORMATS.build("csv", report=REPORT))))
    assert lines[0] == {"row": "full", "success": "0.5", "low": "0.25", "high": "0.75", "n": "8"}
    assert lines[1] == {"row": "lora", "success": "", "low": "", "high": "", "n": ""}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("text", ["rows", "row   success %          95 %  what", "note: a note"]),
        ("markdown", ["| row | success % | 95 % | what |", "| full | 50.0 | 25.0 to 75.0 | a_b |", "- a note"]),
        ("latex", [r"full & 50.0 & 25.0 to 75.0 & a\_b \\", "% a comment"]),
    ],
)
def test_every_format_is_made_of_one_report(name: str, lines: list[str]) -> None:
    assert set(lines) <= set(FORMATS.build(name, report=REPORT).splitlines())
    assert json.loads(FORMATS.build("json", report=REPORT)) == {"rows": 2}


@pytest.mark.parametrize("columns", [4, 9, 30])
def test_text_fits_its_width_and_loses_no_word(columns: int) -> None:
    header = ["row", *(f"some column (unit {i})" for i in range(columns)), "what", "verdict"]
    words = "cannot tell (the paper's rollouts do not separate them)"
    rows = [[f"lora_r{r}", *(f"{r}{i}.5 to {i}9.5" for i in range(columns)), words, words] for r in range(3)]
    lines = FORMATS.build("text", report=Report([Grid("rows", header, rows)], [], {})).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert sum(line.startswith("lora_r0 ") for line in lines) == sum(line.startswith("row ") for line in lines)
    for row in rows:
        assert all(any(cell in line for line in lines) for cell in row[:-2])
    assert "\n".join(lines).count("separate") == 6


def test_latex_is_set_by_booktabs_and_every_sign_escaped() -> None:
    lines = latex(Grid("t", ["row", "a"], [[r"a\b~c^d_e", "1"]])).splitlines()
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\_e & 1 \\" in lines
    assert "booktabs" in FORMATS.build("latex", report=REPORT).splitlines()[0]


def test_a_table_without_a_title_has_a_line_under_its_header() -> None:
    header, rule, *_ = FORMATS.build("text", report=replace(REPORT, grids=[grid("", COLUMNS, ROWS)])).splitlines()
    assert rule == "-" * len(header)
    with pytest.raises(ConfigError, match="no page"):
        FORMATS.build("html", report=REPORT)


@pytest.mark.parametrize("word", ["=1+1", "@SUM(A1)", "-cmd", "+cmd|x", "\t=1", "-1+cmd"])
def test_a_word_that_a_spreadsheet_would_run_is_quoted(word: str) -> None:
    assert csv_lines([[word]]) == f"'{word}"
    assert unquoted(csv_lines([[word]])) == word


@pytest.mark.parametrize("word", ["-0.5", "-1e-05", "-1e5", "+3", "-", -2, -0.25, "a=b"])
def test_numbers_and_dashes_stay_as_they_are(word: object) -> None:
    assert csv_lines([[word]]) == str(word)


def test_every_csv_of_the_kit_is_written_in_one_place() -> None:
    writers = [
        file.name for file in (ROOT / "src").rglob("*.py") if re.search(r"csv\.(Dict)?[wW]riter", file.read_text())
    ]
    assert writers == ["grids.py"]
