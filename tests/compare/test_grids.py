"""One report in every format: the same rows, words for people, plain values for programs."""

import csv
import io
import json
from dataclasses import replace
from types import SimpleNamespace as Row

import pytest

from vlakit.compare.grids import FORMATS, Column, Report, at, csv_lines, grid, limits, plain_lines, points
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


def test_a_table_without_a_title_has_a_line_under_its_header() -> None:
    header, rule, *_ = FORMATS.build("text", report=replace(REPORT, grids=[grid("", COLUMNS, ROWS)])).splitlines()
    assert rule == "-" * len(header)
    with pytest.raises(ConfigError, match="no page"):
        FORMATS.build("html", report=REPORT)


@pytest.mark.parametrize("word", ["=1+1", "@SUM(A1)", "-cmd", "+cmd|x"])
def test_a_word_that_a_spreadsheet_would_run_is_quoted(word: str) -> None:
    assert csv_lines([[word]]) == f"'{word}"


@pytest.mark.parametrize("word", ["-0.5", "-1e-05", "+3", "-", -2, -0.25, "a=b"])
def test_numbers_and_dashes_stay_as_they_are(word: object) -> None:
    assert csv_lines([[word]]) == str(word)
