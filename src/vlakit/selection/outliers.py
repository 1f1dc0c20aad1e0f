"""Pools of tabletop demonstrations in which some cannot be learnt, each for a reason that a group of them shares.

What decides the label is not in what the policy sees: an attribute, a mark smaller than a pixel, which of two operators
it was, nothing at all. Source of the idea: collective outliers, Karamcheti et al. 2021.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vlakit.data.rlds.writer import RldsWriter
from vlakit.errors import ConfigError, InvalidData, PartMissing
from vlakit.evaluation.demonstrator import Demonstration, DemonstrationPlan, demonstrate
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.evaluation.suites.tabletop.scene import RECEPTACLES
from vlakit.files import write_atomically
from vlakit.registry import Registry
from vlakit.selection.pool import REASONS

OPPOSITE = {"left": "right", "right": "left", "forward": "back", "back": "forward"}
TRIES = 5  # starts for one demonstration, of which the expert fails at some


class Reason(Protocol):
    """Why a group of demonstrations cannot be learnt. Adding one is adding a registered class."""

    @property
    def task(self) -> str:
        """Of which its demonstrations are; "": any."""
        ...

    def start(self, state: InitialState, rng: np.random.Generator) -> InitialState:
        """What is demonstrated, and what is said, instead."""
        ...

    def actions(self, actions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What is recorded (T, A) instead."""
        ...


OUTLIERS: Registry[Reason] = Registry("reason of outliers")


@dataclass(frozen=True)
class _OneOfThem:
    """Lifts one of the things in the scene; which, only words tell that mean nothing to a camera."""

    words: str
    task: str = "lift"

    def start(self, state: InitialState, rng: np.random.Generator) -> InitialState:
        content = _content(state)
        things = content["layout"]["things"]
        loose = [i for i, thing in enumerate(things) if thing["shape"] not in RECEPTACLES]
        goal = {**content["goal"], "x": int(rng.choice(loose))}
        return replace(state, instruction=self.words, content={**content, "goal": goal})

    def actions(self, actions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return actions


@OUTLIERS.register("hidden_attribute")
def hidden_attribute() -> Reason:
    """All things weigh the same to a camera."""
    return _OneOfThem("lift the heavy one")


@OUTLIERS.register("illegible_symbol")
def illegible_symbol() -> Reason:
    """The mark on a thing would be smaller than a pixel of the policy's picture, so that none is painted."""
    return _OneOfThem("lift the one with the star")


@OUTLIERS.register("other_convention")
class OtherConvention:
    """An operator who stands on the other side of the table: left is right, forward is back."""

    task = "push"

    def start(self, state: InitialState, rng: np.random.Generator) -> InitialState:
        """The instruction stays."""
        content = _content(state)
        goal = {**content["goal"], "direction": OPPOSITE[content["goal"]["direction"]]}
        return replace(state, content={**content, "goal": goal})

    def actions(self, actions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return actions


@OUTLIERS.register("noise")
class Noise:
    """Each number is drawn anew between the least and the largest of the demonstration's own."""

    task = ""

    def start(self, state: InitialState, rng: np.random.Generator) -> InitialState:
        return state

    def actions(self, actions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(actions.min(axis=0), actions.max(axis=0), actions.shape).astype(np.float32)


@dataclass(frozen=True)
class PoolPlan:
    """n demonstrations, `share` of them outliers, the reasons in turn; the rest as `vlakit demonstrate` makes them.

    The same plan gives the same bytes. With share 0 the demonstrations are those that are no outliers at any share, and
    others in place of the outliers. Raises ConfigError.
    """

    n: int = 200
    share: float = 0.25
    reasons: tuple[str, ...] = ("hidden_attribute", "illegible_symbol", "other_convention", "noise")
    seed: int = 0
    noise: float = 0.3

    def __post_init__(self) -> None:
        for reason in self.reasons:
            OUTLIERS.get(reason)
        if self.n < 1 or not 0 <= self.share < 1 or (self.share and not self.reasons):
            raise ConfigError(
                f"n={self.n} share={self.share} reasons={list(self.reasons)}",
                where="pool",
                do="give n above 0, share in [0, 1) and a reason",
            )

    def flagged(self) -> dict[int, str]:
        """Id -> reason; a larger share flags more, and the same ones."""
        order = np.random.default_rng([self.seed, 1]).permutation(self.n)[: round(self.share * self.n)]
        return {int(one): self.reasons[i % len(self.reasons)] for i, one in enumerate(order)}


def write_pool(
    suite: Suite, plan: PoolPlan, out: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[int, str]:
    """Write the pool as an RLDS folder, and beside it why some are outliers; id -> reason.

    Raises ConfigError where `out` is there, PartMissing for a suite that is no tabletop, InvalidData where the expert
    keeps failing.
    """
    flagged = plan.flagged()
    with RldsWriter(out, suite.dataset) as writer:
        for number, demonstration in enumerate(_demonstrations(suite, plan, flagged)):
            state = demonstration.state
            metadata = {"suite": suite.name, "task": state.task, "initial_state": state.name, "seed": state.seed}
            writer.write({"steps": demonstration.steps(), "episode_metadata": metadata})
            if progress:
                progress(number + 1, plan.n)
        write_atomically(out / REASONS, json.dumps(flagged, indent=1) + "\n")
    return flagged


def _demonstrations(suite: Suite, plan: PoolPlan, flagged: Mapping[int, str]) -> Iterator[Demonstration]:
    scale = np.asarray(suite.noise, np.float32)
    how = DemonstrationPlan(plan.n, plan.seed, plan.noise)
    with closing(suite.environment()) as environment:
        for number in range(plan.n):
            reason = OUTLIERS.build(flagged[number]) if number in flagged else None
            rng = np.random.default_rng([plan.seed, 2, number])
            for state in _starts(suite, plan, number, reason.task if reason else ""):
                shown = reason.start(state, rng) if reason else state
                one = demonstrate(environment, shown, suite.max_steps(state.task), scale, how)
                if one.success:
                    yield replace(one, actions=reason.actions(one.actions, rng)) if reason else one
                    break
            else:
                raise InvalidData(
                    f"the expert fails from {TRIES} starts of demonstration {number}",
                    where=f"suite {suite.name}",
                    do="lower the noise, or leave the reason out",
                )


def _starts(suite: Suite, plan: PoolPlan, number: int, kind: str) -> Sequence[InitialState]:
    """Starts of demonstration `number`, no other's; the tasks come in turn, or all are of one kind."""
    task = kind or suite.tasks[number % len(suite.tasks)]
    if task not in suite.tasks:
        raise PartMissing(f"no task {task!r}", where=f"suite {suite.name}", do="take suite=tabletop, or other reasons")
    return suite.training_states(task, TRIES * (number + 1), plan.seed)[TRIES * number :]


def _content(state: InitialState) -> dict[str, Any]:
    content = dict(state.content)
    if not {"layout", "goal"} <= content.keys():
        raise PartMissing("these starts hold no layout and goal", where=state.name, do="take suite=tabletop")
    return content
