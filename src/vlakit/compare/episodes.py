"""Outcomes of evaluation episodes, whoever wrote them, as one table; and when two tables may be paired."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlakit.errors import CorruptRecord, InvalidData, one_line
from vlakit.schema import Float64


class Start(NamedTuple):
    """What an episode began from: a unit is an initial state, a scenario or a seed, unique in its task."""

    suite: str
    task: str
    unit: str


@dataclass(frozen=True)
class Episodes:
    """One evaluation of one checkpoint: credit (N,) in {0, 0.5, 1} and success (N,) of the episode from each start.

    doubt: why equal names of starts need not mean equal starts; empty where they do. versions: what outcomes depend on.
    seed: the training's, where it is known. digest: of the files that were read; states: of what starts' names mean.
    unfinished: what its files say is not there yet; empty where they say nothing of the kind.
    """

    run: str
    source: Path
    starts: list[Start]
    success: npt.NDArray[np.bool_]
    credit: Float64
    digest: str
    seed: str | None = None
    doubt: str = ""
    states: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])
    unfinished: str = ""

    def __post_init__(self) -> None:
        where = str(self.source)
        if not self.starts:
            raise InvalidData("no episode here", where=where, do="finish the evaluation first")
        again = [start for start, count in Counter(self.starts).items() if count > 1]
        if again:
            raise InvalidData(
                f"{len(again)} starts occur more than once, such as {described(again[0])}",
                where=where,
                do="give one evaluation: two attempts, or shards beside their sum, would count episodes twice",
            )
        if not np.isin(self.credit, (0, 0.5, 1)).all():
            raise InvalidData("a credit is none of 0, 0.5 and 1", where=where, do="mend the records")

    def __len__(self) -> int:
        return len(self.starts)


class Outcome(NamedTuple):
    """One episode as a reader hands it over."""

    start: Start
    success: bool
    credit: float


def columns(outcomes: Iterable[Outcome]) -> tuple[list[Start], npt.NDArray[np.bool_], Float64]:
    """Starts, success (N,) and credit (N,)."""
    rows = list(outcomes)
    success = np.array([row.success for row in rows], bool)
    starts = [Start(*map(one_line, row.start)) for row in rows]
    return starts, success, np.array([row.credit for row in rows], np.float64)


def digest_of(contents: Iterable[bytes]) -> str:
    """One hash of several files."""
    whole = hashlib.sha256()
    for content in contents:
        whole.update(content)
    return whole.hexdigest()


def outcome_of(value: object, where: str) -> bool:
    """A success that a file says in true/false or 1/0. Raises CorruptRecord for anything else."""
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise CorruptRecord(f"a success of {value!r}", where=where, do="an episode must have ended in true or false")


@dataclass(frozen=True)
class Arm:
    """One strategy: the evaluations of its trainings, one a seed."""

    name: str
    evaluations: list[Episodes]

    @property
    def size(self) -> int:
        """Episodes of all its evaluations."""
        return sum(len(evaluation) for evaluation in self.evaluations)


@dataclass(frozen=True)
class Table:
    """Arms on shared starts: values[arm] is (S, N), seeds by starts, in the order of `starts`."""

    starts: list[Start]
    values: dict[str, Float64]

    @property
    def tasks(self) -> npt.NDArray[np.int64]:
        """(N,) number of each start's task among `task_names`."""
        number = {name: i for i, name in enumerate(self.task_names)}
        return np.array([number[start.suite, start.task] for start in self.starts], np.int64)

    @property
    def task_names(self) -> list[tuple[str, str]]:
        """(suite, task) in alphabetical order."""
        return sorted({(start.suite, start.task) for start in self.starts})


def scores(evaluation: Episodes, score: str) -> Float64:
    """(N,) what is compared: "success" or "credit"."""
    return evaluation.credit if score == "credit" else evaluation.success.astype(np.float64)


def align(arms: Sequence[Arm], paired: str, score: str) -> Table:
    """Put all arms on the same starts. paired: "auto", "true" (where files leave doubt) or "common" (what all share).

    Raises InvalidData that says why the evaluations are not paired.
    """
    every = [evaluation for arm in arms for evaluation in arm.evaluations]
    check_same_world(every)
    for evaluation in every:
        if evaluation.doubt and paired == "auto":
            raise InvalidData(
                f"not known to be paired: {evaluation.doubt}",
                where=str(evaluation.source),
                do="paired=true if you know that the episodes began alike; paired=false compares them unpaired",
            )
    shared = set(every[0].starts).intersection(*(evaluation.starts for evaluation in every[1:]))
    _check_same_states(every)
    if paired != "common" or not shared:
        _check_same_starts(every)
    starts = sorted(shared)
    values: dict[str, Float64] = {}
    for arm in arms:
        rows: list[Float64] = []
        for evaluation in arm.evaluations:
            place = {start: i for i, start in enumerate(evaluation.starts)}
            rows.append(scores(evaluation, score)[[place[start] for start in starts]])
        values[arm.name] = np.stack(rows)
    return Table(starts, values)


def check_same_world(every: Sequence[Episodes]) -> None:
    """Raise InvalidData for suites or versions of them that differ; vlakit's own version may."""
    first = every[0]
    for other in every[1:]:
        suites = [{start.suite for start in evaluation.starts} for evaluation in (first, other)]
        if suites[0] != suites[1]:
            _refuse(first, other, f"other suites: {', '.join(sorted(suites[0]))} and {', '.join(sorted(suites[1]))}")
        differing = [
            f"{key} {first.versions[key]} and {other.versions[key]}"
            for key in sorted(first.versions.keys() & other.versions.keys() - {"vlakit"})
            if first.versions[key] != other.versions[key]
        ]
        if differing:
            _refuse(first, other, f"other versions: {'; '.join(differing)}")


def _check_same_states(every: Sequence[Episodes]) -> None:
    """Digests are of all the states that a suite planned, in order: only where those are the same must they be, too."""
    seen: dict[frozenset[Start], Episodes] = {}
    for evaluation in every:
        if evaluation.states:
            known = seen.setdefault(frozenset(evaluation.starts), evaluation)
            if known.states != evaluation.states:
                why = "initial states of the same names, but of other content (or tasks in another order)"
                _refuse(known, evaluation, why)


def _check_same_starts(every: Sequence[Episodes]) -> None:
    first = set(every[0].starts)
    for other in every[1:]:
        second = set(other.starts)
        if first == second:
            continue
        alone = sorted(first ^ second)[0]
        if first & second:
            counts = f"{len(first & second)} shared, {len(first - second)} and {len(second - first)} alone"
            _refuse(every[0], other, f"other initial states: {counts}, such as {described(alone)}", common=True)
        _refuse(every[0], other, f"other initial states: none is shared; one has {described(alone)}")


def _refuse(one: Episodes, other: Episodes, why: str, *, common: bool = False) -> None:
    remedy = "paired=false compares them unpaired"
    why = "; ".join([why, *(evaluation.unfinished for evaluation in (one, other) if evaluation.unfinished)])
    if common:
        remedy = f"finish the shorter evaluation, or paired=common for the shared states alone; {remedy}"
    raise InvalidData(f"not paired: {why}", where=f"{one.source} and {other.source}", do=remedy)


def described(start: Start) -> str:
    """A start in words."""
    return f"{start.unit} of {start.task} ({start.suite})"
