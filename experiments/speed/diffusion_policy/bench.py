"""Seconds of a training step and of an action, beside Diffusion Policy's own code, in one run.

python experiments/speed/diffusion_policy/bench.py --original DIR --original-python PYTHON    (DIR/diffusion_policy)
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from sides import Side, in_turns  # noqa: E402

COLUMNS = ("task", "original_s", "vlakit_s", "ratio", "difference")


def main() -> None:
    """Measure and write results.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True, metavar="DIR")
    parser.add_argument("--original-python", required=True, metavar="PYTHON")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, (HERE / "results.csv").open("w", newline="") as stream:
        theirs = [chosen.original_python, "original_side.py", str(chosen.original.resolve()), folder]
        sides = {"original": Side(theirs, HERE)}
        try:
            sides["vlakit"] = Side([sys.executable, "vlakit_side.py", folder], HERE)
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(COLUMNS)
            for task in ("train", "ddpm_100", "ddim_10"):
                best, difference = in_turns(sides, dict.fromkeys(sides, task), chosen.repeats)
                numbers = (best["original"], best["vlakit"], best["original"] / best["vlakit"])
                row = (task, *(f"{n:.3f}" for n in numbers), f"{difference:.1e}")
                table.writerow(row)
                print(*row, sep=", ", flush=True)
        finally:
            for side in sides.values():
                side.process.kill()


if __name__ == "__main__":
    main()
