"""Names to constructors."""

import math

import pytest

from vlakit.errors import UnknownName
from vlakit.registry import Registry


def shapes() -> Registry[str]:
    registry: Registry[str] = Registry("shape")

    @registry.register("square")
    def square(side: int = 1) -> str:
        return f"square of {side}"

    @registry.register("circle")
    def circle() -> str:
        return "circle"

    return registry


def test_build_passes_its_arguments() -> None:
    assert shapes().build("square", side=3) == "square of 3"


def test_names_are_sorted() -> None:
    assert shapes().names() == ["circle", "square"]


def test_unknown_name_says_the_kind_and_the_nearest() -> None:
    with pytest.raises(UnknownName, match="no shape called 'sqare'") as caught:
        shapes().get("sqare")
    assert "square" in caught.value.do


def test_a_name_taken_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'circle' is registered twice"):
        shapes().register("circle")


def test_module_and_function_reach_outside_code() -> None:
    assert shapes().get("math:sqrt") is math.sqrt


@pytest.mark.parametrize("name", ["no_such_module:f", "math:no_such_function", ":f", ".relative:f", "math:"])
def test_unimportable_name_is_unknown(name: str) -> None:
    with pytest.raises(UnknownName, match="cannot import shape"):
        shapes().get(name)
