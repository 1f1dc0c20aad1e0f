"""What the checkers share: a deviation, and one line an array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np


def by_spread(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the standard deviation (of one number: over itself); of integers, the share unequal."""
    if actual.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind in "bi":
        return float((actual != expected).mean())
    spread = (
        float(expected.std()) if expected.size > 1 and expected.std() > 0 else max(float(np.abs(expected).max()), 1e-8)
    )
    return float(np.abs(actual.astype(np.float64) - expected).max() / spread)


def judged(
    computed: Iterable[tuple[str, Any]],
    expected: Mapping[str, np.ndarray],
    is_given: Callable[[str], bool],
    tolerance: float,
) -> tuple[list[str], bool]:
    """One line an array, and whether all are within tolerance; an array that nothing computes is a failure."""
    lines, passed, done = [], True, set[str]()
    for name, value in computed:
        if name not in expected:
            continue
        error = by_spread(np.asarray(value), expected[name])
        passed &= error <= tolerance
        done.add(name)
        lines.append(f"{name} {error:.2e} {'ok' if error <= tolerance else 'FAIL'}")
    rest = sorted(name for name in expected if name not in done and not is_given(name))
    return [*lines, *(f"{name} nan FAIL" for name in rest)], passed and not rest
