"""Who is evaluated: a checkpoint's policy, any other policy, or a control; made ready for one suite.

All that evaluation asks of a checkpoint's policy beyond `act` is here and in gate.py and open_loop.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlakit.evaluation.actors import CONTROLS, Actor, Bounds, action_bounds
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.evaluation.surroundings import check_surroundings, differences

if TYPE_CHECKING:
    from vlakit.policy import Policy, TrainedPolicy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """Who acts. facts: what decides the answers; bounds: usual actions; trained: a checkpoint's policy, else None."""

    name: str
    policy: Policy | Actor
    facts: Mapping[str, Any]
    bounds: Bounds | None = None
    trained: TrainedPolicy | None = None

    @property
    def hash(self) -> str:
        """What records call it."""
        return str(self.facts.get("sha256", self.name))


def subject_of(
    policy: Policy | Actor | str, name: str, suite: Suite, states: Sequence[InitialState], *, strict: bool, seed: int
) -> Subject:
    """A policy as a subject; a text is the name of a control, `seed` is of its random actions."""
    if isinstance(policy, str):
        return control(policy, suite, states, seed)
    from vlakit.policy import TrainedPolicy  # here: a control needs no torch

    if isinstance(policy, TrainedPolicy):
        return checkpoint(policy, name, suite, states, strict=strict)
    return Subject(name, policy, getattr(policy, "facts", {"policy": name}))


def control(name: str, suite: Suite, states: Sequence[InitialState], seed: int) -> Subject:
    """The control policy of a name: expert, nothing, random. Raises UnknownName."""
    actor = CONTROLS.build(name, bounds=lambda: action_bounds(suite, None, states), seed=seed)
    return Subject(name, actor, {"control": name})


def checkpoint(
    policy: TrainedPolicy, name: str, suite: Suite, states: Sequence[InitialState], *, strict: bool
) -> Subject:
    """A checkpoint's policy, its prompts padded alike. Raises StatisticsMissing, CheckpointMismatch (strict only)."""
    statistics = policy.processor.statistics_of(suite.dataset)  # fails before the first episode
    if strict:
        check_surroundings(policy.card.surroundings, suite, where=name)
    overridden = sorted(differences(policy.card.surroundings, suite))
    if overridden:
        log.warning("the checkpoint's surroundings differ from the suite's in %s", ", ".join(overridden))
    policy.pad_to = policy.processor.text_width(state.instruction for state in states)
    facts = {
        "sha256": policy.content_hash(),
        "constrain": policy.constrain,
        "pad_to": policy.pad_to,
        "device": policy.device.type,
        "overridden": overridden,
    }
    return Subject(name, policy, facts, action_bounds(suite, statistics, states), policy)
