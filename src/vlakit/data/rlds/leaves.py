"""Values of one leaf of an episode, as TFDS would return them, but for images and text, which stay bytes.

A record holds a leaf flat, all steps in one list: the shape comes from features.json, the rest from row lengths.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from vlakit.data.rlds.example import (
    FLOAT,
    INT64,
    LIST_NAMES,
    FeatureSpan,
    read_byte_strings,
    read_floats,
    read_integers,
)
from vlakit.data.rlds.features import Leaf, Shape
from vlakit.errors import CorruptRecord, FeatureMissing
from vlakit.schema import Float32, Int64

Spans: TypeAlias = Mapping[bytes, FeatureSpan]
Items: TypeAlias = "np.ndarray | list[Any]"  # N items of one leaf, whatever the nesting above them

_TOO_LONG = 1 << 31


def decode_leaf(leaf: Leaf, spans: Spans, count: int | None = None) -> Any:
    """Value of `leaf`: one item without levels, N items with one, nested lists of items with more.

    count: how many items the outermost level holds, where known; only leaves whose shape leaves it open need it.
    Raises FeatureMissing when the record lacks it, CorruptRecord when it holds another kind or number of values.
    """
    if not leaf.levels:
        return _single(leaf, spans)
    if not leaf.ragged:
        return _checked(_items(leaf, spans, "", count), leaf.levels[0])
    prefix = "/value" if leaf.dynamic else ""
    rows = [
        _row_lengths(leaf, spans, f"{leaf.key}{prefix}/ragged_row_lengths_{depth}")
        for depth in range(len(leaf.levels) - 1)
    ]
    items = _items(leaf, spans, "/ragged_flat_values", int(rows[-1].sum()))
    for lengths, declared in zip(reversed(rows), reversed(leaf.levels), strict=False):
        items = _split(items, lengths, declared)
    return items


def _row_lengths(leaf: Leaf, spans: Spans, key: str) -> Int64:
    lengths = read_integers(_span(spans, key, leaf, INT64))
    if len(lengths) and (lengths.min() < 0 or lengths.max() >= _TOO_LONG):
        raise CorruptRecord(f"{key!r} holds a length that no record can have")
    return lengths


def _single(leaf: Leaf, spans: Spans) -> Any:
    if leaf.optional and leaf.key.encode() not in spans:
        return _default(leaf)
    items = _items(leaf, spans, "", 1)
    if len(items) != 1:
        raise CorruptRecord(f"holds {len(items)} values where features.json declares one")
    return items[0]


def _items(leaf: Leaf, spans: Spans, suffix: str, count: int | None) -> Items:
    if leaf.kind == "number":
        values = _numbers(leaf, _span(spans, leaf.key + suffix, leaf, leaf.stored_kind))
        return values.reshape(_resolve((count, *leaf.shape), values.size))
    key = f"{leaf.key}/value{suffix}" if leaf.dynamic else leaf.key + suffix
    strings = read_byte_strings(_span(spans, key, leaf, leaf.stored_kind))
    if leaf.kind == "encoded":
        return _decoded(leaf, strings, _shapes(leaf, spans, suffix, len(strings)))
    return _nested(strings, (count, *leaf.shape)) if leaf.kind == "string" and leaf.shape else strings


def _span(spans: Spans, key: str, leaf: Leaf, kind: int) -> FeatureSpan:
    span = spans.get(key.encode())
    if span is None:
        raise FeatureMissing(f"the record has no {key!r}, which features.json declares")
    if span.kind not in (kind, 0):
        found, wanted = LIST_NAMES[span.kind], LIST_NAMES[kind]
        raise CorruptRecord(f"holds a {found} list where {leaf.dtype} is stored as a {wanted} list")
    return span


def _numbers(leaf: Leaf, span: FeatureSpan) -> np.ndarray:
    if leaf.stored_kind != FLOAT:
        return read_integers(span).astype(leaf.dtype, copy=False)
    values = read_floats(span)
    if leaf.dtype == "bfloat16":
        return _round_to_bfloat16(values)
    if leaf.dtype == "float16":
        with np.errstate(over="ignore"):  # a float32 beyond 65504 becomes inf, as TensorFlow casts
            return values.astype(np.float16)
    return values.astype(leaf.dtype)


def _round_to_bfloat16(values: Float32) -> Float32:
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, rounded.view(np.float32))


def _resolve(shape: Shape, size: int) -> tuple[int, ...]:
    """Fill the one unknown size of `shape` from the number of values.

    >>> _resolve((None, 7), 21)
    (3, 7)
    """
    known = math.prod(length for length in shape if length is not None)
    unknown = shape.count(None)
    if not unknown and known == size:
        return tuple(length or 0 for length in shape)
    if not size and (unknown or not known):
        return tuple(length or 0 for length in shape)
    if unknown == 1 and known and size % known == 0:
        return tuple(size // known if length is None else length for length in shape)
    declared = " x ".join("any" if length is None else str(length) for length in shape)
    raise CorruptRecord(f"holds {size} values, which do not fill {declared}")


def _nested(strings: list[bytes], shape: Shape) -> list[Any]:
    array = np.empty(len(strings), object)
    array[:] = strings
    return array.reshape(_resolve(shape, len(strings))).tolist()


def _shapes(leaf: Leaf, spans: Spans, suffix: str, count: int) -> list[Shape]:
    """Shape of each of `count` encoded tensors: what features.json leaves open is stored beside each one."""
    if not leaf.dynamic:
        return [leaf.shape] * count
    stored = _row_lengths(leaf, spans, f"{leaf.key}/shape{suffix}")
    rows = stored.reshape(_resolve((count, len(leaf.shape)), stored.size)).tolist()
    return [tuple(own if size is None else size for own, size in zip(row, leaf.shape, strict=True)) for row in rows]


def _decoded(leaf: Leaf, strings: list[bytes], shapes: list[Shape]) -> Items:
    arrays = [_tensor(leaf, string, shape) for string, shape in zip(strings, shapes, strict=True)]
    if None in leaf.shape:
        return arrays
    return np.stack(arrays) if arrays else np.empty((0, *shape_of_one(leaf)), leaf.numpy_dtype)


def _tensor(leaf: Leaf, data: bytes, shape: Shape) -> np.ndarray:
    if leaf.encoding == "zlib":
        try:
            data = zlib.decompress(data)
        except zlib.error as error:
            raise CorruptRecord(f"a tensor cannot be decompressed: {error}") from None
    stored = np.dtype("<u2" if leaf.dtype == "bfloat16" else leaf.dtype)
    if len(data) % stored.itemsize:
        raise CorruptRecord(f"a tensor of {len(data)} bytes, which is no whole number of {leaf.dtype}")
    values = np.frombuffer(data, stored)
    values = values.reshape(_resolve(shape, values.size))
    if leaf.dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.copy()  # frombuffer's is read-only


def shape_of_one(leaf: Leaf) -> tuple[int, ...]:
    """Declared shape of one item, 0 where it is unknown: what an empty sequence gets, as TFDS has it."""
    return tuple(size or 0 for size in leaf.shape)


def _split(items: Items, lengths: Int64, declared: int | None) -> list[Any]:
    if lengths.sum() != len(items):
        raise CorruptRecord(f"row lengths add up to {lengths.sum()} and there are {len(items)} values")
    if declared is not None and (lengths != declared).any():
        raise CorruptRecord(f"a sequence is not of the declared length {declared}")
    stops = lengths.cumsum().tolist()
    return [items[stop - length : stop] for stop, length in zip(stops, lengths.tolist(), strict=True)]


def _checked(items: Items, declared: int | None) -> Items:
    if declared is not None and len(items) != declared:
        raise CorruptRecord(f"a sequence of {len(items)}, and {declared} are declared")
    return items


def _default(leaf: Leaf) -> Any:
    """What TFDS puts where an optional feature was None: the smallest number, False or an empty string."""
    if leaf.kind == "string" and not leaf.shape:
        return b""
    if leaf.kind != "number" or None in leaf.shape:
        raise FeatureMissing(f"the record has no {leaf.key!r}; it is optional, but has no default value")
    kind = leaf.numpy_dtype.kind
    if kind == "b":
        smallest: Any = False
    else:
        smallest = np.finfo(leaf.numpy_dtype).min if kind == "f" else np.iinfo(leaf.numpy_dtype).min
    return np.full(shape_of_one(leaf), smallest, leaf.numpy_dtype)[()]
