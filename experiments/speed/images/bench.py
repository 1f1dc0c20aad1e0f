"""Milliseconds on one core: Lanczos3 to 224 px beside Pillow's, and the training augmentation, in one run.

Minimum of --repeats calls, those that are compared taken in turns.
"""

from __future__ import annotations

import argparse
import csv
import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vlakit.processing.augment import Augmentation
from vlakit.processing.images import decode_jpeg, encode_jpeg, jpeg_round_trip, lanczos

SIZE = 224
SOURCES = ((64, 64), (256, 256), (480, 640))
COLUMNS: tuple[str, ...] = ("operation", "input", "vlakit_ms", "other", "other_ms", "ratio")


def best(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least milliseconds of each function; they take turns, so that a disturbance meets all."""
    times = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name] = min(times[name], 1000 * (time.perf_counter() - start))
    return times


def resize_rows(repeats: int) -> list[dict[str, str | float]]:
    """Lanczos from every source size; Pillow's image is made beforehand, its result turned to an array."""
    rows: list[dict[str, str | float]] = []
    for height, width in SOURCES:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(image)
        times = best(
            {
                "vlakit": lambda image=image: lanczos(image, SIZE, SIZE),
                "Pillow": lambda picture=picture: np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)),
            },
            repeats,
        )
        rows.append(row("lanczos", f"{height}x{width}", times["vlakit"], "Pillow", times["Pillow"]))
    return rows


def row(operation: str, size: str, ours: float, other: str, theirs: float) -> dict[str, str | float]:
    """One line of the table; a ratio above 1 says that vlakit is faster."""
    return dict(
        zip(COLUMNS, (operation, size, round(ours, 3), other, round(theirs, 3), round(theirs / ours, 2)), strict=True)
    )


def alone_rows(repeats: int) -> list[dict[str, str | float]]:
    """Operations without a counterpart in Pillow."""
    square = lanczos(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8), SIZE, SIZE)
    augment, data = Augmentation(), encode_jpeg(square)
    times = best(
        {
            "augmentation": lambda: augment(square, seed=0, position=1),
            "decode": lambda: decode_jpeg(data),
            "jpeg_round_trip": lambda: jpeg_round_trip(square),
        },
        repeats,
    )
    size = f"{SIZE}x{SIZE}"
    return [{"operation": name, "input": size, "vlakit_ms": round(value, 3)} for name, value in times.items()]


def main() -> None:
    """Measure once on one core, write results.csv, fail where Pillow is faster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    chosen = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = resize_rows(chosen.repeats)
    n_compared = len(rows)
    rows += alone_rows(chosen.repeats)
    with (Path(__file__).parent / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for line in rows:
        print(", ".join(str(line.get(column, "")) for column in COLUMNS))
    if any(float(line["ratio"]) < 1 for line in rows[:n_compared]):
        raise SystemExit("Pillow is faster")


if __name__ == "__main__":
    main()
