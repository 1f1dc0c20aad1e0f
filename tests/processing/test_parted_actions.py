"""The action tokens of RT-1's own code."""

from __future__ import annotations

import numpy as np
import pytest

from vlakit.errors import ActionNotFinite, ConfigError, InvalidData
from vlakit.processing.parted_actions import Part, PartedTokenizer

ONE = PartedTokenizer([Part("x", 1, "float32", -1, 1)])


def test_truncation_answers_low_by_half_a_bucket_on_average_and_never_by_more_than_one() -> None:
    values = np.linspace(-1, 1, 100_001, dtype=np.float32)[:, None]
    error = (ONE.decode(ONE.encode(values)) - values) * 255 / 2  # in buckets
    assert error.min() > -1.001
    assert error.max() < 1e-3
    assert error.mean() == pytest.approx(-0.5, abs=0.01)


def test_ids_come_back_as_themselves_and_what_is_outside_as_the_ends() -> None:
    tokenizer = PartedTokenizer([Part("mode", 3, "int32"), Part("x", 2, "float32", [-2, 0], [2, 1])], n_bins=16)
    ids = np.stack([np.arange(16) % 3, np.arange(16), np.arange(16)[::-1]], axis=-1)
    # A value on a bucket's lower edge may round into the one below: half a bucket more is inside.
    inside = tokenizer.decode(ids) + np.array([0, 0, 0, 4 / 30, 1 / 30], np.float32)
    np.testing.assert_array_equal(tokenizer.encode(inside), ids)
    np.testing.assert_array_equal(tokenizer.encode([[0, 0, 1, -9, 9]]), [[2, 0, 15]])
    np.testing.assert_array_equal(tokenizer.decode([[9, 0, 0]])[0, :3], [1, 0, 0])


def test_what_is_no_action_is_refused() -> None:
    with pytest.raises(ActionNotFinite):
        ONE.encode([[np.nan]])
    with pytest.raises(InvalidData, match="2 numbers, the parts have 1"):
        ONE.encode([[0, 0]])
    for row in (["x", 1], ["x", 0, "float32", 0, 1], ["x", 1, "float32", 1, 0], ["x", 1, "float64", 0, 1]):
        with pytest.raises(ConfigError, match="a part of an action"):
            Part.of(row)
    for parts in ([], [Part("mode", 300, "int32")]):
        with pytest.raises(ConfigError, match="parts"):
            PartedTokenizer(parts)
