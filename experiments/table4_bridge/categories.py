"""Success and credit by category, of Tables 4 and 6 from their runs/: python experiments/table4_bridge/categories.py

Writes categories.csv. Intervals: Wilson over starts, 95 %; of credit the mean alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlakit.compare.grids import csv_lines
from vlakit.files import write_atomically
from vlakit.reports.tables.folder import from_folder
from vlakit.reports.tables.spec import load_table
from vlakit.stats.intervals import wilson

HERE = Path(__file__).resolve().parent
TABLES = {"table4": HERE, "table6": HERE.parent / "table6_google_robot"}


def main() -> None:
    """A row a table, policy and category."""
    lines: list[list[object]] = [["table", "row", "category", "n", "success", "low", "high", "credit"]]
    for table, folder in TABLES.items():
        for run in sorted(from_folder(load_table(table), folder / "runs").runs, key=lambda run: run.row):
            if run.episodes is None:
                continue
            categories = np.array([start.task.partition("/")[0] for start in run.episodes.starts])
            for category in np.unique(categories):
                success, credit = (
                    marks[categories == category] for marks in (run.episodes.success, run.episodes.credit)
                )
                n, won = len(success), int(success.sum())
                numbers = (won / n, *wilson(won, n), credit.mean())
                lines.append([table, run.row, category, n, *(f"{number:.3f}" for number in numbers)])
    write_atomically(HERE / "categories.csv", csv_lines(lines) + "\n")


if __name__ == "__main__":
    main()
