"""Evaluations against each other: put them on shared starts, judge every pair, correct for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import inf

import numpy as np

from vlakit.compare.episodes import Arm, Episodes, Table, align, check_same_world, scores
from vlakit.compare.pairs import (
    Finding,
    Settings,
    compare_paired,
    compare_tasks,
    compare_unpaired,
    more_states,
    needed,
)
from vlakit.compare.rates import Rate, rate_of
from vlakit.errors import ConfigError, UnknownName, nearest
from vlakit.schema import Float64
from vlakit.stats.multiple import compact_letters, holm
from vlakit.stats.seeds import SPREADS

PAIRED, SCORES = ("auto", "true", "false", "common"), ("success", "credit")
ALL, OVER_TASKS = "all", "over other tasks"
FEWEST_TASKS = 5  # with which the task can be the unit


@dataclass(frozen=True)
class Judged:
    """One pair in one scope (a task, or ALL). rollouts: of each, after which an answer is likely; inf: no number.

    undecided: what the verdict is where nothing is shown: why, and what would show it.
    """

    a: str
    b: str
    scope: str
    finding: Finding
    p_holm: float | None
    p_equivalence_holm: float | None
    verdict: str
    rollouts: float
    more: float
    undecided: str = ""

    @property
    def winner(self) -> str | None:
        """Which of the two is shown to be better; None where neither is."""
        return next((name for name in (self.a, self.b) if self.verdict == f"{name} better"), None)


@dataclass(frozen=True)
class Comparison:
    """All pairs pooled over tasks, and task by task; over_tasks: with the task as the unit, where there are enough."""

    rates: list[Rate]
    pairs: list[Judged]
    tasks: list[Judged]
    paired: bool
    score: str
    settings: Settings
    notes: list[str] = field(default_factory=list[str])
    over_tasks: list[Judged] = field(default_factory=list[Judged])


def compare_arms(
    arms: Sequence[Arm],
    settings: Settings,
    *,
    paired: str = "auto",
    score: str = "success",
    reference: str | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    by_task: bool = True,
) -> Comparison:
    """Judge all pairs of arms, or each against `reference`, or `pairs` alone.

    Raises UnknownName, and InvalidData when they do not pair.
    """
    names = [arm.name for arm in arms]
    if reference is not None and reference not in names:
        raise UnknownName(f"no run called {reference!r}", where="reference", do=nearest(reference, names))
    whole = pairs is None and reference is None
    if pairs is None:
        pairs = [p for p in combinations(names, 2) if reference is None or reference in p]
        pairs = [(a, b) if a != reference else (b, a) for a, b in pairs]
    table = None if paired == "false" else align(arms, paired, score)
    findings = _unpaired(arms, pairs, score, settings) if table is None else _paired(table, pairs, settings)
    pooled = judge({key: f for key, f in findings.items() if key[2] == ALL}, settings)
    different = [(j.a, j.b) for j in pooled if j.p_holm is not None and j.p_holm <= settings.alpha]
    letters = compact_letters(names, different) if whole else dict.fromkeys(names, "")
    return Comparison(
        rates=[rate_of(arm, table, score, settings.confidence, letters[arm.name]) for arm in arms],
        pairs=pooled,
        tasks=judge({k: f for k, f in findings.items() if k[2] not in (ALL, OVER_TASKS) and by_task}, settings),
        paired=table is not None,
        score=score,
        settings=settings,
        notes=_notes(arms, table),
        over_tasks=judge({key: f for key, f in findings.items() if key[2] == OVER_TASKS}, settings),
    )


Findings = dict[tuple[str, str, str], Finding]


def _paired(table: Table, pairs: Sequence[tuple[str, str]], settings: Settings) -> Findings:
    tasks, names = table.tasks, _titles(table.task_names)
    rows = {name: np.flatnonzero(tasks == i) for i, name in enumerate(names)}
    findings: Findings = {}
    for a, b in pairs:
        one, other = table.values[a], table.values[b]
        findings[a, b, ALL] = compare_paired(one, other, tasks, settings)
        for name, row in rows.items() if len(rows) > 1 else ():
            findings[a, b, name] = compare_paired(one[:, row], other[:, row], tasks[row], settings)
        if len(rows) >= FEWEST_TASKS:
            means = [np.stack([arm[:, row].mean(axis=1) for row in rows.values()], axis=1) for arm in (one, other)]
            findings[a, b, OVER_TASKS] = compare_tasks(means[0], means[1], settings)
    return findings


def _unpaired(arms: Sequence[Arm], pairs: Sequence[tuple[str, str]], score: str, settings: Settings) -> Findings:
    """Only what both evaluated in part: tasks by name, as far as they share them."""
    several = next((arm for arm in arms if len(arm.evaluations) > 1), None)
    if several is not None:
        raise ConfigError(
            f"{several.name} has several trainings, which are compared on shared initial states only",
            where="paired=false",
            do="leave paired=false out, or compare one training of each",
        )
    check_same_world([arm.evaluations[0] for arm in arms])
    by_task = {arm.name: _by_task(arm.evaluations[0], score) for arm in arms}
    findings: Findings = {}
    for a, b in pairs:
        one, other = by_task[a], by_task[b]
        shared = sorted(one.keys() & other.keys())
        if set(shared) != one.keys() | other.keys():
            alone = sorted(one.keys() ^ other.keys())[0]
            raise ConfigError(
                f"{a} and {b} did other tasks: only one has {alone[1]}",
                where="runs",
                do="evaluate both on the same tasks",
            )
        _check_mix({a: one, b: other})
        findings[a, b, ALL] = compare_unpaired(_whole(one), _whole(other), settings)
        for task, name in zip(shared, _titles(shared), strict=True) if len(shared) > 1 else ():
            findings[a, b, name] = compare_unpaired(one[task], other[task], settings)
        if len(shared) >= FEWEST_TASKS:
            means = [np.array([[arm[task].mean() for task in shared]]) for arm in (one, other)]
            findings[a, b, OVER_TASKS] = compare_tasks(means[0], means[1], settings)
    return findings


def _check_mix(arms: dict[str, dict[tuple[str, str], Float64]]) -> None:
    """Raise ConfigError when tasks have other shares in one than in the other: the harder tasks' share would decide."""
    shares = []
    for by_task in arms.values():
        whole = sum(len(values) for values in by_task.values())
        shares.append({task: len(values) / whole for task, values in by_task.items()})
    differing = [task[1] for task, share in shares[0].items() if abs(share - shares[1][task]) > 1e-9]
    if differing:
        raise ConfigError(
            f"{' and '.join(arms)} did tasks in other proportions, such as {differing[0]}",
            where="paired=false",
            do="give each task the same share of episodes in both",
        )


def _by_task(evaluation: Episodes, score: str) -> dict[tuple[str, str], Float64]:
    values, keys = scores(evaluation, score), [(start.suite, start.task) for start in evaluation.starts]
    rows: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    return {key: values[places] for key, places in rows.items()}


def _whole(by_task: dict[tuple[str, str], Float64]) -> Float64:
    return np.concatenate(list(by_task.values()))


def _titles(tasks: Sequence[tuple[str, str]]) -> list[str]:
    """Task names, with their suite where there are several."""
    several = len({suite for suite, _ in tasks}) > 1
    return [f"{suite}: {task}" if several else task for suite, task in tasks]


def judge(findings: Findings, settings: Settings) -> list[Judged]:
    """Correct all of these (a, b, scope) together by Holm, and say what each means."""
    p = _corrected([finding.p for finding in findings.values()])
    same = _corrected([finding.p_equivalence for finding in findings.values()])
    judged: list[Judged] = []
    for (a, b, scope), finding, p_holm, p_same in zip(findings, findings.values(), p, same, strict=True):
        total = needed(finding, settings, len(findings)) if finding.p is not None else inf
        have = finding.n if finding.seeds == (1, 1) else min(finding.seeds)
        more = max(1.0, total - have)
        winner = a if finding.difference > 0 else b
        undecided = _open(finding, more, settings, len(findings))
        verdict = _shown(finding, winner, (p_holm, p_same), settings) or undecided
        judged.append(Judged(a, b, scope, finding, p_holm, p_same, verdict, total, more, undecided))
    return judged


def _corrected(values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction among those that were tested."""
    tested = iter(holm([min(1.0, p) for p in values if p is not None]))
    return [None if p is None else next(tested) for p in values]


def _shown(
    finding: Finding, winner: str, corrected: tuple[float | None, float | None], settings: Settings
) -> str | None:
    """What the data show; None: neither a difference nor equivalence."""
    p, p_same = corrected
    if p is not None and p <= settings.alpha and finding.difference:
        return f"{winner} better"
    if p_same is not None and p_same <= settings.alpha:
        return f"equivalent within {100 * settings.margin:g} points"
    return None


def _open(finding: Finding, more: float, settings: Settings, family: int) -> str:
    """Why nothing is shown, and what would show it: more rollouts, or more trainings on these or on more states."""
    if finding.p is None:
        return f"cannot tell ({finding.remark})"
    if finding.components is None:
        wanted = "no number of rollouts would" if more == inf else f"{more:,.0f} more rollouts would"
        return f"cannot tell ({wanted})"
    there, n_states = more_states(finding, settings, family)
    on = {finding.n: more, n_states: max(0.0, there - min(finding.seeds))}
    counts = {n: f"{count:,.0f}" if count else "none" for n, count in on.items() if count < inf}
    ways = [f"{count} on {'these ' if n == finding.n else ''}{n:,}" for n, count in counts.items()]
    if not ways:
        return "cannot tell (more initial states might)"
    return f"cannot tell (more trainings of each would: {' starts, or '.join(ways)} starts)"


def _notes(arms: Sequence[Arm], table: Table | None) -> list[str]:
    every = [evaluation for arm in arms for evaluation in arm.evaluations]
    notes = [note for evaluation in every for note in (*evaluation.notes, evaluation.unfinished) if note]
    if all(len(arm.evaluations) == 1 for arm in arms):
        notes.append(
            "one training each: the verdicts are on these checkpoints, not on how they were trained; false alarms "
            "(seeds): how often equal strategies would seem different if trainings differ by chance, with an SD of "
            f"{SPREADS[0]:g} to {SPREADS[1]:g} in log odds"
        )
    digests: dict[str, Episodes] = {}
    for evaluation in every:
        twin = digests.setdefault(evaluation.digest, evaluation)
        if twin is not evaluation:
            notes.append(f"{twin.source} and {evaluation.source} hold the very same bytes: is one a copy?")
    builds = {evaluation.versions["vlakit"] for evaluation in every if "vlakit" in evaluation.versions}
    if len(builds) > 1:
        notes.append(f"evaluated with vlakit {', '.join(sorted(builds))}")
    if table is not None:
        left = sum(len(evaluation) - len(table.starts) for evaluation in every)
        notes += [f"{left} episodes whose start is not shared were left out"] if left else []
        plans = {evaluation.states for evaluation in every if evaluation.states}
        notes += ["initial states were matched by name: the evaluations planned other sets"] if len(plans) > 1 else []
    return notes
