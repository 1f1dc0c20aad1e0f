from __future__ import annotations

import struct

import numpy as np
import pytest
from rlds_writer import example, field, floats, integers, strings, varint

from vlakit.data.rlds.example import index_example, read_byte_strings, read_floats, read_integers
from vlakit.errors import CorruptRecord

EXTREMES = [0, 1, -1, 127, 128, 300, -(2**63), 2**63 - 1, 2**31, -(2**31)]


def one(feature: bytes):
    return index_example(example({"a": feature}))[b"a"]


def test_packed_and_unpacked_lists_read_the_same():
    values = [1.5, -2.0, float("inf")]
    unpacked = field(2, b"".join(b"\x0d" + struct.pack("<f", value) for value in values))
    assert read_floats(one(unpacked)).tolist() == read_floats(one(floats(*values))).tolist() == values
    unpacked = field(3, b"".join(b"\x08" + varint(value) for value in EXTREMES))
    assert read_integers(one(unpacked)).tolist() == read_integers(one(integers(*EXTREMES))).tolist() == EXTREMES


def test_a_list_may_change_between_packed_and_unpacked():
    mixed = field(3, b"\x08\x05" + field(1, varint(300) + varint(7)) + b"\x08\x01")
    assert read_integers(one(mixed)).tolist() == [5, 300, 7, 1]


def test_random_integers_survive_the_trip():
    rng = np.random.default_rng(3)
    values = (rng.integers(-(2**62), 2**62, 500) >> rng.integers(0, 62, 500)).tolist()
    assert read_integers(one(integers(*values))).tolist() == values


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 70000])
def test_strings_of_any_length_arrive_untouched(size):
    values = [bytes(size), b"", b"\xff" * size]
    assert read_byte_strings(one(strings(*values))) == values


UNKNOWN = {
    "varint": varint(15 << 3) + varint(2**40),
    "fixed64": varint(15 << 3 | 1) + bytes(8),
    "bytes": field(15, b"xyz"),
    "fixed32": varint(15 << 3 | 5) + bytes(4),
    "group": varint(15 << 3 | 3) + field(2, b"in") + b"\x13\x08\x05\x14" + varint(15 << 3 | 4),
    "far number": field(5000, b"z" * 300),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_fields_are_skipped_at_every_level(kind):
    extra = UNKNOWN[kind]
    values = field(1, extra + field(1, b"x") + extra)
    entry = extra + field(1, b"a") + extra + field(2, extra + values + extra) + extra
    payload = extra + field(1, extra + field(1, entry) + extra) + extra
    assert read_byte_strings(index_example(payload)[b"a"]) == [b"x"]
    number = field(3, extra + field(1, varint(9)) + extra)
    assert read_integers(one(number)).tolist() == [9]


def test_a_map_entry_may_hold_its_value_before_its_key():
    entry = field(2, integers(4)) + field(1, b"a")
    assert read_integers(index_example(field(1, field(1, entry)))[b"a"]).tolist() == [4]


def test_the_last_of_two_entries_with_one_name_wins():
    entries = b"".join(field(1, field(1, b"a") + field(2, integers(value))) for value in (4, 5))
    assert read_integers(index_example(field(1, entries))[b"a"]).tolist() == [5]


def test_split_messages_merge():
    features = [field(1, field(1, key) + field(2, integers(4))) for key in (b"a", b"b")]
    assert set(index_example(field(1, features[0]) + field(1, features[1]))) == {b"a", b"b"}
    assert read_integers(one(integers(1) + integers(2))).tolist() == [1, 2]


def test_nothing_in_a_feature_is_an_empty_list():
    for feature in (b"", field(3, b""), field(3, field(1, b""))):
        assert read_integers(one(feature)).tolist() == []
    assert index_example(b"") == {}


@pytest.mark.parametrize(
    "payload",
    [b"hello, world", b"\x0a\x05abc", b"\x00\x00", b"\xff" * 12, field(1, field(1, field(1, b"a") + b"\x12\x7f"))],
    ids=["text", "too short", "field 0", "endless varint", "value past the end"],
)
def test_bytes_that_are_no_example_raise(payload):
    with pytest.raises(CorruptRecord):
        index_example(payload)


def test_a_list_that_ends_inside_a_value_raises():
    with pytest.raises(CorruptRecord, match="multiple of 4"):
        read_floats(one(field(2, field(1, b"12345"))))
    with pytest.raises(CorruptRecord, match="ends inside"):
        read_integers(one(field(3, field(1, b"\x05\x80"))))
    with pytest.raises(CorruptRecord, match="ten bytes"):
        read_integers(one(field(3, field(1, b"\x80" * 12 + b"\x01"))))
    with pytest.raises(CorruptRecord, match="ends inside"):
        read_byte_strings(one(field(1, b"\x0a\x09abc")))
