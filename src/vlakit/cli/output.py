"""Printing a report: text for people, or one JSON object on standard output for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlakit.errors import ConfigError


def emit(report: Mapping[str, Any], text: str, output_format: str) -> None:
    """Print `text`, or `report` as one line of JSON."""
    check_format(output_format)
    print(json.dumps(report) if output_format == "json" else text)


def check_format(output_format: str, known: tuple[str, ...] = ("text", "json")) -> None:
    """Raise ConfigError for a format that a verb does not have."""
    if output_format not in known:
        raise ConfigError(f"format={output_format} is unknown", where="command line", do=f"one of {', '.join(known)}")
