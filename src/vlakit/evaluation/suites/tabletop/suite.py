"""The tabletop behind the `Suite` protocol: one embodiment, as trained or along the axes of generalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from vlakit.errors import ConfigError, UnknownName, nearest
from vlakit.evaluation.renderer import choose_backend
from vlakit.evaluation.suite import InitialState, Step
from vlakit.evaluation.suites.tabletop.axes import AXES, UNSEEN_COLOURS, pairs_right
from vlakit.evaluation.suites.tabletop.embodiment import COLOURS, Embodiment, load_embodiment
from vlakit.evaluation.suites.tabletop.expert import expert
from vlakit.evaluation.suites.tabletop.painter import painter
from vlakit.evaluation.suites.tabletop.questions import questions, seen
from vlakit.evaluation.suites.tabletop.scene import World
from vlakit.evaluation.suites.tabletop.states import Start, draw_state
from vlakit.evaluation.suites.tabletop.stored import stored_states
from vlakit.evaluation.suites.tabletop.tasks import TASKS, half_credit
from vlakit.evaluation.suites.tabletop.tasks import task as rules_of
from vlakit.schema import Float32, Observation, UInt8

NOISE_M = 0.02  # standard deviation of what disturbs a move of a demonstration
SPLITS = ("test", "select", "fresh", "train")
TASK_ORDER = ("lift", "put_on", "push", "knock_over", "move_near")


class TabletopSuite:
    """Tasks of one embodiment. axes: ("none",) for scenes as trained, or others, whose tasks are called AXIS/TASK.

    split: which starts are used: "test" for numbers to report, "select" to choose checkpoints by, "fresh" others for
    each starts_seed, "train" those that demonstrations begin from. dataset: whose action statistics apply; another than
    the embodiment's own is for a policy that has not seen this robot. Raises UnknownName, ConfigError.
    """

    def __init__(
        self,
        embodiment: str = "d0",
        axes: Sequence[str] = ("none",),
        image_size: int = 64,
        split: str = "test",
        name: str | None = None,
        tasks: Sequence[str] = TASK_ORDER,
        dataset: str | None = None,
        starts_seed: int | None = None,
    ) -> None:
        self.embodiment = load_embodiment(embodiment)
        for axis in axes:
            AXES.get(axis)
        for kind in tasks:
            TASKS.get(kind)
        self.axes, self.image_size, self._tasks = tuple(axes), image_size, tuple(tasks)
        self.split, self.starts = split, starts_of(split, starts_seed)
        self.name = name or f"tabletop_{embodiment}"
        self.dataset = dataset or f"tabletop_{embodiment}"
        self.control_hz = self.embodiment.control_hz
        self.action_range = None
        self.noise = np.array([NOISE_M] * 3 + [0] * 4, np.float32)

    @property
    def tasks(self) -> list[str]:
        """TASK, or AXIS/TASK."""
        return [kind if axis == "none" else f"{axis}/{kind}" for axis in self.axes for kind in self._tasks]

    @property
    def surroundings(self) -> Mapping[str, Any]:
        """What a checkpoint must have been made for."""
        return {"camera": "primary", "action": "delta_eef_7", "control_hz": self.control_hz}

    @property
    def versions(self) -> dict[str, str]:
        """MuJoCo's version and what draws."""
        backend = choose_backend()
        import mujoco

        return {"mujoco": mujoco.__version__, "renderer": backend, "tabletop": "1"}

    def max_steps(self, task: str) -> int:
        """Steps after which an episode has failed."""
        return rules_of(self._split(task)[1]).max_steps

    def initial_states(self, task: str, n: int) -> list[InitialState]:
        """The first n starts of a task: for tests those on file, and what the file does not hold is drawn."""
        axis, kind = self._split(task)
        stored = stored_states(self.embodiment, axis, task)[:n] if self.split == "test" else []
        return [*stored, *(draw_state(self.embodiment, axis, kind, i, self.starts) for i in range(len(stored), n))]

    def training_states(self, task: str, n: int, seed: int = 0) -> list[InitialState]:
        """n starts for demonstrations; none of them is ever evaluated."""
        axis, kind = self._split(task)
        first = seed * 1_000_000
        return [draw_state(self.embodiment, axis, kind, first + i, "train") for i in range(n)]

    def pairs(self, outcomes: Mapping[tuple[str, int], bool]) -> list[bool]:
        """(task, seed) -> success of episodes, to whether both of each pair of the axis "language" succeeded."""
        return list(pairs_right({key: won for key, won in outcomes.items() if key[0].startswith("language/")}).values())

    def environment(self) -> TabletopEnvironment:
        """A new slot."""
        unseen = () if "semantic" in self.axes else UNSEEN_COLOURS
        named = [colour for colour in COLOURS if colour not in unseen]  # "is there a teal cube?" names it, too
        return TabletopEnvironment(self.embodiment, self.image_size, self.dataset, named)

    def _split(self, task: str) -> tuple[str, str]:
        if task not in self.tasks:
            raise UnknownName(f"no task {task!r}", where=f"suite {self.name}", do=nearest(task, self.tasks))
        axis, _, kind = task.rpartition("/")
        return axis or "none", kind


class TabletopEnvironment:
    """One episode at a time: a compiled world, its goal and its credit so far. colours: what questions may ask for."""

    world: World

    def __init__(self, embodiment: Embodiment, image_size: int, dataset: str, colours: Sequence[str]) -> None:
        self.embodiment, self.image_size, self.dataset, self.colours = embodiment, image_size, dataset, colours
        self.instruction, self.credit = "", 0.0
        self.painter = painter(image_size)

    def reset(self, state: InitialState) -> Observation:
        """Compile the world of `state` and let it come to rest."""
        start = Start.from_dict(state.content)
        self.goal, self.instruction, self.credit = start.goal, state.instruction, 0.0
        self.task = rules_of(start.goal.task)
        self.world = World(self.embodiment, start.layout)
        self.world.settle()
        self.start = self.world.position(self.goal.x).copy()
        return self._observe()

    def step(self, action: Float32) -> Step:
        """One control period; the credit is the best so far, 1 ends the episode."""
        self.world.act(np.asarray(action, float))
        if half_credit(self.world, self.goal):
            self.credit = max(self.credit, 0.5)
        if self.task.credit(self.world, self.goal, self.start) == 1:
            self.credit = 1.0
        return Step(self._observe(), self.credit, done=self.credit == 1)

    def hold(self) -> Float32:
        """No motion, the gripper as it was told last."""
        return np.array([0, 0, 0, 0, 0, 0, self.world.gripper], np.float32)

    def expert(self) -> Float32:
        """The scripted expert's next action."""
        return expert(self.world, self.goal).astype(np.float32)

    def questions(self, rng: np.random.Generator, most: int) -> dict[str, tuple[str, str]]:
        """Kind -> question and answer, of `most` kinds, about what the camera shows now."""
        return questions(seen(self.world, self.painter, self.colours), rng, most)

    def picture(self, size: int) -> UInt8:
        """The same moment, larger."""
        return painter(size).paint(self.world)

    def close(self) -> None:
        """The painter belongs to the process."""

    def _observe(self) -> Observation:
        seen = Observation.of(self.painter.paint(self.world), self.instruction, self.dataset)
        return replace(seen, proprio=self.world.state.astype(np.float32)[None])


def starts_of(split: str, seed: int | None) -> str:
    """What the names of a split's starts say: the split, "fresh7" of the seed 7. Raises UnknownName, ConfigError."""
    if split not in SPLITS:
        raise UnknownName(f"no split {split!r}", where=f"suite.split={split}", do=nearest(split, SPLITS))
    if (split == "fresh") != (seed is not None):
        raise ConfigError(
            f"split={split} with starts_seed={seed}",
            where="suite.starts_seed",
            do="the seed is of fresh starts, and they need one: suite.split=fresh suite.starts_seed=1",
        )
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise ConfigError(f"starts_seed={seed!r}", where="suite.starts_seed", do="give a whole number, 0 or more")
    return split if seed is None else f"{split}{seed}"


@lru_cache(maxsize=1)
def axis_names() -> tuple[str, ...]:
    """All axes of generalisation; "none" is not one."""
    return tuple(name for name in AXES.names() if name != "none")
