"""`Suite` and `Environment`: what a benchmark must offer so that every policy meets the same initial states.

A suite is data and facts; an environment is one running episode. The rollout loop, records and tables know only these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from vlakit.schema import Float32, Observation, UInt8

ActionRange: TypeAlias = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class InitialState:
    """One start of one task, shared by all policies, which is what makes comparisons paired.

    name is unique in its suite. content: plain JSON values that the suite's environment understands (seed, qpos, ...).
    """

    name: str
    task: str
    seed: int
    instruction: str
    content: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Step:
    """What one control step led to: what the policy sees next, partial credit in {0, 0.5, 1}, and whether it is over.

    done with credit 1 is success; done with less means that no success can follow. The loop adds the step limit.
    """

    observation: Observation
    credit: float
    done: bool


class Environment(Protocol):
    """One slot in which episodes of a suite run one after another."""

    def reset(self, state: InitialState) -> Observation:
        """Put the world into `state`, to the last bit the same each time."""
        ...

    def step(self, action: Float32) -> Step:
        """One control step with an action (A,): metres, radians, gripper 0 to 1 (1 = open)."""
        ...

    def hold(self) -> Float32:
        """The action (A,) that asks for no motion and leaves the gripper as last commanded."""
        ...

    def expert(self) -> Float32:
        """The scripted expert's action (A,) now. Raises PartMissing where a suite has none."""
        ...

    def picture(self, size: int) -> UInt8:
        """(size, size, 3) uint8 of the same moment for people to watch."""
        ...

    def close(self) -> None:
        """Free the renderer."""
        ...


class Suite(Protocol):
    """A benchmark: tasks, their shared initial states, and environments to run them in.

    surroundings: plain values that a checkpoint must have been made for: camera, action (such as "delta_eef 7"),
    control_hz. versions: what the pictures and the physics depend on: renderer, mujoco, ...
    """

    name: str
    dataset: str  # whose action statistics the policy shall use
    control_hz: float
    surroundings: Mapping[str, Any]
    noise: Float32  # (A,) standard deviation of what disturbs an action of a demonstration, in the action's units

    @property
    def tasks(self) -> Sequence[str]:
        """Names of the tasks."""
        ...

    @property
    def action_range(self) -> ActionRange | None:
        """Lowest and highest value of each dimension of an action; None where neither robot nor benchmark says."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Name -> version of what results depend on."""
        ...

    def max_steps(self, task: str) -> int:
        """Control steps after which an episode of `task` has failed."""
        ...

    def initial_states(self, task: str, n: int) -> Sequence[InitialState]:
        """The first n starts of `task`, the same for everybody. Raises UnknownName."""
        ...

    def training_states(self, task: str, n: int, seed: int) -> Sequence[InitialState]:
        """The first n starts of `task` to demonstrate from, none of them an evaluation start. Raises UnknownName.

        A longer list begins with a shorter one; another seed gives other starts.
        """
        ...

    def environment(self) -> Environment:
        """A new slot; call it in the process that steps it."""
        ...
