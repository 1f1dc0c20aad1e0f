"""The short form of experiments/reliability/faults.py: an export on disks that are too small."""

import csv
import os
from pathlib import Path

import pytest
from commands import script


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_an_export_to_a_disk_that_is_too_small_is_one_error_and_then_goes_well(tmp_path: Path) -> None:
    words = ["--tries", "1", "--only", "disk_export", "--out", str(tmp_path / "faults.csv")]
    done = script("reliability/faults.py", *words)
    if "mount: " in done.stderr:
        pytest.skip("this machine does not let root mount")
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "faults.csv").open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["fault"], row["tried"], row["survived"]) == ("disk full: export", "2", "2")
