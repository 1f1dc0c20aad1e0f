"""What each row does to its policy: while it trains (steps.csv), and in the end on the test starts (against_start.csv).

python experiments/preferences/steps.py

Success is greedy, of the 50 starts by which a step is chosen; a line is the mean over seeds of one row at one step, and
its difference from the same seeds' step 0 with Student's interval over seeds. kl: of fresh rollouts, nats a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vlakit.errors import InvalidData
from vlakit.files import write_atomically
from vlakit.reports.tables.folder import from_folder
from vlakit.reports.tables.runs import TableRun
from vlakit.reports.tables.spec import load_table
from vlakit.stats.paired import t_of_mean
from vlakit.stats.seeds import compare_seeds

HERE = Path(__file__).parent
SUCCESS, KL = "rollout/success_greedy", "drift/kl_rollout"


def main() -> None:
    """Writes both."""
    rows: dict[str, list[TableRun]] = {}
    for run in from_folder(load_table("preferences"), HERE / "runs").runs:
        rows.setdefault(run.row, []).append(run)
    start = rows.pop("start")
    steps = [
        "row,step,seeds,success,difference,low,high,kl,chosen",
        *(line for row in rows for line in by_step(rows[row])),
    ]
    write_atomically(HERE / "steps.csv", "\n".join(steps) + "\n")
    ends = [
        "row,seeds,difference,low,high,p",
        *(against(rows[row], start) for row in sorted(rows) if len(rows[row]) > 1),
    ]
    write_atomically(HERE / "against_start.csv", "\n".join(ends) + "\n")


def by_step(runs: Sequence[TableRun]) -> Iterator[str]:
    """A line of a row for each step."""
    success, kl = ([dict(run.curves[metric]) for run in runs] for metric in (SUCCESS, KL))
    kept = [max(own, key=lambda step: (own[step], -step)) for own in success]
    for step in success[0]:
        gains = np.array([own[step] - own[0] for own in success])
        means = (f"{value + 0.0:.4f}" for value in (np.mean([own[step] for own in success]), gains.mean()))
        drift = round(np.mean([own[step] for own in kl]), 5) + 0.0
        line = (runs[0].row, step, len(runs), *means, *interval(gains), f"{drift:.4f}", kept.count(step))
        yield ",".join(map(str, line))


def against(runs: Sequence[TableRun], start: Sequence[TableRun]) -> str:
    """A row's line beside the policies that it began with: paired, t over seeds and starts, no correction."""
    a, b = (np.array([run.episodes.success for run in of if run.episodes], float) for of in (runs, start))
    found = compare_seeds(a, b, 0.95)
    figures = (found.difference, *found.interval, found.p)
    return ",".join([runs[0].row, str(len(runs)), *(f"{value:.4f}" for value in figures)])


def interval(gains: np.ndarray) -> tuple[str, str]:
    """95 %, over seeds; empty where they do not vary, as at step 0, and for one seed."""
    try:
        low, high = t_of_mean(gains)[0]
    except InvalidData:
        return "", ""
    return f"{low:.4f}", f"{high:.4f}"


if __name__ == "__main__":
    main()
