"""The wire format of tf.train.Example, read by hand: one pass finds where each feature lies, values are read on demand.

Protobuf promises less than it seems: map entries come in any order, lists packed or not, and split messages merge.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from vlakit.errors import CorruptRecord
from vlakit.schema import Float32, Int64

BYTES, FLOAT, INT64 = 1, 2, 3  # the three lists a Feature may hold, by field number
LIST_NAMES = {BYTES: "bytes", FLOAT: "float", INT64: "int64", 0: "empty"}

_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)
_FIELD1 = 1 << 3 | _LENGTH  # the tag of a length-delimited field 1
_FIELD2 = 2 << 3 | _LENGTH
_CONTINUES = 0x80  # set on every byte of a varint but its last


class FeatureSpan(NamedTuple):
    """Where the list of one feature lies: `data[start:stop]`, and which list it is (0: none was set)."""

    kind: int
    data: bytes
    start: int
    stop: int


_Field: TypeAlias = tuple[int, int, int]  # tag, start and stop of its contents


def index_example(payload: bytes) -> dict[bytes, FeatureSpan]:
    """Map each feature's name (UTF-8 bytes) to its place in `payload`; nothing is decoded or copied.

    Raises CorruptRecord when the bytes are no tf.train.Example.
    """
    features: dict[bytes, FeatureSpan] = {}
    stop = len(payload)
    try:
        tag, start, end = _field(payload, 0, stop) if payload else (_FIELD1, 0, 0)
        if tag == _FIELD1 and end == stop:
            _index_features(payload, start, stop, features)
        else:
            merged = _merged(payload, 0, stop, _FIELD1)
            _index_features(merged, 0, len(merged), features)
    except IndexError:
        raise _truncated() from None
    return features


def _index_features(data: bytes, pos: int, stop: int, features: dict[bytes, FeatureSpan]) -> None:
    while pos < stop:
        tag, start, end = _field(data, pos, stop)
        if tag == _FIELD1:
            name, feature = _map_entry(data, start, end)
            features[name] = feature  # the last entry of a name wins
        pos = end


def _map_entry(data: bytes, start: int, stop: int) -> tuple[bytes, FeatureSpan]:
    if start == stop:
        return b"", FeatureSpan(0, data, stop, stop)
    tag, name_start, name_stop = _field(data, start, stop)
    if tag == _FIELD1 and name_stop < stop:
        tag, value_start, value_stop = _field(data, name_stop, stop)
        if tag == _FIELD2 and value_stop == stop:
            return data[name_start:name_stop], _feature(data, value_start, value_stop)
    value = _merged(data, start, stop, _FIELD2)
    return _last(data, start, stop, _FIELD1), _feature(value, 0, len(value))


def _feature(data: bytes, start: int, stop: int) -> FeatureSpan:
    if start == stop:
        return FeatureSpan(0, data, stop, stop)
    tag, list_start, list_stop = _field(data, start, stop)
    if list_stop == stop and tag & 7 == _LENGTH and tag >> 3 <= INT64:
        return FeatureSpan(tag >> 3, data, list_start, stop)
    kind = 0
    for tag, _, _ in _fields(data, start, stop):
        if tag & 7 == _LENGTH and tag >> 3 <= INT64:
            kind = tag >> 3  # of a oneof, the last one set counts
    values = _merged(data, start, stop, kind << 3 | _LENGTH)
    return FeatureSpan(kind, values, 0, len(values))


def read_floats(feature: FeatureSpan) -> Float32:
    """Values of a float list, (n,) float32; a view of the record where it can be, so copy what you keep."""
    data, first, end = _numbers(feature, _FIXED32)
    if (end - first) % 4:
        raise CorruptRecord(f"a float list of {end - first} bytes, which is not a multiple of 4")
    return np.frombuffer(data, "<f4", (end - first) // 4, first)


def read_integers(feature: FeatureSpan) -> Int64:
    """Values of an int64 list, (n,) int64."""
    data, first, end = _numbers(feature, _VARINT)
    return _unpack_varints(np.frombuffer(data, np.uint8, end - first, first))


def _numbers(feature: FeatureSpan, wire: int) -> tuple[bytes, int, int]:
    """Where the numbers of a list lie, back to back: in the record itself if they are packed, else joined."""
    _, data, start, stop = feature
    if start == stop:
        return data, start, stop
    try:
        tag, first, end = _field(data, start, stop)
        if tag != _FIELD1 or end != stop:
            wanted = (_FIELD1, 1 << 3 | wire)
            data = b"".join(data[a:b] for tag, a, b in _fields(data, start, stop) if tag in wanted)
            first, end = 0, len(data)
    except IndexError:
        raise _truncated() from None
    return data, first, end


def _unpack_varints(data: np.ndarray) -> Int64:
    """Decode back-to-back varints; negative numbers take ten bytes and wrap, as int64 does.

    >>> _unpack_varints(np.frombuffer(bytes([1, 0x96, 1]), np.uint8)).tolist()
    [1, 150]
    """
    if not len(data) or data.max() < _CONTINUES:
        return data.astype(np.int64)
    if data[-1] >= _CONTINUES:
        raise _truncated()
    stops = np.flatnonzero(data < _CONTINUES) + 1
    starts = np.concatenate([[0], stops[:-1]])
    sizes = stops - starts
    if sizes.max() > 10:
        raise CorruptRecord("a varint of more than ten bytes")
    shifts = 7 * (np.arange(len(data)) - np.repeat(starts, sizes))
    parts = (data & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    return np.add.reduceat(parts, starts).view(np.int64)


def read_byte_strings(feature: FeatureSpan) -> list[bytes]:
    """Values of a bytes list, each copied out of the record."""
    _, data, pos, stop = feature
    values: list[bytes] = []
    try:
        while pos < stop:
            # A record is mostly images: this loop inlines `_field` for tags and sizes as images have them.
            size, start = data[pos + 1], pos + 2
            if size >= _CONTINUES:
                size, start = size & 0x7F | data[start] << 7, pos + 3
            if data[pos] != _FIELD1 or size >= 1 << 14:
                tag, start, end = _field(data, pos, stop)
                size = end - start
                if tag != _FIELD1:
                    pos = end
                    continue
            pos = start + size
            values.append(data[start:pos])
    except IndexError:
        raise _truncated() from None
    if pos > stop:
        raise _truncated()
    return values


def _field(data: bytes, pos: int, stop: int) -> _Field:
    """Tag of the field at `pos` and where its contents start and stop, which is never past `stop`."""
    tag = data[pos]
    if tag < _CONTINUES:
        pos += 1
    else:
        tag, pos = _varint(data, pos)
    if tag & 7 == _LENGTH:
        size = data[pos]
        start = pos + 1
        if size >= _CONTINUES:
            size, start = _varint(data, pos)
        end = start + size
    else:
        start, end = pos, _skip(data, pos, stop, tag)
    if end > stop:
        raise _truncated()
    if tag < 8:
        raise CorruptRecord("a field with the number 0")
    return tag, start, end


def _skip(data: bytes, pos: int, stop: int, tag: int) -> int:
    wire = tag & 7
    if wire == _VARINT:
        return _varint(data, pos)[1]
    if wire in (_FIXED64, _FIXED32):
        return pos + (8 if wire == _FIXED64 else 4)
    if wire != _GROUP:
        raise CorruptRecord(f"a field with the wire type {wire}")
    depth = 1
    while depth:
        inner, pos = _varint(data, pos)
        if inner & 7 == _GROUP:
            depth += 1
        elif inner & 7 == _END_GROUP:
            depth -= 1
        elif inner & 7 == _LENGTH:
            size, pos = _varint(data, pos)
            pos += size
        else:
            pos = _skip(data, pos, stop, inner)
    return pos


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < _CONTINUES:
            return value, pos
    raise CorruptRecord("a varint of more than ten bytes")


def _fields(data: bytes, pos: int, stop: int) -> list[_Field]:
    fields: list[_Field] = []
    while pos < stop:
        fields.append(_field(data, pos, stop))
        pos = fields[-1][2]
    return fields


def _merged(data: bytes, start: int, stop: int, wanted: int) -> bytes:
    """Contents of all fields with the tag `wanted`, joined: joining two messages is how protobuf merges them."""
    return b"".join(data[first:end] for tag, first, end in _fields(data, start, stop) if tag == wanted)


def _last(data: bytes, start: int, stop: int, wanted: int) -> bytes:
    contents = [data[first:end] for tag, first, end in _fields(data, start, stop) if tag == wanted]
    return contents[-1] if contents else b""


def _truncated() -> CorruptRecord:
    return CorruptRecord("the record ends inside a field: it is truncated, or no tf.train.Example")
