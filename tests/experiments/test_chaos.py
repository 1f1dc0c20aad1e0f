"""The short form of `just chaos`: a table of what was killed, and all of it survived."""

import csv
from pathlib import Path

import pytest
from commands import script


@pytest.mark.slow
def test_a_conversion_and_a_training_survive_two_kills_each(tmp_path: Path) -> None:
    words = ["--kills", "2", "--only", "conversion,training", "--out", str(tmp_path / "chaos.csv")]
    done = script("reliability/chaos.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "chaos.csv").open(newline="") as lines:
        rows = {row["work"]: row for row in csv.DictReader(lines)}
    assert {name: (row["kills"], row["survived"]) for name, row in rows.items()} == {
        "training": ("2", "2"),
        "conversion": ("2", "2"),
    }
