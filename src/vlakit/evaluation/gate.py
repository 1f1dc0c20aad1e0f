"""The replay gate: demonstrations' own actions, through the tokens and statistics of a policy, must still succeed.

Where they do not, statistics, units or signs differ between data and suite, and no policy's number means anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from vlakit.data.specs.spec import DatasetSpec, load_spec, spec_names
from vlakit.data.specs.standardize import standardize_raw
from vlakit.errors import InvalidData, VlakitError
from vlakit.evaluation.actors import Expert, Replay
from vlakit.evaluation.rollout import Options, rollout
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.processing.processor import Processor
from vlakit.schema import Float32

THRESHOLD = 0.95
LONGER = 5  # so many times as many episodes decide when a short replay is not perfect
Codec: TypeAlias = Callable[[Float32], Float32]  # actions (T, A) -> what is left of them


class GateClosed(VlakitError):
    """Demonstrations do not succeed in their own suite."""


@dataclass(frozen=True)
class GateResult:
    """How many demonstrations were replayed and how many succeeded, of so many tries of the expert.

    lost: names of the starts of the others; worst: the largest change of an action, (dimension, physical units).
    """

    suite: str
    episodes: int
    successes: int
    tried: int
    lost: list[str]
    worst: tuple[int, float]
    passed: bool
    pixels: float | None = None  # grey levels by which recorded first frames differ from the suite's; None: not looked

    @property
    def success(self) -> float:
        """Share of the demonstrations that succeed again."""
        return self.successes / self.episodes if self.episodes else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "worst": list(self.worst), "success": self.success}

    def __str__(self) -> str:
        dimension, by = self.worst
        frames = "" if self.pixels is None else f"; first frames differ by {self.pixels:.1f} grey levels"
        return (
            f"replay on {self.suite}: {self.successes} of {self.episodes} demonstrations succeed ({self.success:.0%},"
            f" {THRESHOLD:.0%} needed); actions change by up to {by:.4g} (dimension {dimension}){frames}"
        )


def through_spec(spec: DatasetSpec) -> Codec:
    """Actions (T, A) as the spec's transform makes them of an episode on disk: what shards hold of them."""

    def codec(actions: Float32) -> Float32:
        steps = {"action": actions, "language_instruction": [b"replay"] * len(actions)}
        return standardize_raw(steps, spec, where="replay").action

    return codec


def through_processor(processor: Processor, dataset: str) -> Codec:
    """Actions (T, A) as they come back from the form in which a policy learns them. Raises StatisticsMissing."""
    processor.statistics_of(dataset)  # now, not at the first action
    return lambda actions: processor.round_trip(actions, dataset)


def training_path(processor: Processor | None, dataset: str) -> Codec:
    """What happens to an action between a suite and a policy's answer: the spec if known, then the policy's form."""
    codecs: list[Codec] = [through_spec(load_spec(dataset))] if dataset in spec_names() else []
    codecs += [through_processor(processor, dataset)] if processor is not None else []
    return lambda actions: reduce(lambda value, codec: codec(value), codecs, actions)


def replay_gate(suite: Suite, states: Sequence[InitialState], codec: Codec, options: Options = Options()) -> GateResult:  # noqa: B008
    """Let the expert demonstrate from each state, and replay its successful actions, encoded and decoded, from there.

    Raises PartMissing where the suite has no expert, InvalidData where it never succeeds or the action sizes differ.
    """
    shown = [record for record in rollout(suite, Expert(), states, options) if record.success]
    if not shown:
        raise InvalidData(
            f"the expert never succeeds in {len(states)} episodes",
            where=f"suite {suite.name}",
            do="nothing can be replayed: run vlakit evaluate policy=expert and look at its videos",
        )
    names = {state.name: state for state in states}
    shown_from = [names[record.initial_state] for record in shown]
    return replay_recorded(suite, shown_from, [record.trace for record in shown], codec, options, tried=len(states))


def replay_recorded(
    suite: Suite,
    states: Sequence[InitialState],
    actions: Sequence[Float32],
    codec: Codec,
    options: Options,
    *,
    tried: int,
) -> GateResult:
    """Replay actions (T, A), encoded and decoded, each from its own state."""
    changed = [codec(one) for one in actions]
    traces = {state.name: one for state, one in zip(states, changed, strict=True)}
    replayed = list(rollout(suite, Replay(traces), states, options))
    lost = sorted(record.initial_state for record in replayed if not record.success)
    won = len(replayed) - len(lost)
    passed = won >= THRESHOLD * len(replayed)
    return GateResult(suite.name, len(replayed), won, tried, lost, _worst(actions, changed), passed)


def short_gate(
    suite: Suite,
    states: Callable[[int], Sequence[InitialState]],
    codec: Codec,
    episodes: int = 8,
    options: Options = Options(),  # noqa: B008
) -> GateResult:
    """`episodes` replays; when one fails, five times as many, since one of eight says little about 95 %."""
    result = replay_gate(suite, states(episodes), codec, options)
    return result if result.passed else replay_gate(suite, states(LONGER * episodes), codec, options)


def check_gate(result: GateResult) -> None:
    """Raise GateClosed unless enough demonstrations succeed."""
    if not result.passed:
        raise GateClosed(
            str(result),
            where=f"lost: {', '.join(result.lost[:5])}{' ...' if len(result.lost) > 5 else ''}",
            do="compare the statistics, the units and the gripper's sign of the checkpoint's dataset with the suite's;"
            " gate=false evaluates all the same, and records it",
        )


def _worst(before: Sequence[Float32], after: Sequence[Float32]) -> tuple[int, float]:
    """Largest change, (dimension, by how much); a spec may drop steps, so only as many as are left are compared."""
    pairs = [(a[: len(b)], b) for a, b in zip(before, after, strict=True) if len(b)]
    largest = np.max([np.abs(a - b).max(axis=0) for a, b in pairs if a.shape == b.shape] or [np.zeros(1)], axis=0)
    return int(largest.argmax()), float(largest.max())
