"""What co-fine-tuning keeps and what it gives, measured on finished runs.

python experiments/cofinetuning/measure.py FILE QUESTIONS [--starts N] RUN...   (a run's folder, or a sweep's)

A row a run and mark in FILE (CSV): answers right on the held-out questions by kind, and success from the robot's usual
starts, from those with colours that no demonstration has, and with other words, N starts a task (80 are on file). What
was measured before stays and is not measured again.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from vlakit.evaluation.records import read_episodes
from vlakit.evaluation.suites.tabletop.axes import variant_of
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.stats.intervals import wilson

ROBOT, USUAL, CHANGED = "target", "tabletop_target", "tabletop_semantic"
LAST = "last.ckpt"
COLUMNS: tuple[str, ...] = ("run", "start", "robot", "steps", "seed", "mark", "n", "right", "share", "low", "high")


def vlakit(*words: str) -> str:
    """What a verb prints, on one thread."""
    program = [sys.executable, "-m", "vlakit", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def answers(run: Path, questions: str) -> Iterator[tuple[str, int, int]]:
    """(mark, n, right) of the held-out questions by kind."""
    held_out = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]["val_fraction"]
    said = json.loads(vlakit("ask", f"ckpt={run}", f"questions={questions}", f"val_fraction={held_out}", "format=json"))
    for kind, marks in said["kinds"].items():
        yield f"answers/{kind}", marks["questions"], marks["right"]


def successes(run: Path, starts: int) -> Iterator[tuple[str, int, int]]:
    """(mark, n, right) of episodes by what was changed in their starts."""
    suite = TabletopSuite(ROBOT, ["semantic"])
    variants = {state.name: variant_of(state) for task in suite.tasks for state in suite.initial_states(task, starts)}
    won: defaultdict[str, list[bool]] = defaultdict(list)
    for name in (USUAL, CHANGED):
        words = [f"ckpt={run}", f"suite={name}", f"episodes={5 * starts}", "gate=false", "tracking_uri=null"]
        vlakit("evaluate", *words, f"out={run / 'measured' / name}")
        for record in read_episodes(run / "measured" / name):
            won[variants.get(record.initial_state, "as trained")].append(record.success)
    for variant, outcomes in won.items():
        yield f"success/{variant}", len(outcomes), sum(outcomes)


def identity(run: Path) -> dict[str, str]:
    """What tells a run from the others."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    start = config["model"]["weights"]
    values = {
        "run": run.name,
        "start": Path(start).name if start else "random_init",
        "robot": config["data"]["mix"]["robot"],
        "steps": config["steps"],
        "seed": config["seed"],
    }
    return {key: str(value) for key, value in values.items()}


def rows(run: Path, known: dict[str, str], questions: str, starts: int) -> Iterator[dict[str, Any]]:
    """All marks of one run; one that has seen no demonstration does not act."""
    acting = successes(run, starts) if float(known["robot"]) > 0 else ()
    for mark, n, right in (*answers(run, questions), *acting):
        low, high = wilson(right, n)
        shares = {name: f"{value:.3f}" for name, value in (("share", right / n), ("low", low), ("high", high))}
        yield {**known, "mark": mark, "n": n, "right": right, **shares}


def main() -> None:
    """Measure what is new and add it to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("questions")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--starts", type=int, default=80)
    asked = parser.parse_args()
    found: list[dict[str, Any]] = []
    if asked.file.exists():
        with asked.file.open(encoding="utf-8", newline="") as stream:
            found = list(csv.DictReader(stream))
    folders = [
        run for place in asked.runs for run in ([place] if (place / LAST).exists() else sorted(place.glob("*/")))
    ]
    for run in folders:
        known = identity(run)
        if not any(known.items() <= row.items() for row in found):
            found += rows(run, known, asked.questions, asked.starts)
        with asked.file.open("w", encoding="utf-8", newline="") as stream:
            out = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            out.writeheader()
            out.writerows(found)


if __name__ == "__main__":
    main()
