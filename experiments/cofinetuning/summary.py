"""Means over trainings of results.csv, and paired differences: python experiments/cofinetuning/summary.py

Writes summary.csv, a row an arm and mark: mean and t interval (95 %) over seeds, and the difference to the arm that was
asked and then fine-tuned on demonstrations alone, over the seeds of both, of the same demonstrations; p uncorrected.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from vlakit.compare.grids import csv_lines
from vlakit.files import write_atomically
from vlakit.stats.paired import t_of_mean

HERE = Path(__file__).resolve().parent
ARMS = {
    ("asked", "tiny", "0"): "asked",
    ("asked_known", "tiny", "0"): "asked_known",
    ("", "tiny", "1"): "never_asked",
    ("", "asked", "1"): "fine_tuned",
    ("", "asked_known", "1"): "fine_tuned_known",
}
DEMONSTRATIONS = 400  # batches of them in an arm without questions
REFERENCE = "fine_tuned"
HEADER = ["arm", "mark", "seeds", "mean", "low", "high", "difference", "difference_low", "difference_high", "p"]


def main() -> None:
    """Write summary.csv."""
    shares: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    with (HERE / "results.csv").open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            shares[arm_of(line), line["mark"]][line["seed"]] = int(line["right"]) / int(line["n"])
    lines = [[arm, mark, *numbers(of, shares.get((REFERENCE, mark), {}))] for (arm, mark), of in sorted(shares.items())]
    write_atomically(HERE / "summary.csv", csv_lines([HEADER, *lines]) + "\n")


def arm_of(line: dict[str, str]) -> str:
    """Of a row of results.csv: mixed_SHARE has the steps of the others, equal_SHARE the demonstrations."""
    robot = f"{float(line['robot']):g}"
    equal = round(float(robot) * int(line["steps"])) == DEMONSTRATIONS
    asked = line["run"] if robot == "0" else ""
    return ARMS.get((asked, line["start"], robot), f"{'equal' if equal else 'mixed'}_{robot}")


def numbers(own: dict[str, float], reference: dict[str, float]) -> list[object]:
    """Of one arm and mark: how many, mean, interval, and the difference over the seeds that both have."""
    values = np.array(list(own.values()))
    spread = t_of_mean(values)[0] if len(values) > 1 and np.ptp(values) else (None, None)
    seeds = sorted(own.keys() & reference.keys())
    d = np.array([own[seed] - reference[seed] for seed in seeds])
    interval, p = t_of_mean(d) if len(d) > 1 and np.ptp(d) else ((None, None), None)
    told = (values.mean(), *spread, None if p is None else d.mean(), *interval, p)
    return [len(values), *(None if x is None else f"{x:.4f}" for x in told)]


if __name__ == "__main__":
    main()
