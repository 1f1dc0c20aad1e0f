"""The suite tabletop_plans: instructions that take one skill or several, by family, on the tabletop.

Its environment is the simulator's side of a plan: which skill is under way, whether it succeeded, what is true now. A
policy that does not plan meets the same episodes, told the whole instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from vlakit.errors import UnknownName, nearest
from vlakit.evaluation.suite import InitialState, Step
from vlakit.evaluation.suites.tabletop.axes import Plan
from vlakit.evaluation.suites.tabletop.embodiment import Embodiment
from vlakit.evaluation.suites.tabletop.expert import expert
from vlakit.evaluation.suites.tabletop.scene import Thing
from vlakit.evaluation.suites.tabletop.states import Start, drawing, laid_out
from vlakit.evaluation.suites.tabletop.suite import TabletopEnvironment, TabletopSuite
from vlakit.evaluation.suites.tabletop.tasks import DIRECTIONS, Goal
from vlakit.evaluation.suites.tabletop.tasks import task as rules_of
from vlakit.planning.families import FAMILIES, Cast
from vlakit.planning.skills import DONE, Fact, Library, Skill, Wanted, is_place, library
from vlakit.schema import Float32, Float64, Observation

FAMILY_ORDER = ("single", "noun", "verb", "structured", "embodiment", "long_horizon")
MAX_STEPS = {"structured": 110, "long_horizon": 140}  # control steps, retries included
SHORT_STEPS = 60
LAID_M = 0.004  # metres above its place by which a thing lies on it
CLEAR_M, RETREAT_STEPS = 0.115, 4  # where the hand is above all things, and the steps that it takes at most
ON_TABLE_M = 0.06  # the highest centre of a thing on a plate


class TabletopPlansSuite(TabletopSuite):
    """Families of instructions on one embodiment's tabletop. skills: texts of the library to offer; none: all of it.

    Raises UnknownName for a family or a skill that there is not, and what TabletopSuite raises.
    """

    def __init__(
        self,
        embodiment: str = "d0",
        image_size: int = 64,
        split: str = "test",
        name: str | None = None,
        tasks: Sequence[str] = FAMILY_ORDER,
        skills: Sequence[str] = (),
        dataset: str | None = None,
        starts_seed: int | None = None,
    ) -> None:
        name = name or f"tabletop_plans_{embodiment}"
        super().__init__(embodiment, ("none",), image_size, split, name, (), dataset, starts_seed)
        for family in tasks:
            if family not in FAMILIES.names():
                raise UnknownName(f"no family {family!r}", where="suite.tasks", do=nearest(family, FAMILIES.names()))
        self._tasks = tuple(tasks)
        whole = library(self.embodiment)
        self.skills = whole.only(skills) if skills else whole

    def max_steps(self, task: str) -> int:
        """Steps after which an episode has failed."""
        return MAX_STEPS.get(self._family(task), SHORT_STEPS)

    def initial_states(self, task: str, n: int) -> list[InitialState]:
        """The first n starts of a family, each with its own instruction."""
        return [plan_start(self.embodiment, self._family(task), i, self.starts) for i in range(n)]

    def training_states(self, task: str, n: int, seed: int = 0) -> list[InitialState]:
        """n starts that are never evaluated."""
        return [plan_start(self.embodiment, self._family(task), seed * 1_000_000 + i, "train") for i in range(n)]

    def environment(self) -> PlansEnvironment:
        """A new slot."""
        return PlansEnvironment(self.embodiment, self.image_size, self.dataset, self.skills)

    def _family(self, task: str) -> str:
        return self._split(task)[1]


def plan_start(embodiment: Embodiment, family: str, number: int, split: str) -> InitialState:
    """Start number `number` of a family: things, places where each skill has room, what is said and wanted."""
    cast = Cast(drawing(embodiment, ("plans", family, split, number)))
    asked = FAMILIES.build(family, cast=cast, number=number)
    facts = [fact for group in asked.wanted.groups for fact in group]

    def roomy(things: tuple[Thing, ...]) -> bool:
        goals = [Skill("", fact, 1).goal(things) for fact in facts]
        return all(rules_of(goal.task).fits(things, goal) for goal in goals)

    layout = laid_out(Plan(cast.draw), cast.names, roomy)
    content = asdict(Start(layout, Skill("", facts[0], 1).goal(layout.things)))
    return InitialState(
        name=f"{embodiment.name}/plans/{family}/{split}-{number}",
        task=family,
        seed=number,
        instruction=asked.instruction,
        content={**content, "variant": family, "wanted": asdict(asked.wanted)},
    )


def things_of(state: InitialState) -> list[str]:
    """The names of the things in a start."""
    return [thing.name for thing in Start.from_dict(state.content).layout.things]


def wanted_of(state: InitialState) -> Wanted:
    """What a start's instruction wants."""
    return Wanted.from_dict(state.content["wanted"])


class PlansEnvironment(TabletopEnvironment):
    """One episode: a planner's skills, or else the expert's own, one after another; over when done was said.

    Where nobody plans it is over as soon as what is wanted is so.
    """

    def __init__(self, embodiment: Embodiment, image_size: int, dataset: str, skills: Library) -> None:
        super().__init__(embodiment, image_size, dataset, embodiment.colours)
        self.skills = skills

    def reset(self, state: InitialState) -> Observation:
        """See TabletopEnvironment."""
        observation = super().reset(state)
        self.wanted, self.things = wanted_of(state), self.world.layout.things
        self.names = [thing.name for thing in self.things]
        self.origins = np.stack([self.world.position(i).copy() for i in range(len(self.things))])
        self.planned = self.declared = False
        self.under_way: Skill | None = None
        self.used, self.clear = 0, False
        return observation

    def step(self, action: Float32) -> Step:
        """One control period; credit 1 while what is wanted is so, half where a part of it is."""
        self.world.act(np.asarray(action, float))
        self.used += 1
        facts = self.facts()
        self.credit = 1.0 if self.wanted.holds(facts) else 0.5 * any(set(g) & facts for g in self.wanted.groups)
        return Step(self._observe(), self.credit, self.declared or (not self.planned and self.credit == 1))

    def expert(self) -> Float32:
        """The scripted expert's action for the skill under way; where nobody plans, for one that is right."""
        if not self.planned and self.over():
            right = self.wanted.right(self.names, self.facts(), self.skills)
            self._begin(right[0] if right else DONE)
        goal, up = self._goal(), self.retreat()
        if up is not None:
            return up
        return self.hold() if goal is None or self.achieved() else expert(self.world, goal).astype(np.float32)

    def retreat(self) -> Float32 | None:
        """The action that takes the hand straight up before a skill; None once it is clear of what the last one left.

        Fingers that close, or move aside, where a thing was just put down take it along.
        """
        goal = self._goal()
        holding = goal is not None and self.world.gripped(goal.x)
        self.clear |= holding or self.used >= RETREAT_STEPS or float(self.world.hand[2]) >= CLEAR_M
        up = [0, 0, self.embodiment.step_m, 0, 0, 0, self.world.gripper]
        return None if self.clear else np.array(up, np.float32)

    def attempt(self, text: str) -> None:
        """A planner begins a skill, of whatever things. Raises UnknownName."""
        self.planned = True
        self._begin(text)

    def declare(self) -> None:
        """A planner says done: the next step is the last."""
        self.planned = self.declared = True

    def achieved(self) -> bool:
        """Has the skill under way succeeded?"""
        goal = self._goal()
        return goal is not None and rules_of(goal.task).credit(self.world, goal, self.begun) == 1

    def over(self) -> bool:
        """Is no skill under way, or has it succeeded, or taken all of its steps?"""
        return self.under_way is None or self.used >= self.under_way.max_steps or self.achieved()

    def possible(self) -> Float64:
        """(N + 1,) 1 for each skill that could begin now, and for done: the verifier's view."""
        facts = self.facts()
        return np.array([*(skill.possible(self.names, facts) for skill in self.skills), True], np.float64)

    def right(self) -> list[str]:
        """What may come next."""
        return self.wanted.right(self.names, self.facts(), self.skills)

    def seen(self) -> list[str]:
        """The names of the things, as a faultless detector would give them."""
        return self.names

    def facts(self) -> set[Fact]:
        """What is true in the simulator now of what skills can make true."""
        found: set[Fact] = set()
        for i, x in enumerate(self.names):
            if is_place(x):
                continue
            found |= {Fact("put_on", x, y) for j, y in enumerate(self.names) if is_place(y) and self._lies_on(i, j)}
            own = [("knock_over", "")] if x.endswith("bottle") else [("push", way) for way in DIRECTIONS]
            kinds = [("lift", ""), *own]
            found |= {Fact(kind, x, other) for kind, other in kinds if self._so(Goal(kind, i, None, other or None))}
        return found

    def _so(self, goal: Goal) -> bool:
        return rules_of(goal.task).credit(self.world, goal, self.origins[goal.x]) == 1

    def _lies_on(self, x: int, y: int) -> bool:
        where, place = self.world.position(x), self.things[y]
        within = float(np.linalg.norm((where - self.world.position(y))[:2])) < place.radius
        return within and self.things[x].height + LAID_M < where[2] < ON_TABLE_M and not self.world.gripped(x)

    def _begin(self, text: str) -> None:
        self.under_way = None if text == DONE else self.skills[text]
        self.used, self.clear = 0, False
        goal = self._goal()
        self.begun = self.world.position(goal.x if goal else 0).copy()

    def _goal(self) -> Goal | None:
        """None where no skill is under way, or one of things that are not there."""
        skill = self.under_way
        return skill.goal(self.things) if skill and set(skill.needs) <= set(self.names) else None
