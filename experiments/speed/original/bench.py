"""Seconds of a training step and of an action, beside the original's own modelling code, in one run.

Each side is a process in its own environment; they take turns task by task, two threads each, minimum of --repeats.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from shape import PRECISIONS, write_config

HERE = Path(__file__).resolve().parent
COLUMNS: tuple[str, ...] = ("task", "precision", "original_s", "vlakit_s", "ratio", "goal", "difference")
GOALS = {("train", "fp32"): 1.25, ("act", "fp32"): 1.5}
TASKS = {"train": "train", "act": "act", "act_open": "act", "act_batch": "act_batch"}  # vlakit's -> the original's
TOLERANCE = 1e-4


class Side:
    """One worker process that does tasks by name."""

    def __init__(self, command: list[str]) -> None:
        pipe, drop = subprocess.PIPE, subprocess.DEVNULL
        waiting = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # the idle side must not spin while the other works
        self.process = subprocess.Popen(command, cwd=HERE, stdin=pipe, stdout=pipe, stderr=drop, text=True, env=waiting)
        self.answer()

    def answer(self) -> Any:
        """The next line of its output."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit(f"{self.process.args} ended; run it by hand to see why")
        return json.loads(line)

    def do(self, task: str) -> tuple[float, Any]:
        """Seconds, and what the task returned."""
        if self.process.stdin is None:
            raise SystemExit("no pipe to the worker")
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        return self.answer()


def measure(sides: dict[str, Side], precision: str, repeats: int) -> list[dict[str, Any]]:
    """A row a task: least seconds of either side, and the largest relative difference of what they returned."""
    rows = []
    for task, theirs in TASKS.items():
        times: dict[str, list[float]] = {name: [] for name in sides}
        difference = 0.0
        for _ in range(repeats + 1):
            found = {}
            for name, side in sides.items():
                seconds, found[name] = side.do(task if name == "vlakit" else theirs)
                times[name].append(seconds)
            ours, expected = np.array(found["vlakit"]), np.array(found["original"])
            difference = max(difference, float(np.abs(ours - expected).max() / np.abs(expected).max()))
        best = {name: min(values[1:]) for name, values in times.items()}  # the first call warms up
        numbers = (best["original"], best["vlakit"], best["original"] / best["vlakit"])
        goal = GOALS.get((task, precision), "")
        values = (task, precision, *(round(n, 3) for n in numbers), goal, f"{difference:.1e}")
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        print(", ".join(map(str, values)), flush=True)
    return rows


def main() -> None:
    """Measure, write results.csv, fail where a goal is missed or the float32 numbers differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--original", type=Path, required=True, metavar="DIR", help="holds modeling_prismatic.py")
    parser.add_argument("--original-python", required=True, metavar="PYTHON")
    parser.add_argument("--fixture", type=Path, required=True, metavar="DIR", help="config.json, seeded_weights.py")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    fixture = str(chosen.fixture.resolve())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_config(chosen.fixture, Path(folder))
        for precision in PRECISIONS:
            words = [fixture, folder, precision]
            theirs = [chosen.original_python, "original_side.py", str(chosen.original.resolve()), *words]
            sides = {"original": Side(theirs), "vlakit": Side([sys.executable, "vlakit_side.py", *words])}
            try:
                rows += measure(sides, precision, chosen.repeats)
            finally:
                for side in sides.values():
                    side.process.kill()
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    missed = [row["task"] for row in rows if row["goal"] and row["ratio"] < row["goal"]]
    unequal = [row["task"] for row in rows if row["precision"] == "fp32" and float(row["difference"]) > TOLERANCE]
    if missed or unequal:
        raise SystemExit(f"below the goal: {missed}; other numbers than the original's: {unequal}")


if __name__ == "__main__":
    main()
