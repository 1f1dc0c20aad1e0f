"""Whether a checkpoint was made for a suite's surroundings: same camera, action convention and control rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlakit.errors import CheckpointMismatch
from vlakit.evaluation.suite import Suite


def differences(recorded: Mapping[str, Any], suite: Suite) -> dict[str, tuple[Any, Any]]:
    """Key -> (the checkpoint's value, the suite's), of the keys that both know.

    recorded: a card's surroundings, for all datasets or in an entry a dataset.
    """
    known = recorded[suite.dataset] if isinstance(recorded.get(suite.dataset), Mapping) else recorded
    return {
        key: (known[key], value) for key, value in suite.surroundings.items() if key in known and known[key] != value
    }


def check_surroundings(recorded: Mapping[str, Any], suite: Suite, *, where: str) -> None:
    """Raise CheckpointMismatch naming every key in which the checkpoint's surroundings are not the suite's."""
    differing = differences(recorded, suite)
    if differing:
        listed = "; ".join(f"{key} was {was}, is {now}" for key, (was, now) in differing.items())
        raise CheckpointMismatch(
            f"the checkpoint was made for other surroundings than suite {suite.name}: {listed}",
            where=where,
            do="choose the suite that its data came from; strict=false evaluates all the same, and records it",
        )
