"""Who is evaluated: a checkpoint's policy, any other policy, or a control; made ready for one suite.

All that evaluation asks of a checkpoint's policy beyond `act` is here and in gate.py and open_loop.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlakit.errors import CheckpointMismatch, PartMissing, StatisticsMissing
from vlakit.evaluation.actors import CONTROLS, Actor, Bounds, action_bounds
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.evaluation.surroundings import check_surroundings, differences

if TYPE_CHECKING:
    from vlakit.policy import Policy, TrainedPolicy
    from vlakit.processing.processor import Processor
    from vlakit.schema import DatasetStatistics

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
    """A checkpoint's policy, its prompts padded alike. Raises StatisticsMissing, CheckpointMismatch."""
    statistics = statistics_for(suite, policy.processor)  # fails before the first episode
    if strict:
        check_surroundings(policy.card.surroundings, suite, where=name)
    overridden = sorted(differences(policy.card.surroundings, suite))
    if overridden:
        log.warning("the checkpoint's surroundings differ from the suite's in %s", ", ".join(overridden))
    check_observation(policy, suite, states[0], where=name)
    policy.pad_to = policy.processor.text_width(state.instruction for state in states)
    facts = {
        "sha256": policy.content_hash(),
        "constrain": policy.constrain,
        "pad_to": policy.pad_to,
        "device": policy.device.type,
        "overridden": overridden,
        **(policy.quantization.asked if policy.quantization else {}),
        **({"cuda_graphs": True} if policy.cuda_graphs else {}),
    }
    return Subject(name, policy, facts, action_bounds(suite, statistics, states), policy)


def check_observation(policy: TrainedPolicy, suite: Suite, state: InitialState, *, where: str) -> None:
    """Raise CheckpointMismatch, once and not in each episode, naming all that a policy needs and the suite lacks:
    cameras, proprio of its size. A world that cannot begin from `state` is its episode's to say.
    """
    try:
        with closing(suite.environment()) as environment:
            observation = environment.reset(state)
    except PartMissing:
        raise
    except Exception as error:  # whatever a simulator raises
        log.warning("no look ahead at what %s shows: %s", suite.name, error)
        return
    settings, size = policy.processor.settings, 0 if observation.proprio is None else observation.proprio.shape[-1]
    lacking = [f"no camera {camera!r}" for camera in settings.cameras if camera not in observation.images]
    if settings.proprio not in (0, size):
        lacking.append(f"proprio of {size} numbers, the policy takes {settings.proprio}")
    if lacking:
        raise CheckpointMismatch(
            f"suite {suite.name} does not show what the policy sees: {'; '.join(lacking)}",
            where=f"{where}; the suite's cameras: {', '.join(observation.images)}",
            do="choose the suite that its data came from, or train on what this one shows",
        )


def statistics_for(suite: Suite, processor: Processor) -> DatasetStatistics:
    """The action statistics of a suite's dataset. Raises StatisticsMissing that names a dataset to take instead."""
    try:
        return processor.statistics_of(suite.dataset)
    except StatisticsMissing as error:
        known = sorted(processor.statistics)
        if not known:
            raise
        others = f" (or {', '.join(known[1:])})" if known[1:] else ""
        do = f"fine-tune on {suite.dataset} first, or act in the units of another: suite.dataset={known[0]}{others}"
        raise StatisticsMissing(error.what, where=error.where, do=do) from error
