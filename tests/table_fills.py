"""Tables filled without a store, for the tests of tables: rates of success in, runs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vlakit.compare.episodes import Episodes, Start
from vlakit.reports.tables.runs import Filled, TableRun

VERSIONS = {"mujoco": "3.3.0", "renderer": "egl"}


def episodes(row: str, seed: int, credit: Sequence[float]) -> Episodes:
    """One evaluation with these credits, two tasks taking turns."""
    starts = [Start("tabletop_target", ("lift", "push")[i % 2], f"s{i:03d} seed {i}") for i in range(len(credit))]
    values = np.array(credit, np.float64)
    digest = f"{row}{seed}{hash(tuple(credit))}"
    return Episodes(row, Path(row), starts, values == 1, values, digest, str(seed), states="1f", versions=VERSIONS)


def filled(rates: Mapping[str, float], n: int = 200, seeds: Sequence[int] = (0, 1, 2)) -> Filled:
    """Rows with these rates: states differ in difficulty and are shared, so that outcomes go together."""
    hardness = np.random.default_rng(7).random(n)
    runs: list[TableRun] = []
    for place, (row, rate) in enumerate(rates.items()):
        for seed in seeds:
            luck = np.random.default_rng([place, seed]).normal(0, 0.1, n)
            credit = (hardness + luck < rate).astype(float).tolist()
            metrics = {"params/trainable": 1e6 * (place + 1), "memory/peak_bytes": 1e9 + seed}
            runs.append(TableRun(f"{row}-{seed}", row, str(seed), metrics, episodes(row, seed, credit), commit="abc"))
    return Filled(runs, [])
