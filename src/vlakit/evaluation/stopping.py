"""Stopping an evaluation as soon as it is decided against a finished one from the same initial states.

Pairs are counted in the order of the evaluation, not in that in which episodes end: a success ends sooner than a
failure, so what ends first is no fair sample. Where it stops follows from the records alone, resumed or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlakit.compare.records import read_header
from vlakit.errors import InvalidData
from vlakit.evaluation.records import EPISODES, EpisodeRecord, read_episodes
from vlakit.evaluation.starts import fingerprint, shared_states
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.files import content_hash
from vlakit.stats.sequential import SequentialTest

WORDS = {"a better": "better", "b better": "worse"}


@dataclass(frozen=True)
class Verdict:
    """ "better" or "worse" than the other after so many pairs of the budget, else "cannot tell" or "go on".

    p holds whenever it is read (see stats.sequential).
    """

    verdict: str
    pairs: int
    budget: int
    p: float

    def __str__(self) -> str:
        return f"{self.verdict} after {self.pairs} of {self.budget} pairs (p = {self.p:.3g}, whenever looked at)"


class PairedStop:
    """The rule: success of these episodes against the success of others, at 1 - `confidence`; the budget is all."""

    def __init__(self, others: Sequence[bool], confidence: float) -> None:
        self.others, self.test = others, SequentialTest(len(others), 1 - confidence)
        self._ended: dict[int, bool] = {}

    def add(self, record: EpisodeRecord) -> bool:
        """Count an episode that ended; whether the evaluation is over."""
        self._ended[record.number] = record.success
        while self.test.decision == "go on" and self.test.n in self._ended:
            self.test.add(float(self._ended[self.test.n]), float(self.others[self.test.n]))
        return self.test.decision != "go on"

    @property
    def verdict(self) -> Verdict:
        """What can be said so far."""
        decision = WORDS.get(self.test.decision, self.test.decision)
        return Verdict(decision, self.test.n, self.test.budget, self.test.p)


def settings_of(against: Path, budget: int, confidence: float) -> dict[str, Any]:
    """What a header says of the rule before the first episode: plain values."""
    outcomes = content_hash(against / EPISODES)
    return {"rule": "decided", "budget": budget, "confidence": confidence, "against": outcomes}


def outcomes_of(folder: Path, suite: Suite, states: Sequence[InitialState]) -> list[bool]:
    """Success of a finished evaluation from each of `states`.

    Raises InvalidData where it did not end, was stopped itself, or began otherwise than the suite does now.
    """
    header, records = read_header(folder), read_episodes(folder)
    settings, outcomes = header["settings"], {record.initial_state: record.success for record in records}
    problem = _unlike(settings, suite)
    if "summary" not in header or len(records) < settings["episodes"]:
        problem = f"it did not end: {len(records)} of {settings['episodes']} episodes are there"
    missing = [state.name for state in states if state.name not in outcomes]
    if not problem and missing:
        problem = f"it has no episode from {len(missing)} of {len(states)} initial states, such as {missing[0]}"
    if problem:
        raise InvalidData(
            f"nothing can be decided against this evaluation: {problem}",
            where=str(folder),
            do="against=DIR, a finished evaluation in the same suite with at least as many episodes",
        )
    return [outcomes[state.name] for state in states]


def _unlike(settings: Mapping[str, Any], suite: Suite) -> str:
    """Why episodes of these settings do not pair with the suite's; nothing where they do."""
    if settings["suite"] != suite.name:
        return f"its suite is {settings['suite']}, this one is {suite.name}"
    then, now = settings["versions"], suite.versions
    differing = [
        f"{key} {then[key]}, here {now[key]}" for key in sorted(then.keys() & now.keys()) if then[key] != now[key]
    ]
    if differing:
        return f"its episodes had {'; '.join(differing)}"
    if settings["states"] != fingerprint(shared_states(suite, settings["episodes"], settings["tasks"])):
        return "it ran from other initial states"
    return ""
