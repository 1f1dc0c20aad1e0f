"""Tries of skills to learn values from: a policy attempts one skill after another, so that most begin mid-plan.

What cannot begin (a thing that is not there, a plate that is taken, what is so already) is a failure without a try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vlakit.errors import InvalidData
from vlakit.evaluation.actors import Actor, Answers, Turn, actor_of, window_of
from vlakit.evaluation.rollout import Options, rollout
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.evaluation.worlds import Failure, Worlds
from vlakit.planning.looks import See
from vlakit.planning.skills import Library, skills_of
from vlakit.planning.values import Tries
from vlakit.schema import Float32

if TYPE_CHECKING:
    from vlakit.policy import Policy

Try: TypeAlias = tuple[Float32, int, bool, int]  # features (P, D), skill, success, start
AT_ONCE = 64  # rows that are looked at
PER_EPISODE, IMPOSSIBLE = 4, 2  # skills attempted in an episode; of those that cannot begin, how many beside each


@dataclass
class _Slot:
    start: int
    rng: np.random.Generator
    n_tried: int = 0
    under_way: int | None = None
    looks: list[Float32] = field(default_factory=list[Float32])  # features (P, D) since the skill began
    n_steps: int = 0


@dataclass
class Explorer:
    """Attempts skills by lot; tries: (features, skill, success, start) of each, as they end; ended: the same of
    what was seen before and after, and whether the skill had come about then. every: steps from one look at a skill
    under way to the next, which is a row of its own (then: see Tries); None: each is looked at when it begins.
    """

    policy: Policy | Actor
    skills: Library
    see: See
    slots: int = 8
    seed: int = 0
    every: int | None = None
    tries: list[Try] = field(default_factory=list[Try])
    then: list[int] = field(default_factory=list[int])
    ended: list[Try] = field(default_factory=list[Try])

    def __post_init__(self) -> None:
        self.inner, self.window = actor_of(self.policy, self.slots), window_of(self.policy)
        self._slots: dict[int, _Slot] = {}
        self._n_starts = 0
        self._texts = [skill.text for skill in self.skills]

    def begin(self, states: Mapping[int, InitialState]) -> None:
        """See Actor. An episode's lots follow from its start and the seed."""
        for slot, state in states.items():
            digest = sha256(f"{self.seed}/{state.name}".encode()).digest()
            self._slots[slot] = _Slot(self._n_starts, np.random.default_rng(np.frombuffer(digest, np.uint32)))
            self._n_starts += 1
        self.inner.begin(states)

    def act(self, turns: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """See Actor."""
        over = worlds.call("over", dict.fromkeys(turns, ()))
        answers: Answers = {slot: one for slot, one in over.items() if isinstance(one, Failure)}
        free = [slot for slot, one in over.items() if slot not in answers and one]
        ending = {slot: skill for slot in free if (skill := self._slots[slot].under_way) is not None}
        self._end(self._seen([(turns[slot], skill) for slot, skill in ending.items()]), list(ending), worlds)
        self._begin_next({slot: turns[slot] for slot in free}, worlds)
        finished = [slot for slot in free if self._slots[slot].under_way is None]
        worlds.call("declare", dict.fromkeys(finished, ()))
        asked = {"hold": finished, "retreat": [s for s in turns if s not in answers and s not in finished]}
        for method, slots in asked.items():
            found = worlds.call(method, dict.fromkeys(slots, ()))
            answers |= {s: a if isinstance(a, Failure) else a[None] for s, a in found.items() if a is not None}
        acting = {slot: self._told(slot, turn) for slot, turn in turns.items() if slot not in answers}
        self._look({slot: turns[slot] for slot in acting if slot not in free})
        return answers | (self.inner.act(acting, worlds) if acting else {})

    def _look(self, going: Mapping[int, Turn]) -> None:
        """At the skills under way for which it is time."""
        for slot in going:
            self._slots[slot].n_steps += 1
        due = [slot for slot in going if self.every is not None and self._slots[slot].n_steps % self.every == 0]
        seen = self._seen([(going[slot], skill) for slot in due if (skill := self._slots[slot].under_way) is not None])
        for slot, features in zip(due, seen, strict=True):
            self._slots[slot].looks.append(features)

    def _seen(self, asked: Sequence[tuple[Turn, int]]) -> list[Float32]:
        """Features (P, D) of each turn as far as its skill is concerned."""
        parts = [asked[first : first + AT_ONCE] for first in range(0, len(asked), AT_ONCE)]
        looks = [self.see([turn.observation for turn, _ in part], [skill for _, skill in part]) for part in parts]
        return [features for look in looks for features in look]

    def _end(self, seen: Sequence[Float32], slots: Sequence[int], worlds: Worlds) -> None:
        """Take down how the skills under way in these slots ended, which look so now."""
        now_seen = dict(zip(slots, seen, strict=True))
        for slot, won in worlds.call("achieved", dict.fromkeys(slots, ())).items():
            now = self._slots[slot]
            if now.under_way is not None and not isinstance(won, Failure):
                self.tries += [(look, now.under_way, bool(won), now.start) for look in now.looks]
                self.then += [*range(len(self.then) + 1, len(self.tries)), -1]
                self.ended.append((now.looks[0], now.under_way, False, now.start))
                self.ended.append((now_seen[slot], now.under_way, bool(won), now.start))
            now.under_way = None

    def _begin_next(self, free: Mapping[int, Turn], worlds: Worlds) -> None:
        """Draw a skill that can begin; those that cannot are failures at once."""
        going = [slot for slot in free if self._slots[slot].n_tried < PER_EPISODE]
        possible: dict[int, Any] = worlds.call("possible", dict.fromkeys(going, ()))
        going = [slot for slot in going if not isinstance(possible[slot], Failure) and possible[slot][:-1].any()]
        if not going:
            return
        begun: dict[int, tuple[str]] = {}
        hopeless: list[tuple[int, int]] = []
        for slot in going:
            now, can = self._slots[slot], possible[slot][:-1] > 0
            drawn = now.rng.choice(np.flatnonzero(~can), min(IMPOSSIBLE, int((~can).sum())), replace=False)
            hopeless += [(slot, int(skill)) for skill in drawn]
            now.under_way, now.looks, now.n_steps = int(now.rng.choice(np.flatnonzero(can))), [], 0
            now.n_tried += 1
            begun[slot] = (self._texts[now.under_way],)
        asked = [*hopeless, *((slot, skill) for slot in begun if (skill := self._slots[slot].under_way) is not None)]
        seen = self._seen([(free[slot], skill) for slot, skill in asked])
        for (slot, skill), features in zip(hopeless, seen[: len(hopeless)], strict=True):
            self.tries.append((features, skill, False, self._slots[slot].start))
            self.then.append(-1)
        for slot, features in zip(begun, seen[len(hopeless) :], strict=True):
            self._slots[slot].looks.append(features)
        worlds.call("attempt", begun)
        self.inner.begin({slot: free[slot].state for slot in begun})

    def _told(self, slot: int, turn: Turn) -> Turn:
        under_way = self._slots[slot].under_way
        text = "" if under_way is None else self._texts[under_way]
        return replace(turn, observation=replace(turn.observation, instruction=text))


def explored(
    policy: Policy | Actor,
    suite: Suite,
    see: See,
    *,
    episodes: int,
    slots: int = 8,
    seed: int = 0,
    every: int | None = None,
) -> Tries:
    """Tries from starts of demonstrations, which no evaluation has; every: see Explorer.

    Raises InvalidData where all episodes broke.
    """
    shares = [len(part) for part in np.array_split(np.arange(episodes), len(suite.tasks))]
    states = [s for task, n in zip(suite.tasks, shares, strict=True) for s in suite.training_states(task, n, seed)]
    explorer = Explorer(policy, skills_of(suite), see, slots, seed, every)
    records = list(rollout(suite, explorer, states, Options(slots=slots)))
    if not explorer.tries:
        raise InvalidData("no skill was tried", where=f"{len(records)} episodes", do=str(records[0].error))
    ended = _stacked(explorer.ended) if explorer.ended else None
    return replace(_stacked(explorer.tries), ended=ended, then=None if every is None else np.array(explorer.then))


def _stacked(tries: Sequence[Try]) -> Tries:
    features, skill, success, start = zip(*tries, strict=True)
    return Tries(np.stack(features), np.array(skill), np.array(success, bool), np.array(start))
