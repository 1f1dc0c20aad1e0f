"""The first action of each chunk on held-out frames: python experiments/oft/first_action.py RUN...

Open loop, so that chunks of any length are asked the same: the action for the frame that is seen. RUN is a folder of a
run. Adds rows to first_action.csv; what is there is not scored again.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from rows import add, what

FILE = Path(__file__).with_name("first_action.csv")
COLUMNS = ["head", "chunk", "steps", "seed", "frames", "l1", "mean_action_l1"]


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
    for run in map(Path, runs):
        add(FILE, COLUMNS, what(run), partial(scored, run))
    print(FILE.read_text(), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
