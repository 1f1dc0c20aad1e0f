"""`vlakit compare runs=[...]`: one verdict in five formats, refusals in three lines, and old names still listed."""

import csv
import io
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import complaint, report, run, says
from evaluations import outcomes, write_own


@pytest.fixture
def pair(tmp_path: Path) -> str:
    names = {"full": 0.9, "last_layer": 0.3}
    places = [write_own(tmp_path / name, outcomes(50, rate, i)) for i, (name, rate) in enumerate(names.items())]
    return f"runs=[{places[0]},{places[1]}]"


def test_json_holds_what_a_pair_is_judged_by(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "compare", pair)
    (judged,) = found["pairs"]
    assert judged["pair"] == ["full", "last_layer"]
    assert judged["n"] == 50
    assert judged["difference"] == pytest.approx((judged["only_a"] - judged["only_b"]) / 50)
    low, high = judged["interval"]
    assert low < judged["difference"] < high
    assert judged["p"] == judged["p_holm"] < 0.001
    assert judged["verdict"] == "full better"
    assert {row["task"] for row in found["tasks"]} == {"lift", "push"}
    assert report(capsys, "compare", pair, "by_task=false")["tasks"] == []


def test_text_and_csv_say_the_same(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    judged = report(capsys, "compare", pair)["pairs"][0]
    assert run("compare", [pair]) == 0
    out = capsys.readouterr().out
    says(
        out,
        "paired on shared initial states",
        "full better",
        f"{100 * judged['difference']:+.1f}",
        "note: one training each",
    )
    assert run("compare", [pair, "format=csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["task"] for row in rows] == ["all", "lift", "push"]
    assert float(rows[0]["p_holm"]) == judged["p_holm"]
    assert float(rows[0]["low_fraction"]) == judged["interval"][0]


def test_latex_is_escaped_and_balanced(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", [pair, "format=latex"]) == 0
    out = capsys.readouterr().out
    assert out.count(r"\begin{tabular}") == out.count(r"\end{tabular}") == 3
    assert r"last\_layer" in out
    for line in out.splitlines():
        assert "%" not in line.replace(r"\%", "").lstrip("%")


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tables += tag == "table"
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_one_whole_page_that_loads_nothing(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", [pair, "format=html"]) == 0
    out = capsys.readouterr().out
    page = Page()
    page.feed(out)
    assert (page.open, page.tables) == ([], 3)
    assert "://" not in out


def test_the_papers_row_stands_beside(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    quoted = report(capsys, "compare", pair, "against=table1")["pairs"][0]["paper"]
    assert quoted["difference"] == pytest.approx(0.394)
    assert quoted["verdict"] == "agrees"
    assert run("compare", [pair, "against=table1"]) == 0
    says(capsys.readouterr().out, "69.7 +- 7.2", "quoted, not measured here", "agrees")
    assert "did you mean table1" in complaint(capsys, "compare", pair, "against=tabel1")


def test_names_and_seeds_are_given_as_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [write_own(tmp_path / f"x{i}", outcomes(40, 0.4 + 0.1 * i, i)) for i in range(4)]
    words = f"runs={{lora: [{places[0]},{places[1]}], full: [{places[2]},{places[3]}]}}"
    found = report(capsys, "compare", words)["pairs"][0]
    assert found["pair"] == ["lora", "full"]
    assert found["seeds"] == [2, 2]
    assert found["seed_se"] >= 0


def test_what_cannot_be_compared_is_said_in_three_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_own(tmp_path / "a", [1, 0]), write_own(tmp_path / "b", [1, 0, 1])
    both = f"runs=[{a},{b}]"
    says(complaint(capsys, "compare", both), "not paired", "2 shared", "paired=common", "paired=false")
    says(complaint(capsys, "compare", f"runs=[{a},{tmp_path / 'c'}]"), "no such folder or file", tmp_path / "c")
    says(complaint(capsys, "compare", f"runs=[{a}]"), "one run makes no pair")
    says(complaint(capsys, "compare", both, "paired=flase"), "did you mean false")
    says(complaint(capsys, "compare", both, "margin=5"), "fraction between 0 and 1")
    says(complaint(capsys, "compare", both, "score=rate"), "one of success, credit")
    says(complaint(capsys, "compare", "format=latex", "runs=null"), "format=latex is unknown")


@pytest.mark.slow
def test_ten_runs_of_two_thousand_episodes_take_two_seconds(tmp_path: Path) -> None:
    tasks, actions = [f"task{i}" for i in range(10)], [[0.1234] * 7] * 100
    places = [write_own(tmp_path / f"r{i}", outcomes(2000, 0.5, i), tasks, actions=actions) for i in range(10)]
    words = f"runs=[{','.join(map(str, places))}]"
    before = os.times()
    code = f"from vlakit.cli.app import run_verb; run_verb('compare', [{words!r}, 'format=json'])"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 2  # processor time: the machine may be shared
