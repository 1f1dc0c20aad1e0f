"""Instructions by family, each with its scene and what is wanted, drawn on the tabletop.

The families are those of SayCan's table, with the tabletop in the kitchen's place: single primitives, other nouns,
other verbs, structured language, what only the scene can tell (embodiment), three skills and more. Things of a scene
differ in colour. Two things are never asked onto one plate: the tabletop's own rule is of one thing on a plate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vlakit.evaluation.suites.tabletop.axes import other_words
from vlakit.evaluation.suites.tabletop.tasks import DIRECTIONS, GRASPABLE, Draw
from vlakit.planning.skills import Fact, Wanted, skill_of
from vlakit.registry import Registry

KINDS = ("put_on", "push", "knock_over", "lift")
STEADY = tuple(shape for shape in GRASPABLE if shape != "bottle")
NOUNS = {  # the suite's word -> other words
    "cube": ("block", "box"),
    "ball": ("sphere", "globe"),
    "cylinder": ("can", "tin"),
    "bottle": ("flask", "jar"),
    "plate": ("dish", "tray"),
}


@dataclass
class Cast:
    """The things of a scene under construction. Plates come first: they have few colours."""

    draw: Draw
    names: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def pick(self, among: Sequence[str]) -> str:
        """One of these."""
        return str(self.draw.rng.choice(list(among)))

    def add(self, shapes: Sequence[str]) -> str:
        """One more thing of one of these shapes, in a colour that is not there yet; its name."""
        colour, shape = self.draw.named(self.pick(shapes), avoid=[colour for colour, _ in self.names])
        self.names.append((colour, shape))
        return f"{colour} {shape}"

    def fact(self, kind: str) -> Fact:
        """One that a skill of this kind makes true, of things that join the scene."""
        if kind == "put_on":
            plate = self.add(["plate"])
            return Fact(kind, self.add(STEADY), plate)
        x = self.add(["bottle"] if kind == "knock_over" else STEADY)
        return Fact(kind, x, self.pick(list(DIRECTIONS)) if kind == "push" else "")

    def besides(self, fact: Fact) -> None:
        """A thing that could be meant and is not."""
        self.add(["bottle"] if fact.x.endswith("bottle") else STEADY)


@dataclass(frozen=True)
class Asked:
    """An instruction and what it wants."""

    instruction: str
    wanted: Wanted


FAMILIES: Registry[Asked] = Registry("family of instructions")


def _one(cast: Cast) -> Fact:
    fact = cast.fact(cast.pick(KINDS))
    cast.besides(fact)
    return fact


@FAMILIES.register("single")
def single(cast: Cast, number: int) -> Asked:
    """A skill's own words."""
    fact = _one(cast)
    return Asked(skill_of(fact).text, Wanted(((fact,),)))


@FAMILIES.register("noun")
def noun(cast: Cast, number: int) -> Asked:
    """Things by other names: lift the red block."""
    fact = _one(cast)
    words = skill_of(fact).text.split()
    return Asked(" ".join(NOUNS[word][number % 2] if word in NOUNS else word for word in words), Wanted(((fact,),)))


@FAMILIES.register("verb")
def verb(cast: Cast, number: int) -> Asked:
    """Skills by other names: topple the red bottle."""
    fact = _one(cast)
    return Asked(other_words(skill_of(fact).text, number), Wanted(((fact,),)))


@FAMILIES.register("structured")
def structured(cast: Cast, number: int) -> Asked:
    """Both, all, everything but."""
    return (_both, _all, _all_but)[number % 3](cast)


def _both(cast: Cast) -> Asked:
    plates = [cast.add(["plate"]), cast.add(["plate"])]
    first, second = cast.add(STEADY), cast.add(STEADY)
    groups = tuple(tuple(Fact("put_on", x, plate) for plate in plates) for x in (first, second))
    return Asked(f"put both {first} and {second} on plates", Wanted(groups))


def _all(cast: Cast) -> Asked:
    fallen = [Fact("knock_over", cast.add(["bottle"])) for _ in range(2)]
    cast.add(STEADY)
    return Asked("knock over all bottles", Wanted(tuple((fact,) for fact in fallen)))


def _all_but(cast: Cast) -> Asked:
    plate, kept, other = cast.add(["plate"]), cast.add(STEADY), cast.add(STEADY)
    put = Fact("put_on", other, plate)
    return Asked(f"put everything but {kept} on {plate}", Wanted(((put,),), (Fact("put_on", kept, plate),)))


@FAMILIES.register("embodiment")
def embodiment(cast: Cast, number: int) -> Asked:
    """What is meant only the scene says: put the ball on the plate, of whatever colours they are."""
    fact = cast.fact(cast.pick(KINDS))
    shape = fact.x.split()[1]
    cast.add([one for one in STEADY if one != shape])
    words = [
        word for word in skill_of(fact).text.split() if word not in {n.split()[0] for n in (fact.x, fact.other) if n}
    ]
    if fact.kind == "push":
        words.append(fact.other)
    return Asked(" ".join(f"the {word}" if word in NOUNS else word for word in words), Wanted(((fact,),)))


@FAMILIES.register("long_horizon")
def long_horizon(cast: Cast, number: int) -> Asked:
    """Three skills, in whatever order."""
    third = "put_on" if number % 2 else "lift"
    kinds = sorted(["put_on", "knock_over", third], key=lambda kind: kind != "put_on")
    plates = [cast.add(["plate"]) for kind in kinds if kind == "put_on"]
    facts = [Fact("put_on", cast.add(STEADY), plate) for plate in plates]
    facts += [cast.fact(kind) for kind in kinds if kind != "put_on"]
    return Asked(", ".join(skill_of(fact).text for fact in facts), Wanted(tuple((fact,) for fact in facts)))
