"""Success and credit by category, of Tables 4 and 6 from their runs/: python experiments/table4_bridge/categories.py

Writes categories.csv. Intervals: Wilson over starts, 95 %; of credit the mean alone.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from vlakit.compare.grids import csv_lines
from vlakit.files import write_atomically
from vlakit.stats.intervals import wilson

HERE = Path(__file__).resolve().parent
TABLES = {"table4": HERE, "table6": HERE.parent / "table6_google_robot"}


def main() -> None:
    """A row a table, policy and category."""
    lines: list[list[object]] = [["table", "row", "category", "n", "success", "low", "high", "credit"]]
    for table, folder in TABLES.items():
        found: defaultdict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
        for file in sorted((folder / "runs").glob("*.csv")):
            with file.open(encoding="utf-8", newline="") as stream:
                for line in csv.DictReader(stream):
                    if "task" in line:
                        category = line["task"].partition("/")[0]
                        found[line["experiment"], category].append((int(line["success"]), float(line["credit"])))
        for (row, category), outcomes in found.items():
            n, won, credit = len(outcomes), sum(o[0] for o in outcomes), sum(o[1] for o in outcomes)
            numbers = (won / n, *wilson(won, n), credit / n)
            lines.append([table, row, category, n, *(f"{number:.3f}" for number in numbers)])
    write_atomically(HERE / "categories.csv", csv_lines(lines) + "\n")


if __name__ == "__main__":
    main()
