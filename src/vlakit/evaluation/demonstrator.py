"""Demonstrations by a suite's scripted expert: only episodes that succeed, labelled with what the expert wanted.

Disturbed actions lead the world astray, the label says how to get back: that is what imitation needs to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.util import Finalize
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
import simplejpeg  # pyright: ignore[reportMissingTypeStubs]

from vlakit.errors import ConfigError, InvalidData
from vlakit.evaluation.starts import chosen_tasks
from vlakit.evaluation.suite import Environment, InitialState, Suite
from vlakit.schema import Float32

BuildSuite: TypeAlias = Callable[[], Suite]  # picklable: every worker process builds its own
Run: TypeAlias = Callable[[Sequence[InitialState]], Iterator["Demonstration"]]

JPEG_QUALITY = 95
HOPELESS = 0.2  # an expert that succeeds less often than this ends the command, after so many tries:
TRIES_BEFORE_GIVING_UP = 20


@dataclass(frozen=True)
class DemonstrationPlan:
    """What to demonstrate: so many successful episodes of each task; `noise` is the share of disturbed actions.

    tasks: none means all of the suite. The same plan gives the same bytes, whatever the number of processes.
    """

    episodes: int = 100
    seed: int = 0
    noise: float = 0.3
    tasks: tuple[str, ...] = ()

    def check(self, suite: Suite) -> list[str]:
        """The tasks to demonstrate; raises ConfigError, UnknownName."""
        if self.episodes < 1 or not 0 <= self.noise <= 1:
            raise ConfigError(
                f"episodes={self.episodes} noise={self.noise} cannot be used",
                where="command line",
                do="give episodes above 0 and noise, a share of the actions, in [0, 1]",
            )
        return chosen_tasks(suite, self.tasks)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode of the expert: an encoded image, proprioception and an action (A,) before each of its T steps."""

    state: InitialState
    success: bool
    images: list[bytes]
    actions: Float32  # (T, A)
    states: Float32  # (T, P); no numbers where the suite has none

    def steps(self) -> list[dict[str, Any]]:
        """T steps as RLDS names their fields."""
        last = len(self.images) - 1
        states = [{"state": state} for state in self.states] if self.states.size else [{}] * len(self.images)
        return [
            {
                "observation": {"image": image, **state},
                "action": action,
                "language_instruction": self.state.instruction,
                "is_first": step == 0,
                "is_last": step == last,
                "is_terminal": step == last and self.success,
                "reward": np.float32(step == last and self.success),
            }
            for step, (image, state, action) in enumerate(zip(self.images, states, self.actions, strict=True))
        ]


@dataclass(slots=True)
class Tally:
    """Episodes of one task: tried, kept (the successful ones), and the steps of those."""

    tried: int = 0
    kept: int = 0
    steps: int = 0

    def count(self, demonstration: Demonstration) -> None:
        """Add one episode."""
        self.tried += 1
        self.kept += demonstration.success
        self.steps += len(demonstration.images) if demonstration.success else 0


@dataclass(slots=True)
class Demonstrator:
    """Runs a plan; `tallies` says afterwards how often the expert succeeded at each task."""

    build: BuildSuite
    plan: DemonstrationPlan
    workers: int = 0  # processes; 0: this one
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])

    def __iter__(self) -> Iterator[Demonstration]:
        """Yield successful episodes in an order that does not depend on `workers`.

        What fails is made up for by later starts, a round of all tasks at a time. Raises InvalidData when the expert
        hardly ever succeeds.
        """
        suite = self.build()
        self.tallies = {task: Tally() for task in self.plan.check(suite)}
        with _runner(self.build, self.plan, self.workers) as run:
            while states := [state for task in self.tallies for state in self._next_states(suite, task)]:
                for demonstration in run(states):
                    self.tallies[demonstration.state.task].count(demonstration)
                    if demonstration.success:
                        yield demonstration

    def _next_states(self, suite: Suite, task: str) -> Sequence[InitialState]:
        tally = self.tallies[task]
        missing = self.plan.episodes - tally.kept
        if missing <= 0:
            return ()
        if tally.tried >= TRIES_BEFORE_GIVING_UP and tally.kept < HOPELESS * tally.tried:
            raise InvalidData(
                f"the expert succeeds in {tally.kept} of {tally.tried} episodes of {task!r}",
                where=f"suite {suite.name}",
                do="lower noise=, or leave the task out: tasks=[...]",
            )
        states = suite.training_states(task, tally.tried + missing, self.plan.seed)[tally.tried :]
        if not states:
            raise InvalidData(f"{task!r} has only {tally.tried} training starts", do="ask for fewer episodes=")
        return states


def demonstrate(
    environment: Environment, state: InitialState, max_steps: int, scale: Float32, plan: DemonstrationPlan
) -> Demonstration:
    """One episode of the expert from `state`; scale (A,) is the standard deviation of a disturbance."""
    rng = np.random.default_rng([plan.seed, crc32(state.name.encode())])
    images: list[bytes] = []
    actions: list[Float32] = []
    states: list[Float32] = []
    success = False
    observation = environment.reset(state)
    for _ in range(max_steps):
        wanted = np.asarray(environment.expert(), np.float32)
        images.append(encode(observation.image))
        actions.append(wanted)
        states.append(np.zeros(0, np.float32) if observation.proprio is None else observation.proprio[-1])
        disturbed = rng.random() < plan.noise
        action = (wanted + scale * rng.standard_normal(len(scale))).astype(np.float32) if disturbed else wanted
        step = environment.step(action)
        observation = step.observation
        if step.done:
            success = step.credit >= 1
            break
    return Demonstration(state, success, images, np.stack(actions), np.stack(states))


def encode(image: np.ndarray) -> bytes:
    """JPEG with colours at full resolution: at 64 px halved colours would cost more than the few bytes they save."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), JPEG_QUALITY, "RGB", "444")


class _Slot:
    """One suite and one environment, and how an episode runs in them."""

    def __init__(self, build: BuildSuite, plan: DemonstrationPlan) -> None:
        self.suite, self.plan = build(), plan
        self.environment = self.suite.environment()
        self.max_steps = {task: self.suite.max_steps(task) for task in self.suite.tasks}
        self.scale = np.asarray(self.suite.noise, np.float32)

    def run(self, state: InitialState) -> Demonstration:
        return demonstrate(self.environment, state, self.max_steps[state.task], self.scale, self.plan)

    def close(self) -> None:
        self.environment.close()


_what: list[tuple[BuildSuite, DemonstrationPlan]] = []  # of a worker process: one, and so is
_slots: list[_Slot] = []


def _remember(build: BuildSuite, plan: DemonstrationPlan) -> None:
    _what.append((build, plan))


def _run_in_slot(state: InitialState) -> Demonstration:
    if not _slots:  # not in the initializer, whose errors a pool keeps to itself
        _slots.append(_Slot(*_what[0]))
        Finalize(None, _slots[0].close, exitpriority=10)  # atexit is not run in a worker
    return _slots[0].run(state)


@contextmanager
def _runner(build: BuildSuite, plan: DemonstrationPlan, workers: int) -> Iterator[Run]:
    """A function from starts to their episodes in the same order, in this process or in `workers` new ones."""
    if workers < 1:
        with closing(_Slot(build, plan)) as slot:
            yield lambda states: map(slot.run, states)
        return
    # spawned, not forked: a rendering context does not survive a fork
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _remember, (build, plan))
    try:
        yield lambda states: pool.map(_run_in_slot, states, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)
