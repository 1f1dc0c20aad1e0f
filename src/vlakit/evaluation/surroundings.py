"""Whether a checkpoint was made for a suite: same camera, action convention and control rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlakit.errors import CheckpointMismatch
from vlakit.evaluation.suite import Suite


def known_contract(card: Mapping[str, Any], dataset: str) -> Mapping[str, Any] | None:
    """What a checkpoint's card says of the data of `dataset`; None when it says nothing.

    It stands under "suite_contract", or "contract" of "data_contract"; for all datasets, or one entry a dataset.
    """
    data = card.get("data_contract")
    found = card.get("suite_contract") or (data.get("contract") if isinstance(data, Mapping) else None)
    if not isinstance(found, Mapping):
        return None
    return found[dataset] if isinstance(found.get(dataset), Mapping) else found


def contract_differences(card: Mapping[str, Any], suite: Suite) -> dict[str, tuple[Any, Any]]:
    """Key -> (the checkpoint's value, the suite's), of the keys that both know."""
    known = known_contract(card, suite.dataset) or {}
    return {key: (known[key], value) for key, value in suite.contract.items() if key in known and known[key] != value}


def check_suite_contract(card: Mapping[str, Any], suite: Suite, *, where: str) -> None:
    """Raise CheckpointMismatch naming every key in which the checkpoint's contract is not the suite's."""
    differing = contract_differences(card, suite)
    if differing:
        said = "; ".join(f"{key} was {was}, is {now}" for key, (was, now) in differing.items())
        raise CheckpointMismatch(
            f"the checkpoint was made for other surroundings than suite {suite.name}: {said}",
            where=where,
            do="choose the suite that its data came from; strict=false evaluates all the same, and records it",
        )
