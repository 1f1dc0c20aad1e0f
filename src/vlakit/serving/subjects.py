"""Who answers: a policy of the seam on batches, a suite's scripted expert, a recorded episode."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vlakit.errors import VlakitError
from vlakit.schema import Float32, Observation
from vlakit.serving.batching import Ask, Result
from vlakit.serving.questions import Refused

if TYPE_CHECKING:
    from vlakit.evaluation.records import EpisodeRecord
    from vlakit.evaluation.suite import Environment, InitialState, Suite
    from vlakit.policy import Policy, TrainedPolicy

log = logging.getLogger(__name__)


class PolicyFailed(VlakitError):
    """The policy raised, or answered with what is no action."""


@dataclass(frozen=True)
class Facts:
    """What clients must know of who answers. shape: (H, A) of a chunk; datasets: whose statistics there are.

    picture: (H, W) of the pictures it was trained on, None where nobody knows; more: for people, plain values.
    remembers: whether an answer depends on what the same client asked before.
    """

    name: str
    cameras: tuple[str, ...] = ("primary",)
    shape: tuple[int, int] = (1, 7)
    datasets: tuple[str, ...] = ()
    dataset: str | None = None
    proprio: int = 0
    window: int = 1
    picture: tuple[int, int] | None = None
    remembers: bool = False
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Subject(Protocol):
    """Answers questions; called in one thread."""

    facts: Facts

    def answer(self, asks: Sequence[Ask]) -> Sequence[Result]:
        """One chunk (H, A), or the reason why there is none, for each question."""
        ...

    def warm_up(self, rows: int) -> None:
        """Do once what is slow the first time."""
        ...

    def forget(self, client: int) -> None:
        """A client has gone."""
        ...


@dataclass
class PolicySubject:
    """A policy on the questions of a batch.

    rows: every batch has so many, each client its own, which it keeps; the others repeat one. So the bits of an answer
    do not depend on who else asks, and are those of evaluation with as many slots. None: a row a question.
    """

    policy: Policy
    facts: Facts
    rows: int | None = None
    _episodes: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    def answer(self, asks: Sequence[Ask]) -> Sequence[Result]:
        """See Subject. Where the policy raises, each question is asked alone, and those that raise again fail."""
        self._begin(asks)
        actions = self._ask(asks)
        if not isinstance(actions, VlakitError):
            return [checked(chunk) for chunk in actions]
        if len(asks) == 1:
            return [actions]
        return [result for ask in asks for result in self.answer([ask])]

    def _begin(self, asks: Sequence[Ask]) -> None:
        """Tell the policy which rows begin an episode."""
        for ask in asks:
            row, now = ask.session.row, (ask.session.number, ask.session.episodes)
            if row is not None and self._episodes.get(row) != now:
                self._episodes[row] = now
                self.policy.reset([row])

    def _ask(self, asks: Sequence[Ask]) -> Sequence[Float32] | VlakitError:
        places = [ask.session.row if self.rows and ask.session.row is not None else i for i, ask in enumerate(asks)]
        shown = [asks[0].observation] * max(self.rows or 0, len(asks))
        for place, ask in zip(places, asks, strict=True):
            shown[place] = ask.observation
        try:
            actions = np.asarray(self.policy.act(shown), np.float32)
        except VlakitError as error:
            return error
        except Exception as error:  # whatever a policy raises
            log.exception("the policy raised")
            return PolicyFailed(f"the policy raised {type(error).__name__}", where="server", do="see the server's log")
        if actions.ndim != 3 or len(actions) != len(shown):
            return PolicyFailed(f"the policy answers {len(shown)} questions with {actions.shape}", where="server")
        return [actions[place] for place in places]

    def warm_up(self, rows: int) -> None:
        """See Subject: a blank picture in a batch of one and, on a GPU, whose graphs go by size, in the largest."""
        height, width = self.facts.picture or (224, 224)
        blank = np.zeros((self.facts.window, height, width, 3), np.uint8)
        proprio = np.zeros((self.facts.window, self.facts.proprio), np.float32) if self.facts.proprio else None
        dataset = self.facts.dataset or next(iter(self.facts.datasets), None)
        seen = Observation(dict.fromkeys(self.facts.cameras, blank), "wait", dataset, proprio)
        device = getattr(self.policy, "device", None)
        largest = rows if device is not None and device.type != "cpu" else 1
        for size in {self.rows} if self.rows else {1, largest}:
            self.policy.act([seen] * size)

    def forget(self, client: int) -> None:
        """See Subject: its row is told when another has it."""


def checked(chunk: Float32) -> Result:
    """The chunk (H, A), or why it is none: a number that is not finite must not reach a robot."""
    if chunk.ndim != 2 or not chunk.size:
        return PolicyFailed(f"the policy answers with an array {chunk.shape}", where="server")
    if not np.isfinite(chunk).all():
        return PolicyFailed("the policy's action is not finite", where="server", do="check its weights")
    return chunk


def trained_subject(
    policy: TrainedPolicy, name: str, *, rows: int | None, dataset: str | None, pad_to: int
) -> PolicySubject:
    """A checkpoint's policy. Raises StatisticsMissing for a dataset that it does not know."""
    processor, card = policy.processor, policy.card
    statistics = processor.statistics
    if dataset is not None:
        processor.statistics_of(dataset)
    chosen = dataset or (next(iter(statistics)) if len(statistics) == 1 else None)
    policy.pad_to = pad_to
    settings = processor.settings
    size = len(next(iter(statistics.values())).q01)
    more = {
        "sha256": policy.content_hash(),
        "constrain": policy.constrain,
        "pad_to": pad_to,
        "device": policy.device.type,
        "surroundings": card.surroundings,
        "contract": {key: value for key, value in (card.contract or {}).items() if key != "frames"},
        "strategy": card.strategy,
        **({"quantization": policy.quantization.to_dict()} if policy.quantization else {}),
    }
    shape, cameras = (settings.chunk, size), tuple(settings.cameras)
    datasets = tuple(sorted(statistics))
    picture = policy.trained_picture(chosen or datasets[0]) or (settings.image_size, settings.image_size)
    facts = Facts(name, cameras, shape, datasets, chosen, settings.proprio, settings.window, picture, more=more)
    return PolicySubject(policy, facts, rows)


@dataclass
class _Twin:
    environment: Environment
    seen: str = ""  # what the client must see next


class ExpertSubject:
    """A suite's scripted expert, which looks into a world: each client's twin, found by its first picture.

    The twin does what it answers, so the client must do the same and nothing else; another picture than the twin's is
    another episode, or refused.
    """

    def __init__(self, suite: Suite, states: Sequence[InitialState]) -> None:
        self.suite, self.states = suite, states
        self._twins: dict[int, _Twin] = {}
        self._starts: dict[str, InitialState] = {}
        self.facts = Facts("expert", datasets=(suite.dataset,), remembers=True, more={"suite": suite.name})

    def answer(self, asks: Sequence[Ask]) -> Sequence[Result]:
        """See Subject."""
        return [self._one(ask) for ask in asks]

    def _one(self, ask: Ask) -> Result:
        twin = self._twins.get(ask.session.number)
        if twin is None:
            twin = self._twins[ask.session.number] = _Twin(self.suite.environment())
        seen = _seen(ask.observation)
        if seen != twin.seen:
            state = self._starts.get(seen)
            if state is None:
                return Refused(
                    "no world of this suite looks so",
                    where=self.suite.name,
                    do="ask from a start of the suite, and do what the expert answers",
                )
            twin.environment.reset(state)
        try:
            action = np.asarray(twin.environment.expert(), np.float32)
            twin.seen = _seen(twin.environment.step(action).observation)
        except Exception as error:  # whatever a world raises
            log.exception("the expert's world raised")
            return PolicyFailed(f"the expert's world raised {type(error).__name__}", where="server")
        return action[None]

    def warm_up(self, rows: int) -> None:
        """See Subject: look at every start once."""
        environment = self.suite.environment()
        self._starts = {_seen(environment.reset(state)): state for state in self.states}
        environment.close()

    def forget(self, client: int) -> None:
        """See Subject."""
        twin = self._twins.pop(client, None)
        if twin is not None:
            twin.environment.close()


def _seen(observation: Observation) -> str:
    shown = "".join(f"{name}{np.shape(frames)}" for name, frames in sorted(observation.images.items()))
    pixels = b"".join(observation.images[name][-1].tobytes() for name in sorted(observation.images))
    return sha256(pixels + shown.encode() + observation.instruction.encode()).hexdigest()


class RecordedSubject:
    """Recorded episodes, one after the other: the actions of the next that has the client's instruction."""

    def __init__(self, records: Sequence[EpisodeRecord], name: str) -> None:
        self.records = [record for record in records if record.actions]
        self._played: dict[tuple[int, int], tuple[EpisodeRecord, int]] = {}  # (client, episode) -> its place
        self._next = 0
        size = len(self.records[0].actions[0]) if self.records else 0
        self.facts = Facts(name, shape=(1, size), remembers=True, more={"episodes": len(self.records)})

    def answer(self, asks: Sequence[Ask]) -> Sequence[Result]:
        """See Subject."""
        return [self._one(ask) for ask in asks]

    def _one(self, ask: Ask) -> Result:
        key = ask.session.number, ask.session.episodes
        record, step = self._played.get(key) or (self._chosen(ask.observation.instruction), 0)
        if record is None:
            return Refused("no recorded episode of that instruction", where="instruction", do="say one of the record")
        if step >= len(record.actions):
            return Refused(f"the record ended after {step} actions", where=record.initial_state, do="begin an episode")
        self._played[key] = record, step + 1
        return np.asarray(record.actions[step], np.float32)[None]

    def _chosen(self, instruction: str) -> EpisodeRecord | None:
        order = [*self.records[self._next :], *self.records[: self._next]]
        record = next((one for one in order if one.instruction == instruction), None)
        self._next = self._next if record is None else (self.records.index(record) + 1) % len(self.records)
        return record

    def warm_up(self, rows: int) -> None:
        """See Subject: there is nothing to do."""

    def forget(self, client: int) -> None:
        """See Subject."""
        self._played = {key: played for key, played in self._played.items() if key[0] != client}
