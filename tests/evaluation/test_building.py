"""A suite's class is what conf/suite says; a file from elsewhere may set its values and choose no code."""

from typing import Any

import pytest
from fake_suite import FakeSuite

from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.building import as_recorded, build_suite

SETTINGS: dict[str, Any] = {"_target_": "fake_suite.FakeSuite", "name": "fake", "limit": 8}


def test_a_suite_is_built_from_plain_settings() -> None:
    suite = build_suite(SETTINGS)
    assert isinstance(suite, FakeSuite)
    assert (suite.name, suite.limit) == ("fake", 8)


@pytest.mark.parametrize("target", ["fake_suite.FakeSuit", "fake_suit.FakeSuite", "FakeSuite", ""])
def test_a_class_that_is_not_there_is_named(target: str) -> None:
    with pytest.raises(UnknownName, match=f"cannot import the suite '{target}'"):
        build_suite({"_target_": target})


def test_a_value_that_the_class_does_not_take_is_an_error_in_words() -> None:
    with pytest.raises(ConfigError, match=r"cannot be built: .*limt"):
        build_suite({**SETTINGS, "limt": 3})


def test_recorded_values_win_over_the_files_and_the_class_is_ours() -> None:
    moved = {"_target_": "an.older.place.FakeSuite", "limit": 4, "control_hz": 10.0}  # not in the file, but it takes it
    assert as_recorded(SETTINGS, moved, "x.json") == {**SETTINGS, "limit": 4, "control_hz": 10.0}
    assert as_recorded(SETTINGS, {}, "x.json") == SETTINGS


@pytest.mark.parametrize(
    "recorded",
    [
        {"_target_": "torch.load", "f": "evil.pt"},
        {"name": {"_target_": "torch.load"}},
        {"tasks": ["reach", [{"_target_": "pandas.read_pickle"}]]},
    ],
    ids=str,
)
def test_code_that_a_file_names_is_refused(recorded: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"names code of its own: _target_ (torch\.load|pandas\.)") as caught:
        as_recorded(SETTINGS, recorded, "passport.json")
    assert caught.value.where == "passport.json"


def test_a_setting_that_the_suite_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'limt' is no setting") as caught:
        as_recorded(SETTINGS, {"limt": 3}, "passport.json")
    assert "limit" in caught.value.do
