"""Initial states: drawn from a seed, once, and kept in files, so that every policy starts from the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np

from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.axes import AXES, Plan
from vlakit.evaluation.suites.tabletop.embodiment import Embodiment
from vlakit.evaluation.suites.tabletop.scene import RECEPTACLES, Layout, Thing
from vlakit.evaluation.suites.tabletop.tasks import GRASPABLE, Draw, Goal, Task, places, task

CLEAR_M = 0.15  # from the hand to the nearest bottle
HAND_M = (0.15, 0.19)  # how high the hand starts
Accept: TypeAlias = Callable[[tuple[Thing, ...]], bool]


@dataclass(frozen=True)
class Start:
    """A layout and its goal: what an initial state's content says."""

    layout: Layout
    goal: Goal

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Start:
        """The opposite of asdict."""
        return cls(Layout.from_dict(values["layout"]), Goal(**values["goal"]))


def draw_state(embodiment: Embodiment, axis: str, name: str, seed: int, split: str) -> InitialState:
    """Start number `seed` of the task `name` on an axis; splits ("train", "select", "test") share no scene.

    Numbers are rounded before use, so that a file of them says exactly where the episode starts.
    """
    first = Plan(drawing(embodiment, (axis, name, split, seed)))
    plan = AXES.build(axis, plan=first, seed=seed)
    if plan.scene_seed is not None:
        plan = AXES.build(
            axis, plan=Plan(drawing(embodiment, (axis, name, split, "scene", plan.scene_seed))), seed=seed
        )
    where = name if axis == "none" else f"{axis}/{name}"
    return plan_state(plan, name, f"{embodiment.name}/{where}/{split}-{seed}", seed, where)


def plan_state(plan: Plan, kind: str, name: str, seed: int, where: str | None = None) -> InitialState:
    """A start of a task of one kind, drawn as planned; where: what the suite calls the task."""
    rules = task(kind)
    names, goal, accept = _scene(plan, rules)
    layout = laid_out(plan, names, accept)
    return InitialState(
        name=name,
        task=where or kind,
        seed=seed,
        instruction=plan.phrase(rules.says(layout.things, goal)),
        content={**asdict(Start(layout, goal)), "variant": plan.variant},
    )


def drawing(embodiment: Embodiment, words: tuple[object, ...]) -> Draw:
    """What a scene is drawn with: chance is a function of the words."""
    digest = sha256("/".join(map(str, (embodiment.name, *words))).encode()).digest()
    return Draw(np.random.default_rng(np.frombuffer(digest, np.uint32)), embodiment)


def laid_out(plan: Plan, names: Sequence[tuple[str, str]], accept: Accept) -> Layout:
    """A layout of things (colour, shape) in places that `accept` likes; drawn again until they fit."""
    draw = plan.draw
    spots = places(draw, len(names), lambda tried: accept(_stand(names, tried)))
    things = tuple(_turned(draw, thing) for thing in _stand(names, spots))
    return Layout(things, _hand(plan, things), _view(draw.embodiment, draw.rng), plan.look)


def _stand(names: Sequence[tuple[str, str]], spots: Sequence[tuple[float, float]]) -> tuple[Thing, ...]:
    return tuple(Thing(c, s, x, y) for (c, s), (x, y) in zip(names, spots, strict=True))


def _scene(plan: Plan, kind: Task) -> tuple[list[tuple[str, str]], Goal, Accept]:
    """Things, goal, where they may stand. Every scene holds one more thing of X's kind, so that what is said decides
    what is right.
    """
    draw = plan.draw
    names, goal = kind.draw(draw)
    taken = [colour for colour, _ in names]
    twin = draw.named(names[goal.x][1] if names[goal.x][1] == "bottle" else None, avoid=taken)
    if twin[1] == "bottle" and names[goal.x][1] != "bottle":
        twin = (twin[0], "cube")
    names, taken = [*names, twin], [*taken, twin[0]]
    for _ in range(int(draw.rng.integers(draw.n_others[0], draw.n_others[1] + 1)) - 1):
        free = draw.rng.uniform() < 0.25 and all(shape not in RECEPTACLES for _, shape in names)
        extra = draw.named("plate" if free else str(draw.rng.choice(GRASPABLE)), avoid=taken)
        names, taken = [*names, extra], [*taken, extra[0]]
    other = Goal(goal.task, names.index(twin), goal.y, goal.direction)
    goals = [goal, other] if plan.scene_seed is not None else [goal]
    return names, other if plan.other else goal, lambda things: all(kind.fits(things, one) for one in goals)


def _turned(draw: Draw, thing: Thing) -> Thing:
    yaw = round(float(draw.rng.uniform(-draw.turned, draw.turned)), 3)
    place = (round(thing.x, 4), round(thing.y, 4))
    return Thing(thing.colour, thing.shape, *place, yaw, round(draw.size(thing.shape), 3))


def _hand(plan: Plan, things: tuple[Thing, ...]) -> tuple[float, float, float]:
    """Above the middle, farther from bottles than chance: what falls by a random move is no success of a policy."""
    size = np.array([0.08 * plan.hand_area, 0.11 * plan.hand_area])
    bottles = np.array([(t.x, t.y) for t in things if t.shape == "bottle"]).reshape(-1, 2)
    spots = plan.draw.rng.uniform(-1, 1, (20, 2)) * size
    clear = np.linalg.norm(spots[:, None] - bottles, axis=2).min(axis=1, initial=CLEAR_M)
    x, y = spots[int(np.argmax(clear))]
    return round(float(x), 4), round(float(y), 4), round(float(plan.draw.rng.uniform(*HAND_M)), 4)


def _view(embodiment: Embodiment, rng: np.random.Generator) -> tuple[float, float, float]:
    view = embodiment.view
    azimuth, elevation, far = rng.uniform(-1, 1, 3) * np.array(view.jitter)
    distance = view.distance * (1 + far)
    return round(view.azimuth + azimuth, 2), round(view.elevation + elevation, 2), round(distance, 4)
