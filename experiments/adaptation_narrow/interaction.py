"""Is it the kind of task that decides between OpenVLA and Diffusion Policy? Differences of differences over trainings.

python experiments/adaptation_narrow/interaction.py        (interaction.csv, from the runs of this table and of Table 7)

A training's success minus that of the reference's training of the same seed (same demonstrations), many tasks against
one. Welch's interval over trainings: seeds of the two kinds of task have demonstrations of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vlakit.errors import InvalidData
from vlakit.files import write_atomically
from vlakit.reports.tables.folder import from_folder
from vlakit.reports.tables.spec import load_table
from vlakit.stats.intervals import welch

HERE = Path(__file__).parent
TABLES = {"diverse": "table7", "narrow": "adaptation_narrow"}
REFERENCE = "openvla"
HEADER = "row,seeds_diverse,seeds_narrow,diverse,narrow,interaction,low,high,p"


def main() -> None:
    """A line for each row that both tables have."""
    success = {kind: by_seed(table) for kind, table in TABLES.items()}
    shared = [row for row in success["narrow"] if row != REFERENCE and row in success["diverse"]]
    write_atomically(HERE / "interaction.csv", "\n".join([HEADER, *lines(success, shared)]) + "\n")


def by_seed(table: str) -> dict[str, dict[str, float]]:
    """Row -> seed -> success over its starts."""
    found: dict[str, dict[str, float]] = {}
    spec = load_table(table)
    for run in from_folder(spec, HERE.parent / spec.folder.name / "runs").runs:
        if run.episodes is not None:
            found.setdefault(run.row, {})[run.seed] = float(run.episodes.success.mean())
    return found


def lines(success: Mapping[str, Mapping[str, Mapping[str, float]]], rows: list[str]) -> Iterator[str]:
    """Reference minus row, of each kind of task, and how much more it is where tasks are many."""
    for row in rows:
        gaps = []
        for kind in TABLES:
            own, other = success[kind][REFERENCE], success[kind][row]
            seeds = sorted(own.keys() & other.keys())
            gaps.append(np.array([own[seed] - other[seed] for seed in seeds]))
        if min(map(len, gaps)) < 2:
            raise InvalidData("one training has no spread", where=row, do="train more seeds")
        found = welch(*gaps, confidence=0.95, margin=0.05)
        means = [gap.mean() for gap in gaps]
        numbers = (*means, means[0] - means[1], *found.interval, found.p)
        yield ",".join([row, *(str(len(gap)) for gap in gaps), *(f"{value:.4f}" for value in numbers)])


if __name__ == "__main__":
    main()
