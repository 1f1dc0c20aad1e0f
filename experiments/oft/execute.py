"""How much of a chunk to carry out before looking again: python experiments/oft/execute.py RUN... [--execute 1 4 8].

The same trained policies from the starts of the table, asked again after K actions of their chunk of eight. RUN is a
run's folder. Adds rows to execute.csv; what is there is not measured again.
"""

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from rows import add, what

from vlakit.evaluation.records import read_episodes

HERE, STARTS = Path(__file__).parent, 500
FILE = HERE / "execute.csv"
COLUMNS = ["head", "chunk", "steps", "seed", "execute", "episodes", "successes", "success", "credit"]


def measured(run: Path, execute: int, chunk: int) -> dict[str, Any]:
    """One row: an evaluation of its own, or the one that the training ended with, where the whole chunk is meant."""
    out = run / "evaluation" / ("tabletop_target" if execute == chunk else f"execute_{execute}")
    if execute == chunk:
        return counted(out)
    words = [f"ckpt={run}", "suite=tabletop_target", f"episodes={STARTS}", f"control.execute={execute}", f"out={out}"]
    program = [sys.executable, "-m", "vlakit", "evaluate", *words]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, env={"OMP_NUM_THREADS": "1", **os.environ})
    return counted(out)


def counted(out: Path) -> dict[str, Any]:
    """Successes and credit of an evaluation."""
    episodes = read_episodes(out)
    right, credit = sum(one.success for one in episodes), sum(one.credit for one in episodes)
    counts = {"episodes": len(episodes), "successes": right}
    return counts | {"success": f"{right / len(episodes):.3f}", "credit": f"{credit / len(episodes):.3f}"}


def main() -> None:
    """Measure what is missing; write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--execute", type=int, nargs="+", default=[1, 4, 8])
    given = parser.parse_args()
    for run in given.runs:
        told = what(run)
        for execute in given.execute:
            add(FILE, COLUMNS, {**told, "execute": execute}, partial(measured, run, execute, told["chunk"]))
    print(FILE.read_text(), end="")


if __name__ == "__main__":
    main()
