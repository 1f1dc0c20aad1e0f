"""The first action of each chunk on held-out frames: python experiments/oft/first_action.py RUN...

Open loop, so that chunks of any length are asked the same: the action for the frame that is seen. RUN is a folder of a
run. Writes first_action.csv.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("first_action.csv")
COLUMNS = ["head", "chunk", "seed", "steps", "frames", "l1", "mean_action_l1"]


def row(run: Path) -> dict[str, Any]:
    """L1 a number of the action, in units of the normalised range, beside that of the mean action."""
    asked = yaml.safe_load((run / "config.yaml").read_text())
    model = asked["model"]
    with tempfile.TemporaryDirectory() as out:
        program = [sys.executable, "-m", "vlakit", "score", f"ckpt={run}", "plots=1", f"out={out}", "format=json"]
        told = subprocess.run(program, check=True, capture_output=True, env={"OMP_NUM_THREADS": "1", **os.environ})
    (found,) = json.loads(told.stdout)["datasets"].values()
    scores = {name: f"{found['scores'][name]['l1']:.3f}" for name in ("policy", "mean action")}
    what = {"head": model["network"].get("head", "discrete"), "chunk": model["processor"]["chunk"]}
    what |= {"seed": asked["seed"], "steps": asked["steps"], "frames": found["frames"]}
    return what | {"l1": scores["policy"], "mean_action_l1": scores["mean action"]}


def main(*runs: str) -> None:
    """Score, write, print."""
    rows = sorted((row(Path(run)) for run in runs), key=lambda one: [one[key] for key in COLUMNS[:4]])
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(FILE.read_text(), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
