"""What skills make true, and which plans the verifier takes."""

from __future__ import annotations

from itertools import permutations

import pytest

from vlakit.errors import InvalidData, UnknownName
from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.planning.skills import DONE, Fact, Library, Wanted, library, skill_of, verify

SKILLS = library(load_embodiment("d0"))
THINGS = ["white plate", "red cube", "green bottle", "blue ball"]
PUT, LIFT = Fact("put_on", "red cube", "white plate"), Fact("lift", "blue ball")
FALL = Fact("knock_over", "green bottle")
ALL = Wanted(((PUT,), (LIFT,), (FALL,)))


def plan(*facts: Fact) -> list[str]:
    return [*(skill_of(fact).text for fact in facts), DONE]


def test_a_library_has_50_to_200_skills_called_as_the_tabletop_calls_them() -> None:
    for name in ("d0", "target"):
        assert 50 <= len(library(load_embodiment(name))) <= 200
    assert skill_of(PUT).text == "put red cube on white plate"
    assert SKILLS["push red cube left"].fact == Fact("push", "red cube", "left")


def test_every_order_that_works_is_taken() -> None:
    taken = {order for order in permutations((PUT, LIFT, FALL)) if verify(plan(*order), THINGS, ALL, SKILLS).success}
    assert taken == {(PUT, FALL, LIFT), (FALL, PUT, LIFT)}  # one hand: what is lifted stays so only at the end


def test_a_missing_step_a_missing_done_and_what_is_not_there_are_no_plan() -> None:
    assert not verify(plan(FALL, LIFT), THINGS, ALL, SKILLS).success
    assert not verify(plan(PUT, FALL, LIFT)[:-1], THINGS, ALL, SKILLS).success
    assert not verify(plan(PUT, FALL, LIFT), THINGS[1:], ALL, SKILLS).success
    assert verify(plan(PUT, FALL, LIFT), THINGS[1:], ALL, SKILLS).infeasible == 1


def test_what_is_forbidden_spoils_a_plan_and_an_alternative_serves() -> None:
    wanted = Wanted(((PUT, LIFT),), never=(FALL,))
    assert verify(plan(LIFT), THINGS, wanted, SKILLS).success
    assert verify(plan(PUT, PUT), THINGS, wanted, SKILLS).success  # again what is so already: no harm
    assert not verify(plan(FALL, PUT), THINGS, wanted, SKILLS).success


def test_a_plate_holds_one_thing_and_what_lies_on_it_is_not_pushed() -> None:
    facts = skill_of(PUT).after(frozenset())
    assert not skill_of(Fact("put_on", "blue ball", "white plate")).possible(THINGS, facts)
    assert not skill_of(Fact("push", "red cube", "left")).possible(THINGS, facts)
    assert skill_of(Fact("lift", "red cube")).after(facts) == {Fact("lift", "red cube")}


def test_following_what_may_come_next_always_arrives() -> None:
    facts: frozenset[Fact] = frozenset()
    chosen: list[str] = []
    while DONE not in chosen:
        chosen.append(ALL.right(THINGS, facts, SKILLS)[0])
        facts = facts if chosen[-1] == DONE else SKILLS[chosen[-1]].after(facts)
    assert verify(chosen, THINGS, ALL, SKILLS).success
    assert len(chosen) == 4


def test_a_skill_that_the_suite_lacks_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"did you mean .*lift red cube"):
        verify(["lift red cub"], THINGS, ALL, SKILLS)
    with pytest.raises(UnknownName):
        SKILLS.only(["juggle"])
    with pytest.raises(InvalidData):
        Library([])
