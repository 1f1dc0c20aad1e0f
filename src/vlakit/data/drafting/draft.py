"""A first spec for a dataset that has none. What only a person can decide is marked DECIDE, with the evidence for it.

`undecided` lists the marked lines: `load_spec` refuses the file until a person has emptied it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.drafting.evidence import Column, Motion, Sampled, columns, motions, sample
from vlakit.data.shards.checks import divisor
from vlakit.data.source import Source
from vlakit.data.survey import Survey
from vlakit.errors import one_line

ENCODINGS = {7: "EEF_POS", 10: "EEF_R6", 14: "JOINT_POS_BIMANUAL"}
STATES = ("state", "qpos", "proprio", "eef", "joint", "pos")  # what a column of the state may be called, best first
_TELLING = ("language_instruction", "task", "instruction")
_PLAIN = re.compile(r"[A-Za-z_][\w/.-]*")
_ARM = 7  # columns of one arm, its gripper last
_OVER, _NARROW = 0.05, 0.2  # beyond 0..1 that a recording may be; a range that would use little of it
_SHOWN = 6  # columns that a line of evidence names


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person must decide: its word in `undecided`, the guess, and the evidence, a sentence a line."""

    word: str
    guess: str
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """What was looked at, and what follows. columns: of all fields of numbers; yaml: the spec."""

    survey: Survey
    sampled: Sampled
    columns: tuple[Column, ...]
    decisions: tuple[Decision, ...] = ()
    yaml: str = ""
    motions: tuple[Motion, ...] = field(default=())

    def lines(self) -> list[str]:
        """For people: what there is, ranges, evidence; names and texts of others end no line."""
        n_steps = sum(len(block) for block in next(iter(self.sampled.numbers.values()), []))
        lines = [*self.survey.lines(), "", f"ranges over {self.sampled.n_episodes} episodes, {n_steps:,} steps"]
        for one in self.columns:
            bad = f"  {one.not_finite:,} not finite" if one.not_finite else ""
            spread = f"{one.low:>11.4g} {one.median:>11.4g} {one.high:>11.4g}"
            lines.append(f"  {one.label:<36}{spread}  [{one.drawn}]{bad}")
        lines += [f"problem: {problem}" for problem in self.sampled.problems]
        lines += ["", "a person decides"]
        for one in self.decisions:
            lines += [f"  {one.word}: {one.guess}", *(f"      {line}" for line in one.evidence)]
        return list(map(one_line, lines))


def draft(source: Source, n_episodes: int = 20) -> Draft:
    """Look at a source and draft its spec, from the numbers of some episodes. Raises what reading them raises."""
    survey = source.survey()
    sampled = sample(source, survey, n_episodes)
    found = [one for path in sampled.numbers for one in columns(sampled, path, survey.names.get(path, ()))]
    action = [one for path in _actions(sampled) for one in found if one.path == path]
    states = [path for path in sampled.numbers if path.startswith("observation/")]
    moves = motions(sampled, [(one.path, one.index) for one in action], states)
    drafted = Draft(survey, sampled, tuple(found), motions=tuple(moves))
    drafter = _Drafter(drafted, action, _grippers(action), states)
    decisions = drafter.decisions()
    return replace(drafted, decisions=tuple(decisions), yaml=drafter.yaml(decisions, source.path))


def _actions(sampled: Sampled) -> list[str]:
    """The field `action`; else those below it, or whose name speaks of one."""
    if "action" in sampled.numbers:
        return ["action"]
    return [path for path in sampled.numbers if path.startswith("action")] or [
        path for path in sampled.numbers if "action" in path
    ]


def _grippers(action: Sequence[Column]) -> list[int]:
    """Columns called gripper; else those that go from end to end; else the last of an arm of seven."""
    named = [i for i, one in enumerate(action) if "grip" in f"{one.path} {one.name}".lower()]
    ends = [i for i, one in enumerate(action) if one.two_ended]
    last = list(range(_ARM - 1, len(action), _ARM)) if len(action) in (_ARM, 2 * _ARM) else []
    return named or ends or last


@dataclass(frozen=True)
class _Drafter:
    drafted: Draft
    action: Sequence[Column]
    grippers: Sequence[int]
    states: Sequence[str]

    def decisions(self) -> list[Decision]:
        """In the order of the file."""
        survey, found = self.drafted.survey, list[Decision]()
        cameras = [f"{_word(key)}{f' ({size[0]} x {size[1]})' if size else ''}" for key, size in survey.cameras.items()]
        if len(cameras) != 1:
            guess = f"{cameras[0]} is the one that the policy sees" if cameras else "there is none"
            found.append(Decision("camera", guess, (f"there are {len(cameras)}: {', '.join(cameras) or '-'}",)))
        if not self.action:
            fields = ", ".join(self.drafted.sampled.numbers) or "none"
            found.append(Decision("action", "no field is called so", (f"fields of numbers: {_word(fields)}",)))
        if self._language() is None:
            where = "write what the robot was told into instruction.txt beside the data"
            found.append(Decision("language", "no text is in the data", (where,)))
        return [*found, *self._gripper(), self._frame(), self._kind(), self._rate()]

    def _gripper(self) -> list[Decision]:
        if not self.grippers:
            return []
        evidence = list[str]()
        for one in (self.action[i] for i in self.grippers):
            evidence.append(
                f"{one.label}: {one.low:.4g} to {one.high:.4g}, {one.values:,} values, [{one.drawn}];"
                f" {one.ends[0]:.0%} at the low end, {one.ends[1]:.0%} at the high end"
            )
            evidence.append(f"{one.starts_high:.0%} of the episodes begin high; most robots begin open")
        evidence += [self._move(one) for one in self.drafted.motions if one.column in self.grippers]
        side = "high" if self._opens_high(self.action[self.grippers[0]]) else "low"
        return [Decision("gripper", f"open is at the {side} end; vlakit wants 1 = open, 0 = closed", tuple(evidence))]

    def _frame(self) -> Decision:
        moving = self._moving()
        alone = [one for one in moving if max(abs(one.change), abs(one.next)) >= 0.7]
        guess = "not to be seen here"
        if moving and len({one.state for one in alone}) == len(moving):
            guess = "the frame of the state: each column goes with one column of it"
        evidence = [f"{len(alone)} of {len(moving)} columns go with one column of the state (|r| of 0.7 and more)"]
        evidence = evidence if moving else ["no state is beside it, or too few steps"]
        names = ", ".join(one.name for one in self.action if one.name)
        return Decision("frame", guess, (*([f"the columns are called {names}"] if names else []), *evidence))

    def _kind(self) -> Decision:
        moving = self._moving()
        votes = Counter(one.kind for one in moving if one.kind)
        evidence = [f"{n} of {len(moving)} columns look {kind}" for kind, n in votes.most_common()]
        evidence += [self._move(one) for one in moving[:_SHOWN]]
        if not evidence:
            near = sum(abs(one.median) < 0.2 * (one.q99 - one.q01) for one in self._motion_columns())
            evidence = [f"no state to compare with; {near} columns have their median near 0, as differences have"]
        return Decision("delta", f"the motion is {'absolute' if self._absolute() else 'a difference'}", tuple(evidence))

    def _rate(self) -> Decision:
        rate = self.drafted.survey.rate
        if rate is None:
            return Decision("rate", "unknown", (f"{self.drafted.survey.format} states none",))
        return Decision("rate", f"{rate:g} Hz", ("the data state it; is the robot driven at this rate too?",))

    def _moving(self) -> list[Motion]:
        return [one for one in self.drafted.motions if one.column not in self.grippers]

    def _motion_columns(self) -> list[Column]:
        return [one for i, one in enumerate(self.action) if i not in self.grippers]

    def _move(self, one: Motion) -> str:
        label, state = self.action[one.column].label, _word(one.state)
        return f"{label}: r {one.change:+.2f} with the change of {state}, {one.next:+.2f} with its next value"

    def _absolute(self) -> bool:
        votes = Counter(one.kind for one in self._moving() if one.kind)
        if votes:
            return votes["absolute"] > votes["delta"]
        near = [abs(one.median) < 0.2 * (one.q99 - one.q01) for one in self._motion_columns() if one.low < one.high]
        return bool(near) and float(np.mean(near)) < 0.5

    def _opens_high(self, one: Column) -> bool:
        """Said by its name, else by where episodes begin."""
        return "clos" not in f"{one.path} {one.name}".lower() and one.starts_high >= 0.5

    def _ops(self, one: Column) -> list[str]:
        return [*(_scaling(one) or ()), *([] if self._opens_high(one) else ["invert"])]

    def _language(self) -> str | None:
        survey, texts = self.drafted.survey, self.drafted.sampled.texts
        known = [*texts, *(["task"] if "task" in survey.fields else [])]
        named = [path for word in _TELLING for path in known if word in path]
        return next(iter(named), None)

    def yaml(self, decisions: Sequence[Decision], source: Path) -> str:
        """The file."""
        survey = self.drafted.survey
        said = {one.word: one for one in decisions}
        read = f"{self.drafted.sampled.n_episodes} of {survey.n_episodes:,} episodes were read"
        lines = [
            f"# Drafted by vlakit data init from {one_line(source.name)} ({survey.format}): {read}.",
            "# A line with DECIDE holds a guess. Correct it or let it stand, then take its word off this list:",
            f"undecided: [{', '.join(said)}]",
            "",
            *_marked(said.get("camera"), f"images: {{primary: {_quoted(next(iter(survey.cameras), 'KEY'))}}}"),
            *_marked(said.get("language"), f"language: {_quoted(self._language() or _TELLING[0])}"),
            *_marked(
                said["frame"], f"action_encoding: {self._encoding()}", 'frame: ""  # in words: base, tool, joints'
            ),
            *_marked(said.get("gripper") or said.get("action"), "action:", *self._segments()),
            *_marked(said["delta"], f"absolute_action_mask: {self._mask(self._absolute(), gripper=True)}"),
            f"mask: {self._mask(True)}  # which columns are normalised by their 1 % and 99 % quantiles",
            *self._proprio(),
            *_marked(said["rate"], f"control_hz: {'null' if survey.rate is None else f'{survey.rate:g}'}"),
        ]
        return re.sub("\n{3,}", "\n\n", "\n".join(lines)) + "\n"

    def _segments(self) -> list[str]:
        """Runs of motion columns, and each gripper alone."""
        lines, start = list[str](), 0
        if not self.action:
            return ["  - {take: WHICH}"]
        for i, one in enumerate(self.action):
            last = i + 1 == len(self.action) or self.action[i + 1].path != one.path
            gripper = i in self.grippers
            if gripper or last or i + 1 in self.grippers:
                cols = f"cols: [{self.action[start].index}, {one.index + 1}]"
                ops = f", ops: [{', '.join(self._ops(one))}]" if gripper and self._ops(one) else ""
                lines.append(f"  - {{take: {_quoted(one.path)}, {cols}{ops}}}")
                start = i + 1
        return lines

    def _encoding(self) -> str:
        names = " ".join(f"{one.path} {one.name}" for one in self.action).lower()
        joints = "joint" in names and len(self.action) != 2 * _ARM
        return "JOINT_POS" if joints else ENCODINGS.get(len(self.action), "JOINT_POS")

    def _mask(self, motion: bool, gripper: bool | None = None) -> str:
        flags: list[bool] = [motion] * len(self.action)
        for i in self.grippers:
            flags[i] = _scaling(self.action[i]) is None if gripper is None else gripper
        return json.dumps(flags)

    def _proprio(self) -> list[str]:
        keys = [path.removeprefix("observation/") for path in self.states]
        arms = [key for key in keys if "grip" not in key] or keys  # a gripper's state alone says little
        best = next((key for word in STATES for key in arms if word in key), next(iter(arms), None))
        others = ", ".join(_word(key) for key in keys if key != best)
        return [] if best is None else [f"proprio: [{_quoted(best)}]{f'  # or {others}' if others else ''}"]


def _scaling(one: Column) -> list[str] | None:
    """Ops that bring a gripper's column to 0..1; None where none can, so that it must be normalised."""
    if one.high - one.low <= _NARROW or one.low < -1 - _OVER:
        return None
    if one.low >= 0 and one.high <= 1:
        return []
    if one.high <= 1 + _OVER:
        return ["clip01"] if one.two_ended or one.low >= -_OVER else None
    return [f"divide:{divisor(one.high)}"] if one.low >= 0 else None


def _marked(decision: Decision | None, *lines: str) -> list[str]:
    """The lines, with the evidence before them where there is something to decide."""
    if decision is None:
        return list(lines)
    evidence = [f"#   {_word(line)}" for line in decision.evidence]
    return ["", f"# DECIDE {decision.word}: {_word(decision.guess)}", *evidence, *lines]


def _word(text: str) -> str:
    return one_line(text)


def _quoted(text: str) -> Any:
    """A key of the data as YAML takes it, whatever is in it."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
