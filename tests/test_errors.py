"""Errors keep their three lines, also on the way out of a worker process."""

import pickle

import pytest

from vlakit.errors import ActionNotFinite, InvalidData, VlakitError, nearest


def test_error_prints_what_where_and_do() -> None:
    text = str(InvalidData("an image is grey", where="sample 7", do="convert it"))
    assert text.splitlines() == ["InvalidData: an image is grey", "  in:    sample 7", "  do:    convert it"]


def test_empty_parts_leave_no_line() -> None:
    assert str(InvalidData("an image is grey")) == "InvalidData: an image is grey"


def every_error(kind: type[VlakitError] = VlakitError) -> list[type[VlakitError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in every_error(child))]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind: type[VlakitError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what", where="where", do="do")))
    assert type(error) is kind
    assert (error.what, error.where, error.do) == ("what", "where", "do")


def test_a_non_finite_action_is_invalid_data() -> None:
    with pytest.raises(InvalidData):
        raise ActionNotFinite("nan")


def test_nearest_names_what_comes_close_first() -> None:
    assert nearest("lora_r23", ["full", "lora_r32", "lora_r64"]).startswith("did you mean lora_r32")


def test_nearest_lists_all_when_nothing_is_close() -> None:
    assert nearest("xyz", ["b", "a", "a"]) == "known: a, b"


def test_nearest_of_nothing_says_so() -> None:
    assert nearest("xyz", []) == "none is known"
