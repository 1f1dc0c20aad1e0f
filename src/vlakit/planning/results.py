"""What came of plans, by family: was the plan right, was it carried out, and who is to blame where not.

plan_success: the verifier's, each possible skill taken to work. exec_success: the simulator's, at the end. The figures
are of the language model that planned, on a tabletop; none is PaLM-SayCan's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.errors import CorruptRecord
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.suite import InitialState
from vlakit.planning.saycan import PLANS, Step
from vlakit.planning.skills import DONE, Library, verify
from vlakit.planning.suite import things_of, wanted_of

BLAME = ("lm", "affordance", "skill")
SUMMARY = "plans.json"


@dataclass(frozen=True)
class Outcome:
    """One episode. blame: of a failed one, else "". infeasible: choices that could not begin. false_done: too early."""

    state: str
    family: str
    plan: tuple[str, ...]
    plan_success: bool
    exec_success: bool
    infeasible: int
    false_done: bool
    blame: str


@dataclass(frozen=True)
class FamilyRow:
    """A family's n episodes: rates, mean number of choices, and the blame of the failed ones by count."""

    family: str
    n: int
    plan_success: float
    exec_success: float
    exec_given_plan: float | None
    n_steps: float
    infeasible_rate: float
    false_done_rate: float
    blame: Mapping[str, int]


def read_steps(out: Path) -> dict[str, list[Step]]:
    """The choices of each episode in order; of one that was begun again, the last. Raises CorruptRecord."""
    file = out / PLANS
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        steps = [Step(**json.loads(line)) for line in lines]
    except (TypeError, ValueError) as error:
        raise CorruptRecord(
            f"no choice of a plan: {error}", where=str(file), do="delete it, and evaluate anew"
        ) from error
    found: dict[str, list[Step]] = {}
    for step in steps:
        found[step.state] = [*found.get(step.state, [])[: step.number], step]
    return found


def outcome(steps: Sequence[Step], state: InitialState, success: bool, skills: Library) -> Outcome:
    """What came of one episode's choices.

    The first wrong choice is the affordance's where the verifier's values would have made it right, the language
    model's where not; an episode that failed without one is the skills'.
    """
    plan = tuple(step.skill for step in steps)
    verdict = verify(plan, things_of(state), wanted_of(state), skills)
    wrong = next((step for step in steps if not step.right), None)
    who = "skill" if wrong is None or verdict.success else "affordance" if wrong.true_first_right else "lm"
    return Outcome(
        state=state.name,
        family=state.task,
        plan=plan,
        plan_success=verdict.success,
        exec_success=success,
        infeasible=sum(not step.possible for step in steps),
        false_done=bool(steps) and steps[-1].skill == DONE and not steps[-1].right,
        blame="" if success else who,
    )


def outcomes_of(
    steps: Mapping[str, Sequence[Step]],
    records: Sequence[EpisodeRecord],
    states: Sequence[InitialState],
    skills: Library,
) -> list[Outcome]:
    """Of all episodes on record that began with a choice."""
    by_name = {state.name: state for state in states}
    known = [record for record in records if record.initial_state in by_name and record.initial_state in steps]
    return [outcome(steps[one.initial_state], by_name[one.initial_state], one.success, skills) for one in known]


def rows(outcomes: Sequence[Outcome]) -> list[FamilyRow]:
    """One row a family, and all of them as the last."""
    families = list(dict.fromkeys(one.family for one in outcomes))
    grouped = [(family, [one for one in outcomes if one.family == family]) for family in families]
    return [_row(family, group) for family, group in [*grouped, *([("all", list(outcomes))] if outcomes else [])]]


def _row(family: str, group: Sequence[Outcome]) -> FamilyRow:
    planned = [one.exec_success for one in group if one.plan_success]
    n_choices = sum(len(one.plan) for one in group)
    return FamilyRow(
        family=family,
        n=len(group),
        plan_success=float(np.mean([one.plan_success for one in group])),
        exec_success=float(np.mean([one.exec_success for one in group])),
        exec_given_plan=float(np.mean(planned)) if planned else None,
        n_steps=n_choices / len(group),
        infeasible_rate=sum(one.infeasible for one in group) / n_choices,
        false_done_rate=float(np.mean([one.false_done for one in group])),
        blame={who: sum(one.blame == who for one in group) for who in BLAME},
    )


def summed_up(found: Sequence[FamilyRow], planner: str) -> dict[str, Any]:
    """Plain values of all rows, with the name of who planned."""
    return {"planner": planner, "families": [asdict(row) for row in found]}
