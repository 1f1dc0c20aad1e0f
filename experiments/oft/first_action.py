"""The first action of each chunk on held-out frames: python experiments/oft/first_action.py RUN...

Open loop, so that chunks of any length are asked the same: the action for the frame that is seen. RUN is a folder of a
run. Adds rows to first_action.csv; what is there is not scored again.
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


def what(run: Path) -> dict[str, str]:
    """Which row of the table, seed and steps."""
    asked = yaml.safe_load((run / "config.yaml").read_text())
    model = asked["model"]
    told = {"head": model["network"].get("head", "discrete"), "chunk": model["processor"]["chunk"]}
    return {key: str(value) for key, value in (told | {"seed": asked["seed"], "steps": asked["steps"]}).items()}


def scored(run: Path) -> dict[str, Any]:
    """L1 a number of the action, in units of the normalised range, beside that of the mean action."""
    with tempfile.TemporaryDirectory() as out:
        program = [sys.executable, "-m", "vlakit", "score", f"ckpt={run}", "plots=1", f"out={out}", "format=json"]
        told = subprocess.run(program, check=True, capture_output=True, env={"OMP_NUM_THREADS": "1", **os.environ})
    (found,) = json.loads(told.stdout)["datasets"].values()
    l1 = {name: f"{found['scores'][name]['l1']:.3f}" for name in ("policy", "mean action")}
    return {"frames": found["frames"], "l1": l1["policy"], "mean_action_l1": l1["mean action"]}


def main(*runs: str) -> None:
    """Score what is missing, write, print."""
    rows: list[dict[str, Any]] = list(csv.DictReader(FILE.open())) if FILE.is_file() else []
    for run in map(Path, runs):
        name = what(run)
        if not any(name.items() <= row.items() for row in rows):
            rows.append(name | scored(run))
    rows.sort(key=lambda row: [row[key] for key in COLUMNS[:4]])
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(FILE.read_text(), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
