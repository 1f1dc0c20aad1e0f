"""A suite from the plain settings of its file."""

from typing import Any

import pytest
from fake_suite import FakeSuite

from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.building import build_suite

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
