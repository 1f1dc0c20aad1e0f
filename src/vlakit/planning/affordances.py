"""V(state, skill): how likely a skill is to succeed from here. Known, detected, learnt, or not asked for at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from vlakit.errors import ConfigError
from vlakit.evaluation.actors import Turn
from vlakit.evaluation.worlds import Failure, Worlds
from vlakit.models.network import tensors_hash
from vlakit.planning.choosing import presence
from vlakit.planning.looks import See, look_of
from vlakit.planning.skills import DONE, Library
from vlakit.planning.value_files import load_values
from vlakit.planning.values import ValueNetwork
from vlakit.registry import Registry
from vlakit.schema import Float64

if TYPE_CHECKING:
    from vlakit.policy import TrainedPolicy


Values: TypeAlias = dict[int, Float64 | Failure]
Said: TypeAlias = Mapping[int, Sequence[str]]  # slot -> the skills of its plan so far


class Affordances(Protocol):
    """Values of all skills in the worlds of some slots."""

    def values(self, turns: Mapping[int, Turn], worlds: Worlds, said: Said | None = None) -> Values:
        """(N + 1,) in [0, 1] for each slot: the library's skills, then done, 1 where nothing is known of it."""
        ...


@dataclass(frozen=True)
class Given:
    """What affordances are made of. policy: of a checkpoint, where one carries out skills; file: of learnt values."""

    skills: Library
    policy: TrainedPolicy | None = None
    file: Path | None = None


class Everything:
    """All the same: the language model decides alone."""

    def __init__(self, skills: Library) -> None:
        self.skills = skills

    def values(self, turns: Mapping[int, Turn], worlds: Worlds, said: Said | None = None) -> Values:
        """See Affordances."""
        return {slot: np.ones(len(self.skills) + 1) for slot in turns}


class Possible:
    """What the verifier knows of the simulator's state: for tests, and the most that values can do."""

    def __init__(self, skills: Library) -> None:
        self.skills = skills

    def values(self, turns: Mapping[int, Turn], worlds: Worlds, said: Said | None = None) -> Values:
        """See Affordances; done where what is wanted is so."""
        possible: Values = worlds.call("possible", dict.fromkeys(turns, ()))
        right: dict[int, Any] = worlds.call("right", dict.fromkeys(turns, ()))
        for slot, one in possible.items():
            if not isinstance(one, Failure) and not isinstance(right[slot], Failure):
                one[-1] = DONE in right[slot]
        return possible


class Detected:
    """1 where all things that a skill is about were seen, as in the notebook; what was done already does not count.

    The detector is the simulator's list of things: it does not err.
    """

    def __init__(self, skills: Library) -> None:
        self.needs = [*(skill.needs for skill in skills), []]

    def values(self, turns: Mapping[int, Turn], worlds: Worlds, said: Said | None = None) -> Values:
        """See Affordances."""
        seen: dict[int, Any] = worlds.call("seen", dict.fromkeys(turns, ()))
        return {s: one if isinstance(one, Failure) else presence(self.needs, one) for s, one in seen.items()}


class Learned:
    """What a network says of what the camera shows; see: what it looks at."""

    def __init__(self, network: ValueNetwork, see: See, skills: Library) -> None:
        self.network, self.see = network, see
        self.places = {text: place for place, text in enumerate(skills.options)}
        self.facts = tensors_hash(network, b"")

    def values(self, turns: Mapping[int, Turn], worlds: Worlds, said: Said | None = None) -> Values:
        """See Affordances; done: how likely all that was said so far has come about."""
        if not turns:
            return {}
        features = self.see([turn.observation for turn in turns.values()], None)
        values, ended = self.network.values(features), self.network.ended
        came = np.ones_like(values) if ended is None else ended.values(features)
        plans = [[self.places[text] for text in (said or {}).get(slot, ())] for slot in turns]
        return {
            slot: np.append(row, one[plan].prod())
            for slot, row, one, plan in zip(turns, values, came, plans, strict=True)
        }


AFFORDANCES: Registry[Affordances] = Registry("kind of affordances")


@AFFORDANCES.register("none")
def _none(given: Given) -> Affordances:
    return Everything(given.skills)


@AFFORDANCES.register("oracle")
def _oracle(given: Given) -> Affordances:
    return Possible(given.skills)


@AFFORDANCES.register("detected")
def _detected(given: Given) -> Affordances:
    return Detected(given.skills)


@AFFORDANCES.register("learned")
def _learned(given: Given) -> Affordances:
    if given.file is None or given.policy is None:
        raise ConfigError(
            "learnt values are of a checkpoint's policy and stand in a file",
            where="planner",
            do="give ckpt=CKPT values=FILE, which vlakit affordances ckpt=CKPT writes",
        )
    network, look = load_values(given.file, given.skills, given.policy.content_hash())
    return Learned(network, look_of(look, given.policy, given.skills), given.skills)
