"""Rollouts drawn at random from starts that no evaluation uses: what preferences are learnt from.

Episodes run in blocks, and a block's draws follow from the seed and its number: a collection that was killed goes on
with the block that it lacks, and ends as one that was not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from vlakit import __version__
from vlakit.checked import Few, Rows, Seed, Some, Text
from vlakit.data.shards.statistics import statistics_to_json
from vlakit.errors import ConfigError
from vlakit.evaluation.actors import Answers, PolicyActor, Turn, action_bounds
from vlakit.evaluation.records import EpisodeRecord, check_settings
from vlakit.evaluation.rollout import Options, rollout, stacked
from vlakit.evaluation.starts import check_names, chosen_tasks
from vlakit.evaluation.subject import check_observation, statistics_for
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.evaluation.worlds import Failure, Worlds, cause_of
from vlakit.files import locked, write_atomically
from vlakit.models.network import Likelihood, capability
from vlakit.preferences.episodes import HEADER, Episode, Rollouts, packed
from vlakit.preferences.pair_file import Frames
from vlakit.schema import Observation

if TYPE_CHECKING:
    from vlakit.policy import Sampled, TrainedPolicy

log = logging.getLogger(__name__)
BLOCK = 12  # episodes of a block for each slot: fewer idle slots at its end, more work lost when killed


@dataclass(frozen=True)
class CollectPlan:
    """How much of what is collected: `starts` in all, shared out evenly among the tasks, and rollouts of each.

    starts_seed: which training starts; seed: of the draws. pixels: "rendered" stores none, and makes them again from
    start and actions; "stored" keeps what the policy saw. Raises ConfigError.
    """

    tasks: tuple[Text, ...] = ()
    starts: Some = 200
    starts_seed: Seed = 100
    rollouts_per_start: Some = 6
    temperature: float = 1.0
    seed: Seed = 0
    pixels: Literal["rendered", "stored"] = "rendered"
    slots: Rows = 32
    workers: Few = 0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(
                f"temperature={self.temperature}: without chance all rollouts from a start are the same",
                where="command line",
                do="temperature=1, or another number above 0",
            )

    def states(self, suite: Suite) -> list[InitialState]:
        """The starts, task by task in turn. Raises ConfigError where the suite has fewer."""
        return training_starts(suite, self.tasks, self.starts, self.starts_seed)


def training_starts(suite: Suite, tasks: Sequence[str], n: int, seed: int) -> list[InitialState]:
    """n starts in all, evenly from these tasks, none of which any evaluation uses. Raises ConfigError, UnknownName."""
    chosen = chosen_tasks(suite, tasks)
    shares = [n // len(chosen) + (place < n % len(chosen)) for place in range(len(chosen))]
    columns = [list(suite.training_states(task, share, seed)) for task, share in zip(chosen, shares, strict=True)]
    for task, share, column in zip(chosen, shares, columns, strict=True):
        if len(column) < share:
            what = f"task {task!r} has {len(column)} training starts, {share} are asked for"
            raise ConfigError(what, where=f"suite {suite.name}", do=f"starts={len(column) * len(chosen)} at most")
    longest = max(shares)
    states = [column[row] for row in range(longest) for column in columns if row < len(column)]
    check_names(states)
    return states


@dataclass
class Draws:
    """What a policy drew in one episode: at which steps, which ids, how likely; seen: what it was asked about."""

    asked: list[int] = field(default_factory=list[int])
    ids: list[list[int]] = field(default_factory=list[list[int]])
    log_probs: list[list[float]] = field(default_factory=list[list[float]])
    seen: list[Observation] = field(default_factory=list[Observation])


class SamplingActor(PolicyActor):
    """A policy that draws its actions, on batches that always have `slots` rows; `drawn` keeps what it drew.

    drawn: name of a start -> its episode's draws, for whoever takes them when it ends; seeing keeps what it saw too.
    """

    def __init__(self, policy: TrainedPolicy, slots: int, temperature: float, seed: int, *, seeing: bool) -> None:
        super().__init__(policy, slots)
        self.sampler, self.temperature, self.seeing, self.window = policy, temperature, seeing, policy.window
        self.generator = torch.Generator(policy.device).manual_seed(seed)
        self.drawn: dict[str, Draws] = {}

    def act(self, turns: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """See Actor; a policy that raises fails all episodes of the batch: half a batch of draws would be others."""
        spare = next(iter(turns.values())).observation
        rows = [turns[slot].observation if slot in turns else spare for slot in range(self.slots)]
        try:
            with torch.no_grad():
                sampled = self.sampler.sample(rows, temperature=self.temperature, generator=self.generator)
        except Exception as error:  # whatever a policy raises
            return {slot: Failure(f"the policy raised {cause_of(error)}") for slot in turns}
        for slot, turn in turns.items():
            self._keep(turn, sampled, slot)
        return {slot: sampled.actions[slot] for slot in turns}

    def _keep(self, turn: Turn, sampled: Sampled, slot: int) -> None:
        drawn = self.drawn.setdefault(turn.state.name, Draws())
        drawn.asked.append(turn.step)
        drawn.ids.append(sampled.ids[slot].tolist())
        drawn.log_probs.append([float(str(value)) for value in sampled.log_probs[slot]])
        if self.seeing:
            drawn.seen.append(turn.observation)


@dataclass(frozen=True)
class Collector:
    """Draws rollouts of one policy in one suite. Raises PartMissing for a network without a likelihood."""

    policy: TrainedPolicy
    suite: Suite
    plan: CollectPlan

    def __post_init__(self) -> None:
        capability(self.policy.network, Likelihood, purpose="collecting for preferences (log_prob and sample)")

    def header(self, name: str, suite_name: str, suite_settings: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides the episodes, and what a training from them must know."""
        policy, suite, plan = self.policy, self.suite, self.plan
        settings = {key: value for key, value in asdict(plan).items() if key != "workers"}
        made = {
            **settings,
            "suite": suite.name,
            "suite_name": suite_name,
            "suite_settings": dict(suite_settings),
            "dataset": suite.dataset,
            "constrain": policy.constrain,
            "policy": {"name": name, "sha256": policy.content_hash()},
            "statistics": statistics_to_json({suite.dataset: statistics_for(suite, policy.processor)}),
            "surroundings": {key: one for key, one in policy.card.surroundings.items() if key == suite.dataset},
            "chunk": policy.processor.settings.chunk,
            "versions": {**suite.versions, "vlakit": __version__},
        }
        return json.loads(json.dumps(made))

    def collect(
        self, out: Path, header: Mapping[str, Any], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Rollouts:
        """Fill the folder, or what it lacks. Raises ConfigError for one of other settings, FolderBusy, DiskFull."""
        states = self.plan.states(self.suite)
        check_observation(self.policy, self.suite, states[0], where=str(header["policy"]["name"]))
        self.policy.pad_to = self.policy.processor.text_width(state.instruction for state in states)
        with locked(out, who="another collection"):
            rollouts = _opened(out, header)
            jobs = [(state, k) for state in states for k in range(self.plan.rollouts_per_start)]
            size = BLOCK * self.plan.slots
            for number, first in enumerate(range(0, len(jobs), size)):
                if number not in rollouts.numbers():
                    self._block(rollouts, number, first, jobs[first : first + size])
                progress(min(first + size, len(jobs)), len(jobs))
        return rollouts

    def _block(self, rollouts: Rollouts, number: int, first: int, jobs: Sequence[tuple[InitialState, int]]) -> None:
        stored = self.plan.pixels == "stored"
        actor = self.actor([self.plan.seed, number], seeing=stored)
        episodes: list[Episode] = []
        pictures: dict[int, Any] = {}
        for place, record, drawn in self.rolled(jobs, actor):
            start, rolled = jobs[place]
            episodes.append(self._episode(first + place, start, rolled, record, drawn))
            if stored and episodes[-1].usable:
                pictures[first + place] = packed(drawn.seen)
        rollouts.write(number, sorted(episodes, key=lambda one: one.number), pictures if stored else None)

    def actor(self, seeds: Sequence[int], *, seeing: bool) -> SamplingActor:
        """What draws, from seeds of its own."""
        seed = int(np.random.SeedSequence(list(seeds)).generate_state(1, np.uint64)[0] >> 1)
        return SamplingActor(self.policy, self.plan.slots, self.plan.temperature, seed, seeing=seeing)

    def rolled(
        self, jobs: Sequence[tuple[InitialState, int]], actor: SamplingActor
    ) -> Iterator[tuple[int, EpisodeRecord, Draws]]:
        """(place of the job, its record, its draws) as episodes end."""
        states = [replace(state, name=f"{state.name}#{k}") for state, k in jobs]  # names are what tells episodes apart
        bounds = action_bounds(self.suite, statistics_for(self.suite, self.policy.processor), states)
        options = Options(self.plan.slots, self.plan.workers, bounds=bounds)
        with closing(rollout(self.suite, actor, states, options)) as records:
            for record in records:
                yield record.number, record, actor.drawn.pop(record.initial_state, Draws())

    def _episode(self, number: int, start: InitialState, k: int, record: EpisodeRecord, drawn: Draws) -> Episode:
        return Episode(
            number=number,
            start=start.name,
            rollout=k,
            task=record.task,
            instruction=record.instruction,
            success=record.success,
            credit=record.credit,
            actions=record.actions,
            asked=drawn.asked,
            ids=drawn.ids,
            log_probs=drawn.log_probs,
            chunk=self.policy.processor.settings.chunk,
            error=record.error,
        )


def _opened(out: Path, header: Mapping[str, Any]) -> Rollouts:
    if (out / HEADER).is_file():
        rollouts = Rollouts.open(out)
        check_settings(rollouts.header, header, out)
        return rollouts
    if any(out.iterdir()):
        raise ConfigError("the folder holds something else", where=str(out), do="give a new folder: out=DIR")
    write_atomically(out / HEADER, json.dumps(header, indent=1, ensure_ascii=False) + "\n")
    return Rollouts.open(out)


def windows(observations: Sequence[Observation], asked: Sequence[int], window: int) -> list[Observation]:
    """What a policy saw at each question, of the T single observations of an episode."""
    singles = [observations[0]] * (window - 1) + list(observations)
    return [stacked(singles[step : step + window]) for step in asked]


def seen_again(rollouts: Rollouts, suite: Suite, window: int) -> Frames:
    """Episodes -> what the policy saw at each question: as stored, or rendered from the start and the actions."""
    if rollouts.header["pixels"] == "stored":
        return lambda episodes: _stored(rollouts, episodes)
    return lambda episodes: _rendered(rollouts, suite, episodes, window)


def _stored(rollouts: Rollouts, episodes: Sequence[Episode]) -> Iterator[list[Observation]]:
    wanted = {episode.number for episode in episodes}
    return (seen for number, seen in rollouts.stored() if number in wanted)


def _rendered(
    rollouts: Rollouts, suite: Suite, episodes: Sequence[Episode], window: int
) -> Iterator[list[Observation]]:
    header = rollouts.header
    starts = training_starts(suite, header["tasks"], header["starts"], header["starts_seed"])
    by_name = {state.name: state for state in starts}
    with closing(suite.environment()) as environment:
        for episode in episodes:
            seen = [environment.reset(by_name[episode.start])]
            seen += [environment.step(np.array(one, np.float32)).observation for one in episode.actions[:-1]]
            yield windows(seen, episode.asked, window)
