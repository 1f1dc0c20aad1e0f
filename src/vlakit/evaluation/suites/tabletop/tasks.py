"""Tasks: how a scene for one is laid out, what a person says, when it is done and when it is half done.

Distances in metres. Half credit is the paper's: the named thing was touched or carried, the task not finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vlakit.evaluation.suites.tabletop.embodiment import COLOURS, Embodiment
from vlakit.evaluation.suites.tabletop.scene import RECEPTACLES, Thing, World
from vlakit.registry import Registry
from vlakit.schema import Float64

AREA_M = (0.12, 0.15)  # things start within this of the middle
APART_M = 0.095  # between the centres of two things
LIFTED_M, PUSHED_M, NEAR_M = 0.05, 0.07, 0.115
DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (0.0, 1.0),
    "right": (0.0, -1.0),
    "forward": (1.0, 0.0),
    "back": (-1.0, 0.0),
}
GRASPABLE = ("cube", "ball", "cylinder", "bottle")


@dataclass(frozen=True)
class Goal:
    """What an episode asks for: task, thing number X, perhaps thing number Y, perhaps a direction."""

    task: str
    x: int
    y: int | None = None
    direction: str | None = None


@dataclass(frozen=True)
class Draw:
    """A scene under construction: the random generator, what may be used, and how many things besides those named."""

    rng: np.random.Generator
    embodiment: Embodiment
    shapes: tuple[str, ...] = GRASPABLE
    colours: tuple[str, ...] = ()
    area: float = 1.0  # share of AREA_M
    turned: float = 0.4  # radians, largest yaw
    sizes: tuple[float, float] = (1.0, 1.0)
    n_others: tuple[int, int] = (1, 2)

    def named(self, shape: str | None = None, avoid: Sequence[str] = ()) -> tuple[str, str]:
        """A (colour, shape) whose colour is none of `avoid`."""
        shape = shape or str(self.rng.choice(self.shapes))
        palette = self.embodiment.plate_colours if shape in RECEPTACLES else self.colours or self.embodiment.colours
        free = [colour for colour in palette if colour not in avoid] or [c for c in COLOURS if c not in avoid]
        return str(self.rng.choice(free)), shape

    def size(self, shape: str) -> float:
        """A size as a share of the shape's own; receptacles keep theirs."""
        return 1.0 if shape in RECEPTACLES else float(self.rng.uniform(*self.sizes))


class Task(Protocol):
    """One kind of task. Adding one is adding a registered class."""

    max_steps: int

    def draw(self, scene: Draw) -> tuple[list[tuple[str, str]], Goal]:
        """The (colour, shape) of the things it needs, X first, and its goal."""
        ...

    def fits(self, things: Sequence[Thing], goal: Goal) -> bool:
        """Is there room for it in these places?"""
        ...

    def says(self, things: Sequence[Thing], goal: Goal) -> str:
        """The instruction."""
        ...

    def credit(self, world: World, goal: Goal, start: Float64) -> float:
        """1 when done; start (3,) is where X stood."""
        ...


TASKS: Registry[Task] = Registry("tabletop task")


def task(name: str) -> Task:
    """The task called `name`. Raises UnknownName."""
    return TASKS.build(name)


def _distance(world: World, i: int, j: int) -> float:
    return float(np.linalg.norm(world.position(i)[:2] - world.position(j)[:2]))


def _released(world: World, i: int) -> bool:
    return world.gripper > 0.5 and world.finger_gap > 0.7 and i not in world.touched()


@TASKS.register("lift")
class Lift:
    """Lift X."""

    max_steps = 25

    def draw(self, scene: Draw) -> tuple[list[tuple[str, str]], Goal]:
        return [scene.named()], Goal("lift", 0)

    def fits(self, things: Sequence[Thing], goal: Goal) -> bool:
        return True

    def says(self, things: Sequence[Thing], goal: Goal) -> str:
        return f"lift {things[goal.x].name}"

    def credit(self, world: World, goal: Goal, start: Float64) -> float:
        risen = world.position(goal.x)[2] - start[2] > LIFTED_M
        return float(risen and world.gripped(goal.x))


@TASKS.register("put_on")
class PutOn:
    """Put X on Y, a plate."""

    max_steps = 25

    def draw(self, scene: Draw) -> tuple[list[tuple[str, str]], Goal]:
        small = [shape for shape in scene.shapes if shape != "bottle"]  # a bottle does not stay upright on a plate
        x = scene.named(str(scene.rng.choice(small)))
        return [x, scene.named("plate", avoid=[x[0]])], Goal("put_on", 0, 1)

    def fits(self, things: Sequence[Thing], goal: Goal) -> bool:
        return True

    def says(self, things: Sequence[Thing], goal: Goal) -> str:
        return f"put {things[goal.x].name} on {things[goal.y or 0].name}"

    def credit(self, world: World, goal: Goal, start: Float64) -> float:
        y = goal.y or 0
        above = world.position(goal.x)[2] > world.layout.things[goal.x].height + 0.004
        low = world.position(goal.x)[2] < 0.06
        within = _distance(world, goal.x, y) < world.layout.things[y].radius
        return float(above and low and within and _released(world, goal.x) and world.speed(goal.x) < 0.1)


@TASKS.register("push")
class Push:
    """Push X left, right, forward or back."""

    max_steps = 20

    def draw(self, scene: Draw) -> tuple[list[tuple[str, str]], Goal]:
        low = [shape for shape in scene.shapes if shape != "bottle"]  # a bottle would tip
        return [scene.named(str(scene.rng.choice(low)))], Goal("push", 0, None, str(scene.rng.choice(list(DIRECTIONS))))

    def fits(self, things: Sequence[Thing], goal: Goal) -> bool:
        x = things[goal.x]
        along = np.array(DIRECTIONS[goal.direction or ""])
        start = np.array([x.x, x.y])
        path = [start + along * metres for metres in (-0.07, -0.035, 0.05, 0.1, 0.14)]
        others = [np.array([t.x, t.y]) for i, t in enumerate(things) if i != goal.x]
        inside = all(abs(p[0]) < 0.19 and abs(p[1]) < 0.22 for p in path)
        return inside and all(np.linalg.norm(p - o) > 0.075 for p in path for o in others)

    def says(self, things: Sequence[Thing], goal: Goal) -> str:
        return f"push {things[goal.x].name} {goal.direction}"

    def credit(self, world: World, goal: Goal, start: Float64) -> float:
        along = np.array(DIRECTIONS[goal.direction or ""])
        moved = (world.position(goal.x) - start)[:2]
        aside = abs(float(moved @ along[::-1]))
        on_table = world.position(goal.x)[2] < world.layout.things[goal.x].height + 0.02
        return float(moved @ along > PUSHED_M and aside < 0.6 * float(moved @ along) and on_table)


@TASKS.register("knock_over")
class KnockOver:
    """Knock X over, a bottle that stands."""

    max_steps = 12

    def draw(self, scene: Draw) -> tuple[list[tuple[str, str]], Goal]:
        return [scene.named("bottle")], Goal("knock_over", 0)

    def fits(self, things: Sequence[Thing], goal: Goal) -> bool:
        x = things[goal.x]
        sides = [np.array([x.x, x.y + side]) for side in (-0.06, 0.06)]
        others = [np.array([t.x, t.y]) for i, t in enumerate(things) if i != goal.x]
        return all(np.linalg.norm(p - o) > 0.08 for p in sides for o in others)

    def says(self, things: Sequence[Thing], goal: Goal) -> str:
        return f"knock over {things[goal.x].name}"

    def credit(self, world: World, goal: Goal, start: Float64) -> float:
        return float(abs(world.upright(goal.x)) < 0.5)


@TASKS.register("move_near")
class MoveNear:
    """Move X near Y."""

    max_steps = 25

    def draw(self, scene: Draw) -> tuple[list[tuple[str, str]], Goal]:
        x = scene.named(str(scene.rng.choice([shape for shape in scene.shapes if shape != "bottle"])))
        return [x, scene.named(avoid=[x[0]])], Goal("move_near", 0, 1)

    def fits(self, things: Sequence[Thing], goal: Goal) -> bool:
        x, y = things[goal.x], things[goal.y or 0]
        start, end = np.array([x.x, x.y]), np.array([y.x, y.y])
        apart = float(np.linalg.norm(start - end))
        place = end + (start - end) / max(apart, 1e-9) * 0.085
        others = [np.array([t.x, t.y]) for i, t in enumerate(things) if i not in {goal.x, goal.y}]
        return apart > 0.16 and all(np.linalg.norm(place - o) > 0.085 for o in others)

    def says(self, things: Sequence[Thing], goal: Goal) -> str:
        return f"move {things[goal.x].name} near {things[goal.y or 0].name}"

    def credit(self, world: World, goal: Goal, start: Float64) -> float:
        y = goal.y or 0
        resting = world.position(goal.x)[2] < world.layout.things[goal.x].height + 0.01
        near = _distance(world, goal.x, y) < NEAR_M
        return float(near and resting and _released(world, goal.x) and world.speed(goal.x) < 0.1)


def half_credit(world: World, goal: Goal) -> bool:
    """Was X touched now? The paper gives half for reaching and touching."""
    return goal.x in world.touched()


def places(draw: Draw, n: int, accept: Callable[[list[tuple[float, float]]], bool]) -> list[tuple[float, float]]:
    """n places, apart from each other, that `accept` likes; drawn again until they fit."""
    for _ in range(10_000):
        spots: list[tuple[float, float]] = []
        for _ in range(50 * n):
            x, y = draw.rng.uniform(-1, 1, 2) * np.array(AREA_M) * draw.area
            if all(np.hypot(x - a, y - b) > APART_M for a, b in spots):
                spots.append((float(x), float(y)))
            if len(spots) == n:
                break
        if len(spots) == n and accept(spots):
            return spots
    raise RuntimeError(f"no room for {n} things")
