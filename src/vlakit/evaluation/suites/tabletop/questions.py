"""What can be asked about a tabletop as the camera sees it, and what is right.

A kind of question is a registered function; adding one is adding a function. Places are words as in the captions that
the shipped model learnt: x07 y12, the picture's sides in PLACES parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from vlakit.evaluation.suites.tabletop.embodiment import COLOURS, View
from vlakit.evaluation.suites.tabletop.painter import Painter
from vlakit.evaluation.suites.tabletop.scene import SHAPES, World
from vlakit.schema import Float64

PLACES = 24
VISIBLE_PIXELS = 5  # of 64 x 64; less of an object does not count as seen
APART = 0.1  # of the picture's side: nearer than this is neither left nor right, before nor behind
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
COUNTED = {shape: f"{shape}s" for shape in ("cube", "ball", "cylinder", "bottle", "plate", "bowl")}
RELATIONS: dict[str, tuple[int, int]] = {  # words -> axis of the picture, sign of what comes second
    "left of": (0, 1),
    "right of": (0, -1),
    "behind": (1, 1),
    "in front of": (1, -1),
}


class Seen(NamedTuple):
    """One thing in the picture: (u, v) rightwards and downwards as shares of the side; distance to the hand [m]."""

    colour: str
    shape: str
    at: tuple[float, float]
    distance: float

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class View2D:
    """What a picture shows: things, and whether the gripper is open. colours: what may be asked for in vain."""

    things: list[Seen]
    gripper_open: bool
    colours: Sequence[str] = tuple(COLOURS)


Pair: TypeAlias = tuple[str, str]  # question and answer
Kind: TypeAlias = Callable[[View2D, np.random.Generator], Pair | None]
KINDS: dict[str, Kind] = {}


def questions(view: View2D, rng: np.random.Generator, most: int) -> dict[str, Pair]:
    """Kind -> question and answer, of `most` kinds drawn at random from those that can be asked about this picture."""
    asked = {kind: pair for kind in rng.permutation(list(KINDS)).tolist() if (pair := KINDS[kind](view, rng))}
    return dict(list(asked.items())[:most])


def seen(world: World, paint: Painter, colours: Sequence[str] = tuple(COLOURS)) -> View2D:
    """What a painter shows of a world. Two things of one name do not occur."""
    pixels, view, layout = paint.visible_pixels(world), world.embodiment.view, world.layout
    enough = VISIBLE_PIXELS * (paint.size / 64) ** 2
    things: list[Seen] = []
    for i, thing in enumerate(layout.things):
        u, v = project(view, layout.view, world.position(i))
        if pixels.get(i, 0) >= enough and 0 <= u < 1 and 0 <= v < 1:
            distance = float(np.linalg.norm(world.position(i)[:2] - world.hand[:2]))
            things.append(Seen(thing.colour, thing.shape, (u, v), distance))
    return View2D(things, world.finger_gap > 0.5, colours)


def project(view: View, seen_from: tuple[float, float, float], point: Float64) -> tuple[float, float]:
    """Where a point (3,) in metres appears: u rightwards and v downwards as shares of the picture's side."""
    azimuth, elevation = math.radians(seen_from[0]), math.radians(seen_from[1])
    forward = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    right = np.array([math.sin(azimuth), -math.cos(azimuth), 0.0])
    offset = np.asarray(point) - (np.array(view.lookat) - seen_from[2] * forward)
    depth = float(offset @ forward)
    half = depth * math.tan(math.radians(view.fovy) / 2)
    upward = np.cross(right, forward)
    return 0.5 + 0.5 * float(offset @ right) / half, 0.5 - 0.5 * float(offset @ upward) / half


def _kind(name: str) -> Callable[[Kind], Kind]:
    def add(ask: Kind) -> Kind:
        KINDS[name] = ask
        return ask

    return add


def _one(view: View2D, rng: np.random.Generator) -> Seen | None:
    return view.things[int(rng.integers(len(view.things)))] if view.things else None


@_kind("place")
def place(view: View2D, rng: np.random.Generator) -> Pair | None:
    """Where a named thing is."""
    thing = _one(view, rng)
    return thing and (
        f"where is the {thing.name}?",
        " ".join(f"{a}{int(x * PLACES):02d}" for a, x in zip("xy", thing.at, strict=True)),
    )


@_kind("colour")
def colour(view: View2D, rng: np.random.Generator) -> Pair | None:
    """The colour of the only thing of its shape."""
    shapes = [thing.shape for thing in view.things]
    only = [thing for thing in view.things if shapes.count(thing.shape) == 1]
    thing = _one(View2D(only, view.gripper_open), rng)
    return thing and (f"what color is the {thing.shape}?", thing.colour)


@_kind("shape")
def shape(view: View2D, rng: np.random.Generator) -> Pair | None:
    """The shape of the thing of a colour, of which a scene has one."""
    thing = _one(view, rng)
    return thing and (f"what is the {thing.colour} thing?", thing.shape)


@_kind("there")
def there(view: View2D, rng: np.random.Generator) -> Pair | None:
    """Whether a thing is there: half of the time one that is, else one of another colour or shape."""
    thing = _one(view, rng)
    if thing is None or rng.random() < 0.5:
        return thing and (f"is there a {thing.name}?", "yes")
    names = {other.name for other in view.things}
    colours = [colour for colour in view.colours if f"{colour} {thing.shape}" not in names]
    shapes = [shape for shape in SHAPES if f"{thing.colour} {shape}" not in names]
    absent = [f"{rng.choice(colours)} {thing.shape}", f"{thing.colour} {rng.choice(shapes)}"]
    return f"is there a {rng.choice(absent)}?", "no"


@_kind("count")
def count(view: View2D, rng: np.random.Generator) -> Pair | None:
    """How many things of a shape are seen."""
    shape = str(rng.choice(list(COUNTED)))
    return f"how many {COUNTED[shape]} are there?", NUMBERS[sum(thing.shape == shape for thing in view.things)]


@_kind("relation")
def relation(view: View2D, rng: np.random.Generator) -> Pair | None:
    """Whether one thing is left or right of, behind or in front of another, as the camera sees them."""
    if len(view.things) < 2:
        return None
    first, second = (view.things[i] for i in rng.permutation(len(view.things))[:2])
    words = str(rng.choice(list(RELATIONS)))
    axis, sign = RELATIONS[words]
    ahead = sign * (second.at[axis] - first.at[axis])
    if abs(ahead) < APART:
        return None
    return f"is the {first.name} {words} the {second.name}?", "yes" if ahead > 0 else "no"


@_kind("nearest")
def nearest(view: View2D, rng: np.random.Generator) -> Pair | None:
    """What is nearest to the gripper."""
    near = sorted(view.things, key=lambda thing: thing.distance)
    if not near or (len(near) > 1 and near[1].distance - near[0].distance < 0.02):  # metres
        return None
    return "what is nearest to the gripper?", near[0].name


@_kind("gripper")
def gripper(view: View2D, rng: np.random.Generator) -> Pair | None:
    """Whether the gripper is open."""
    return "is the gripper open?", "yes" if view.gripper_open else "no"
