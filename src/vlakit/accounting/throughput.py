"""Rates that decide a run's length: frames a second out of the loader, samples a second through a training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from vlakit.schema import Batch

T = TypeVar("T")


def batches_per_second(batches: Iterable[T], n_batches: int, *, warm_up: int, use: Callable[[T], object]) -> float:
    """Batches a second of drawing `n_batches` and giving each to `use`, after `warm_up` that do not count."""
    iterator: Iterator[T] = iter(batches)
    for batch in islice(iterator, warm_up):
        use(batch)
    started = time.perf_counter()
    for batch in islice(iterator, n_batches):
        use(batch)
    return n_batches / (time.perf_counter() - started)


def frames_per_second(batches: Iterable[Batch], n_batches: int = 50, warm_up: int = 5) -> float:
    """Frames a second that a loader of equal batches delivers when nobody else works."""
    sizes: list[int] = []
    return batches_per_second(batches, n_batches, warm_up=warm_up, use=lambda b: sizes.append(len(b))) * max(sizes)
