"""Dataset maps: how sure a training was of each demonstration's labels, epoch by epoch.

A map is made with all labels: it diagnoses a pool, it cannot choose before labels are there.
Source: Swayamdipta et al. 2020; correctness, buckets and ranks as in "Mind Your Outliers".
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from vlakit.compare.grids import csv_lines
from vlakit.errors import ConfigError, CorruptRecord, InvalidData, nearest
from vlakit.files import write_atomically
from vlakit.schema import Bool, Float64, Int64

BUCKETS = (("easy", 0.75), ("medium", 0.5), ("hard", 0.25), ("impossible", 0.0))  # from this correctness on
_COLUMNS = ("id", "confidence", "variability", "correctness", "bucket")


@dataclass(frozen=True)
class DatasetMap:
    """ids (N,), and over the epochs: mean and population standard deviation of p(label), share of hits; each (N,)."""

    ids: Int64
    confidence: Float64
    variability: Float64
    correctness: Float64

    @classmethod
    def of(cls, ids: Sequence[int] | Int64, p_gold: np.ndarray, hits: np.ndarray) -> DatasetMap:
        """From (E, N) probability of the label and hit share at each epoch. Raises InvalidData for none, or NaN."""
        if p_gold.shape != hits.shape or p_gold.ndim != 2 or not len(p_gold) or np.isnan(p_gold).any():
            raise InvalidData(
                f"epochs of shape {p_gold.shape} and {hits.shape}, NaN in {int(np.isnan(p_gold).sum())}",
                where="dataset map",
                do="train at least one whole epoch over the pool: every demonstration must be met in each",
            )
        return cls(np.asarray(ids, np.int64), p_gold.mean(axis=0), p_gold.std(axis=0), hits.mean(axis=0))

    @property
    def buckets(self) -> list[str]:
        """(N,) easy, medium, hard or impossible, by correctness; "unknown" where no token accuracy was measured."""
        return [next((name for name, least in BUCKETS if value >= least), "unknown") for value in self.correctness]

    def ranked(self, by: str = "correctness") -> Int64:
        """The ids, from what is kept longest to what is dropped first; ties by id. Raises ConfigError."""
        order = np.lexsort((self.ids, -rank_of(self, by)))
        return self.ids[order]

    def dropped(self, share: float, by: str = "conf_x_var") -> Int64:
        """The ids of the lowest `share` of the map, rounded down."""
        n_dropped = int(share * len(self.ids) + 1e-9)
        return np.sort(self.ranked(by)[len(self.ids) - n_dropped :])

    def save(self, path: Path) -> None:
        """As CSV, one line a demonstration; numbers read back to the bit."""
        numbers = (values.tolist() for values in (self.ids, self.confidence, self.variability, self.correctness))
        write_atomically(path, csv_lines([_COLUMNS, *zip(*numbers, self.buckets, strict=True)]) + "\n")

    @classmethod
    def load(cls, path: Path) -> DatasetMap:
        """What `save` wrote. Raises CorruptRecord."""
        try:
            rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            numbers = [np.array([float(row[name]) for row in rows]) for name in _COLUMNS[1:4]]
            return cls(np.array([int(row["id"]) for row in rows], np.int64), *numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptRecord(
                f"no dataset map: {error!r}", where=str(path), do=f"a CSV with the columns {', '.join(_COLUMNS)}"
            ) from error


RANKS: Mapping[str, Callable[[DatasetMap], Float64]] = {
    "conf_x_var": lambda known: known.confidence * known.variability,
    "correctness": lambda known: known.correctness,
    "confidence": lambda known: known.confidence,
    "variability": lambda known: known.variability,
}


def rank_of(known: DatasetMap, by: str) -> Float64:
    """(N,) what a map is ranked by. Raises ConfigError."""
    if by not in RANKS:
        raise ConfigError(f"no rank called {by!r}", where="rank_by", do=nearest(by, RANKS))
    rank = RANKS[by](known)
    if np.isnan(rank).any():
        raise InvalidData(
            f"the map knows no {by}: its network answers without tokens", where="rank_by", do="rank_by=conf_x_var"
        )
    return rank


def auroc(scores: np.ndarray, flags: Bool | Sequence[bool]) -> float:
    """Chance that a flagged item has the larger score than an unflagged one, ties half. Raises InvalidData.

    >>> auroc(np.array([1.0, 2, 3, 4]), [False, False, True, True])
    1.0
    """
    flagged = np.asarray(flags, bool)
    n, m = int(flagged.sum()), int((~flagged).sum())
    if not n or not m:
        raise InvalidData(
            f"{n} outliers and {m} others", where="AUROC", do="it needs both: a pool with and without outliers in it"
        )
    return float((rankdata(scores)[flagged].sum() - n * (n + 1) / 2) / (n * m))
