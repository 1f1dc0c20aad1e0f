"""A CSV file with a row a measurement of a trained policy: what is there is not measured again."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml


def what(run: Path) -> dict[str, Any]:
    """Of a run's folder: head, chunk, steps and seed."""
    asked = yaml.safe_load((run / "config.yaml").read_text())
    model = asked["model"]
    told = {"head": model["network"].get("head", "discrete"), "chunk": model["processor"]["chunk"]}
    return told | {"steps": asked["steps"], "seed": asked["seed"]}


def add(file: Path, columns: Sequence[str], key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
    """Measure and file the row of `key`, which the first columns hold, unless it is there."""
    rows: list[dict[str, Any]] = list(csv.DictReader(file.open())) if file.is_file() else []
    named = {name: str(value) for name, value in key.items()}
    if any(named.items() <= row.items() for row in rows):
        return
    rows.append(named | measure())
    rows.sort(key=lambda row: [row[name] for name in columns[: len(key)]])
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
