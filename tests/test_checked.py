"""A file that is not what its dataclass says is refused with the key, and with the nearest key or value there is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from vlakit.checked import Count, Flag, Number, Text, also, check, first, load, one_of
from vlakit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Part:
    take: Text | None = None
    zeros: Count = 0


def short(value: Any) -> Any:
    return {"take": value} if isinstance(value, str) else value


def no_tower(value: str) -> str:
    if value == "tower":
        raise ConfigError("towers are not for sale", do="name another")
    return value


@dataclass(frozen=True, slots=True)
class Whole:
    name: Annotated[Text, also(no_tower)]
    part: Annotated[Part, first(short)]
    parts: tuple[Part, ...] = ()
    named: dict[Text, tuple[Part, ...]] = field(default_factory=dict)
    cameras: dict[Literal["primary", "wrist"], Text | None] = field(default_factory=dict)
    kind: Annotated[Text, one_of(["EEF_POS", "JOINT"])] = "JOINT"
    mode: Literal["train", "val"] = "val"
    weight: Number = 1.0
    mask: tuple[Flag, ...] | None = None


GOOD: dict[str, Any] = {"name": "a", "part": {}}


def test_values_become_the_dataclass_with_all_below_it() -> None:
    more = {"part": "state", "parts": [{"zeros": 2}], "named": {"x": [{"take": "y"}]}, "weight": 2, "mask": [True]}
    whole = check(Whole, GOOD | more, "here")
    assert whole == Whole("a", Part("state"), (Part(zeros=2),), {"x": (Part("y"),)}, weight=2.0, mask=(True,))


WRONG = {
    "unknown": ({"nme": "a", "part": {}}, "unknown key 'nme'", "did you mean name"),
    "unknown_below": ({"part": {"tke": "x"}}, "key 'part': unknown key 'tke'", "did you mean take?"),
    "in_a_list": ({"named": {"x": [{}, {"zeross": 1}]}}, "key 'named.x.1': unknown key 'zeross'", "zeros"),
    "no_such_camera": ({"cameras": {"primry": "x"}}, "key 'cameras': unknown key 'primry'", "did you mean primary?"),
    "no_such_value": ({"kind": "EEF_PSO"}, "key 'kind': unknown value 'EEF_PSO'", "did you mean EEF_POS?"),
    "no_such_literal": ({"mode": "tran"}, "key 'mode': unknown value 'tran'", "did you mean train?"),
    "of_a_check": ({"name": "tower"}, "key 'name': towers are not for sale", "name another"),
    "missing": ({"part": {}, "name": None}, "key 'name': expected text, got None", "give text"),
    "a_flag_for_a_number": ({"part": {"zeros": True}}, "key 'part.zeros': expected a whole number, got True", ""),
    "negative": ({"part": {"zeros": -1}}, "key 'part.zeros': expected a number of at least 0, got -1", ""),
    "text_for_a_number": ({"weight": "1e-5"}, "key 'weight': expected a number (YAML takes 1e-5 for text", "1.0e-5"),
    "number_for_a_flag": ({"mask": [1]}, "key 'mask.0': expected true or false, got 1", ""),
    "no_list": ({"parts": {"take": "x"}}, "key 'parts': expected a list", ""),
    "no_pairs": ({"part": []}, "key 'part': expected `key: value` pairs, got []", ""),
}


@pytest.mark.parametrize(("values", "what", "do"), WRONG.values(), ids=WRONG)
def test_an_error_names_key_and_remedy(values: dict[str, Any], what: str, do: str) -> None:
    values = values if "nme" in values else GOOD | values
    with pytest.raises(ConfigError) as caught:
        check(Whole, values, "here")
    assert what in caught.value.what
    assert (caught.value.where, do in caught.value.do) == ("here", True)


def test_a_key_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"key 'part' is missing(.|\n)*add part:"):
        check(Whole, {"name": "a"}, "here")


def test_a_file_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("part: {take: x}\n1: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown key '1'"):
        load(Whole, file, name="mine")
    file.write_text("part: {take: x}\n", encoding="utf-8")
    assert load(Whole, file, name="mine") == Whole("mine", Part("x"))


@pytest.mark.parametrize(
    ("text", "what"), [("a: 1\na: 2", "a given twice"), ("[", "not readable as YAML"), ("", "expected `key: value`")]
)
def test_a_file_that_is_no_such_yaml_is_named(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
        load(Whole, tmp_path / "mine.yaml")
    assert what in caught.value.what
