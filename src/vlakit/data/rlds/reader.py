"""RLDS folders without TensorFlow: which files belong to a split, their records, and each record as one episode.

TFDS stores an episode as one tf.train.Example: every step field is a single list, all steps one after another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlakit.data.rlds.example import index_example
from vlakit.data.rlds.features import Features, Leaf
from vlakit.data.rlds.folder import RldsFolder, open_rlds
from vlakit.data.rlds.images import decode_image
from vlakit.data.rlds.leaves import Spans, decode_leaf
from vlakit.data.rlds.tfrecord import RecordHeader, read_record, read_records, record_headers
from vlakit.errors import CorruptRecord, FeatureMissing, UnknownName, VlakitError, nearest

__all__ = [
    "Episode",
    "RecordHeader",
    "RldsFolder",
    "decode_image",
    "open_rlds",
    "parse_episode",
    "read_record",
    "read_records",
    "record_headers",
]


@dataclass(frozen=True, slots=True)
class Episode:
    """One demonstration as stored. steps: path below steps -> T values; metadata: full path -> one value.

    Numbers are (T, ...) arrays of the declared dtype (bfloat16 as float32); images and strings are T `bytes`,
    videos and sequences T lists; what varies in shape from step to step is a list of T arrays.
    """

    steps: dict[str, np.ndarray | list[Any]]
    metadata: dict[str, Any]
    n_steps: int


def parse_episode(
    payload: bytes, features: Features, *, where: str = "", only: Collection[str] | None = None
) -> Episode:
    """Decode one record; `only` names the step paths to decode, the others cost nothing.

    where: what errors name, best `f"{header.file}, record {header.index}, byte {header.offset}"`. Raises
    FeatureMissing when the record lacks a declared feature, CorruptRecord when it is not what features.json declares.
    """
    try:
        spans = index_example(payload)
    except CorruptRecord as error:
        raise _located(error, where) from None
    wanted = features.steps if only is None else _chosen(features, only, where)
    known: dict[str, Any] = {}
    n_steps: int | None = None
    for path, leaf in wanted.items():
        if not leaf.open_ended:
            known[path] = _decode(leaf, spans, None, where)
            n_steps = _same_length(leaf, len(known[path]), n_steps, where)
    if n_steps is None:
        n_steps = _count_steps(features.steps.values(), spans, where)
    steps = {path: known[path] if path in known else _decode(wanted[path], spans, n_steps, where) for path in wanted}
    metadata = {path: _decode(leaf, spans, None, where) for path, leaf in features.metadata.items()}
    return Episode(steps, metadata, n_steps)


def _decode(leaf: Leaf, spans: Spans, count: int | None, where: str) -> Any:
    try:
        return decode_leaf(leaf, spans, count)
    except (CorruptRecord, FeatureMissing) as error:
        raise _located(error, f"{where}, {leaf.key}" if where else leaf.key) from None


def _located(error: VlakitError, where: str) -> VlakitError:
    remedy = error.do or "fetch the file again; if it stays so, its features.json belongs to another version"
    return type(error)(error.what, where=where, do=remedy)


def _same_length(leaf: Leaf, n_steps: int, others: int | None, where: str) -> int:
    if others is not None and n_steps != others:
        message = f"{leaf.key} holds {n_steps} steps, other features {others}"
        raise _located(CorruptRecord(message), where)
    return n_steps


def _count_steps(leaves: Iterable[Leaf], spans: Spans, where: str) -> int:
    for leaf in leaves:
        if not leaf.open_ended:
            return len(_decode(leaf, spans, None, where))
    return 0


def _chosen(features: Features, only: Collection[str], where: str) -> dict[str, Leaf]:
    for path in only:
        if path not in features.steps:
            known = [*features.steps, *features.metadata]
            raise UnknownName(f"the dataset's steps have no {path!r}", where=where, do=nearest(path, known))
    return {path: leaf for path, leaf in features.steps.items() if path in only}
