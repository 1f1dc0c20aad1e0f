"""Who acts in a rollout: a policy that sees observations, or a control that may look into the world.

Controls say what a suite's numbers mean: the expert must succeed, doing nothing and acting at random must not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from vlakit.errors import ConfigError, InvalidData
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.evaluation.worlds import Failure, Worlds, cause_of
from vlakit.registry import Registry
from vlakit.schema import DatasetStatistics, Float32, Observation

if TYPE_CHECKING:
    from vlakit.policy import Policy

Bounds: TypeAlias = tuple[Float32, Float32]  # lowest and highest action, (A,) each
Answers: TypeAlias = dict[int, Any]  # slot -> chunk (H, A), or Failure


@dataclass(frozen=True)
class Turn:
    """A slot that needs an action: `step` control steps of its episode are over; what the actor sees of it."""

    state: InitialState
    step: int
    observation: Observation


@runtime_checkable
class Actor(Protocol):
    """Decides for all slots at once."""

    def begin(self, states: Mapping[int, InitialState]) -> None:
        """Episodes begin in these slots."""
        ...

    def act(self, turns: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """A chunk (H, A) float32 for each of these slots, or the Failure that ends its episode."""
        ...


class PolicyActor:
    """A policy on batches that always have `slots` rows, so that a row's bits do not depend on what else is running.

    Rows without a turn repeat the observation of another. When the policy raises, each row is asked alone (in a batch
    of its copies), and only those that raise again fail. A policy with a memory sees these copies too.
    """

    def __init__(self, policy: Policy, slots: int) -> None:
        self.policy, self.slots = policy, slots

    def begin(self, states: Mapping[int, InitialState]) -> None:
        """See Actor."""
        self.policy.reset(sorted(states))

    def act(self, turns: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """See Actor."""
        spare = next(iter(turns.values())).observation
        rows = [turns[slot].observation if slot in turns else spare for slot in range(self.slots)]
        actions = self._ask(rows)
        if not isinstance(actions, Failure):
            return {slot: actions[slot] for slot in turns}
        answers: Answers = {}
        for slot, turn in turns.items():
            alone = self._ask([turn.observation] * self.slots)
            answers[slot] = alone if isinstance(alone, Failure) else alone[slot]
        return answers

    def _ask(self, observations: Sequence[Observation]) -> Any:
        try:
            actions = np.asarray(self.policy.act(observations), np.float32)
        except Exception as error:  # whatever a policy raises
            if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
                raise ConfigError(
                    f"no memory for a batch of {len(observations)}", where="policy", do="give fewer slots="
                ) from error
            return Failure(f"the policy raised {cause_of(error)}")
        if actions.ndim != 3 or len(actions) != len(observations):
            return Failure(f"the policy answers {len(observations)} observations with an array {actions.shape}")
        return actions


class _FromWorld:
    """Does what one method of the environment says."""

    method: str

    def begin(self, states: Mapping[int, InitialState]) -> None:
        """See Actor."""

    def act(self, turns: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """See Actor."""
        actions = worlds.call(self.method, dict.fromkeys(turns, ()))
        return {slot: one if isinstance(one, Failure) else np.asarray(one)[None] for slot, one in actions.items()}


class Expert(_FromWorld):
    """The suite's scripted expert."""

    method = "expert"


class Nothing(_FromWorld):
    """Holds still."""

    method = "hold"


class Random:
    """Uniform actions between two bounds; those of an episode follow from its initial state and the seed alone."""

    def __init__(self, bounds: Bounds, seed: int = 0) -> None:
        self.bounds, self.seed = bounds, seed
        self._rngs: dict[int, np.random.Generator] = {}

    def begin(self, states: Mapping[int, InitialState]) -> None:
        """See Actor."""
        for slot, state in states.items():
            digest = sha256(f"{self.seed}/{state.name}".encode()).digest()
            self._rngs[slot] = np.random.default_rng(int.from_bytes(digest[:16], "big"))

    def act(self, turns: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """See Actor."""
        return {slot: self._rngs[slot].uniform(*self.bounds).astype(np.float32)[None] for slot in turns}


class Replay:
    """Recorded actions (T, A) by the name of the initial state; past their end, the world is held."""

    def __init__(self, recorded: Mapping[str, Float32]) -> None:
        self.recorded = recorded

    def begin(self, states: Mapping[int, InitialState]) -> None:
        """See Actor. Raises InvalidData for a state without a record."""
        for state in states.values():
            if state.name not in self.recorded:
                raise InvalidData(f"no recorded actions from {state.name!r}", where=f"{len(self.recorded)} records")

    def act(self, turns: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """See Actor."""
        over = [slot for slot, turn in turns.items() if turn.step >= len(self.recorded[turn.state.name])]
        held = Nothing().act({slot: turns[slot] for slot in over}, worlds)
        return {s: held[s] if s in held else self.recorded[t.state.name][t.step][None] for s, t in turns.items()}


CONTROLS: Registry[Actor] = Registry("control policy")


@CONTROLS.register("expert")
def _expert(bounds: Callable[[], Bounds], seed: int) -> Actor:
    return Expert()


@CONTROLS.register("nothing")
def _nothing(bounds: Callable[[], Bounds], seed: int) -> Actor:
    return Nothing()


@CONTROLS.register("random")
def _random(bounds: Callable[[], Bounds], seed: int) -> Actor:
    return Random(bounds(), seed)


def actor_of(policy: Policy | Actor, slots: int) -> Actor:
    """An actor as it is, a policy as an actor."""
    return policy if isinstance(policy, Actor) else PolicyActor(policy, slots)


def window_of(policy: Policy | Actor) -> int:
    """How many observations, the newest last, a policy is given at once: its `window`; 1 where it has none."""
    return int(getattr(policy, "window", 1))


def action_bounds(suite: Suite, statistics: DatasetStatistics | None, states: Sequence[InitialState]) -> Bounds:
    """What actions are usual here: the suite's own `action_range`, else q01 to q99 of the data, else what its expert
    does in the first of `states` of each task.
    """
    if suite.action_range is not None:
        low, high = suite.action_range
        return np.asarray(low, np.float32), np.asarray(high, np.float32)
    if statistics is not None:
        return statistics.q01.astype(np.float32), statistics.q99.astype(np.float32)
    firsts = {state.task: state for state in reversed(states)}
    actions = np.stack(list(_expert_actions(suite, list(firsts.values()))))
    return actions.min(axis=0), actions.max(axis=0)


def _expert_actions(suite: Suite, states: Sequence[InitialState]) -> Iterator[Float32]:
    with closing(suite.environment()) as environment:
        for state in states:
            environment.reset(state)
            for _ in range(suite.max_steps(state.task)):
                action = np.asarray(environment.expert(), np.float32)
                yield action
                if environment.step(action).done:
                    break
