"""Instructions and plans in words, of which the shipped language model learnt: the suite's families over all colours.

No scene is told: "lift the cube" is followed by a lift of a cube of any colour, so that values have to say which is
there. Whole instructions, and pairs of a kind of skill and a thing, are held out by a hash of their words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256

from vlakit.evaluation.suites.tabletop.axes import other_words
from vlakit.evaluation.suites.tabletop.embodiment import COLOURS, Embodiment, load_embodiment
from vlakit.evaluation.suites.tabletop.states import drawing
from vlakit.planning.families import FAMILIES, NOUNS, STEADY, Asked, Cast
from vlakit.planning.skills import DONE, Fact, Facts, Library, Wanted, skill_of
from vlakit.planning.suite import FAMILY_ORDER

HELD_ONE_IN = 8  # of instructions, and of (kind, thing)


def is_held(words: str) -> bool:
    """Is this instruction, or this kind and thing, kept from training?"""
    return sha256(f"vlakit plans: {words}".encode()).digest()[0] % HELD_ONE_IN == 0


def has_held_pair(wanted: Wanted) -> bool:
    """Is a kind of skill wanted of a thing with which it was never shown?"""
    return any(is_held(f"{fact.kind} {fact.x}") for group in wanted.groups for fact in group)


@lru_cache
def any_robot() -> Embodiment:
    """One with things of all colours: the model serves every robot of the tabletop."""
    return replace(load_embodiment("d0"), colours=tuple(COLOURS), plate_colours=tuple(COLOURS))


def other_nouns(text: str, number: int) -> str:
    """Things by other names."""
    return " ".join(NOUNS[word][number % 2] if word in NOUNS else word for word in text.split())


def bottles(cast: Cast, number: int) -> Asked:
    """As many as there are, one to three: only the scene says when all have fallen."""
    fallen = [Fact("knock_over", cast.add(["bottle"])) for _ in range(1 + number % 3)]
    return Asked("knock over all bottles", Wanted(tuple((fact,) for fact in fallen)))


def two(cast: Cast, number: int) -> Asked:
    """Two skills, one after the other."""
    facts = [cast.fact("put_on"), cast.fact(cast.pick(["put_on", "knock_over", "lift", "push"]))]
    return Asked(", ".join(skill_of(fact).text for fact in facts), Wanted(tuple((fact,) for fact in facts)))


def four(cast: Cast, number: int) -> Asked:
    """One skill more than the model was ever shown in an instruction."""
    plates = [cast.add(["plate"]) for _ in range(2)]
    facts = [Fact("put_on", cast.add(STEADY), plate) for plate in plates]
    facts += [cast.fact("knock_over"), cast.fact("lift")]
    return Asked(", ".join(skill_of(fact).text for fact in facts), Wanted(tuple((fact,) for fact in facts)))


def both_other(cast: Cast, number: int) -> Asked:
    """Other verbs and other nouns in one instruction, of which the model was only shown one at a time."""
    asked = FAMILIES.build("single", cast=cast, number=number)
    return Asked(other_nouns(other_words(asked.instruction, number), number), asked.wanted)


def plan_of(asked: Asked, cast: Cast) -> list[str]:
    """One right order of skills, done at its end."""
    things = [f"{colour} {shape}" for colour, shape in cast.names]
    skills = Library([skill_of(fact) for group in asked.wanted.groups for fact in group])
    facts: Facts = frozenset()
    plan: list[str] = []
    while not plan or plan[-1] != DONE:
        right = asked.wanted.right(things, facts, skills)
        plan.append(cast.pick(right))
        if plan[-1] != DONE:
            facts = skills[plan[-1]].after(facts)
    return plan


def examples(n: int, seed: int) -> list[tuple[str, list[str]]]:
    """n (instruction, plan) of which none is held out; split "grammar": no start of the suite is drawn so."""
    makers = {**dict.fromkeys(FAMILY_ORDER), "bottles": bottles, "two": two}
    names: Sequence[str] = [*makers, "long_horizon", "embodiment", "structured"]
    found: list[tuple[str, list[str]]] = []
    number = 0
    while len(found) < n:
        name = names[number % len(names)]
        cast = Cast(drawing(any_robot(), ("plans", name, "grammar", seed, number)))
        turn = number // len(names)
        own = makers[name]
        asked = own(cast, turn) if own else FAMILIES.build(name, cast=cast, number=turn)
        number += 1
        if asked.instruction != "knock over all bottles" and is_held(asked.instruction):
            continue
        if not has_held_pair(asked.wanted):
            found.append((asked.instruction, plan_of(asked, cast)))
    return found
