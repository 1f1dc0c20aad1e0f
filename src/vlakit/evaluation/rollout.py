"""Vectorised rollouts: slot s runs episodes s, s + B, s + 2B, ... and every batch has B rows.

A policy with a history window is given the last observations of each episode, the first repeated where it is younger.
Neither timing nor what is already done moves an episode to another slot, so the same policy, states and number of
slots give the same episodes, resumed or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from vlakit import __version__
from vlakit.errors import ConfigError
from vlakit.evaluation.actors import Actor, Bounds, Turn, actor_of, window_of
from vlakit.evaluation.latency import Control
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.starts import check_names
from vlakit.evaluation.suite import InitialState, Step, Suite
from vlakit.evaluation.worlds import Failure, worlds_of
from vlakit.schema import Float32, Observation

if TYPE_CHECKING:
    from vlakit.policy import Policy

WILD = 10.0  # spans of the usual range by which an action may miss it,
MARGIN = 10.0  # and metres or radians by which it always may: some dimensions never change in the data


@dataclass(frozen=True)
class Options:
    """How episodes are run. slots: rows of a batch; workers: processes that step environments, 0 = this one.

    bounds: the usual range of actions; policy: what records call the policy, such as its hash.
    """

    slots: int = 32
    workers: int = 0
    control: Control = field(default_factory=Control)
    bounds: Bounds | None = None
    policy: str = ""

    def __post_init__(self) -> None:
        if self.slots < 1 or self.workers < 0:
            raise ConfigError(
                f"slots={self.slots} workers={self.workers}", where="command line", do="at least 1 slot and 0 workers"
            )
        self.control.check_slots(self.slots)


def rollout(
    suite: Suite,
    policy: Policy | Actor,
    states: Sequence[InitialState],
    options: Options = Options(),
    *,
    skip: Collection[str] = (),
) -> Generator[EpisodeRecord, None, None]:
    """Run one episode from each state, but for those named in `skip`, and yield each record as its episode ends.

    An action that is not finite, of another size, or more than ten times out of range, a policy or an environment that
    raises: the episode is recorded as failed with its cause, and the rest goes on.
    """
    running = _Rollout(suite, actor_of(policy, options.slots), states, options, skip, window_of(policy))
    try:
        yield from running.run()
    finally:
        running.worlds.close()


@dataclass
class _Episode:
    """One episode under way: its last observations; of the actions in `plan`, None stands for holding still."""

    number: int
    state: InitialState
    history: deque[Observation]
    started: float
    plan: deque[Float32 | None] = field(default_factory=deque[Float32 | None])
    actions: list[Float32] = field(default_factory=list[Float32])
    credit: float = 0.0
    calls: int = 0
    waited_s: float = 0.0


class _Rollout:
    def __init__(
        self,
        suite: Suite,
        actor: Actor,
        states: Sequence[InitialState],
        options: Options,
        skip: Collection[str],
        window: int,
    ) -> None:
        check_names(states)
        self.suite, self.actor, self.options, self.window = suite, actor, options, window
        self.versions = {**suite.versions, "vlakit": __version__}
        self.worlds = worlds_of(suite, options.workers)
        numbered = list(enumerate(states))
        self.queues = [
            deque((number, state) for number, state in numbered[slot :: options.slots] if state.name not in skip)
            for slot in range(options.slots)
        ]
        self.episodes: dict[int, _Episode] = {}
        self.size = 0  # of an action; the first environment says it

    def run(self) -> Iterator[EpisodeRecord]:
        """All episodes."""
        while self.episodes or any(self.queues):
            yield from self._begin()
            yield from self._decide()
            yield from self._step()

    def _begin(self) -> Iterator[EpisodeRecord]:
        """Start the next episode of each idle slot."""
        now = perf_counter()
        first = {s: queue.popleft() for s, queue in enumerate(self.queues) if queue and s not in self.episodes}
        seen = self.worlds.call("reset", {slot: (state,) for slot, (_, state) in first.items()})
        for slot, (number, state) in first.items():
            history = deque([seen[slot]] * self.window, maxlen=self.window)
            self.episodes[slot] = _Episode(number, state, history, now)
            if isinstance(seen[slot], Failure):
                yield self._end(slot, error=seen[slot].cause)
        for slot, held in self._holds([slot for slot in first if slot in self.episodes]).items():
            if isinstance(held, Failure):
                yield self._end(slot, error=held.cause)
            else:
                self.size = len(held)
        begun = {slot: state for slot, (_, state) in first.items() if slot in self.episodes}
        if begun:
            self.actor.begin(begun)

    def _decide(self) -> Iterator[EpisodeRecord]:
        """Ask for actions where none are planned."""
        turns = {
            slot: Turn(episode.state, len(episode.actions), stacked(episode.history))
            for slot, episode in self.episodes.items()
            if not episode.plan
        }
        if not turns:
            return
        control = self.options.control
        began = perf_counter()
        answers: dict[int, Any] = self.actor.act(turns, self.worlds)
        latency_s = control.seconds(perf_counter() - began)
        held = control.held_steps(latency_s, self.suite.control_hz)
        for slot, answer in answers.items():
            episode = self.episodes[slot]
            episode.calls += 1
            episode.waited_s += latency_s if control.blocking else 0.0
            fault = answer if isinstance(answer, Failure) else fault_of(answer, self.size, self.options.bounds)
            if fault is not None:
                yield self._end(slot, error=fault.cause)
                continue
            episode.plan.extend([None] * held)
            episode.plan.extend(answer[: control.execute])  # pyright: ignore[reportIndexIssue]

    def _holds(self, slots: Sequence[int]) -> dict[int, Any]:
        return self.worlds.call("hold", dict.fromkeys(slots, ()))

    def _step(self) -> Iterator[EpisodeRecord]:
        """One control step in every slot."""
        planned = {slot: episode.plan.popleft() for slot, episode in self.episodes.items()}
        held = self._holds([slot for slot, action in planned.items() if action is None])
        actions = {slot: held.get(slot) if action is None else action for slot, action in planned.items()}
        failed = {slot: action for slot, action in actions.items() if isinstance(action, Failure)}
        for slot, failure in failed.items():
            yield self._end(slot, error=failure.cause)
        taken = {s: np.asarray(action, np.float32) for s, action in actions.items() if s not in failed}
        for slot, step in self.worlds.call("step", {slot: (action,) for slot, action in taken.items()}).items():
            self.episodes[slot].actions.append(taken[slot])
            if isinstance(step, Failure):
                yield self._end(slot, error=step.cause)
            elif self._advance(slot, step):
                yield self._end(slot, success=bool(step.done and step.credit >= 1))

    def _advance(self, slot: int, step: Step) -> bool:
        """Take in what a step led to; whether the episode is over."""
        episode = self.episodes[slot]
        episode.history.append(step.observation)  # every step's, also between two questions to the policy
        episode.credit = max(episode.credit, float(step.credit))
        return step.done or len(episode.actions) >= self.suite.max_steps(episode.state.task)

    def _end(self, slot: int, *, success: bool = False, error: str | None = None) -> EpisodeRecord:
        episode = self.episodes.pop(slot)
        state = episode.state
        return EpisodeRecord(
            number=episode.number,
            suite=self.suite.name,
            task=state.task,
            instruction=state.instruction,
            initial_state=state.name,
            seed=state.seed,
            success=success,
            credit=episode.credit,
            steps=len(episode.actions),
            actions=[[float(str(value)) for value in action] for action in episode.actions],  # short, and exact
            error=error,
            policy_calls=episode.calls,
            policy=self.options.policy,
            versions=dict(self.versions),
            wall_s=round(perf_counter() - episode.started, 4),
            robot_s=len(episode.actions) / self.suite.control_hz + episode.waited_s,
        )


def stacked(history: Sequence[Observation]) -> Observation:
    """The newest of W observations with the pictures and proprio of all, oldest first; of one, that one itself."""
    newest = history[-1]
    if len(history) == 1:
        return newest
    proprio = [one.proprio for one in history if one.proprio is not None]
    repeated = [one is following for one, following in zip(history, list(history)[1:], strict=False)]
    return replace(
        newest,
        images={camera: np.concatenate([one.images[camera] for one in history]) for camera in newest.images},
        proprio=np.concatenate(proprio) if proprio else None,
        window_mask=np.array([not again for again in repeated] + [True]),  # the first stands in for what was before it
    )


def fault_of(chunk: Float32, size: int, bounds: Bounds | None) -> Failure | None:
    """What is wrong with a chunk of actions (H, A); None when it can be carried out."""
    if chunk.ndim != 2 or not len(chunk) or chunk.shape[1] != size:
        return Failure(f"the policy answers with an array {chunk.shape}, an action here has {size} numbers")
    if not np.isfinite(chunk).all():
        return Failure(f"the policy's action is not finite: {chunk[~np.isfinite(chunk).all(axis=1)][0].tolist()}")
    low, high = bounds or (np.zeros(1, np.float32), np.zeros(1, np.float32))
    margin = np.maximum(WILD * (high - low), MARGIN)
    outside = (chunk < low - margin) | (chunk > high + margin)
    if outside.any():
        step, dimension = (int(i) for i in np.argwhere(outside)[0])
        return Failure(f"the policy's action is out of range: {chunk[step, dimension]:.4g} in dimension {dimension}")
    return None
