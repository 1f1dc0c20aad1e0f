"""Questions about a suite's scenes, photographed while its expert works: LLaVA's JSON with a folder of pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vlakit import __version__
from vlakit.data.questions import PICTURE, QUESTIONS_FILE
from vlakit.errors import ConfigError, PartMissing
from vlakit.evaluation.demonstrator import BuildSuite, encode
from vlakit.evaluation.starts import chosen_tasks
from vlakit.evaluation.suite import Environment, Suite
from vlakit.files import disk_full_as_error, write_atomically
from vlakit.schema import UInt8

RECORD = "made_by.json"


@runtime_checkable
class Asks(Protocol):
    """An environment that can be asked about."""

    def questions(self, rng: np.random.Generator, most: int) -> Mapping[str, tuple[str, str]]:
        """Kind -> question and answer, of `most` kinds, about what its camera shows now."""
        ...


@dataclass(frozen=True)
class QuestionPlan:
    """How many questions; of them `each` about one picture, of which each scene gives `pictures`.

    noise: share of the expert's moves that are disturbed. The same plan gives the same files.
    """

    questions: int
    seed: int = 0
    noise: float = 0.3
    tasks: tuple[str, ...] = ()
    each: int = 4
    pictures: int = 5


def write_questions(
    build: BuildSuite, plan: QuestionPlan, out: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Write the plan's questions to the folder `out`; questions.json comes last, so that it is whole or absent.

    Returns what made_by.json says. Raises ConfigError where `out` holds questions, PartMissing for a suite whose scenes
    cannot be asked about, DiskFull.
    """
    if (out / QUESTIONS_FILE).exists():
        raise ConfigError("there are questions already", where=str(out), do="give a new folder with out=DIR")
    suite = build()
    items, kinds = list[dict[str, Any]](), Counter[str]()
    with disk_full_as_error(out):
        (out / "pictures").mkdir(parents=True, exist_ok=True)
        for number, (picture, asked) in enumerate(_photographed(suite, plan)):
            kept = dict(list(asked.items())[: plan.questions - kinds.total()])
            name = f"pictures/{number:06d}.jpg"
            (out / name).write_bytes(encode(picture))
            items.append({"id": f"{number:06d}", "image": name, "conversations": _conversation(kept)})
            kinds.update(kept.keys())
            if progress:
                progress(kinds.total(), plan.questions)
            if kinds.total() >= plan.questions:
                break
        record = {"suite": suite.name, "plan": asdict(plan), "vlakit": __version__, "versions": dict(suite.versions)}
        record |= {"pictures": len(items), "kinds": dict(sorted(kinds.items()))}
        write_atomically(out / RECORD, json.dumps(record, indent=1) + "\n")
        write_atomically(out / QUESTIONS_FILE, json.dumps(items) + "\n")
    return record


def _conversation(asked: Mapping[str, tuple[str, str]]) -> list[dict[str, str]]:
    """Turns as LLaVA has them, the picture with the first."""
    turns: list[dict[str, str]] = []
    for kind, (question, answer) in asked.items():
        said = question if turns else f"{PICTURE}\n{question}"
        turns += [{"from": "human", "value": said}, {"from": "gpt", "value": answer, "kind": kind}]
    return turns


def _photographed(suite: Suite, plan: QuestionPlan) -> Iterator[tuple[UInt8, Mapping[str, tuple[str, str]]]]:
    """Pictures with what is asked about each, without end: all tasks in turn, each start once."""
    tasks, environment = chosen_tasks(suite, plan.tasks), suite.environment()
    if not isinstance(environment, Asks):
        raise PartMissing(
            f"the scenes of {suite.name} cannot be asked about",
            where=f"suite {suite.name}",
            do="take a suite of the tabletop, or questions of your own in LLaVA's layout: data.questions={NAME: FILE}",
        )
    starts = -(-plan.questions // (plan.pictures * len(tasks)))  # enough with one question a picture
    rounds = zip(*(suite.training_states(task, starts, plan.seed) for task in tasks), strict=False)
    rng = np.random.default_rng(plan.seed)
    for state in (state for states in rounds for state in states):
        observation = environment.reset(state)
        for _ in range(plan.pictures):
            if asked := environment.questions(rng, plan.each):
                yield observation.image, asked
            for _ in range(int(rng.integers(1, 4))):
                observation = _moved(environment, suite, plan, rng)
    environment.close()


def _moved(environment: Environment, suite: Suite, plan: QuestionPlan, rng: np.random.Generator) -> Any:
    """What is seen after the expert's next move, perhaps disturbed."""
    move = np.asarray(environment.expert(), np.float32)
    if rng.random() < plan.noise:
        move = (move + suite.noise * rng.standard_normal(len(move))).astype(np.float32)
    return environment.step(move).observation
