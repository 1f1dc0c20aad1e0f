"""V(state, skill): how likely a skill is to succeed from here. What is known, what a detector saw, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from vlakit.evaluation.actors import Turn
from vlakit.evaluation.worlds import Failure, Worlds
from vlakit.planning.choosing import presence
from vlakit.planning.skills import Library
from vlakit.registry import Registry
from vlakit.schema import Float64


class Affordances(Protocol):
    """Values of all skills in the worlds of some slots."""

    def values(self, turns: Mapping[int, Turn], worlds: Worlds) -> dict[int, Float64 | Failure]:
        """(N + 1,) in [0, 1] for each slot: the library's skills, then done."""
        ...


AFFORDANCES: Registry[Affordances] = Registry("kind of affordances")


@AFFORDANCES.register("none")
class Everything:
    """All the same: the language model decides alone."""

    def __init__(self, skills: Library) -> None:
        self.skills = skills

    def values(self, turns: Mapping[int, Turn], worlds: Worlds) -> dict[int, Float64 | Failure]:
        """See Affordances."""
        return {slot: np.ones(len(self.skills) + 1) for slot in turns}


@AFFORDANCES.register("oracle")
class Possible:
    """What the verifier knows of the simulator's state: for tests, and the most that values can do."""

    def __init__(self, skills: Library) -> None:
        self.skills = skills

    def values(self, turns: Mapping[int, Turn], worlds: Worlds) -> dict[int, Float64 | Failure]:
        """See Affordances."""
        return worlds.call("possible", dict.fromkeys(turns, ()))


@AFFORDANCES.register("detected")
class Detected:
    """1 where all things that a skill is about were seen, as in the notebook; what was done already does not count.

    The detector is the simulator's list of things: it does not err.
    """

    def __init__(self, skills: Library) -> None:
        self.needs = [*(skill.needs for skill in skills), []]

    def values(self, turns: Mapping[int, Turn], worlds: Worlds) -> dict[int, Float64 | Failure]:
        """See Affordances."""
        seen: dict[int, Any] = worlds.call("seen", dict.fromkeys(turns, ()))
        return {s: one if isinstance(one, Failure) else presence(self.needs, one) for s, one in seen.items()}
