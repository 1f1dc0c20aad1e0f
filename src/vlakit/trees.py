"""Nested tables as flat ones, and what differs between two."""

from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Path -> value, in order; an empty table leaves nothing.

    >>> flat({"strategy": {"rank": 32}, "seed": 7})
    {'strategy.rank': 32, 'seed': 7}
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        leaves |= flat(value, separator, f"{path}{separator}") if isinstance(value, Mapping) else {path: value}
    return leaves


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> (value before, value now) where they differ, sorted; "absent" stands for what is not there."""
    pairs = {key: (before.get(key, "absent"), now.get(key, "absent")) for key in sorted(before.keys() | now.keys())}
    return {key: (was, value) for key, (was, value) in pairs.items() if was != value}
