"""A run's parameters as a table of runs shows them: what is compared first, and nothing of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from vlakit.trees import flat

START = "model.weights"
# not what a run is: folders, classes, what is printed; and tags, which are tags
ELSEWHERE = (
    "paths.",
    "callbacks.",
    "logger.",
    "tags.",
    "ckpt_path",
    "data.root",
    "data.sources",
    "data.questions",
    "strategy.weights",
)


def params_of(config: Mapping[str, Any], start: str | None = None) -> dict[str, Any]:
    """strategy, rank, learning_rate, then the flat configuration without paths and classes.

    start: sha256 of the weights to start from, which stands for a file's path.
    """
    values = flat(config)
    first = {
        "strategy": str(values.get("strategy.name") or values.get("strategy._target_", "")).rpartition(".")[2].lower(),
        "rank": values.get("strategy.rank"),
        "learning_rate": values.get("strategy.optimizer.lr"),
    }
    kept = {key: value for key, value in values.items() if not key.startswith(ELSEWHERE) and not _is_code(key, value)}
    plain = {key: value for key, value in kept.items() if key == START or not _is_path(value)}
    if _is_path(plain.get(START)):
        plain[START] = f"sha256:{start[:12]}" if start else PurePath(plain[START]).name
    return {**{key: value for key, value in first.items() if value}, **plain}


def _is_code(key: str, value: Any) -> bool:
    return "_target_" in f"{key} {value}" or key.endswith("_partial_")


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "/" in value
