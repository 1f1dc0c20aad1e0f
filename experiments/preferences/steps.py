"""What each row does to its policy: while it trains (steps.csv), and in the end on the test starts (against_start.csv).

python experiments/preferences/steps.py

Success is greedy, of the 50 starts by which a step is chosen; a line is the mean over seeds of one row at one step, and
its difference from the same seeds' step 0 with Student's interval over seeds. kl: of fresh rollouts, nats a token.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from vlakit.errors import InvalidData
from vlakit.files import write_atomically
from vlakit.stats.paired import t_of_mean
from vlakit.stats.seeds import compare_seeds

HERE = Path(__file__).parent
SUCCESS, KL = "rollout/success_greedy", "drift/kl_rollout"
HEADER = ("row", "step", "seeds", "success", "difference", "low", "high", "kl", "chosen")


def main() -> None:
    """Writes steps.csv."""
    with (HERE / "runs/runs.csv").open(newline="") as stream:
        rows = {line["run"]: (line["experiment"], line["seed"]) for line in csv.DictReader(stream)}
    curves: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    with (HERE / "runs/curves.csv").open(newline="") as stream:
        for line in csv.DictReader(stream):
            if line["metric"] in (SUCCESS, KL):
                curves[line["run"]][line["metric"]][int(line["step"])] = float(line["value"])
    lines = [",".join(HEADER)]
    for row in dict.fromkeys(name for name, _ in rows.values()):
        own = [curve for run, curve in curves.items() if rows[run][0] == row]
        kept = [max(curve[SUCCESS], key=lambda step: (curve[SUCCESS][step], -step)) for curve in own]
        for step in sorted(set.intersection(*(set(curve[SUCCESS]) for curve in own)) if own else ()):
            gains = np.array([curve[SUCCESS][step] - curve[SUCCESS][0] for curve in own])
            success, kl = (np.mean([curve[key][step] for curve in own]) for key in (SUCCESS, KL))
            figures = [f"{value + 0.0:.4f}" for value in (success, gains.mean())]
            line = [row, step, len(own), *figures, *interval(gains), f"{round(kl, 5) + 0.0:.4f}", kept.count(step)]
            lines.append(",".join(map(str, line)))
    write_atomically(HERE / "steps.csv", "\n".join(lines) + "\n")


def against_start() -> None:
    """Each row of several seeds against the policies it began with: paired, t over seeds and starts, no correction."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for file in sorted((HERE / "runs").glob("*.csv")):
        with file.open(newline="") as stream:
            for line in csv.DictReader(stream) if file.stem not in ("runs", "curves") else ():
                own = scores.setdefault(line["experiment"], {}).setdefault(line["seed"], {})
                own[line["initial_state"]] = float(line["success"])
    start, lines = scores.pop("start"), ["row,seeds,difference,low,high,p"]
    for row, seeds in scores.items():
        if len(seeds) > 1:
            a, b = (np.array([[of[s][state] for state in start[s]] for s in seeds]) for of in (seeds, start))
            found = compare_seeds(a, b, 0.95)
            figures = (found.difference, *found.interval, found.p)
            lines.append(",".join([row, str(len(seeds)), *(f"{value:.4f}" for value in figures)]))
    write_atomically(HERE / "against_start.csv", "\n".join(lines) + "\n")


def interval(gains: np.ndarray) -> tuple[str, str]:
    """95 %, over seeds; empty where they do not vary, as at step 0, and for one seed."""
    try:
        low, high = t_of_mean(gains)[0]
    except InvalidData:
        return "", ""
    return f"{low:.4f}", f"{high:.4f}"


if __name__ == "__main__":
    main()
    against_start()
