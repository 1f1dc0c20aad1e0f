"""Seconds of a training step from cached tower features beside the same step without, at the shape of bench.py.

One process, two threads; the two steps take turns, minimum of --repeats. Their losses must be equal.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from seeded_model import loaded
from shape import BATCH, DATASET, LEARNING_RATE, inputs, write_config

from vlakit.schema import Batch, TextBatch
from vlakit.strategies.feature_cache import FeatureCache
from vlakit.strategies.frozen_vision import FrozenVision
from vlakit.strategies.last_layer import LastLayer
from vlakit.strategies.optim import parameter_groups
from vlakit.strategies.trainable import train_only

GOAL = 1.6
COLUMNS = ("strategy", "uncached_s", "cached_s", "ratio", "goal", "largest_loss_difference")


class Run:
    """A model with its optimizer; `cache` None runs the towers."""

    def __init__(self, fixture: Path, folder: Path, trainable: tuple[str, ...], *, cached: bool) -> None:
        self.model, _ = loaded(fixture, folder)
        train_only(self.model.train(), trainable)
        datasets = {DATASET: ("none", BATCH)}
        self.cache = FeatureCache(folder / "features", self.model, datasets, {}) if cached else None
        groups = parameter_groups(self.model, decay_norms_and_biases=True)
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.0, fused=True)

    def step(self, batch: Batch) -> tuple[float, float]:
        """Seconds and loss of one step."""
        start = time.perf_counter()
        if self.cache is not None:
            batch = replace(batch, features=self.cache.features(batch))
        loss = self.model.answers(batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start, loss.item()


def measure(fixture: Path, trainable: tuple[str, ...], repeats: int) -> tuple[float, float, float]:
    """Least seconds without and with the cache, and the largest difference of their losses."""
    given = inputs()
    ids, nothing = given["input_ids"], torch.zeros(BATCH, 1, 7)
    batch = Batch(
        pixels={"primary": given["pixel_values"][:, None]},
        window_mask=torch.ones(BATCH, 1, dtype=torch.bool),
        datasets=[DATASET] * BATCH,
        action_shape=(1, 7),
        text=TextBatch(ids, torch.ones_like(ids), given["labels"]),
        actions=nothing,
        normalized=nothing,
        chunk_mask=torch.ones(BATCH, 1, dtype=torch.bool),
        keys=[""] * BATCH,
        rows=list(range(BATCH)),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_config(fixture, Path(folder))
        runs = [Run(fixture, Path(folder), trainable, cached=cached) for cached in (False, True)]
        steps = [[run.step(batch) for run in runs] for _ in range(repeats + 1)]
    difference = max(abs(without[1] - stored[1]) for without, stored in steps)
    least = [min(pair[side][0] for pair in steps[1:]) for side in (0, 1)]  # the first step fills the cache
    return least[0], least[1], difference


def main() -> None:
    """Measure both strategies, write cached.csv; fail where losses differ or the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixture", type=Path, required=True, metavar="DIR", help="config.json, seeded_weights.py")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    rows: list[list[object]] = []
    for kind in (FrozenVision, LastLayer):
        without, stored, difference = measure(chosen.fixture, tuple(kind.trainable), chosen.repeats)
        ratio = round(without / stored, 3)
        rows.append([kind.name, round(without, 3), round(stored, 3), ratio, GOAL, difference])
        print(", ".join(map(str, rows[-1])), flush=True)
    with (Path(__file__).parent / "cached.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    missed = [row[0] for row in rows if float(str(row[3])) < GOAL or row[5]]
    if missed:
        raise SystemExit(f"below the goal, or other losses: {missed}")


if __name__ == "__main__":
    main()
