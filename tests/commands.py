"""Run a verb in this process as the console script does, and look at what a user would see."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from vlakit.cli.app import run_verb
from vlakit.cli.configuration import compose_config
from vlakit.cli.errors import readable_errors
from vlakit.cli.train import train

LIGHT = ("batch_size=2", "trainer.limit_val_batches=1", "trainer.enable_progress_bar=false")


def run(verb: str, words: Sequence[object]) -> int:
    """The exit status of `vlakit VERB WORDS`."""
    try:
        with readable_errors():
            run_verb(verb, [str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def report(capsys: pytest.CaptureFixture[str], verb: str, *words: object) -> dict[str, Any]:
    """What a verb that succeeds prints with format=json: one line on standard output."""
    capsys.readouterr()
    assert run(verb, [*words, "format=json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def complaint(capsys: pytest.CaptureFixture[str], verb: str, *words: object) -> str:
    """The error of a verb that fails, which must say what, where and what to do, once and without a traceback."""
    capsys.readouterr()
    assert run(verb, words) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("\n  in:    ") == said.count("\n  do:    ") == 1, said
    return said


def says(said: str, *parts: object) -> None:
    """An error names every one of these."""
    assert [str(part) for part in parts if str(part) not in said] == [], said


def train_here(folder: Path, *words: object) -> dict[str, float]:
    """Train as `python train.py` does, with runs and shards under `folder`."""
    runs = folder / "runs"
    own = [f"paths.runs={runs}", f"paths.data={folder / 'data'}", *LIGHT, *(str(word) for word in words)]
    if not any(word.startswith("paths.output=") for word in own):
        own.append(f"paths.output={runs / 'run'}")
    return train(compose_config("train", own))


def edited(file: Path, **changes: Any) -> Path:
    """A JSON file with other values."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return file


def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What experiments/NAME says and how it ends, in a process of its own."""
    command = [sys.executable, f"experiments/{name}", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
