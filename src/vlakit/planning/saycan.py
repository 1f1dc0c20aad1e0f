"""The planner as an actor: it chooses skills; a policy, or the scripted expert, carries each out, told its text.

A skill is over when the simulator's predicate of it holds or its steps are used up; between two the hand goes straight
up. Each choice is a line of plans.jsonl, with what the verifier thinks of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.errors import InvalidData, VlakitError
from vlakit.evaluation.actors import Answers, Turn, actor_of, window_of
from vlakit.evaluation.subject import Subject
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.worlds import Failure, Worlds, cause_of
from vlakit.planning.affordances import Affordances
from vlakit.planning.choosing import Choice, Chooser, Choosing, Scorer
from vlakit.planning.prompts import written
from vlakit.planning.skills import DONE, Library
from vlakit.schema import Float64

PLANS = "plans.jsonl"


@dataclass(frozen=True)
class Step:
    """One choice. right: may it come next, of all that the verifier knows; possible: could it begin; lm_first: what the
    language model alone would have done; true_first: what would have been chosen by the verifier's values.
    """

    state: str
    family: str
    number: int
    skill: str
    log_p: float
    value: float
    joined: float
    right: bool
    possible: bool
    lm_first: str
    true_first: str
    true_first_right: bool


@dataclass
class _Plan:
    """What happened in a slot: the skills so far, the one under way, of an open loop those that are to come."""

    state: InitialState
    history: list[str] = field(default_factory=list[str])
    under_way: str | None = None
    to_come: list[Choice] | None = None


class SayCan:
    """Chooses among `skills` by a language model and affordances, and `subject` carries them out.

    scorer: one for all episodes, or one for each start. slots: rows of a policy's batch. out: where choices are kept.
    """

    def __init__(
        self,
        subject: Subject,
        skills: Library,
        scorer: Scorer | Callable[[InitialState], Scorer],
        affordances: Affordances,
        how: Choosing | None = None,
        *,
        slots: int = 32,
        out: Path | None = None,
    ) -> None:
        self.inner, self.window = actor_of(subject.policy, slots), window_of(subject.policy)
        self.skills, self.scorer, self.affordances, self.how = skills, scorer, affordances, how or Choosing()
        self.subject, self.out = subject, out
        self.steps: list[Step] = []
        self._plans: dict[int, _Plan] = {}
        self.name = f"{subject.name}, planned by {_name_of(scorer)}"

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the answers."""
        parts: dict[str, Any] = {"planner": asdict(self.how), "name": self.name, "skills": self.skills.options}
        parts |= {"affordances": getattr(self.affordances, "facts", type(self.affordances).__name__)}
        parts |= {"language_model": getattr(self.scorer, "content_hash", ""), "policy": dict(self.subject.facts)}
        return {**parts, "sha256": sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}

    def begin(self, states: Mapping[int, InitialState]) -> None:
        """See Actor."""
        self._plans |= {slot: _Plan(state) for slot, state in states.items()}
        self.inner.begin(states)

    def act(self, turns: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """See Actor."""
        over: dict[int, Any] = worlds.call("over", dict.fromkeys(turns, ()))
        answers: Answers = {slot: one for slot, one in over.items() if isinstance(one, Failure)}
        free = {slot: turns[slot] for slot, one in over.items() if slot not in answers and one}
        answers |= self._begin_next(free, worlds)
        left = [slot for slot in turns if slot not in answers]
        answers |= {
            slot: up[None] for slot, up in self._called("retreat", left, worlds, answers).items() if up is not None
        }
        acting = {slot: self._told(slot, turns[slot]) for slot in left if slot not in answers}
        return answers | (self.inner.act(acting, worlds) if acting else {})

    def _begin_next(self, free: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """Choose for slots without a skill; answers for those that are done, or cannot go on."""
        answers: Answers = {}
        chosen: dict[int, str] = {}
        true = self._called("possible", free, worlds, answers)
        right = self._called("right", true, worlds, answers)
        said = {slot: self._plans[slot].history for slot in right} if self.how.done == "learned" else None
        values = self.affordances.values({slot: free[slot] for slot in right}, worlds, said)
        for slot, one in values.items():
            try:
                chosen[slot] = self._choose(self._plans[slot], one, true[slot], right[slot])
            except VlakitError as error:
                answers[slot] = Failure(cause_of(error))
        finished = [slot for slot, text in chosen.items() if text == DONE]
        self._called("declare", finished, worlds, answers)
        held = self._called("hold", [slot for slot in finished if slot not in answers], worlds, answers)
        begun = {slot: (text,) for slot, text in chosen.items() if text != DONE}
        answers |= {slot: one for slot, one in worlds.call("attempt", begun).items() if isinstance(one, Failure)}
        self.inner.begin({slot: self._plans[slot].state for slot in begun})  # a skill is an episode to its policy
        return answers | {slot: one[None] for slot, one in held.items()}

    def _choose(self, plan: _Plan, values: Any, true: Float64, right: Sequence[str]) -> str:
        """The next skill's text, taken down. Raises VlakitError."""
        if isinstance(values, Failure):
            raise VlakitError(values.cause)
        if not plan.history and self.how.combine != "lm_only" and not np.any(values[:-1]):
            what = f"no skill is possible here: the value of all {len(self.skills)} is 0"
            raise InvalidData(what, where=plan.state.name, do="look at the affordances, or give combine: lm_only")
        if len(plan.history) >= self.how.most:
            plan.under_way = DONE  # all skills of a plan are used: nothing is asked
            return DONE
        scorer = self.scorer if hasattr(self.scorer, "score") else self.scorer(plan.state)  # pyright: ignore
        chooser = Chooser(scorer, self.skills.options, len(self.skills), written, self.how)  # pyright: ignore
        instruction = plan.state.instruction
        if self.how.mode == "closed_loop":
            choice = chooser.choose(instruction, plan.history, values)
        else:
            plan.to_come = list(chooser.open_loop(instruction, values)) if plan.to_come is None else plan.to_come
            choice = plan.to_come[len(plan.history)]
        self._take_down(plan, choice, true, right)
        plan.under_way = self.skills.options[choice.option]
        plan.history += [plan.under_way] * (plan.under_way != DONE)
        return plan.under_way

    def _take_down(self, plan: _Plan, choice: Choice, true: Float64, right: Sequence[str]) -> None:
        options, at = self.skills.options, choice.option
        known = np.append(true[:-1], self.how.c_done if self.how.done == "constant" else DONE in right)
        by_truth = options[int(self.how.joined(choice.log_p, known).argmax())]
        step = Step(
            state=plan.state.name,
            family=plan.state.task,
            number=len(plan.history),
            skill=options[at],
            log_p=round(float(choice.log_p[at]), 4),
            value=round(float(choice.values[at]), 4),
            joined=round(float(choice.joined[at]), 4),
            right=options[at] in right,
            possible=bool(true[at]),
            lm_first=options[int(choice.log_p.argmax())],
            true_first=by_truth,
            true_first_right=by_truth in right,
        )
        self.steps.append(step)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / PLANS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(step)) + "\n")

    def _told(self, slot: int, turn: Turn) -> Turn:
        return replace(turn, observation=replace(turn.observation, instruction=self._plans[slot].under_way or ""))

    @staticmethod
    def _called(method: str, slots: Any, worlds: Worlds, answers: Answers) -> dict[int, Any]:
        """What each world answers; those that fail join `answers`."""
        found: dict[int, Any] = worlds.call(method, dict.fromkeys([s for s in slots if s not in answers], ()))
        answers |= {slot: one for slot, one in found.items() if isinstance(one, Failure)}
        return {slot: one for slot, one in found.items() if slot not in answers}


def _name_of(one: Any) -> str:
    return str(getattr(one, "name", getattr(one, "__name__", type(one).__name__)))
