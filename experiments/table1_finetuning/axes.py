"""Table 1 along the axes of generalisation: every run of a sweep on tabletop_ood, 40 starts an axis, shared by all.

python experiments/table1_finetuning/axes.py SWEEP_FOLDER... > experiments/table1_finetuning/axes.csv   (15 s a run)
A row a strategy and axis: runs, episodes, successes, success, its Wilson interval over episodes, and the least and the
most that a single run reached: intervals over episodes leave the spread between trainings out.
"""

import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vlakit.evaluation.records import EpisodeRecord, read_episodes
from vlakit.stats.intervals import wilson

SUITE, OWN = "tabletop_ood", "tabletop_target"
COLUMNS = ("strategy", "axis", "runs", "episodes", "successes", "success", "low", "high", "least", "most")


def evaluate(run: Path) -> None:
    """What is on disk already is not run again."""
    words = ["evaluate", f"ckpt={run}", f"suite={SUITE}", "episodes=200", "gate=false", "device=cpu"]
    program = [sys.executable, "-c", "from vlakit.cli.app import main; main()", *words]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def axis_of(record: EpisodeRecord) -> str:
    """ "none" for scenes as trained."""
    return record.task.rpartition("/")[0] or "none"


def main(*sweeps: str) -> None:
    """Evaluate two runs at a time and print the table as CSV."""
    runs = sorted(job.parent for sweep in sweeps for job in Path(sweep).glob("*/job.json"))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(evaluate, runs))
    outcomes: defaultdict[tuple[str, str], list[list[bool]]] = defaultdict(list)
    for run in runs:
        name = json.loads((run / "job.json").read_text(encoding="utf-8"))["name"].partition("[")[0]
        records = [record for suite in (OWN, SUITE) for record in read_episodes(run / "evaluation" / suite)]
        for axis in dict.fromkeys(axis_of(record) for record in records):
            outcomes[name, axis].append([record.success for record in records if axis_of(record) == axis])
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(COLUMNS)
    for (name, axis), found in outcomes.items():
        n, won = sum(map(len, found)), sum(map(sum, found))
        shares = [sum(one) / len(one) for one in found]
        numbers = (won / n, *wilson(won, n), min(shares), max(shares))
        out.writerow((name, axis, len(found), n, won, *(f"{number:.3f}" for number in numbers)))


if __name__ == "__main__":
    main(*sys.argv[1:])
