"""What a robot can do and what is then true, in words: the tabletop's own tasks over the things of an embodiment.

Preconditions and effects are for the verifier, the oracles and the demonstrations alone; values are learnt or detected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, TypeAlias

from vlakit.errors import ConfigError, InvalidData, UnknownName, nearest
from vlakit.evaluation.suite import Suite
from vlakit.evaluation.suites.tabletop.embodiment import Embodiment
from vlakit.evaluation.suites.tabletop.scene import RECEPTACLES, Thing
from vlakit.evaluation.suites.tabletop.tasks import DIRECTIONS, GRASPABLE, Goal
from vlakit.evaluation.suites.tabletop.tasks import task as rules_of

DONE = "done"
Facts: TypeAlias = frozenset["Fact"]


@dataclass(frozen=True, order=True)
class Fact:
    """What a skill makes true: put_on red cube "white plate", push red cube "left", lift red cube ""."""

    kind: str
    x: str
    other: str = ""


@dataclass(frozen=True)
class Skill:
    """text: what the language model reads and the policy is told. max_steps: after so many it has failed."""

    text: str
    fact: Fact
    max_steps: int

    @property
    def needs(self) -> list[str]:
        """The things that it is about."""
        return [self.fact.x, *([self.fact.other] if self.fact.kind == "put_on" else [])]

    def possible(self, things: Collection[str], facts: Collection[Fact]) -> bool:
        """All there, not done already, a place that is free; what lies on a plate is not pushed off it."""
        kind, x = self.fact.kind, self.fact.x
        if any(need not in things for need in self.needs) or self.fact in facts:
            return False
        taken = kind == "put_on" and any(f.kind == kind and f.other == self.fact.other for f in facts)
        return not taken and not (kind == "push" and any(f.kind == "put_on" and f.x == x for f in facts))

    def after(self, facts: Collection[Fact]) -> Facts:
        """What is true then: one thing can be held, and one that is moved is no longer where it was."""
        moved = set() if self.fact.kind == "knock_over" else {self.fact.x}
        kept = {f for f in facts if f.kind != "lift" and not (f.x in moved and f.kind in {"put_on", "push"})}
        return frozenset({*kept, self.fact})

    def goal(self, things: Sequence[Thing]) -> Goal:
        """The tabletop's own goal of it among these things. Raises InvalidData where one is not there."""
        names = [thing.name for thing in things]
        for need in self.needs:
            if need not in names:
                raise InvalidData(f"{self.text!r} needs a {need}, which is not there", where=", ".join(names))
        places = [names.index(need) for need in self.needs]
        direction = self.fact.other if self.fact.kind == "push" else None
        return Goal(self.fact.kind, places[0], places[1] if len(places) > 1 else None, direction)


class Library:
    """Skills by text, in one order. Raises InvalidData where there is none, or two are called alike."""

    def __init__(self, skills: Sequence[Skill]) -> None:
        self.skills = list(skills)
        self._by_text = {skill.text: skill for skill in skills}
        if not skills or len(self._by_text) < len(skills):
            raise InvalidData("a library has skills of different texts, one or more", where=f"{len(skills)} skills")

    def __len__(self) -> int:
        return len(self.skills)

    def __iter__(self) -> Iterator[Skill]:
        return iter(self.skills)

    def __getitem__(self, text: str) -> Skill:
        """The skill of a text. Raises UnknownName."""
        if text not in self._by_text:
            raise UnknownName(f"no skill called {text!r}", where="the suite's skills", do=nearest(text, self._by_text))
        return self._by_text[text]

    @property
    def options(self) -> list[str]:
        """The texts, and done as the last."""
        return [*self._by_text, DONE]

    def only(self, texts: Sequence[str]) -> Library:
        """These skills alone. Raises UnknownName for one that the suite lacks."""
        return Library([self[text] for text in texts])


@lru_cache(maxsize=8)
def library(embodiment: Embodiment) -> Library:
    """The skills of a robot: lift, put on, push, knock over with each thing of its colours.

    "move near" is left out: with any two things it would be most of the library.
    """
    things = [f"{colour} {shape}" for shape, colour in product(GRASPABLE, embodiment.colours)]
    plates = [f"{colour} plate" for colour in embodiment.plate_colours]
    steady = [thing for thing in things if not thing.endswith("bottle")]
    facts = [Fact("lift", thing) for thing in things]
    facts += [Fact("put_on", *pair) for pair in product(steady, plates)]
    facts += [Fact("push", *pair) for pair in product(steady, DIRECTIONS)]
    facts += [Fact("knock_over", thing) for thing in things if thing.endswith("bottle")]
    return Library([skill_of(fact) for fact in facts])


def skills_of(suite: Suite) -> Library:
    """The skills that a suite offers. Raises ConfigError where it has none."""
    found = getattr(suite, "skills", None)
    if not isinstance(found, Library):
        what = f"suite {suite.name} has no skills to choose among"
        raise ConfigError(what, where="suite", do="give suite=tabletop_plans")
    return found


def skill_of(fact: Fact) -> Skill:
    """The skill that makes something true, called as the tabletop calls it."""
    rules = rules_of(fact.kind)
    names = [name.split() for name in (fact.x, fact.other) if " " in name]
    named = [Thing(colour, shape, 0, 0) for colour, shape in names]
    direction = fact.other if fact.kind == "push" else None
    text = rules.says(named, Goal(fact.kind, 0, len(named) - 1 or None, direction))
    return Skill(text, fact, rules.max_steps)


@dataclass(frozen=True)
class Wanted:
    """What an instruction asks for: of each group of facts one, and none of `never`."""

    groups: tuple[tuple[Fact, ...], ...]
    never: tuple[Fact, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Wanted:
        """The opposite of asdict."""
        groups = tuple(tuple(Fact(**fact) for fact in group) for group in values["groups"])
        return cls(groups, tuple(Fact(**fact) for fact in values["never"]))

    def holds(self, facts: Collection[Fact]) -> bool:
        """Is it so?"""
        return all(any(f in facts for f in group) for group in self.groups) and not any(f in facts for f in self.never)

    def right(self, things: Collection[str], facts: Collection[Fact], skills: Library) -> list[str]:
        """What may come next: possible skills for what is not so yet, a lift last, for one who holds does nothing else;
        done where nothing is left."""
        if self.holds(facts):
            return [DONE]
        open_groups = [group for group in self.groups if not any(fact in facts for fact in group)]
        useful = {fact for group in open_groups for fact in group}
        found = [s for s in skills if s.fact in useful and s.possible(things, facts)]
        found = [s for s in found if not any(fact in self.never for fact in s.after(facts))]
        return [s.text for s in found if s.fact.kind != "lift"] or [s.text for s in found]


@dataclass(frozen=True)
class Verdict:
    """Of a plan in words, each possible skill taken to work. infeasible: skills that could not begin."""

    success: bool
    infeasible: int


def verify(plan: Sequence[str], things: Collection[str], wanted: Wanted, skills: Library) -> Verdict:
    """Whether a plan, done at its end, leads to what is wanted, in whatever order; what is so already stays so.

    Raises UnknownName for a skill that the suite lacks.
    """
    facts: Facts = frozenset()
    infeasible = 0
    for text in plan:
        if text == DONE:
            break
        skill = skills[text]
        if skill.possible(things, facts):
            facts = skill.after(facts)
        elif skill.fact not in facts:
            infeasible += 1
    return Verdict(DONE in plan and not infeasible and wanted.holds(facts), infeasible)


def is_place(name: str) -> bool:
    """Is it something to put things on?"""
    return name.split()[-1] in RECEPTACLES
