"""A suite without a simulator: a dot on a line must be brought to its goal. Quick, and it knows what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlakit.errors import UnknownName, nearest
from vlakit.evaluation.suite import ActionRange, InitialState, Step
from vlakit.schema import Float32, Observation, UInt8

SIZE = 16
TASKS = {"left": -1.0, "right": 1.0}


class LineEnvironment:
    """The dot starts near 0; its goal is at -1 or 1; an action moves it by its first value, at most 0.25 m."""

    def __init__(self, gain: float) -> None:
        self.gain = gain
        self.x = self.goal = 0.0
        self.closed = False
        self.actions: list[Float32] = []

    def reset(self, state: InitialState) -> Observation:
        self.x, self.goal = float(state.content["x"]), TASKS[state.task]
        self.instruction, self.actions = state.instruction, []
        return self._observation()

    def step(self, action: Float32) -> Step:
        self.actions.append(action)
        self.x += float(np.clip(action[0], -0.25, 0.25))
        near = abs(self.x - self.goal) < 0.1
        return Step(self._observation(), float(near), near)

    def hold(self) -> Float32:
        return np.zeros(7, np.float32)

    def expert(self) -> Float32:
        action = np.zeros(7, np.float32)
        action[0] = self.gain * np.clip(self.goal - self.x, -0.25, 0.25)
        action[6] = 1
        return action

    def picture(self, size: int) -> UInt8:
        column = int(np.clip((self.x + 1.5) / 3 * size, 0, size - 1))
        image = np.zeros((size, size, 3), np.uint8)
        image[:, column] = 255
        return image

    def close(self) -> None:
        self.closed = True

    def _observation(self) -> Observation:
        return Observation.of(self.picture(SIZE), self.instruction, "line")


@dataclass
class LineSuite:
    """gain: 1 is a good expert, 0 one that never moves. n_starts: how many training starts there are."""

    gain: float = 1.0
    n_starts: int = 1000
    name: str = "line"
    dataset: str = "line"
    control_hz: float = 5.0
    surroundings: dict[str, Any] = field(default_factory=lambda: {"camera": "front", "action": "delta_eef 7"})
    action_range: ActionRange | None = None
    noise: Float32 = field(default_factory=lambda: np.array([0.3, 0, 0, 0, 0, 0, 0], np.float32))
    tasks: tuple[str, ...] = tuple(TASKS)
    environments: list[LineEnvironment] = field(default_factory=list[LineEnvironment])

    @property
    def versions(self) -> dict[str, str]:
        return {"line": "1"}

    def max_steps(self, task: str) -> int:
        return 7

    def initial_states(self, task: str, n: int) -> list[InitialState]:
        return self._states(task, "eval", n, 0)

    def training_states(self, task: str, n: int, seed: int) -> list[InitialState]:
        return self._states(task, f"train-{seed}", min(n, self.n_starts), seed + 1)

    def environment(self) -> LineEnvironment:
        self.environments.append(LineEnvironment(self.gain))
        return self.environments[-1]

    def _states(self, task: str, kind: str, n: int, seed: int) -> list[InitialState]:
        if task not in TASKS:
            raise UnknownName(f"no task called {task!r}", where="suite line", do=nearest(task, TASKS))
        starts = np.random.default_rng(seed).uniform(-0.4, 0.4, n).round(6)
        return [
            InitialState(f"{task}/{kind}-{i}", task, seed, f"move {task}", {"x": float(x)})
            for i, x in enumerate(starts)
        ]
