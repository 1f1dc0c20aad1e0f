"""Which code a configuration from a file may name: what conf/ names itself, and modules that the user trusts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlakit.configs import conf_root
from vlakit.errors import ConfigError


def own_targets(tree: Any, where: str, ours: Mapping[str, str], trusted: Sequence[str] = ()) -> Any:
    """The configuration of a file with our classes, by their names: their modules may have moved since.

    ours: name -> `_target_`. Raises ConfigError for a `_target_` that is none of ours, unless it lies in a `trusted`
    module, and for an interpolation.
    """
    if isinstance(tree, list):
        return [own_targets(value, where, ours, trusted) for value in tree]
    if isinstance(tree, str) and "${" in tree:  # resolving one can make a `_target_` out of a text
        raise ConfigError(f"an unresolved value: {tree[:60]}", where=where, do="such a file holds plain values only")
    if not isinstance(tree, Mapping):
        return tree
    plain = {key: own_targets(value, where, ours, trusted) for key, value in tree.items()}
    target = plain.get("_target_")
    if target is None or any(str(target).startswith((f"{name}.", f"{name}:")) for name in trusted):
        return plain
    if target not in ours.values() and str(target).startswith("vlakit."):
        target = ours.get(str(target).rpartition(".")[2], target)
    if target not in ours.values():
        raise ConfigError(
            f"the file names code that conf/ does not: _target_ {target}",
            where=where,
            do="where you trust it: trusted=[MODULE], the module that it lies in",
        )
    return {**plain, "_target_": target}


def known_targets() -> dict[str, str]:
    """Name of a class -> `_target_`, of all files of conf/."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(conf_root().rglob("*.yaml")))
    targets = re.findall(r"^[ -]*_target_: *([\w.]+)", text, re.MULTILINE)
    return {target.rpartition(".")[2]: target for target in targets}
