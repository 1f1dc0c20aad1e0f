from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest
from rlds_writer import example, floats, integers, strings

from vlakit.data.rlds.example import index_example
from vlakit.data.rlds.features import Leaf
from vlakit.data.rlds.leaves import decode_leaf
from vlakit.errors import CorruptRecord, FeatureMissing, VlakitError

STEPS = (None,)
NESTED = (None, None, None)


def value(leaf: Leaf, features: dict[str, bytes], count: int | None = None):
    return decode_leaf(leaf, index_example(example(features)), count)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64"])
def test_integers_come_back_in_their_declared_dtype(dtype):
    extremes = [0, 1] if dtype == "bool" else [np.iinfo(dtype).min, np.iinfo(dtype).max]
    array = value(Leaf("a", "number", dtype, (), STEPS), {"a": integers(*map(int, extremes))})
    assert array.dtype == dtype
    assert array.tolist() == extremes  # uint64 was stored as a negative int64


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_are_cast_from_the_float32_that_is_stored(dtype):
    array = value(Leaf("a", "number", dtype, (), STEPS), {"a": floats(0.1, float("nan"), -0.0)})
    assert array.dtype == dtype
    assert array.tobytes() == np.array([0.1, np.nan, -0.0], np.float32).astype(dtype).tobytes()


def test_bfloat16_arrives_as_float32_rounded_to_nearest_even():
    array = value(Leaf("a", "number", "bfloat16", (), STEPS), {"a": floats(1.00390625, 1.01171875, float("nan"))})
    assert array.tolist()[:2] == [1.0, 1.015625]
    assert np.isnan(array[2])
    stored = struct.pack("<3H", 0x3F80, 0xBF80, 0x7F80)
    encoded = value(Leaf("a", "encoded", "bfloat16", (3,), STEPS, "bytes"), {"a": strings(stored)})
    assert encoded.tolist() == [[1.0, -1.0, float("inf")]]


def test_a_leaf_without_levels_is_one_value():
    assert value(Leaf("a", "number", "int32"), {"a": integers(-4)}) == np.int32(-4)
    assert value(Leaf("a", "string", "string"), {"a": strings(b"x")}) == b"x"
    assert value(Leaf("a", "number", "float32", (None, 2)), {"a": floats(1, 2, 3, 4)}).shape == (2, 2)
    with pytest.raises(CorruptRecord, match="2 values"):
        value(Leaf("a", "string", "string"), {"a": strings(b"x", b"y")})


def test_nested_sequences_are_cut_by_their_row_lengths():
    features = {
        "a/ragged_flat_values": integers(1, 2, 3),
        "a/ragged_row_lengths_0": integers(2, 0, 1),
        "a/ragged_row_lengths_1": integers(1, 0, 2),
    }
    steps = value(Leaf("a", "number", "int8", (), NESTED), features)
    assert [[row.tolist() for row in step] for step in steps] == [[[1], []], [], [[2, 3]]]
    assert steps[0][0].dtype == np.int8


def test_sequences_of_texts_and_of_tensors_keep_their_items_whole():
    lengths = {"a/ragged_row_lengths_0": integers(0, 2)}
    texts = value(
        Leaf("a", "string", "string", (), NESTED[:2]), {**lengths, "a/ragged_flat_values": strings(b"x", b"")}
    )
    assert texts == [[], [b"x", b""]]
    boxes = value(
        Leaf("a", "number", "float32", (2,), NESTED[:2]), {**lengths, "a/ragged_flat_values": floats(1, 2, 3, 4)}
    )
    assert [box.shape for box in boxes] == [(0, 2), (2, 2)]


def test_string_tensors_come_as_nested_lists():
    leaf = Leaf("a", "string", "string", (1, 2), STEPS)
    assert value(leaf, {"a": strings(b"1", b"2", b"3", b"4")}) == [[[b"1", b"2"]], [[b"3", b"4"]]]


def test_encoded_tensors_are_one_array_where_their_shape_is_fixed_and_a_list_where_not():
    data = [np.arange(4, dtype=np.uint32).tobytes(), np.arange(8, dtype=np.uint32).tobytes()]
    fixed = value(Leaf("a", "encoded", "uint32", (2, 2), STEPS, "bytes"), {"a": strings(data[0])})
    assert fixed.tolist() == [[[0, 1], [2, 3]]]
    packed = strings(*map(zlib.compress, data))
    open_ended = value(Leaf("a", "encoded", "uint32", (None, 2), STEPS, "zlib"), {"a": packed})
    assert [array.shape for array in open_ended] == [(2, 2), (4, 2)]
    open_ended[0][0, 0] = 7  # a copy, not a view of read-only bytes
    shapes = {"a/value": packed, "a/shape": integers(4, 1, 1, 2, 4, 1)}
    dynamic = value(Leaf("a", "encoded", "uint32", (None, None, 1), STEPS, "zlib"), shapes)
    assert [array.shape for array in dynamic] == [(4, 1, 1), (2, 4, 1)]


def test_an_open_size_is_filled_once_the_number_of_steps_is_known():
    assert value(Leaf("a", "number", "float32", (None, 2), STEPS), {"a": floats(*range(12))}, 3).shape == (3, 2, 2)


def test_an_optional_value_that_was_left_out_is_the_smallest_number():
    assert value(Leaf("a", "number", "int16", optional=True), {}) == -32768
    assert value(Leaf("a", "string", "string", optional=True), {}) == b""
    assert value(Leaf("a", "number", "float32", (2,), optional=True), {}).tolist() == [np.finfo("f4").min] * 2
    with pytest.raises(FeatureMissing):
        value(Leaf("a", "number", "int16"), {})


WRONG = {
    "row lengths too long": (Leaf("a", "string", "string", (), NESTED[:2]), strings(b"x"), integers(2)),
    "negative row length": (Leaf("a", "string", "string", (), NESTED[:2]), strings(b"x"), integers(2, -1)),
    "declared length": (Leaf("a", "string", "string", (), (None, 2)), strings(b"x"), integers(1)),
    "not zlib": (Leaf("a", "encoded", "int8", (), NESTED[:2], "zlib"), strings(b"x"), integers(1)),
    "half a number": (Leaf("a", "encoded", "int16", (), NESTED[:2], "bytes"), strings(b"x"), integers(1)),
}


@pytest.mark.parametrize("case", WRONG)
def test_values_that_contradict_each_other_raise(case):
    leaf, flat, lengths = WRONG[case]
    with pytest.raises(CorruptRecord):
        value(leaf, {"a/ragged_flat_values": flat, "a/ragged_row_lengths_0": lengths})


def test_random_lists_raise_nothing_but_our_errors():
    dice = random.Random(11)
    kinds = [("number", "int8", ()), ("number", "float32", (None, 2)), ("string", "string", (2, None))]
    kinds += [("encoded", "int16", (None, None, 3)), ("encoded", "bfloat16", (2,)), ("image", "uint8", (4, 4, 3))]
    keys = ["a" + inner + outer for inner in ("", "/value", "/shape")
            for outer in ("", "/ragged_flat_values", "/ragged_row_lengths_0", "/ragged_row_lengths_1")]  # fmt: skip
    for _ in range(1500):
        kind, dtype, shape = dice.choice(kinds)
        numbers = [dice.choice([0, 1, 2, 3, -1, 2**31, 2**63 - 1]) for _ in range(dice.randrange(4))]
        lists = [integers(*numbers), floats(*numbers), strings(*(b"xyzabc" for _ in numbers)), b""]
        leaf = Leaf("a", kind, dtype, shape, NESTED[: dice.randrange(4)], dice.choice(["bytes", "zlib"]))
        try:
            value(leaf, {key: dice.choice(lists) for key in keys}, dice.choice([None, 0, 1, 2]))
        except VlakitError:
            continue
