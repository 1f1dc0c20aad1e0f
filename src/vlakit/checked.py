"""Values of a YAML or JSON file as a dataclass: pydantic checks them, one error names file, key and the nearest key.

The dataclass is the schema: its annotations say what each key may hold, and a key that it lacks is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from vlakit.errors import ConfigError, VlakitError, nearest

T = TypeVar("T")
Text: TypeAlias = Annotated[str, Strict(), Field(min_length=1)]
Count: TypeAlias = Annotated[int, Strict(), Field(ge=0)]
Number: TypeAlias = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag: TypeAlias = Annotated[bool, Strict()]
MANY = 1_000_000  # of what a command does one after another: more is a slip of the hand
Some: TypeAlias = Annotated[int, Strict(), Field(ge=1, le=MANY)]
Few: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=1024)]
Rows: TypeAlias = Annotated[int, Strict(), Field(ge=1, le=65_536)]
Pixels: TypeAlias = Annotated[int, Strict(), Field(ge=8, le=4096)]
Seed: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]
Fraction: TypeAlias = Annotated[float, Strict(), Field(gt=0, lt=1, allow_inf_nan=False)]
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
_EXPECTED = {  # pydantic's kind of error -> what was expected, in words of a YAML file
    "string_type": "text",
    "string_too_short": "text",
    "int_type": "a whole number",
    "float_type": "a number (YAML takes 1e-5 for text, 1.0e-5 for a number)",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "`key: value` pairs",
    "dataclass_type": "`key: value` pairs",
    "greater_than_equal": "a number of at least {ge}",
    "greater_than": "a number above {gt}",
    "less_than_equal": "a number of at most {le}",
    "less_than": "a number below {lt}",
    "finite_number": "a finite number",
}


def load(kind: type[T], file: Path, **defaults: Any) -> T:
    """An instance of the dataclass `kind` from a YAML file; `defaults` stand for keys that the file leaves out.

    Raises ConfigError naming file and key, for a key that the dataclass lacks with the nearest that it has.
    """
    content = read_yaml(file)
    return check(kind, {**defaults, **content} if isinstance(content, dict) else content, str(file))


def check(kind: type[T], values: Any, where: str) -> T:
    """`values` as an instance of the dataclass `kind`; `where` names their file. Raises ConfigError as `load` does."""
    try:
        return cast("T", _adapter(kind).validate_python((values,))[0])
    except ValidationError as error:
        # An unknown key first: where it is a misspelling, the key that it stands for is reported missing as well.
        problem = min(error.errors(), key=lambda one: not _is_unknown(one))
        what, do = _explained(kind, problem)
        raise ConfigError(what, where=where, do=do) from error


def read_yaml(file: Path) -> Any:
    """The content of a YAML file, keys as text. Raises ConfigError, also for a key that is given twice."""
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not readable as YAML: {error}", where=str(file), do="correct the file") from error


def also(function: Callable[[Any], Any]) -> AfterValidator:
    """For `Annotated[T, also(f)]`: f takes the checked value and gives it back, or raises a VlakitError."""
    return AfterValidator(_reported(function))


def first(function: Callable[[Any], Any]) -> BeforeValidator:
    """For `Annotated[T, first(f)]`: f takes what the file holds and gives what is checked, or raises a VlakitError."""
    return BeforeValidator(_reported(function))


def one_of(known: Iterable[str]) -> AfterValidator:
    """For `Annotated[str, one_of(NAMES)]`: any other value is an error with the nearest names."""
    names = tuple(known)

    def known_name(value: str) -> str:
        if value not in names:
            raise ConfigError(f"unknown value {value!r}", do=nearest(value, names))
        return value

    return also(known_name)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error; PyYAML itself lets the last one win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [str(key.value) for key, _ in node.value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)} given twice, near line {node.start_mark.line + 1}")
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[tuple[Any]]:
    # Around a dataclass itself pydantic takes no configuration; around a tuple of one it does, and nested ones follow.
    return TypeAdapter(cast("Any", tuple)[kind], config=ConfigDict(extra="forbid"))


def _reported(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let pydantic add the key to a VlakitError, which it would pass on as it is."""

    def reporting(value: Any) -> Any:
        try:
            return function(value)
        except VlakitError as error:
            raise PydanticCustomError("vlakit", "{what}", {"what": error.what, "do": error.do}) from error

    return reporting


def _is_unknown(problem: ErrorDetails) -> bool:
    return problem["type"] in _UNKNOWN or problem["loc"][-1] == "[key]"


def _explained(kind: Any, problem: ErrorDetails) -> tuple[str, str]:
    """What is wrong, with the key, and what to do about it."""
    place, value = problem["loc"][1:], problem["input"]  # without the number in the tuple of _adapter
    if _is_unknown(problem):
        place = place[:-1] if place[-1] == "[key]" else place
        keys = _keys(_type_at(kind, place[:-1]))
        return _at(place[:-1], f"unknown key {str(place[-1])!r}"), nearest(str(place[-1]), keys)
    if problem["type"] == "missing" and isinstance(place[-1], str):
        return _at(place[:-1], f"key {place[-1]!r} is missing"), f"add {place[-1]}:"
    if problem["type"] == "literal_error":
        return _at(place, f"unknown value {value!r}"), nearest(str(value), _choices(_type_at(kind, place)))
    if problem["type"] == "vlakit":
        context = problem.get("ctx", {})
        return _at(place, context["what"]), context["do"]
    expected = _EXPECTED.get(problem["type"], problem["msg"].removeprefix("Input should be "))
    expected = expected.format(**problem.get("ctx", {}))
    return _at(place, f"expected {expected}, got {value!r}"), f"give {expected}"


def _at(place: tuple[str | int, ...], what: str) -> str:
    return f"key {'.'.join(map(str, place))!r}: {what}" if place else what


def _type_at(kind: Any, place: tuple[str | int, ...]) -> Any:
    """The annotated type at a place inside `kind`: a field of a dataclass, or the items of a dict, list or tuple."""
    kind = _plain(kind)
    for step in place:
        if get_origin(kind) is None:
            kind = get_type_hints(kind).get(str(step))
        else:
            kind = get_args(kind)[get_origin(kind) is dict]
        kind = _plain(kind)
    return kind


def _plain(kind: Any) -> Any:
    """A type without its checks, and without None."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) in (Union, UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _keys(kind: Any) -> Iterable[str]:
    return _choices(get_args(kind)[0]) if get_origin(kind) is dict else get_type_hints(kind)


def _choices(kind: Any) -> Iterable[str]:
    return map(str, get_args(kind))
