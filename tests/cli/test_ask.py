"""`vlakit ask`: a question gets an answer, a folder of questions is counted, and what cannot be asked says why."""

import csv
import json
from pathlib import Path

import pytest
from commands import complaint, report, run, says
from question_folders import question_folder
from tiny_runs import TINY, built, saved

from vlakit.evaluation.asking import COLUMNS
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.full import Full

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return question_folder(tmp_path / "asked", n=10)


@pytest.fixture
def ckpt(tiny_processor: TokenProcessor, tmp_path: Path) -> Path:
    """Random weights that know no robot: no statistics are needed to be asked."""
    return saved(built(Full, TokenProcessor(tiny_processor.settings)), tmp_path / "last.ckpt")


def test_a_question_is_answered_in_words(folder: Path, capsys: Capture) -> None:
    """The shipped model before any robot data says where things are; of noise, anything."""
    words = [f"image={folder / '0.jpg'}", "question='where is the red cube?'"]
    said = report(capsys, "ask", "ckpt=tiny_grounded", *words)
    assert said["question"] == "where is the red cube?"
    assert said["answer"]


def test_a_folder_is_counted_by_kind_and_kept_by_question(
    ckpt: Path, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "new" / "asked.csv"
    said = report(capsys, "ask", f"ckpt={ckpt}", f"questions={folder}", "val_fraction=0.3", f"out={out}")
    assert said["kinds"]["all"]["questions"] == 9  # three of ten pictures
    rows = list(csv.DictReader(out.open()))
    assert tuple(rows[0]) == COLUMNS
    assert sum(int(row["right"]) for row in rows) == said["kinds"]["all"]["right"]
    assert said["kinds"]["all"]["loss"] == pytest.approx(sum(float(row["loss"]) for row in rows) / 9, abs=1e-4)


def test_the_count_does_not_depend_on_the_batches_and_stops_where_it_is_told(
    ckpt: Path, folder: Path, capsys: Capture
) -> None:
    words = [f"ckpt={ckpt}", f"questions={folder}", "split=train"]
    whole, one, few = (report(capsys, "ask", *words, w) for w in ("batch_size=64", "batch_size=7", "max_questions=5"))
    assert whole["kinds"]["all"]["loss"] == pytest.approx(one["kinds"]["all"]["loss"], rel=1e-5)
    assert whole["kinds"]["all"]["questions"] == 27
    assert few["kinds"]["all"]["questions"] == 5


def test_kinds_are_those_of_the_file(ckpt: Path, folder: Path, capsys: Capture) -> None:
    file = folder / "questions.json"
    items = json.loads(file.read_text())
    for item in items:
        item["conversations"][1]["kind"] = "gripper"
    file.write_text(json.dumps(items))
    said = report(capsys, "ask", f"ckpt={ckpt}", f"questions={folder}", "split=train")
    assert {kind: marks["questions"] for kind, marks in said["kinds"].items()} == {"": 18, "gripper": 9, "all": 27}
    assert run("ask", [f"ckpt={ckpt}", f"questions={folder}"]) == 0
    assert "95 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [[], ["question=why"], ["image=x.jpg"], ["questions=DIR", "question=why"], ["questions=DIR", "image=x.jpg"]],
)
def test_one_question_or_many(words: list[str], capsys: Capture) -> None:
    says(complaint(capsys, "ask", "ckpt=tiny", *words), "either image=FILE", "questions=DIR")


def test_what_cannot_be_asked_says_why(
    ckpt: Path, folder: Path, tiny_processor: TokenProcessor, tmp_path: Path, capsys: Capture
) -> None:
    says(
        complaint(capsys, "ask", f"ckpt={ckpt}", f"image={tmp_path / 'no.jpg'}", "question=why"), "no picture", "no.jpg"
    )
    says(complaint(capsys, "ask", f"ckpt={ckpt}", f"questions={tmp_path / 'no'}"), "no questions here", "demonstrate")
    says(complaint(capsys, "ask", f"ckpt={ckpt}", f"questions={folder}", "split=test"), "split", "val")
    strange = question_folder(tmp_path / "strange", talk=[("what is it?", "東京")])
    says(complaint(capsys, "ask", f"ckpt={ckpt}", f"questions={strange}"), "東京", "questions.json")
    deaf = built(Full, tiny_processor, network={**TINY, "head": "l1"})
    file = saved(deaf, tmp_path / "deaf.ckpt")
    says(complaint(capsys, "ask", f"ckpt={file}", f"questions={folder}"), "Answering")
