"""Which episode goes to which split, decided from headers alone before any episode is decoded.

A shipped `val` split may repeat `train` (the Bridge sample does), so it is trusted only for what train lacks.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from vlakit.data.source import Header, Source
from vlakit.errors import InvalidData

log = logging.getLogger(__name__)
HELD_BACK = ("val", "validation", "test")  # the first of these that the source has becomes val


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """Where every episode of a source goes; `rule` says in words how that was decided.

    held_out: keys of train episodes that become val. dropped: numbers of val episodes that train also holds.
    """

    rule: str
    validation: str | None  # the source split that val is read from; "train" when held out of it
    held_out: frozenset[int] = frozenset()
    dropped: frozenset[int] = frozenset()

    def headers(self, source: Source, split: str) -> Iterator[Header]:
        """The episodes of an output split, in the order of the source."""
        if split == "val" and self.validation != "train":
            shipped = source.headers(self.validation) if self.validation else iter(())
            yield from (header for number, header in enumerate(shipped) if number not in self.dropped)
            return
        for header in source.headers("train"):
            if (header.key in self.held_out) == (split == "val"):
                yield header


def plan_splits(source: Source, val_fraction: float) -> SplitPlan:
    """Assign every episode of `source` to train or val; raises InvalidData without a non-empty train split."""
    keys = array("Q", (header.key for header in source.headers("train")) if "train" in source.splits else ())
    if not keys:
        raise InvalidData(
            f"no train episodes (splits: {', '.join(sorted(source.splits)) or 'none'})",
            where=str(source.path),
            do="give the folder that holds the *-train.tfrecord-* files",
        )
    shipped = [name for name in HELD_BACK if name in source.splits]
    if not shipped:
        return _hold_out(keys, val_fraction, "the source has no val split")
    name, unused = shipped[0], sorted(set(source.splits) - {"train", shipped[0]})
    total, dropped = _repeated(source, name)
    if len(dropped) == total:
        log.warning("the source's %s repeats train (%d episodes): a part of train is held out instead", name, total)
    elif dropped:
        log.warning("%d of %d episodes of %s are also in train: dropped from val", len(dropped), total, name)
    if unused:
        log.warning("splits left unread: %s", ", ".join(unused))
    if len(dropped) == total:
        return _hold_out(keys, val_fraction, f"all {total} episodes of {name} are also in train")
    rule = f"val is the source's {name}, less {len(dropped)} of its {total} episodes that train also holds"
    return SplitPlan(rule, name, dropped=dropped)


def _hold_out(keys: array[int], val_fraction: float, reason: str) -> SplitPlan:
    """Hold out by hash, so that the choice survives reordering; copies of one episode stay on one side."""
    distinct, copies = np.unique(np.frombuffer(keys, np.uint64), return_counts=True)
    n = len(distinct)
    n_held = max(round(val_fraction * n), 1) if n >= 2 and val_fraction > 0 else 0
    n_held = min(n_held, max(n - 1, 0))
    digests = [sha256(f"{int(key) >> 32}-{int(key) & 0xFFFFFFFF}".encode()).digest() for key in distinct]
    chosen = sorted(range(n), key=digests.__getitem__)[:n_held]
    n_val = int(copies[chosen].sum()) if chosen else 0
    rule = f"{reason}; {n_val} of {len(keys)} train episodes held out by smallest sha256 of length-crc"
    held_out = frozenset(int(distinct[index]) for index in chosen)
    return SplitPlan(rule, "train" if n_held else None, held_out=held_out)


def _repeated(source: Source, split: str) -> tuple[int, frozenset[int]]:
    """Count the episodes of a held-back split, and number those that train also holds."""
    wanted = {header.key for header in source.headers(split)}
    twins: dict[int, list[Header]] = {}
    for header in source.headers("train"):
        if header.key in wanted and len(twins.get(header.key, ())) < 2:
            twins.setdefault(header.key, []).append(header)
    total, dropped = 0, set[int]()
    for number, header in enumerate(source.headers(split)):
        total += 1
        if any(source.same(header, twin) for twin in twins.get(header.key, ())):
            dropped.add(number)
    return total, frozenset(dropped)
