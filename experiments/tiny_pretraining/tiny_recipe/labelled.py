"""Pictures of random set-ups with the places of what is in them: what the tiny towers and language model learn from.

Looks, cameras and colours are drawn anew for every scene; the colours of the semantic axis and the shapes of the
physical axis never appear.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.axes import UNSEEN_COLOURS, Plan
from vlakit.evaluation.suites.tabletop.embodiment import COLOURS, Embodiment, Look, Rgb, View, load_embodiment
from vlakit.evaluation.suites.tabletop.painter import painter
from vlakit.evaluation.suites.tabletop.questions import VISIBLE_PIXELS, project
from vlakit.evaluation.suites.tabletop.scene import RECEPTACLES, World
from vlakit.evaluation.suites.tabletop.states import plan_state
from vlakit.evaluation.suites.tabletop.suite import TASK_ORDER, TabletopEnvironment
from vlakit.evaluation.suites.tabletop.tasks import GRASPABLE, Draw
from vlakit.schema import Float32, UInt8

COLOUR_NAMES = tuple(colour for colour in COLOURS if colour not in UNSEEN_COLOURS)
SHAPE_NAMES = (*GRASPABLE, *RECEPTACLES[:1])
MOST = 6  # rows of objects a picture


@dataclass(frozen=True)
class Labelled:
    """image (S, S, 3) uint8; objects (MOST, 4): colour id (-1: none), shape id, u, v; gripper (3,): u, v, open."""

    image: UInt8
    objects: Float32
    gripper: Float32


def labelled_scenes(n: int, seed: int, image_size: int = 64, snapshots: int = 5) -> Iterator[Labelled]:
    """n pictures, `snapshots` of each scene while the expert, disturbed, works at a random task in it."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < n:
        environment = TabletopEnvironment(_random_embodiment(rng), image_size, "", COLOUR_NAMES)
        environment.reset(_random_state(environment.embodiment, rng))
        for _ in range(snapshots):
            yield label(environment.world, image_size)
            made += 1
            if made == n:
                return
            for _ in range(int(rng.integers(1, 4))):
                move = environment.expert() + np.append(rng.normal(0, 0.03, 3), np.zeros(4)) * (rng.uniform() < 0.5)
                environment.world.act(move)


def label(world: World, image_size: int) -> Labelled:
    """Draw a world and say what can be seen in it, and where."""
    paint = painter(image_size)
    image, seen = paint.paint(world), paint.visible_pixels(world)
    view, seen_from = world.embodiment.view, world.layout.view
    objects = np.full((MOST, 4), -1, np.float32)
    enough = VISIBLE_PIXELS * (image_size / 64) ** 2
    for i, thing in enumerate(world.layout.things[:MOST]):
        u, v = project(view, seen_from, world.position(i))
        if seen.get(i, 0) >= enough and 0 <= u < 1 and 0 <= v < 1:
            objects[i] = COLOUR_NAMES.index(thing.colour), SHAPE_NAMES.index(thing.shape), u, v
    gripper = (*project(view, seen_from, world.hand), world.finger_gap > 0.5)
    return Labelled(image, objects, np.array(gripper, np.float32))


def _random_embodiment(rng: np.random.Generator) -> Embodiment:
    base = load_embodiment(f"d{rng.integers(5)}")
    angle = rng.uniform(0, 2 * np.pi)
    look = Look(
        table=tuple(_rgb(rng, 0.6, (0.2, 0.9)) for _ in range(int(rng.integers(1, 3)))),
        wall=_rgb(rng, 0.6, (0.1, 0.95)),
        gripper=_rgb(rng, 0.9, (0.1, 0.95)),
        fingers=_rgb(rng, 0.7, (0.1, 0.9)),
        light_from=(float(np.cos(angle)), float(np.sin(angle)), float(rng.uniform(1, 2))),
        diffuse=float(rng.uniform(0.4, 0.8)),
        ambient=float(rng.uniform(0.3, 0.5)),
    )
    azimuth, elevation, distance = rng.uniform((-28, -58, 0.5), (24, -34, 0.63))
    view = View(float(azimuth), float(elevation), float(distance), jitter=(0, 0, 0))
    palm = tuple(float(value) for value in np.array(base.palm_m) * rng.uniform(0.8, 1.3, 3))
    return replace(
        base,
        view=view,
        look=look if rng.uniform() < 0.8 else base.look,
        colours=COLOUR_NAMES,
        plate_colours=COLOUR_NAMES,
        opening_m=float(rng.uniform(0.038, 0.05)),
        palm_m=(palm[0], palm[1], palm[2]),
    )


def _rgb(rng: np.random.Generator, saturation: float, value: tuple[float, float]) -> Rgb:
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, saturation), rng.uniform(*value))


def _random_state(embodiment: Embodiment, rng: np.random.Generator) -> InitialState:
    draw = Draw(rng, embodiment, area=1.2, turned=np.pi, n_others=(1, 4))
    return plan_state(Plan(draw), str(rng.choice(TASK_ORDER)), name="labelled", seed=0)
