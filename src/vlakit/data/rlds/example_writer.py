"""The wire format of tf.train.Example, written by hand: the opposite of vlakit.data.rlds.example, for what TFDS writes.

Lists are packed, an empty list is written without values, and features come in the order they are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from vlakit.data.rlds.example import BYTES, FLOAT, INT64

_CONTINUES = 0x80


def varint(value: int) -> bytes:
    """One integer, negative ones as ten bytes.

    >>> varint(300).hex()
    'ac02'
    """
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= _CONTINUES:
        out.append(value & 0x7F | _CONTINUES)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def float_list(values: np.ndarray) -> bytes:
    """A feature of float32 values, any shape, in C order."""
    return field(FLOAT, _packed(np.ascontiguousarray(values, "<f4").tobytes()))


def int64_list(values: np.ndarray) -> bytes:
    """A feature of integers or bools, any shape, in C order; uint64 beyond int64 wraps, as TFDS has it."""
    return field(INT64, _packed(_pack_varints(values.ravel().astype(np.int64, copy=False))))


def bytes_list(values: Iterable[bytes]) -> bytes:
    """A feature of byte strings."""
    parts: list[bytes] = []
    for value in values:
        parts += (b"\x0a", varint(len(value)), value)
    return field(BYTES, b"".join(parts))


def example(features: Mapping[str, bytes]) -> bytes:
    """A whole record from encoded features."""
    entries = (field(1, field(1, key.encode()) + field(2, feature)) for key, feature in features.items())
    return field(1, b"".join(entries))


def _packed(content: bytes) -> bytes:
    return field(1, content) if content else b""


def _pack_varints(values: np.ndarray) -> bytes:
    """Varints back to back.

    >>> _pack_varints(np.array([1, 150])).hex()
    '019601'
    """
    rest = values.view(np.uint64)
    if not len(rest) or rest.max() < _CONTINUES:
        return rest.astype(np.uint8).tobytes()
    shifts = np.arange(0, 70, 7, dtype=np.uint64)
    groups = rest[:, None] >> shifts  # (n, 10): what is left before each byte
    used = groups > 0
    used[:, 0] = True
    parts = (groups & np.uint64(0x7F)).astype(np.uint8)
    parts[:, :-1] |= (used[:, 1:] * _CONTINUES).astype(np.uint8)
    return parts[used].tobytes()
