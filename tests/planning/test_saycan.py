"""The planner as an actor: with an oracle, true values and scripted skills every plan is right and carried out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning.oracle import Oracle

from vlakit.errors import ConfigError, PartMissing, UnknownName
from vlakit.evaluation.actors import Expert, Turn
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.rollout import Options, rollout
from vlakit.evaluation.run import Request
from vlakit.evaluation.starts import shared_states
from vlakit.evaluation.subject import Subject, subject_of
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.planning.affordances import AFFORDANCES, Everything, Given, Possible
from vlakit.planning.choosing import Choosing
from vlakit.planning.language_models import Uniform
from vlakit.planning.results import Outcome, outcomes_of, read_steps, rows
from vlakit.planning.saycan import SayCan, Step
from vlakit.planning.settings import PlannerSettings, load_planner, planner_of
from vlakit.planning.skills import DONE, Facts, verify
from vlakit.planning.suite import FAMILY_ORDER, TabletopPlansSuite, things_of, wanted_of

SUITE = TabletopPlansSuite()
EXPERT = Subject("expert", Expert(), {})
LAST = re.compile(r"^\d+\. (.+)$", re.MULTILINE)


def said_so_far(prompt: str) -> list[str]:
    return LAST.findall(prompt.rpartition("Human: ")[2].replace("Robot: ", "Robot:\n"))


def oracle(state: InitialState) -> Oracle:
    """Knows what is wanted, and takes each skill so far to have worked."""
    things, wanted = things_of(state), wanted_of(state)

    def right(prompt: str) -> Sequence[str]:
        facts: Facts = frozenset()
        for text in said_so_far(prompt):
            facts = SUITE.skills[text].after(facts)
        return wanted.right(things, facts, SUITE.skills)

    return Oracle(right)


def planned(scorer: Any, affordances: Any, out: Path, **further: Any) -> SayCan:
    return SayCan(EXPERT, SUITE.skills, scorer, affordances, out=out, slots=4, **further)


def run(planner: SayCan, states: Sequence[InitialState]) -> list[EpisodeRecord]:
    return list(rollout(SUITE, planner, states, Options(slots=4)))


def came_of(planner: SayCan, states: Sequence[InitialState], out: Path) -> list[Outcome]:
    records = run(planner, states)
    return outcomes_of(read_steps(out), records, states, SUITE.skills)


@pytest.mark.parametrize("mode", ["closed_loop", "open_loop"])
def test_an_oracle_with_true_values_and_scripted_skills_never_fails_in_any_family(tmp_path: Path, mode: Any) -> None:
    planner = planned(
        oracle, (Possible if mode == "closed_loop" else Everything)(SUITE.skills), tmp_path, how=Choosing(mode=mode)
    )
    found = came_of(planner, shared_states(SUITE, 18), tmp_path)
    assert {one.family for one in found} == set(FAMILY_ORDER)
    assert [one for one in found if not (one.plan_success and one.exec_success)] == []
    assert {one.blame for one in found} == {""}
    assert [row.n for row in rows(found)] == [3] * 6 + [18]


def test_the_scripted_expert_alone_does_what_is_wanted() -> None:
    records = list(rollout(SUITE, Expert(), shared_states(SUITE, 6), Options(slots=3)))
    assert [record.success for record in records] == [True] * 6


def test_there_are_100_instructions_and_each_has_a_plan() -> None:
    states = shared_states(SUITE, 240)
    assert len({state.instruction for state in states}) >= 100
    for state in states:
        things, wanted, facts, plan = things_of(state), wanted_of(state), frozenset(), list[str]()
        while DONE not in plan:
            plan.append(wanted.right(things, facts, SUITE.skills)[0])
            facts = facts if plan[-1] == DONE else SUITE.skills[plan[-1]].after(facts)
        assert verify(plan, things, wanted, SUITE.skills).success, state.name
        assert len(plan) > 3 or state.task != "long_horizon"


def test_starts_repeat_and_splits_share_none() -> None:
    assert SUITE.initial_states("noun", 3) == TabletopPlansSuite().initial_states("noun", 5)[:3]
    contents = [str(state.content) for state in [*SUITE.initial_states("noun", 4), *SUITE.training_states("noun", 4)]]
    assert len(set(contents)) == 8


class Hasty:
    """Wants to say done, and as second best what is right."""

    def __init__(self, state: InitialState) -> None:
        self.inner = oracle(state)

    def score(self, prompt: str, options: Sequence[str]) -> Any:
        said = self.inner.score(prompt, options)
        said.log_probs[list(options).index(DONE)] = 0.0
        return said


def hasty(state: InitialState) -> Hasty:
    """One for each start."""
    return Hasty(state)


@pytest.mark.parametrize(("done", "right"), [("learned", True), ("constant", False)])
def test_known_ends_hold_a_hasty_language_model_back(tmp_path: Path, done: Any, right: bool) -> None:
    states = SUITE.initial_states("long_horizon", 1)
    planner = planned(hasty, Possible(SUITE.skills), tmp_path, how=Choosing(done=done, c_done=1.0))
    found = came_of(planner, states, tmp_path)
    assert [one.plan_success for one in found] == [right]
    assert [step.value for step in read_steps(tmp_path)[states[0].name] if step.skill == DONE] == [1.0]


class Wrong:
    """Always wants the same skill first."""

    name = "wrong"

    def __init__(self, text: str) -> None:
        self.oracle = Oracle(lambda prompt: [text])

    def score(self, prompt: str, options: Sequence[str]) -> Any:
        return self.oracle.score(prompt, options)


def test_the_language_model_is_blamed_where_true_values_would_not_have_helped(tmp_path: Path) -> None:
    states = SUITE.initial_states("single", 3)
    found = came_of(planned(Wrong(DONE), Possible(SUITE.skills), tmp_path), states, tmp_path)
    assert [(one.plan, one.blame, one.false_done) for one in found] == [((DONE,), "lm", True)] * 3


class Reversed:
    """Values that say the opposite of what is so."""

    def values(self, turns: Mapping[int, Turn], worlds: Any, said: Any = None) -> dict[int, Any]:
        return {slot: 1 - one for slot, one in Possible(SUITE.skills).values(turns, worlds).items()}


def test_values_are_blamed_where_true_ones_would_have_helped(tmp_path: Path) -> None:
    states = SUITE.initial_states("single", 2)
    planner = planned(oracle, Reversed(), tmp_path, how=Choosing(floor=0.0, most=1))
    found = came_of(planner, states, tmp_path)
    assert [(one.blame, one.infeasible) for one in found] == [("affordance", 1)] * 2


class Idle(Expert):
    """A skill policy that never succeeds."""

    method = "hold"


def test_skills_are_blamed_where_the_plan_was_right(tmp_path: Path) -> None:
    states = [state for state in SUITE.initial_states("single", 8) if "lift" not in state.instruction][:2]
    planner = SayCan(Subject("idle", Idle(), {}), SUITE.skills, oracle, Everything(SUITE.skills), slots=4, out=tmp_path)
    found = came_of(planner, states, tmp_path)
    assert [(one.plan_success, one.exec_success, one.blame) for one in found] == [(True, False, "skill")] * 2


def test_a_plan_has_the_most_skills_and_then_is_done(tmp_path: Path) -> None:
    states = SUITE.initial_states("structured", 1)
    planner = planned(Wrong("lift red cube"), Everything(SUITE.skills), tmp_path, how=Choosing(most=2))
    records = run(planner, states)
    assert [step.skill for step in planner.steps] == ["lift red cube"] * 2
    assert records[0].steps < SUITE.max_steps("structured")
    assert not records[0].success


class Nowhere:
    """Nothing is possible."""

    def values(self, turns: Mapping[int, Turn], worlds: Any, said: Any = None) -> dict[int, Any]:
        return {slot: np.zeros(len(SUITE.skills) + 1) for slot in turns}


def test_values_that_are_all_0_end_their_episode_with_the_cause(tmp_path: Path) -> None:
    records = run(planned(Uniform(), Nowhere(), tmp_path), SUITE.initial_states("noun", 2))
    assert ["no skill is possible here" in (record.error or "") for record in records] == [True, True]


class Listening(Expert):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def act(self, turns: Mapping[int, Turn], worlds: Any) -> Any:
        self.told += [turn.observation.instruction for turn in turns.values()]
        return super().act(turns, worlds)


def test_a_policy_is_told_the_skill_not_the_instruction() -> None:
    states, inner = SUITE.initial_states("long_horizon", 1), Listening()
    planner = SayCan(Subject("inner", inner, {}), SUITE.skills, oracle, Possible(SUITE.skills), slots=1)
    assert [record.success for record in run(planner, states)] == [True]
    assert list(dict.fromkeys(inner.told)) == [step.skill for step in planner.steps if step.skill != DONE]


def test_values_of_what_is_not_seen_are_0(tmp_path: Path) -> None:
    planner = planned(Uniform(), AFFORDANCES.build("detected", given=Given(SUITE.skills)), tmp_path)
    states = SUITE.initial_states("embodiment", 2)
    run(planner, states)
    seen = {state.name: things_of(state) for state in states}
    for step in planner.steps:
        there = step.skill == DONE or set(SUITE.skills[step.skill].needs) <= set(seen[step.state])
        assert step.value == (0.2 if step.skill == DONE else float(there))


def test_choices_of_an_episode_that_was_begun_again_are_the_last(tmp_path: Path) -> None:
    step = Step("s", "single", 0, "a", 0, 0, 0, True, True, "a", "a", True)
    lines = [step, replace(step, number=1, skill="b"), replace(step, skill="c")]
    (tmp_path / "plans.jsonl").write_text("".join(json.dumps(one.__dict__) + "\n" for one in lines))
    assert [one.skill for one in read_steps(tmp_path)["s"]] == ["c"]


SHIPPED = sorted(file.stem for file in (Path(__file__).parents[2] / "conf" / "planner").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_planner_that_ships_can_be_read(name: str) -> None:
    settings = load_planner(name)
    assert settings.length_norm == "sum"
    assert settings.affordances in AFFORDANCES.names()


def test_what_no_planner_can_be_made_of_is_refused(tmp_path: Path) -> None:
    subject = subject_of("expert", "expert", SUITE, SUITE.initial_states("noun", 1), strict=True, seed=0)
    with pytest.raises(ConfigError, match="has no skills"):
        planner_of(PlannerSettings(lm="uniform"), TabletopSuite(), subject, None, slots=1, out=tmp_path)
    with pytest.raises(ConfigError, match="no language model"):
        planner_of(PlannerSettings(), SUITE, subject, None, slots=1, out=tmp_path)
    with pytest.raises(PartMissing):
        planner_of(PlannerSettings(), SUITE, subject, tmp_path, slots=1, out=tmp_path)
    with pytest.raises(UnknownName, match="no skill called 'lift red cub'"):
        TabletopPlansSuite(skills=["lift red cub"])
    with pytest.raises(UnknownName, match="no family"):
        TabletopPlansSuite(tasks=["nouns"])


def test_a_request_for_plans_is_an_ordinary_one() -> None:
    assert len(Request(episodes=12).states(SUITE)) == 12
