"""The exact words of the released models."""

import pytest

from vlakit.errors import UnknownName
from vlakit.processing.prompts import PROMPTS, prompt_builder


def test_the_prompt_of_the_released_model() -> None:
    said = prompt_builder("openvla")("Put the Carrot on the plate")
    assert said == "In: What action should the robot take to put the carrot on the plate?\nOut:"


def test_the_prompt_of_the_first_model() -> None:
    said = prompt_builder("openvla_v01")("Lift the pot")
    assert said == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: What action should the robot take to "
        "lift the pot? ASSISTANT:"
    )


@pytest.mark.parametrize("name", PROMPTS.names())
def test_a_prompt_ends_in_a_colon_without_a_space(name: str) -> None:
    assert prompt_builder(name)("lift the pot").endswith(":")


def test_an_unknown_prompt_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        prompt_builder("openvla_v1")
    assert "openvla_v01" in caught.value.do
