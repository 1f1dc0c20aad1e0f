"""What some episodes of a dataset without a spec say of its columns: ranges, and what of the state an action moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from vlakit.data.source import Header, Source
from vlakit.data.survey import Survey
from vlakit.errors import VlakitError, one_line
from vlakit.schema import Float64

BINS = 16
LEAST_PAIRS = 8  # neighbouring steps, below which a correlation says nothing
_COUNTERS = {"timestamp", "frame_index", "episode_index", "index", "task_index", "step", "discount", "reward"}
_COUNTERS |= {
    "is_first",
    "is_last",
    "is_terminal",
    "next/done",
    "next/reward",
    "next/success",
    "done",
    "rewards",
    "dones",
}
_ENDS = 0.1  # of the range: values so near to an end lie at it
_RAMP = " .:-=+*#%@"
_MATRIX = 2  # dimensions of (T, D)
_MOST_COLUMNS = 256  # of a field; beyond it is no state


@dataclass(frozen=True, slots=True)
class Column:
    """Column `index` of a field over all steps read; counts: of BINS equal bins from low to high.

    values: how many differ; not_finite: NaN and infinite ones, which count nowhere else; ends: share at low and at
    high; starts_high: share of the episodes that begin in the upper half.
    """

    path: str
    index: int
    name: str
    low: float
    high: float
    q01: float
    median: float
    q99: float
    values: int
    not_finite: int
    counts: tuple[int, ...]
    ends: tuple[float, float]
    starts_high: float

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.path}[{self.index}]{f' {self.name}' if self.name else ''}"

    @property
    def two_ended(self) -> bool:
        """Whether it is nearly always at one of its ends, and at either now and then: as a gripper is."""
        return self.low < self.high and sum(self.ends) >= 0.8 and min(self.ends) >= 0.02

    @property
    def drawn(self) -> str:
        """Its histogram in ASCII, the darker the more."""
        most = max(self.counts, default=0) or 1
        return "".join(_RAMP[-(-count * (len(_RAMP) - 1) // most)] for count in self.counts)


@dataclass(frozen=True, slots=True)
class Motion:
    """The column of the state that an action's column goes with best, over neighbouring steps of an episode.

    change: correlation of the action with the state's change to the next step; next: with the state of the next step;
    gap: median distance of the action from that state, in deviations of the state.
    """

    column: int
    state: str
    change: float
    next: float
    gap: float

    @property
    def kind(self) -> str:
        """delta, absolute, or "" where neither stands out."""
        if abs(self.next) >= 0.9 and self.gap < 0.5 and abs(self.next) > abs(self.change):
            return "absolute"
        return "delta" if abs(self.change) >= 0.4 and abs(self.change) > abs(self.next) else ""


@dataclass(slots=True)
class Sampled:
    """Episodes as read. numbers: path -> (T, D) an episode; texts: path -> those that differ; problems: in words."""

    numbers: dict[str, list[Float64]] = field(default_factory=dict[str, Any])
    texts: dict[str, dict[str, None]] = field(default_factory=dict[str, Any])
    problems: list[str] = field(default_factory=list[str])
    n_episodes: int = 0

    def add(self, values: Mapping[str, Any]) -> None:
        """One episode's fields; what is neither a column of numbers nor text is left out."""
        self.n_episodes += 1
        for path, one in values.items():
            if isinstance(one, list) and one and isinstance(one[0], str | bytes):
                self.texts.setdefault(path, {}).update(dict.fromkeys(map(_text, one)))
            elif (array := _array(one)).dtype.kind in "fiub" and _column_like(array):
                self.numbers.setdefault(path, []).append(array.reshape(len(array), -1).astype(np.float64))


def sample(source: Source, survey: Survey, n_episodes: int) -> Sampled:
    """Up to `n_episodes` episodes spread over the source, without their pictures; one that cannot be read is named."""
    pictures = {path for key in survey.cameras for path in (key, f"observation/{key}")}
    wanted = [path for path in survey.fields if path not in pictures and path not in _COUNTERS]
    found, first = Sampled(), None
    for header in _spread(source, survey.n_episodes, n_episodes):
        try:
            found.add(source.read(header, wanted))
        except VlakitError as error:
            first = first or error
            found.problems.append(one_line(f"{header}: {error.what} ({error.where})"))
        if found.n_episodes == 1:
            wanted = [path for path in wanted if path in found.numbers or path in found.texts]
    if not found.n_episodes and first is not None:
        raise first
    return found


def columns(sampled: Sampled, path: str, names: Sequence[str] = ()) -> list[Column]:
    """Each column of a field of numbers; episodes of another width than the first count as a problem."""
    blocks = sampled.numbers.get(path, [])
    width = blocks[0].shape[1] if blocks else 0
    named = names if len(names) == width else [""] * width
    whole = [block for block in blocks if block.shape[1] == width and len(block)]
    return [_column(path, i, one_line(named[i]), [block[:, i] for block in whole]) for i in range(width) if whole]


def motions(sampled: Sampled, actions: Sequence[tuple[str, int]], states: Sequence[str]) -> list[Motion]:
    """For each action column (path, index) the state's column that it goes with best, where there are enough steps."""
    found: list[Motion] = []
    candidates = [(path, k) for path in states for k in range(sampled.numbers[path][0].shape[1])]
    for number, (path, index) in enumerate(actions):
        tried = [
            motion
            for state, k in candidates
            if (motion := _motion(number, f"{state}[{k}]", sampled.numbers[path], index, sampled.numbers[state], k))
        ]
        if tried:
            found.append(max(tried, key=lambda one: max(abs(one.change), abs(one.next))))
    return found


def _spread(source: Source, n_episodes: int, wanted: int) -> Iterator[Header]:
    """Every k-th header of all splits."""
    step = max(1, n_episodes // wanted)
    headers = (header for split in source.splits for header in source.headers(split))
    yield from islice(headers, 0, step * wanted, step)


def _column(path: str, index: int, name: str, blocks: Sequence[Float64]) -> Column:
    everything = np.concatenate(blocks)
    values = everything[np.isfinite(everything)]
    bad = len(everything) - len(values)
    values = values if len(values) else np.zeros(1)
    low, high = float(values.min()), float(values.max())
    q01, median, q99 = np.quantile(values, (0.01, 0.5, 0.99)).tolist()
    counts = np.histogram(values, BINS, (low, high) if low < high else (low - 0.5, low + 0.5))[0]
    edge = _ENDS * (high - low)
    ends = float((values <= low + edge).mean()), float((values >= high - edge).mean())
    starts = float(np.mean([block[0] > (low + high) / 2 for block in blocks]))
    distinct = len(np.unique(values))
    return Column(path, index, name, low, high, q01, median, q99, distinct, bad, tuple(counts.tolist()), ends, starts)


def _motion(
    number: int, state: str, actions: Sequence[Float64], index: int, states: Sequence[Float64], k: int
) -> Motion | None:
    """None where too few steps have a next one, or one of the two never changes."""
    pairs = [
        (a[:-1, index], s[:-1, k], s[1:, k]) for a, s in zip(actions, states, strict=False) if _fit(a, s, index, k)
    ]
    done, now, then = (np.concatenate(parts) for parts in zip(*pairs, strict=True)) if pairs else [np.zeros(0)] * 3
    usable = np.isfinite(done) & np.isfinite(now) & np.isfinite(then)
    done, now, then = done[usable], now[usable], then[usable]
    if len(done) < LEAST_PAIRS or done.std() == 0 or then.std() == 0:
        return None
    gap = float(np.median(np.abs(done - then)) / then.std())
    return Motion(number, state, _correlation(done, then - now), _correlation(done, then), gap)


def _fit(action: Float64, state: Float64, index: int, k: int) -> bool:
    return len(action) == len(state) and index < action.shape[1] and k < state.shape[1]


def _correlation(a: Float64, b: Float64) -> float:
    return 0.0 if a.std() == 0 or b.std() == 0 else float(np.corrcoef(a, b)[0, 1])


def _array(values: Any) -> np.ndarray:
    """An array, of no usable kind where the values have no common shape."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None)


def _column_like(array: np.ndarray) -> bool:
    return 0 < array.ndim <= _MATRIX and array[:1].size <= _MOST_COLUMNS


def _text(value: Any) -> str:
    return one_line(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
