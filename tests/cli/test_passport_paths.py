"""A passport of a run that names places all over its machine, and of weights that are a run's folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from commands import complaint, edited, report, says

from vlakit.configs import conf_root
from vlakit.evaluation.records import HEADER
from vlakit.files import content_hash
from vlakit.reports.passport.passport import PASSPORT

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ran(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder that names places all over the machine; it started from another run's folder."""
    start = tmp_path / "runs" / "pretrained"
    start.mkdir(parents=True)
    shutil.copy(evaluated / "last.ckpt", start)
    (start / "train.log").write_text("a line")
    words = [
        f"model.weights={start}",
        "data.root=/mnt/shards",
        "+more=[/mnt/a,'/home/me/b c']",
        "++logger.artifacts=/x",
    ]
    processor = yaml.safe_load((conf_root() / "model/tiny.yaml").read_text())["processor"]
    config = {
        "name": "full", "seed": 7, "ckpt_path": None, "callbacks": {}, "evaluate": {}, "trainer": {"max_steps": 1},
        "model": {"weights": str(start), "processor": {**processor, "tokenizer_path": "/models/words"}},
        "strategy": {"_target_": "vlakit.strategies.full.Full"}, "data": {"root": "/mnt/shards"}, "logger": {},
        "paths": {"runs": "runs", "data": "data", "output": str(evaluated)},
    }  # fmt: skip
    (evaluated / ".hydra").mkdir()
    (evaluated / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words))
    (evaluated / "config.yaml").write_text(yaml.safe_dump(config))
    header = evaluated / "evaluation" / "fake" / HEADER
    settings = json.loads(header.read_text())["settings"]
    settings["suite_settings"]["assets"] = "/srv/meshes"
    edited(header, settings=settings)
    monkeypatch.chdir(tmp_path)
    return evaluated


def test_no_path_of_the_machine_is_in_a_passport_and_what_is_left_out_is_said(ran: Path, capsys: Capture) -> None:
    written = report(capsys, "passport", f"run={ran}")
    text = "".join(Path(file).read_text() for file in written["files"])
    assert [place for place in (str(ran.parent), "/mnt", "/models", "/srv", "/home") if place in text] == []
    training = json.loads(Path(written["files"][0]).read_text())["training"]
    more = "+more=[<elsewhere>/a,'<elsewhere>/b c']"
    assert training["overrides"] == ["model.weights=<runs>/pretrained", "data.root=<elsewhere>/shards", more]
    assert training["config"]["paths"] == {"runs": "<runs>", "data": "<data>", "output": "<output>"}
    (said,) = [line for line in written["unknown"] if line.startswith("paths:")]
    says(said, "<elsewhere>/shards", "<elsewhere>/words", "suite.assets")


def test_weights_given_as_a_runs_folder_are_those_of_its_checkpoint(ran: Path, capsys: Capture) -> None:
    report(capsys, "passport", f"run={ran}")
    start, place = ran.parent / "runs" / "pretrained", ran / "passport"
    weights = json.loads((place / PASSPORT).read_text())["training"]["weights"]
    assert weights == {"name": "<runs>/pretrained", "sha256": content_hash(start / "last.ckpt")}
    (start / "train.log").write_text("a line more")
    said = complaint(capsys, "reproduce", f"passport={place}", "model.processor.tokenizer_path=null")
    says(said, "the data is not here", "<elsewhere>/shards")  # what is looked at after the weights
    (start / "last.ckpt").write_bytes(b"other")
    says(complaint(capsys, "reproduce", f"passport={place}"), "not those of the passport", "weights=FILE")


def test_the_hash_that_training_noted_counts_where_the_weights_have_changed_since(ran: Path, capsys: Capture) -> None:
    content = torch.load(ran / "last.ckpt", weights_only=True)
    content["vlakit"]["weights_sha256"] = "ab" * 32
    torch.save(content, ran / "last.ckpt")
    (ran.parent / "runs" / "pretrained" / "last.ckpt").unlink()
    written = report(capsys, "passport", f"run={ran}")
    assert json.loads(Path(written["files"][0]).read_text())["training"]["weights"]["sha256"] == "ab" * 32
    assert [line for line in written["unknown"] if line.startswith("weights")] == []
