"""The types that the table of keys is written in: numbers within limits, choices, places, devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, Strict

from vlakit.checked import Text, also
from vlakit.cli.suite_names import suite_names
from vlakit.errors import ConfigError, nearest


def whole(low: int, high: int | None = None) -> Any:
    """A whole number in [low, high]."""
    return Annotated[int, Strict(), Field(ge=low, le=high)]


def real(**limits: Any) -> Any:
    """A finite number within pydantic's ge, gt, le, lt."""
    return Annotated[float, Strict(), Field(allow_inf_nan=False, **limits)]


def maybe(kind: Any) -> Any:
    """This or null."""
    return kind | None


def chosen(*known: Any) -> Any:
    """One of these values."""
    return cast("Any", Literal)[known]


def _expandable(place: str) -> str:
    try:
        Path(place).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"no home folder: {place}", do="write the whole path") from error
    return place


def _suite(name: str) -> str:
    if name not in suite_names():
        raise ConfigError(f"no suite called {name!r}", do=nearest(name, suite_names()))
    return name


def _device(name: str) -> str:
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdecimal()):
        raise ConfigError(
            f"unknown device {name!r}", do=f"{nearest(kind, ('cpu', 'cuda', 'mps'))} cuda:1 is the second"
        )
    return name


Place: Any = Annotated[str, Strict(), Field(min_length=1), also(_expandable)]
Texts: Any = tuple[Text, ...]
Device: Any = Annotated[str, Strict(), also(_device)]
SuiteName: Any = Annotated[str, Strict(), also(_suite)]
Scalar: Any = str | bool | int | float | None
FORMAT: Any = chosen("text", "json")
TABLE: Any = chosen("text", "markdown", "latex", "csv", "json", "html")
SHARE: Any = real(ge=0, le=1)
RATE: Any = real(ge=0)
