"""A CSV of episodes is compared as any other file; foreign files reach a terminal without control characters."""

import csv
import json
from pathlib import Path

import pytest
from commands import complaint, report, run
from evaluations import lerobot, write_json, write_own
from places import ROOT

from vlakit.compare.episodes import Start
from vlakit.compare.readers import read, read_all
from vlakit.errors import CorruptRecord, InvalidData, VlakitError

Capture = pytest.CaptureFixture[str]
COMMITTED = ROOT / "experiments" / "table1_finetuning" / "runs"
ESCAPES = "\x1b[31m\x07\x9b\u202e\u2028"


def written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def test_three_columns_are_enough(tmp_path: Path) -> None:
    found = read(written(tmp_path / "mine.csv", "task,initial_state,success\nlift,s0,1\nlift,s1,False\n"))
    assert (found.run, found.seed, found.starts[0]) == ("mine", None, Start("csv", "lift", "s0"))
    assert (list(found.success), list(found.credit)) == ([True, False], [1, 0])


@pytest.mark.parametrize("comma", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "as Excel saves it"])
def test_further_columns_say_credit_run_and_seed(comma: str, mark: str, tmp_path: Path) -> None:
    lines = ["success,credit,task,run,seed,initial_state,note", "0,0.5,lift,lora,1,s0,x", "1,1,lift,lora,2,s0,", ""]
    found = read_all(written(tmp_path / "all.csv", mark + "\r\n".join(lines).replace(",", comma)))
    assert [(one.run, one.seed, list(one.credit)) for one in found] == [("lora", "1", [0.5]), ("lora", "2", [1.0])]
    with pytest.raises(InvalidData, match="2 evaluations here"):
        read(tmp_path / "all.csv")


def test_committed_files_compare_as_their_table_says(capsys: Capture) -> None:
    places = [COMMITTED / f"{name}.csv" for name in ("frozen_vision", "full")]
    with (COMMITTED.parent / "results.csv").open(newline="") as stream:
        (row,) = [line for line in csv.DictReader(stream) if line["row"] == "frozen_vision"]
    (pair,) = report(capsys, "compare", f"runs=[{places[0]},{places[1]}]", f"score={row['score']}")["pairs"]
    assert pair["difference"] == pytest.approx(float(row["difference_fraction"]))
    assert pair["interval"][0] == pytest.approx(float(row["difference_low_fraction"]))
    assert (pair["seeds"], pair["verdict"]) == ([6, 6], "full better")
    assert len(report(capsys, "compare", f"runs=[{COMMITTED}]", "reference=full")["pairs"]) == 5


def test_one_file_may_hold_what_is_compared(tmp_path: Path, capsys: Capture) -> None:
    lines = [f"{run},lift,s{i},{int(run == 'a' or i % 3 == 0)}" for run in "ab" for i in range(30)]
    file = written(tmp_path / "both.csv", "\n".join(["run,task,initial_state,success", *lines]))
    assert report(capsys, "compare", f"runs={file}")["pairs"][0]["verdict"] == "a better"
    assert run("compare", [f"runs={file}"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120
    assert "no such folder" in complaint(capsys, "compare", "runs=[none.csv,nothing.csv]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'task'"),
        ("task,success\nlift,1\n", "no column 'initial_state'"),
        ("task,initial_state,success\n", "no episode here"),
        ("task,initial_state,success\nlift,s0,yes\n", "a success of 'yes'"),
        ("task,initial_state,success\nlift,s0,2\n", "a success of 2.0"),
        ("task,initial_state,success\nlift,s0,nan\n", "a success of 'nan'"),
        ("task,initial_state,success\nlift,s0\n", "2 fields under 3 columns"),
        ("task,initial_state,success\nlift,,1\n", "without task or initial_state"),
        ("task,initial_state,success,credit\nlift,s0,1,0.7\n", "none of 0, 0.5 and 1"),
        ("task,initial_state,success\nlift,s0,1\nlift,s0,0\n", "occur more than once"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises((InvalidData, CorruptRecord), match=said) as caught:
        read(written(tmp_path / "x.csv", text))
    assert str(tmp_path / "x.csv") in caught.value.where


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"task,initial_state,success\nl\xff,s0,1\n")
    with pytest.raises(CorruptRecord, match="not readable as CSV"):
        read(tmp_path / "x.csv")


def clean(text: str) -> bool:
    return not set(text) & (set(ESCAPES) - set("[31m"))


def test_no_control_character_of_a_file_reaches_a_report(tmp_path: Path, capsys: Capture) -> None:
    task = f"li{ESCAPES}ft"
    for name, value in (("a", 1), ("b", 0)):
        (tmp_path / name).mkdir()
        lerobot(tmp_path / name, {(task, 0): [bool(value)] * 9})
        write_own(tmp_path / f"own_{name}", [value] * 9, (task, "push"), versions={"mujoco": ESCAPES})
        lines = "".join(f"{name}{ESCAPES},{task},s{i},{value}\n" for i in range(9)).replace("\u2028", "")
        written(tmp_path / f"{name}.csv", f"run,task,initial_state,success\n{lines}".replace("\n\x1b", "\x1b"))
    for kind in ("{}", "own_{}", "{}.csv"):
        words = f"runs=[{','.join(str(tmp_path / kind.format(name)) for name in 'ab')}]"
        for style in ("text", "csv", "html", "latex"):
            assert run("compare", [words, "paired=true", f"format={style}"]) == 0
            assert clean(capsys.readouterr().out)


def test_no_control_character_of_a_file_reaches_an_error(tmp_path: Path) -> None:
    written(tmp_path / "x.csv", f"task,wha{ESCAPES}t\n")
    write_json(tmp_path / "l" / "eval_info.json", {f"a{ESCAPES}": json.loads("1")})
    for place in ("x.csv", "l"):
        with pytest.raises(VlakitError) as caught:
            read(tmp_path / place)
        assert clean(str(caught.value))
