"""The paper's axes of generalisation: each changes one thing about how a scene is drawn. Source: OpenVLA, Section 5.1.

An axis is a registered function from a `Plan` to a changed one; adding one is adding a function. "language" is none of
generalisation: scenes and words are as trained, and a pair of starts asks whether what is said decides what is done.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.embodiment import Look, Rgb
from vlakit.evaluation.suites.tabletop.tasks import Draw
from vlakit.registry import Registry

Phrase = Callable[[str], str]


@dataclass(frozen=True)
class Plan:
    """How the next scene shall be drawn, and said. variant: which kind of change this seed got. other: name the other
    thing of the same scene."""

    draw: Draw
    look: Look | None = None
    phrase: Phrase = str
    hand_area: float = 1.0
    variant: str = ""
    other: bool = False
    scene_seed: int | None = None  # several starts may share a scene


AXES: Registry[Plan] = Registry("axis of generalisation")


def _random_rgb(rng: np.random.Generator, value: tuple[float, float]) -> Rgb:
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.1, 0.5), rng.uniform(*value))


@AXES.register("none")
def as_trained(plan: Plan, seed: int) -> Plan:
    """Scenes as the embodiment's demonstrations have them."""
    return plan


@AXES.register("visual")
def visual(plan: Plan, seed: int) -> Plan:
    """Unseen backgrounds, more distractors, other light: one of the three a seed."""
    rng, look = plan.draw.rng, plan.draw.embodiment.look
    if seed % 3 == 0:
        table = tuple(_random_rgb(rng, (0.35, 0.8)) for _ in look.table)
        return replace(plan, look=replace(look, table=table, wall=_random_rgb(rng, (0.4, 0.9))), variant="background")
    if seed % 3 == 1:
        return replace(plan, draw=replace(plan.draw, n_others=(3, 4)), variant="distractors")
    angle = rng.uniform(0, 2 * np.pi)
    light = (float(np.cos(angle)), float(np.sin(angle)), 0.8)
    dim = replace(look, light_from=light, diffuse=float(rng.uniform(0.25, 0.9)), ambient=float(rng.uniform(0.2, 0.5)))
    return replace(plan, look=dim, variant="light")


@AXES.register("motion")
def motion(plan: Plan, seed: int) -> Plan:
    """Unseen positions (a third farther out) and orientations (any)."""
    return replace(plan, draw=replace(plan.draw, area=1.33, turned=np.pi), hand_area=1.5, variant="positions")


@AXES.register("physical")
def physical(plan: Plan, seed: int) -> Plan:
    """Unseen sizes or shapes: half of the seeds each. A bottle that is to be knocked over keeps its shape."""
    if seed % 2 == 0:
        sizes = (0.75, 0.85) if seed % 4 else (1.15, 1.3)
        return replace(plan, draw=replace(plan.draw, sizes=sizes), variant="sizes")
    return replace(plan, draw=replace(plan.draw, shapes=("brick", "egg", "disc")), variant="shapes")


UNSEEN_COLOURS = ("teal", "maroon", "magenta")
PHRASINGS: dict[str, tuple[str, str]] = {  # the task's own words -> other words
    "lift ": ("pick up the ", "raise the "),
    "put ": ("place the ", "set down the "),
    "push ": ("slide the ", "shove the "),
    "knock over ": ("topple the ", "tip over the "),
    "move ": ("bring the ", "carry the "),
}


@AXES.register("semantic")
def semantic(plan: Plan, seed: int) -> Plan:
    """Colours never seen or named, or the same request in other words: half of the seeds each."""
    if seed % 2 == 0:
        return replace(plan, draw=replace(plan.draw, colours=UNSEEN_COLOURS), variant="colours")
    return replace(plan, phrase=partial(other_words, seed=seed), variant="phrasing")


def other_words(instruction: str, seed: int) -> str:
    """The request in other words, of which there are two for each task."""
    for usual, others in PHRASINGS.items():
        if instruction.startswith(usual):
            rest = instruction.removeprefix(usual)
            return others[seed // 2 % 2] + rest.replace(" on ", " onto the ").replace(" near ", " close to the ")
    return instruction


def variant_of(state: InitialState) -> str:
    """What its axis changed in a start; "" where nothing: as trained, and bottles that are to have an unseen shape."""
    variant = str(state.content["variant"])
    return "" if variant == "shapes" and state.content["goal"]["task"] == "knock_over" else variant


def pairs_right(outcomes: Mapping[tuple[str, int], bool]) -> dict[tuple[str, int], bool]:
    """(task, seed) -> success of starts of the axis "language", to (task, pair) -> whether both of a pair succeeded.

    Who does the same whatever is said gets none of them right, and who chooses by lot a quarter of those that it could.
    A pair of which a start is missing is left out.

    >>> pairs_right({("lift", 0): True, ("lift", 1): False, ("lift", 2): True, ("lift", 3): True, ("lift", 4): True})
    {('lift', 0): False, ('lift', 1): True}
    """
    whole = [(task, seed) for task, seed in outcomes if seed % 2 == 0 and (task, seed + 1) in outcomes]
    return {(task, seed // 2): outcomes[task, seed] and outcomes[task, seed + 1] for task, seed in whole}


@AXES.register("language")
def language(plan: Plan, seed: int) -> Plan:
    """Pairs of starts with the same scene, in which now one, now the other thing is named."""
    return replace(plan, other=seed % 2 == 1, scene_seed=seed // 2, variant="other" if seed % 2 else "one")
