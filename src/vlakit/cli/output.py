"""Printing a report: text for people, or one JSON object on standard output for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from vlakit.errors import ConfigError, nearest

T = TypeVar("T")


def emit(report: Mapping[str, Any], text: str, output_format: str) -> None:
    """Print `text`, or `report` as one line of JSON."""
    check_format(output_format)
    print(json.dumps(report) if output_format == "json" else text)


def check_format(output_format: str, known: Sequence[str] = ("text", "json")) -> None:
    """Raise ConfigError for a format that a verb does not have."""
    if output_format not in known:
        raise ConfigError(f"format={output_format} is unknown", where="command line", do=f"one of {', '.join(known)}")


def check_choice(key: str, value: Any, known: Iterable[str]) -> None:
    """Raise ConfigError, with the nearest, for a value of `key` that is none of the `known`."""
    if value not in known:
        raise ConfigError(f"{key}={value}", where="command line", do=nearest(str(value), known))


def request_of(kind: type[T], cfg: Mapping[str, Any], verb: str) -> T:
    """The request, a dataclass, among the keys of conf/VERB.yaml. Raises ConfigError for a value of another kind."""
    from vlakit.checked import check

    return check(kind, {field.name: cfg[field.name] for field in fields(cast(Any, kind))}, f"vlakit {verb}")


def check_fractions(**values: Any) -> None:
    """Raise ConfigError for a value that is no number between 0 and 1, both excluded."""
    for key, value in values.items():
        if not isinstance(value, int | float) or not 0 < value < 1:
            raise ConfigError(f"{key}={value}", where="command line", do="give a fraction between 0 and 1")
