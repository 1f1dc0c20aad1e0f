"""A small deterministic suite: a dot must reach a square. Drawn in a few pixels, no physics, no files."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlakit.errors import UnknownName, nearest
from vlakit.evaluation.suite import ActionRange, InitialState, Step
from vlakit.schema import DatasetStatistics, Float32, Observation, UInt8

REACH, SPEED, MAX_STEPS = 0.02, 0.05, 25
SAID = {"reach": "move to the square", "far": "put the dot on the square that is far away"}


def statistics(scale: float = 1.0, gripper: float = 1.0) -> DatasetStatistics:
    """Of moves within SPEED; `scale` and `gripper` make them wrong."""
    low = np.array([-SPEED * scale] * 6 + [0.0])
    high = np.array([SPEED * scale] * 6 + [gripper])
    mask = np.array([True] * 6 + [gripper != 1.0])
    return DatasetStatistics(low, high, (low + high) / 2, (high - low) / 4, 2 * low, 2 * high + 1, mask, 100, 10)


@dataclass
class FakeSuite:
    """Start and goal lie in the unit square; success: the dot is near the goal with an open gripper."""

    name: str = "fake"
    dataset: str = "fake_dots"
    control_hz: float = 5.0
    surroundings: Mapping[str, Any] = field(default_factory=lambda: {"action": "delta_eef 7", "control_hz": 5.0})
    raises_at: Mapping[str, int] = field(default_factory=dict[str, int])  # state's name -> step
    noise: Float32 = field(default_factory=lambda: np.full(7, 0.01, np.float32))
    tasks: Sequence[str] = ("reach", "far")
    limit: int = MAX_STEPS
    action_range: ActionRange | None = None

    @property
    def versions(self) -> Mapping[str, str]:
        return {"renderer": "dots", "mujoco": "none"}

    def max_steps(self, task: str) -> int:
        return self.limit

    def initial_states(self, task: str, n: int) -> Sequence[InitialState]:
        if task not in self.tasks:
            raise UnknownName(f"no task {task!r}", do=nearest(task, self.tasks))
        return [self._state(task, f"{task}-{i:03d}") for i in range(n)]

    def training_states(self, task: str, n: int, seed: int) -> Sequence[InitialState]:
        return [self._state(task, f"train-{task}-{seed}-{i:03d}") for i in range(n)]

    def environment(self) -> FakeEnvironment:
        return FakeEnvironment(self)

    def _state(self, task: str, name: str) -> InitialState:
        seed = zlib.crc32(name.encode())
        rng = np.random.default_rng(seed)
        start, angle = rng.uniform(0.4, 0.6, 2), rng.uniform(0, 2 * np.pi)
        goal = start + (0.35 if task == "far" else 0.2) * np.array([np.cos(angle), np.sin(angle)])
        return InitialState(name, task, seed, SAID[task], {"start": start.tolist(), "goal": goal.tolist()})


class FakeEnvironment:
    def __init__(self, suite: FakeSuite) -> None:
        self.suite = suite

    def reset(self, state: InitialState) -> Observation:
        self.state, self.n_steps, self.gripper = state, 0, 1.0
        self.at, self.goal = np.array(state.content["start"]), np.array(state.content["goal"])
        return self._observation()

    def step(self, action: Float32) -> Step:
        if self.suite.raises_at.get(self.state.name) == self.n_steps:
            raise RuntimeError("the contact solver diverged")
        self.n_steps += 1
        self.at = self.at + np.clip(action[:2], -SPEED, SPEED)
        self.gripper = float(action[6])
        near = float(np.abs(self.at - self.goal).max()) < REACH
        done = near and self.gripper > 0.5
        return Step(self._observation(), 1.0 if done else 0.5 if near else 0.0, done)

    def hold(self) -> Float32:
        return np.array([0, 0, 0, 0, 0, 0, self.gripper], np.float32)

    def expert(self) -> Float32:
        move = np.clip(self.goal - self.at, -SPEED, SPEED)
        return np.array([*move, 0, 0, 0, 0, 1], np.float32)

    def picture(self, size: int) -> UInt8:
        image = np.full((size, size, 3), 230, np.uint8)
        for place, half, colour in ((self.goal, size // 16, (200, 30, 30)), (self.at, size // 32, (20, 20, 20))):
            row, column = (int(v * (size - 1)) for v in np.clip(place, 0, 1))
            image[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1] = colour
        return image

    def close(self) -> None:
        pass

    def _observation(self) -> Observation:
        return Observation.of(self.picture(64), self.state.instruction, self.suite.dataset)


def states_of(suite: FakeSuite, n: int) -> list[InitialState]:
    """n starts of each task, in turn."""
    return [
        state for pair in zip(*(suite.initial_states(task, n) for task in suite.tasks), strict=True) for state in pair
    ]


class Seeker:
    """A policy that finds dot and goal by colour in the picture: right without looking into the world."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def reset(self, slots: Sequence[int]) -> None:
        pass

    def act(self, observations: Sequence[Observation]) -> Float32:
        self.batches.append(len(observations))
        return np.stack([self.chunk(observation) for observation in observations])

    def chunk(self, observation: Observation) -> Float32:
        image = observation.image.astype(int)
        dark, red = image[..., 0] < 100, (image[..., 0] > 150) & (image[..., 1] < 100)
        if not red.any():
            red = dark
        at, goal = (np.argwhere(mask).mean(axis=0) / 63 for mask in (dark, red))
        return np.array([[*np.clip(goal - at, -SPEED, SPEED), 0, 0, 0, 0, 1]], np.float32)
