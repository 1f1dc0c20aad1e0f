"""Steps read from an RLDS folder per CPU second, images left encoded: vlakit's reader and, if asked, TFDS's own.

Run: python experiments/speed/rlds_reader/bench.py [--folder DIR] [--tfds-python PATH]. Both take turns in one run.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from vlakit.data.rlds.reader import open_rlds, parse_episode, read_records

HERE = Path(__file__).parent
VARIANTS = {
    "vlakit": "checksums checked, every value parsed",
    "tfds_steps": "as_dataset, images skipped, step by step",
    "tfds_tensors": "as_dataset, steps left undecoded: one tensor a field",
}
Measurement = tuple[int, float, float]  # steps, CPU seconds, wall seconds


def ours(folder: str, passes: int) -> Measurement:
    """Read and parse the whole folder `passes` times."""
    opened = open_rlds(folder)
    cpu, wall, n_steps = time.process_time(), time.perf_counter(), 0
    for _ in range(passes):
        for file in (file for split in opened.splits.values() for file in split):
            for header, payload in read_records(file):
                n_steps += parse_episode(payload, opened.features, where=str(header)).n_steps
    return n_steps, time.process_time() - cpu, time.perf_counter() - wall


def theirs(python: str, folder: str, variant: str, passes: int) -> Callable[[], Measurement]:
    """Start TFDS in its own interpreter; each call of the result is one measurement."""
    script = str(HERE / "tfds_side.py")
    command = [python, script, folder, variant.removeprefix("tfds_"), str(passes)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure() -> Measurement:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the pipes of the TFDS process are closed")
        process.stdin.write("go\n")
        process.stdin.flush()
        n_steps, cpu, wall = json.loads(process.stdout.readline())
        return n_steps, cpu, wall

    return measure


def measured(sides: dict[str, Callable[[], Measurement]], rounds: int) -> dict[str, Measurement]:
    """The fastest of `rounds` measurements of each side, taken in turn; one more before them warms up."""
    found: dict[str, list[Measurement]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, measure in sides.items():
            result = measure()
            if turn:
                found[name].append(result)
    return {name: min(results, key=lambda result: result[1]) for name, results in found.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=str(Path(str(files("vlakit"))) / "assets" / "bridge_dataset" / "1.0.0"))
    parser.add_argument("--tfds-python", help="python of an environment with tensorflow-datasets")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--passes", type=int, default=4, help="readings of the folder in one measurement")
    options = parser.parse_args()

    sides: dict[str, Callable[[], Measurement]] = {"vlakit": lambda: ours(options.folder, options.passes)}
    if options.tfds_python:
        for variant in (name for name in VARIANTS if name not in sides):
            sides[variant] = theirs(options.tfds_python, options.folder, variant, options.passes)
    best = measured(sides, options.rounds)
    rows = []
    for name in (name for name in VARIANTS if name in best):
        n_steps, cpu, wall = best[name]
        ratio = (best["vlakit"][0] / best["vlakit"][1]) / (n_steps / cpu)
        rows.append([name, n_steps, f"{cpu:.4f}", f"{wall:.4f}", round(n_steps / cpu), f"{ratio:.1f}"])
        print(f"{name:13} {n_steps / cpu:9,.0f} steps per CPU second; vlakit x {ratio:.1f}  ({VARIANTS[name]})")
    if options.tfds_python:
        with (HERE / "results.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [["reader", "steps", "cpu_s", "wall_s", "steps_per_cpu_s", "vlakit_faster"], *rows]
            )


if __name__ == "__main__":
    main()
