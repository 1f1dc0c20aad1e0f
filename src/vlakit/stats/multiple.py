"""Many comparisons at once: Holm's correction and compact letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vlakit.errors import InvalidData


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: below alpha only where the chance of any false alarm is below alpha.

    Raises InvalidData for what is no p-value. Source: Holm, Scand. J. Stat. 6 (1979) 65.
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidData("a p-value is outside 0 to 1", where=str(list(p_values)), do="leave out what was not tested")
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, raised)
    return [float(value) for value in corrected]


def compact_letters(names: Sequence[str], different: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Letters for a table: two names share a letter exactly when they were not told apart. First names, first letters.

    Source: Piepho, J. Comput. Graph. Stat. 13 (2004) 456 (insert and absorb).
    >>> compact_letters(["full", "lora", "last"], [("full", "last")])
    {'full': 'a', 'lora': 'ab', 'last': 'b'}
    """
    columns = [set(names)]
    for one, other in different:
        if one == other or one not in names or other not in names:
            raise InvalidData(f"{one!r} and {other!r} are no pair of the names", where=str(list(names)))
        split = [part for column in columns for part in _split(column, one, other)]
        columns = [c for i, c in enumerate(split) if not _absorbed(c, i, split)]
    columns.sort(key=lambda column: sorted(names.index(name) for name in column))
    return {name: "".join(_letter(i) for i, column in enumerate(columns) if name in column) for name in names}


def _split(column: set[str], one: str, other: str) -> list[set[str]]:
    return [column - {one}, column - {other}] if {one, other} <= column else [column]


def _absorbed(column: set[str], place: int, columns: Sequence[set[str]]) -> bool:
    """Another column holds it; of equal ones the first stays."""
    return any(column < other or (column == other and i < place) for i, other in enumerate(columns))


def _letter(i: int) -> str:
    return chr(ord("a") + i % 26) + ("" if i < 26 else str(i // 26))
