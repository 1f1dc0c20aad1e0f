"""What all frames of a shard folder hold, counted shard after shard: actions beside their bounds, lengths, wording."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations

import numpy as np

from vlakit.data.shards.columns import open_columns
from vlakit.data.shards.reader import ShardFolder
from vlakit.errors import printable
from vlakit.schema import Bool, Float32, Float64, Int64

BINS = 48
ALIKE = 0.88  # of the letters of two instructions, from which on they may be one
MOST_COMPARED = 300  # instructions: 45,000 pairs


@dataclass(frozen=True, slots=True)
class Summary:
    """Over the n frames of all splits. counts (A, BINS): of equal bins from `low` to `high` (A,).

    outside (A,): share of frames beyond the bounds of a normalised column; lost (A,): how far the furthest lies beyond
    them; error, worst (A,): mean and largest distance of an action from what its learnt form comes back as. lengths:
    frames of each episode; instructions: text -> episodes that begin with it, the most frequent first.
    """

    n_frames: int
    low: Float64
    high: Float64
    counts: Int64
    outside: Float64
    lost: Float64
    error: Float64
    worst: Float64
    lengths: Int64
    instructions: dict[str, int]


@dataclass(frozen=True, slots=True)
class Alike:
    """Two instructions that may be one; differ: in words, what sets them apart."""

    a: str
    b: str
    differ: str


def summarize(
    folder: ShardFolder, bounds: tuple[Float64, Float64], mask: Bool, round_trip: Callable[[Float32], Float32]
) -> Summary:
    """bounds (A,) each: what becomes -1 and +1 in the columns of `mask`; round_trip: actions learnt and taken back."""
    statistics, n = folder.statistics, 0
    low, high, size = statistics.min, statistics.max, len(statistics.min)
    below, above = np.where(mask, bounds[0], -np.inf), np.where(mask, bounds[1], np.inf)
    counts, outside = np.zeros((size, BINS), np.int64), np.zeros(size)
    lost, error, worst = np.zeros(size), np.zeros(size), np.zeros(size)
    said: Counter[str] = Counter()
    for action, texts in _blocks(folder):
        n += len(action)
        counts += np.stack([_counted(action[:, i], low[i], high[i]) for i in range(size)])
        beyond = np.maximum(np.maximum(below - action, action - above), 0)
        outside += (beyond > 0).sum(axis=0)
        lost = np.maximum(lost, beyond.max(axis=0))
        apart = np.abs(round_trip(action) - action)
        error += apart.sum(axis=0, dtype=np.float64)
        worst = np.maximum(worst, apart.max(axis=0))
        said.update(texts)
    lengths = np.array([n_frames for shard in folder.index.shards for _, n_frames in shard.episodes], np.int64)
    return Summary(n, low, high, counts, outside / n, lost, error / n, worst, lengths, dict(said.most_common()))


def near_duplicates(texts: Sequence[str]) -> list[Alike]:
    """Pairs among the first MOST_COMPARED texts that differ in little more than case, punctuation or a word."""
    found = list[Alike]()
    plain = {text: " ".join(re.findall(r"\w+", text.casefold())) for text in texts[:MOST_COMPARED]}
    for a, b in combinations(plain, 2):
        if plain[a] == plain[b]:
            found.append(Alike(a, b, "case, spaces or punctuation"))
        elif _similar(plain[a], plain[b]):
            found.append(Alike(a, b, _words_apart(plain[a], plain[b])))
    return found


def _blocks(folder: ShardFolder) -> Iterator[tuple[Float32, list[str]]]:
    """Actions (n, A) of each shard, and the first instruction of each of its episodes."""
    for entry in folder.index.shards:
        rows = open_columns(folder.path, entry, folder.index.cameras, folder.index.proprio)
        if len(rows):
            firsts = np.cumsum([0, *(n_frames for _, n_frames in entry.episodes)])[:-1]
            texts = [printable(text.decode()) for text in rows["instruction"][firsts[firsts < len(rows)]].tolist()]
            yield np.asarray(rows["action"]), texts


def _counted(values: Float32, low: float, high: float) -> Int64:
    limits = (low, high) if low < high else (low - 0.5, low + 0.5)
    return np.histogram(np.clip(values, *limits), BINS, limits)[0]


def _similar(a: str, b: str) -> bool:
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    return all(ratio() >= ALIKE for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio))


def _words_apart(a: str, b: str) -> str:
    """The words of which only one has each.

    >>> _words_apart("lift the red pot", "lift the pots")
    'red pot / pots'
    """
    first, second = a.split(), b.split()
    parts = SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    left = [word for kind, i, j, _, _ in parts if kind != "equal" for word in first[i:j]]
    right = [word for kind, _, _, i, j in parts if kind != "equal" for word in second[i:j]]
    return f"{' '.join(left) or 'nothing'} / {' '.join(right) or 'nothing'}"
