"""Actions to ids as in the released code, and back."""

from typing import Any

import numpy as np
import pytest

from vlakit.errors import ActionNotFinite, InvalidData
from vlakit.processing.action_tokenizer import ActionTokenizer

TOKENS = ActionTokenizer()


def test_ids_are_those_of_the_released_code(golden: dict[str, Any]) -> None:
    ids = golden["action_tokens"]["ids"]
    assert dict(zip(ids, TOKENS.encode(list(ids)).tolist(), strict=True)) == ids


def test_the_two_smallest_ids_decode_alike(golden: dict[str, Any]) -> None:
    largest = golden["action_tokens"]["largest_center"]
    np.testing.assert_allclose(TOKENS.decode([31744, 31745, 31746]), [largest, largest, largest - 2 / 255], atol=1e-6)


def test_round_trip_error_stays_within_half_a_bin(golden: dict[str, Any]) -> None:
    actions = np.linspace(-1, 1, 100_001)
    error = np.abs(TOKENS.decode(TOKENS.encode(actions)) - actions).max()
    assert error == pytest.approx(golden["action_tokens"]["round_trip"], abs=1e-6)


def test_larger_action_gives_smaller_id() -> None:
    ids = TOKENS.encode(np.linspace(-1, 1, 10_001))
    assert (np.diff(ids) <= 0).all()
    assert len(set(ids.tolist())) == 256


def test_centers_are_fixed_points() -> None:
    ids = np.arange(31745, 32000)
    assert (TOKENS.encode(TOKENS.decode(ids)) == ids).all()


def test_actions_outside_are_clipped() -> None:
    assert TOKENS.encode([-7.0, 1.5]).tolist() == TOKENS.encode([-1.0, 1.0]).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_action_raises(value: float) -> None:
    with pytest.raises(ActionNotFinite, match="not finite"):
        TOKENS.encode([[0.0, value]])


@pytest.mark.parametrize("token", [31743, 32000, 2, 29871, -1])
def test_an_id_of_no_action_raises_and_is_named(token: int) -> None:
    with pytest.raises(InvalidData, match=f"token id {token} is not an action id") as caught:
        TOKENS.decode([31800, token])
    assert "31744 to 31999" in caught.value.where


def test_without_strictness_an_id_of_no_action_is_clipped() -> None:
    clipped = TOKENS.decode([2, 32063], strict=False)
    assert clipped.tolist() == TOKENS.decode([31744, 31999]).tolist()


def test_is_action_agrees_with_decode() -> None:
    assert TOKENS.is_action(np.array([31743, 31744, 31999, 32000])).tolist() == [False, True, True, False]


def test_shapes_are_kept() -> None:
    ids = TOKENS.encode(np.zeros((2, 3, 7)))
    assert ids.shape == TOKENS.decode(ids).shape == (2, 3, 7)
    assert ids.dtype == np.int64
    assert TOKENS.decode(ids).dtype == np.float32


@pytest.mark.parametrize(("n_bins", "padding_id"), [(2, 32000), (16, 32000), (512, 1472)])
def test_other_numbers_of_bins_end_below_the_padding(n_bins: int, padding_id: int) -> None:
    tokens = ActionTokenizer(n_bins, padding_id)
    ids = tokens.encode([-1.0, 1.0])
    assert ids.tolist() == [padding_id - 1, padding_id - n_bins]
    assert np.abs(tokens.decode(tokens.encode([0.3])) - 0.3).max() <= 1 / (n_bins - 1) + 1e-6


@pytest.mark.parametrize("n_bins", [0, 1, 32001])
def test_an_impossible_number_of_bins_is_refused(n_bins: int) -> None:
    with pytest.raises(InvalidData, match=f"n_bins is {n_bins}"):
        ActionTokenizer(n_bins)
