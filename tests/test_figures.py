"""Every measured number that people read stands in a committed file: experiments/figures.yaml says where."""

from functools import lru_cache

import figures
import pytest
import yaml
from places import ROOT

FIGURES = yaml.safe_load((ROOT / "experiments/figures.yaml").read_text(encoding="utf-8"))
READINGS = {str(path.relative_to(ROOT)) for path in (ROOT / "experiments").glob("**/README.md")}
CARD, READER = "src/vlakit/assets/tiny.md", "experiments/speed/rlds_reader/README.md"
PLAN, STATISTICS = "experiments/speed/plan/README.md", "experiments/statistics/README.md"


@lru_cache
def compared(document: str, old: str = "", new: str = "") -> tuple[list[str], list[str]]:
    """(what is wrong, numbers that no entry names) in a document in which one passage is written otherwise."""
    text = (ROOT / document).read_text(encoding="utf-8")
    assert old in text
    return figures.compare(text.replace(old, new, 1), FIGURES[document], (ROOT / document).parent)


@pytest.mark.parametrize("document", FIGURES)
def test_a_statement_says_what_its_file_holds(document):
    assert compared(document)[0] == []


@pytest.mark.parametrize("document", FIGURES)
def test_no_number_stands_without_its_file(document):
    """Numbers that are no measurement (settings, versions, limits, the paper's) are quoted as such, as plain text."""
    assert compared(document)[1] == []


def test_the_documents_with_results_are_all_here():
    """A new reading without figures would otherwise pass unseen."""
    assert {"README.md", CARD} | READINGS == set(FIGURES)


@pytest.mark.parametrize(
    ("document", "old", "new"),
    [
        ("README.md", ".688 to .814", ".688 to .815"),  # a wrong digit in a sentence
        ("README.md", ".688 to .814", ".814 to .688"),  # two figures swapped
        ("README.md", "| 914.2 M | 1,267.3 M |", "| 1,267.3 M | 914.2 M |"),  # two columns
        ("README.md", "9 to 24 % less", "9 to 240 % less"),  # a digit behind the words of an entry
        (CARD, "| d3 | .965", "| d3 | .970"),  # a wrong cell
        (CARD, "| d3 |", "| d2 |"),  # a row under another's name
        (CARD, "[.892, .962]", "[.892, .963]"),  # an interval's end
        (PLAN, "| -9.4 % |", "| 9.4 % |"),  # a sign
        (PLAN, "fall short by 8.8", "fall short by -8.8"),
        (STATISTICS, "(2.1, 3.4, 4.2 %)", "(2.1, 4.2, 3.4 %)"),
        (READER, "| 72,397 |", "| 72,379 |"),
    ],
)
def test_a_number_that_its_file_does_not_hold_is_seen(document, old, new):
    assert compared(document, old, new)[0]


@pytest.mark.parametrize(
    "more",
    [
        *(
            "It wins .970 too.",
            "It is 3 x as fast.",
            "It lost 12 of 13.",
            "by 40 points",
            "in 15 s",
            "at 1.2px",
            "`.97`",
        ),
        *(
            "| d5 | 7 |",
            "```\nvlakit table  # 91 % of them\n```",
            "The model wins **88 %**.",
            "differs by 3e-4",
            "-.12",
        ),
        "wins .965 to .985 of 200 episodes on each of the five simulated robots",  # said twice, traced once
    ],
)
def test_a_number_that_no_entry_names_is_seen(more):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    wrong, bare = figures.compare(f"{text}\n\n{more}\n", FIGURES["README.md"], ROOT)
    assert (wrong, bool(bare)) == ([], True)


@pytest.mark.parametrize("row", [{"row": "none"}, {"row": ["full", "none"]}])
def test_a_row_that_is_not_in_the_file_is_seen(row):
    entry = {"says": "success {.80}", "file": "results.csv", "where": row, "column": "success_fraction"}
    wrong, _ = figures.compare("success .80", [entry], ROOT / "experiments/table1_finetuning")
    assert "no row of results.csv has {'row': 'none'}" in wrong[0]


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [
        *((".80", 0.8033, True), (".81", 0.8033, False), ("-40", -40.4, True), ("-40", 40.4, False)),
        *(("40", -40.4, False), ("11,000", 11412.0, True), ("11,000", 11512.0, False), ("10,000", 10512.0, False)),
        *(
            ("72,397", 72397.4, True),
            ("72,397", 72398.0, False),
            ("5.6e-08", 5.64e-8, True),
            ("5.6e-08", 5.7e-8, False),
        ),
        *(("9", 9.2, True), ("9", 8.4, False), ("2.0", 2.04, True), ("2.0", 2.06, False)),
    ],
)
def test_a_number_is_rounded_as_it_is_printed(text, value, same):
    assert figures.printed_as(text, value) == same
