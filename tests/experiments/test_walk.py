"""docs/data.md as its own walk gives it: raw folders of LeRobot and HDF5 become the rows of the RLDS, or it stops."""

import csv
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from places import BRIDGE, ROOT

from vlakit.data.shards.convert import convert
from vlakit.data.specs.spec import load_spec

WALK = ROOT / "experiments/doors/walk.py"


@pytest.mark.slow
@pytest.mark.sim
def test_both_walks_end_in_the_rows_of_the_rlds(tmp_path: Path) -> None:
    words = [str(tmp_path), "--episodes", "1", "--until", "shards", "--tables", str(tmp_path)]
    done = subprocess.run([sys.executable, str(WALK), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("tabletop_lerobot", "tabletop_hdf5"):
        assert (tmp_path / f"{name}.html").is_file()
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [row["shards"] for row in rows] == ["tabletop_lerobot", "tabletop_hdf5"]
    assert int(rows[0]["rows_equal"]) == int(rows[1]["rows_equal"]) > 20
    assert "- invert" in (tmp_path / "tabletop_hdf5.yaml").read_text()  # the raw gripper closes at 1


def test_a_row_that_differs_stops_the_walk(tmp_path: Path) -> None:
    found = importlib.util.spec_from_file_location("walk", WALK)
    assert found is not None
    assert found.loader is not None
    walk = importlib.util.module_from_spec(found)
    found.loader.exec_module(walk)
    spec = load_spec("bridge_orig")
    convert(BRIDGE, tmp_path / "whole", spec)
    convert(BRIDGE, tmp_path / "otherwise_split", spec, val_fraction=0.2)
    convert(BRIDGE, tmp_path / "small", spec, image_size=16)
    convert(BRIDGE, tmp_path / "longer", replace(spec, drop_first_steps=0))
    assert walk.compare(tmp_path / "whole", tmp_path / "otherwise_split") == ("otherwise_split", 200, "equal", "0.000")
    for name, message in (("small", "pictures of another size"), ("longer", "actions, proprio or instruction of no")):
        with pytest.raises(SystemExit, match=message):
            walk.compare(tmp_path / "whole", tmp_path / name)
