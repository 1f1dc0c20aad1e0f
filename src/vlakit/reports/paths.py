"""Paths of a machine in what is published: in a passport <runs>, <data>, <output> or <elsewhere>; in a table names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlakit.errors import one_line

ELSEWHERE = "<elsewhere>"
# In quotes, where it may hold spaces; else what no word comes before, also behind the :// of an address.
_PLACE = re.compile(
    r"""(?<=')/[^']+(?=')|(?<=")/[^"]+(?=")|(?:(?<=:///)|(?<=file://)|(?<![\w/:.~<>-]))(?:/[^\s/'"`,;:|()\[\]{}<>]+)+"""
)


def public(text: str) -> str:
    """A text without control characters and the passwords of addresses, and with the names alone of absolute paths.

    >>> public("http" + "://me:secret@host/x"), public("sqlite:////home/me/runs/mlflow.db and/or /z")
    ('http://host/x', 'sqlite:///mlflow.db and/or /z')
    """
    text = re.sub(r"(?<=://)[^/@\s]*@", "", one_line(text))
    return _PLACE.sub(lambda place: place[0] if place[0].count("/") == 1 else place[0].rpartition("/")[2], text)


def relocated(tree: Any, roots: Mapping[str, str]) -> Any:
    """A copy of plain values in which paths at or below each of `roots` begin otherwise; the deepest root counts.

    >>> relocated({"a": ["/r/x/y", "/rest", 1], "b": "key=/r"}, {"/r": "<runs>", "/r/x": "<output>"})
    {'a': ['<output>/y', '/rest', 1], 'b': 'key=<runs>'}
    """
    if isinstance(tree, Mapping):
        return {key: relocated(value, roots) for key, value in tree.items()}
    if isinstance(tree, list):
        return [relocated(value, roots) for value in tree]
    if not isinstance(tree, str):
        return tree
    key, _, value = tree.partition("=")
    for head, path in (("", tree), (f"{key}=", value)):  # the second: an override
        for root in sorted(roots, key=len, reverse=True):
            if path == root or path.startswith(f"{root}/"):
                return f"{head}{roots[root]}{path[len(root) :]}"
    return tree


def portable(tree: Any, roots: Mapping[str, str], left: set[str]) -> Any:
    """`relocated`, where any other absolute path becomes <elsewhere>/NAME, which joins `left`.

    >>> portable(["/r/x", "lists=[/r/x,/home/me/y]", "/home/me/my z"], {"/r": "<runs>"}, set())
    ['<runs>/x', 'lists=[<runs>/x,<elsewhere>/y]', '<elsewhere>/my z']
    """
    if isinstance(tree, Mapping):
        return {key: portable(value, roots, left) for key, value in tree.items()}
    if isinstance(tree, list):
        return [portable(value, roots, left) for value in tree]
    if not isinstance(tree, str):
        return tree

    def short(path: str) -> str:
        near = relocated(path, roots)
        if near == path:
            near = f"{ELSEWHERE}/{Path(path).name}"
            left.add(near)
        return near

    word = relocated(tree, roots)
    key, _, value = word.partition("=")
    if word.startswith("/"):
        return short(word)
    if value.startswith("/") and "," not in value:
        return f"{key}={short(value)}"
    return _PLACE.sub(lambda place: short(place[0]), word)
