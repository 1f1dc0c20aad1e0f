"""Seconds of a training step and of an action, beside the original's own modelling code, in one run.

Each side is a process in its own environment; they take turns task by task, two threads each, minimum of --repeats.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

from shape import PRECISIONS, write_config

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from sides import Side, in_turns  # noqa: E402

COLUMNS: tuple[str, ...] = ("task", "precision", "original_s", "vlakit_s", "ratio", "goal", "difference")
GOALS = {("train", "fp32"): 1.25, ("act", "fp32"): 1.5}
TASKS = {"train": "train", "act": "act", "act_open": "act", "act_batch": "act_batch"}  # vlakit's -> the original's
TOLERANCE = 1e-4


def measure(sides: dict[str, Side], precision: str, repeats: int) -> list[dict[str, Any]]:
    """A row a task: least seconds of either side, and the largest relative difference of what they returned."""
    rows = []
    for task, theirs in TASKS.items():
        best, difference = in_turns(sides, {"vlakit": task, "original": theirs}, repeats)
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
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    chosen = parser.parse_args()
    fixture = str(chosen.fixture.resolve())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_config(chosen.fixture, Path(folder))
        for precision in chosen.precisions:
            words = [fixture, folder, precision]
            theirs = [chosen.original_python, "original_side.py", str(chosen.original.resolve()), *words]
            sides = {"original": Side(theirs, HERE), "vlakit": Side([sys.executable, "vlakit_side.py", *words], HERE)}
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
