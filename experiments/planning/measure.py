"""How often the shipped language model plans right, each possible skill taken to work; and what a trie saves.

python experiments/planning/measure.py plans [FOLDER]    (plans.csv: a line for each instruction and way to choose)
python experiments/planning/measure.py speed [FOLDER]    (speed.csv: CPU-seconds for all skills after one prompt)

FOLDER: another language model's. No simulator runs: the symbolic verifier takes the place of policy and world.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grammar import both_other, four, has_held_pair, is_held

from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.evaluation.suites.tabletop.states import drawing
from vlakit.planning.choosing import Chooser, Choosing, Likelihoods, Scorer, presence
from vlakit.planning.families import FAMILIES, Cast
from vlakit.planning.language_models import CausalScorer, Uniform
from vlakit.planning.likelihoods import TrieScorer, naive
from vlakit.planning.prompts import written
from vlakit.planning.skills import DONE, Facts, Library, Wanted, library, verify
from vlakit.planning.suite import FAMILY_ORDER
from vlakit.schema import Float64

HERE = Path(__file__).parent
ROBOT, HELD, SEEN = "d0", 30, 10  # instructions of a family that were held out, and that were not
FURTHER = {"other_noun_and_verb": both_other, "four_skills": four}  # only in tests: HELD of each
COLUMNS = ("way", "held_out", "family", "number", "success", "instruction", "plan")


@dataclass(frozen=True)
class Task:
    """held_out: "instruction", "pair" of a kind of skill and a thing, "template", or "no"."""

    family: str
    held_out: str
    number: int
    instruction: str
    things: list[str]
    wanted: Wanted


@dataclass
class Remembering:
    """A scorer that is asked for each prompt once."""

    inner: Scorer
    known: dict[str, Likelihoods] = field(default_factory=dict[str, Likelihoods])

    def score(self, prompt: str, options: Sequence[str]) -> Likelihoods:
        """See Scorer; options are always the same."""
        if prompt not in self.known:
            self.known[prompt] = self.inner.score(prompt, options)
        return self.known[prompt]


Values = Callable[[Library, Task, Facts], Float64]


def everything(skills: Library, task: Task, facts: Facts) -> Float64:
    """No values."""
    return np.ones(len(skills) + 1)


def detected(skills: Library, task: Task, facts: Facts) -> Float64:
    """What a faultless detector says: are all things there?"""
    return presence([*(skill.needs for skill in skills), []], task.things)


def known(skills: Library, task: Task, facts: Facts) -> Float64:
    """What the verifier knows: can it begin now? Done: is all so that is wanted?"""
    return np.array([*(s.possible(task.things, facts) for s in skills), task.wanted.holds(facts)], float)


WAYS: Mapping[str, tuple[Choosing, Values]] = {
    "saycan_tiny": (Choosing(), detected),
    "saycan_no_vf": (Choosing(combine="lm_only"), everything),
    "saycan_v_only": (Choosing(combine="v_only"), detected),
    "c_done 1": (Choosing(c_done=1.0), detected),
    "c_done .05": (Choosing(c_done=0.05), detected),
    "oracle values, constant done": (Choosing(), known),
    "oracle values and done": (Choosing(done="learned"), known),
}


def tasks() -> Iterator[Task]:
    """The suite's own test starts in their order until there are enough of each sort, then templates of this test."""
    robot = load_embodiment(ROBOT)
    for family in FAMILY_ORDER:
        left = {True: HELD, False: SEEN}
        for number in count():
            cast = Cast(drawing(robot, ("plans", family, "test", number)))
            asked = FAMILIES.build(family, cast=cast, number=number)
            pair, instruction = has_held_pair(asked.wanted), is_held(asked.instruction)
            held = "pair" if pair else "instruction" if instruction else "no"
            if left[held != "no"]:
                left[held != "no"] -= 1
                yield Task(family, held, number, asked.instruction, _things(cast), asked.wanted)
            if not any(left.values()):
                break
    for family, maker in FURTHER.items():
        for number in range(HELD):
            cast = Cast(drawing(robot, ("plans", family, "test", number)))
            asked = maker(cast, number)
            yield Task(family, "template", number, asked.instruction, _things(cast), asked.wanted)


def _things(cast: Cast) -> list[str]:
    return [f"{colour} {shape}" for colour, shape in cast.names]


def rehearsed(task: Task, skills: Library, scorer: Scorer, how: Choosing, values: Values) -> list[str]:
    """The plan, chosen skill by skill, as if each that is possible succeeded."""
    chooser = Chooser(scorer, skills.options, len(skills), written, how)
    facts: Facts = frozenset()
    plan: list[str] = []
    while len(plan) < how.most:
        text = skills.options[chooser.choose(task.instruction, plan, values(skills, task, facts)).option]
        if text == DONE:
            break
        plan.append(text)
        if skills[text].possible(task.things, facts):
            facts = skills[text].after(facts)
    return [*plan, DONE]


def plans(scorer: CausalScorer) -> Iterator[dict[str, Any]]:
    """A row for each task and way."""
    skills, remembering = library(load_embodiment(ROBOT)), Remembering(scorer)
    for task in tasks():
        for way, (how, values) in WAYS.items():
            plan = rehearsed(task, skills, Uniform() if how.combine == "v_only" else remembering, how, values)
            success = verify(plan, task.things, task.wanted, skills).success
            cells = (way, task.held_out, task.family, task.number, int(success), task.instruction, "; ".join(plan))
            yield dict(zip(COLUMNS, cells, strict=True))
        remembering.known.clear()


def speed(scorer: CausalScorer) -> Iterator[dict[str, Any]]:
    """CPU-seconds of each way to score all skills after the same prompt, and the largest difference in nats."""
    rows = scorer.rows(
        written("put both red cube and blue ball on plates", []), library(load_embodiment(ROBOT)).options
    )
    trie = TrieScorer(scorer.model)
    ways = {
        "one forward an option": lambda: naive(scorer.model, rows),
        "eight options a forward": lambda: naive(scorer.model, rows, batch_size=8),
        "trie": lambda: trie(rows),
        "trie, prompt kept from before": lambda: trie(rows),
    }
    first, before = None, None
    for way, run in ways.items():
        began = time.process_time()
        scores = run()
        seconds = time.process_time() - began
        before, first = (seconds, scores) if before is None or first is None else (before, first)
        off = f"{float((scores - first).abs().max()):.1e}"
        yield {"way": way, "cpu_s": f"{seconds:.3f}", "faster": f"{before / seconds:.1f}", "off_nats": off}


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, folder = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "tiny"
    found = {"plans": plans, "speed": speed}[what](CausalScorer.from_folder(folder))
    writer = None
    with (HERE / f"{what}.csv").open("w", newline="", encoding="utf-8") as file:
        for row in found:
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
