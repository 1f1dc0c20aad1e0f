"""Which episode goes to which split, decided from record headers alone before any payload is decoded.

A shipped `val` split may repeat `train` (the Bridge sample does), so it is trusted only for what train lacks.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from vlakit.data.rlds.reader import RecordHeader, RldsFolder, read_record, record_headers
from vlakit.errors import InvalidData

log = logging.getLogger(__name__)
HELD_BACK = ("val", "validation", "test")  # the first of these that the source has becomes val


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """Where every record of a source goes; `rule` says in words how that was decided.

    held_out: (length, crc) packed in one number, of train records that become val. dropped: (file name, record number)
    of val records that train also holds.
    """

    rule: str
    validation: str | None  # the source split that val is read from; "train" when held out of it
    n_records: dict[str, int]  # output split -> records
    held_out: frozenset[int] = frozenset()
    dropped: frozenset[tuple[str, int]] = field(default_factory=frozenset)

    def records(self, source: RldsFolder, split: str) -> Iterator[RecordHeader]:
        """The record headers of an output split, in the order of the source."""
        if split == "val" and self.validation != "train":
            named = self.validation
            headers = _headers(source.splits[named]) if named else iter(())
            yield from (h for h in headers if (h.file.name, h.index) not in self.dropped)
            return
        wanted = split == "val"
        for header in _headers(source.splits["train"]):
            if (pack(header) in self.held_out) == wanted:
                yield header


def survey(source: RldsFolder, val_fraction: float) -> SplitPlan:
    """Assign every record of `source` to train or val; raises InvalidData without a non-empty train split."""
    packed = _packed(source.splits.get("train", []))
    if not len(packed):
        raise InvalidData(
            f"no train episodes (splits: {', '.join(sorted(source.splits)) or 'none'})",
            where=str(source.path),
            do="give the folder that holds the *-train.tfrecord-* files",
        )
    shipped = [name for name in HELD_BACK if source.splits.get(name)]
    if not shipped:
        return _hold_out(packed, val_fraction, "the source has no val split")
    name, unused = shipped[0], sorted(set(source.splits) - {"train", shipped[0]})
    total, dropped = _repeated(source.splits["train"], source.splits[name])
    if dropped:
        log.warning("%d of %d episodes of %s are also in train: dropped from val", len(dropped), total, name)
    if unused:
        log.warning("splits left unread: %s", ", ".join(unused))
    if len(dropped) == total:
        return _hold_out(packed, val_fraction, f"all {total} episodes of {name} are also in train")
    rule = f"val is the source's {name}, less {len(dropped)} of its {total} episodes that train also holds"
    counts = {"train": len(packed), "val": total - len(dropped)}
    return SplitPlan(rule, name, counts, dropped=dropped)


def pack(header: RecordHeader) -> int:
    """The (length, crc) of a record as one number below 2**64: eight bytes an episode, however many there are."""
    return (header.length << 32 | header.crc) & 0xFFFFFFFFFFFFFFFF


def _headers(files: Sequence[Path]) -> Iterator[RecordHeader]:
    for file in files:
        yield from record_headers(file)


def _packed(files: Sequence[Path]) -> array[int]:
    return array("Q", (pack(header) for header in _headers(files)))


def _hold_out(packed: array[int], val_fraction: float, reason: str) -> SplitPlan:
    """Hold out by hash, so that the choice survives reordering; copies of one episode stay on one side."""
    distinct, copies = np.unique(np.frombuffer(packed, np.uint64), return_counts=True)
    n = len(distinct)
    n_held = max(round(val_fraction * n), 1) if n >= 2 and val_fraction > 0 else 0
    n_held = min(n_held, max(n - 1, 0))
    digests = [sha256(f"{int(key) >> 32}-{int(key) & 0xFFFFFFFF}".encode()).digest() for key in distinct]
    chosen = sorted(range(n), key=digests.__getitem__)[:n_held]
    n_val = int(copies[chosen].sum()) if chosen else 0
    rule = f"{reason}; {n_val} of {len(packed)} train episodes held out by smallest sha256 of length-crc"
    counts = {"train": len(packed) - n_val, "val": n_val}
    held_out = frozenset(int(distinct[index]) for index in chosen)
    return SplitPlan(rule, "train" if n_held else None, counts, held_out=held_out)


def _repeated(train: Sequence[Path], val: Sequence[Path]) -> tuple[int, frozenset[tuple[str, int]]]:
    """Count the val records, and name those whose bytes train also holds."""
    wanted = {pack(header) for header in _headers(val)}
    twins: dict[int, list[RecordHeader]] = {}
    for header in _headers(train):
        if (key := pack(header)) in wanted and len(twins.get(key, ())) < 2:
            twins.setdefault(key, []).append(header)
    total, dropped = 0, set[tuple[str, int]]()
    for header in _headers(val):
        total += 1
        candidates = twins.get(pack(header), [])
        if candidates and _same_bytes(header, candidates):
            dropped.add((header.file.name, header.index))
    return total, frozenset(dropped)


def _same_bytes(header: RecordHeader, candidates: Sequence[RecordHeader]) -> bool:
    payload = read_record(header)
    return any(read_record(candidate) == payload for candidate in candidates)
