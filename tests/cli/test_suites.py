"""A suite's class is what conf/suite says; a file from elsewhere may set its values and choose no code."""

from typing import Any

import pytest

from vlakit.cli.suites import as_recorded, recorded_settings, suite_settings
from vlakit.errors import ConfigError

SETTINGS: dict[str, Any] = {"_target_": "fake_suite.FakeSuite", "name": "fake", "limit": 8}


def test_recorded_values_win_over_the_files_and_the_class_is_ours() -> None:
    moved = {"_target_": "vlakit.older.FakeSuite", "limit": 4, "control_hz": 10.0}  # not in the file, but it takes it
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
    with pytest.raises(ConfigError, match=r"names code that .* not: _target_ (torch\.load|pandas\.)") as caught:
        as_recorded(SETTINGS, recorded, "passport.json")
    assert caught.value.where == "passport.json"


def test_a_setting_that_the_suite_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'limt' is no setting") as caught:
        as_recorded(SETTINGS, {"limt": 3}, "passport.json")
    assert "limit" in caught.value.do


def test_words_win_over_what_is_recorded_also_where_they_say_what_the_file_says() -> None:
    recorded = {**suite_settings("tabletop_d0"), "image_size": 128, "split": "select"}
    settings = recorded_settings("tabletop_d0", recorded, ["suite.image_size=64"], "passport.json")
    assert settings == {**suite_settings("tabletop_d0"), "split": "select"}


def test_what_version_0_1_0_recorded_of_the_tabletop_is_todays_suite() -> None:
    recorded = {**suite_settings("tabletop_d0"), "_target_": "vlakit.evaluation.tabletop.suite.TabletopSuite"}
    assert recorded_settings("tabletop_d0", recorded, [], "passport.json") == suite_settings("tabletop_d0")
