"""Whether a checkpoint was made for a suite's surroundings: same camera, action convention and control rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlakit.errors import CheckpointMismatch
from vlakit.evaluation.suite import Suite

CARD_KEY = "suite_contract"  # as every checkpoint calls them; a contract proper is of a checkpoint's own answers


def recorded_surroundings(card: Mapping[str, Any], dataset: str) -> Mapping[str, Any] | None:
    """What a checkpoint's card says of the data of `dataset`, for all datasets or in an entry a dataset; or None."""
    recorded = card.get(CARD_KEY)
    if not isinstance(recorded, Mapping):
        return None
    return recorded[dataset] if isinstance(recorded.get(dataset), Mapping) else recorded


def differences(card: Mapping[str, Any], suite: Suite) -> dict[str, tuple[Any, Any]]:
    """Key -> (the checkpoint's value, the suite's), of the keys that both know."""
    recorded = recorded_surroundings(card, suite.dataset) or {}
    return {
        key: (recorded[key], value)
        for key, value in suite.surroundings.items()
        if key in recorded and recorded[key] != value
    }


def check_surroundings(card: Mapping[str, Any], suite: Suite, *, where: str) -> None:
    """Raise CheckpointMismatch naming every key in which the checkpoint's surroundings are not the suite's."""
    differing = differences(card, suite)
    if differing:
        listed = "; ".join(f"{key} was {was}, is {now}" for key, (was, now) in differing.items())
        raise CheckpointMismatch(
            f"the checkpoint was made for other surroundings than suite {suite.name}: {listed}",
            where=where,
            do="choose the suite that its data came from; strict=false evaluates all the same, and records it",
        )
