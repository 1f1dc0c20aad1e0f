"""Rounds of fit, evaluate, score, acquire; a round that is on file is never done again.

Whatever learns stands behind `Learner`. All chance is a function of the seed and the round, so that a run that goes on
acquires what an uninterrupted one does, and all acquisitions of a seed begin with the same demonstrations.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vlakit.errors import ConfigError, CorruptRecord
from vlakit.files import locked, write_atomically
from vlakit.selection.acquisitions import Acquisition, Need, Outlook
from vlakit.selection.coreset import check_size

log = logging.getLogger(__name__)
ROUNDS, SETTINGS = "rounds.jsonl", "selection.json"


class Learner(Protocol):
    """What is trained anew in each round, on labelled demonstrations alone."""

    def fit(self, number: int, ids: Sequence[int]) -> Mapping[str, float]:
        """Train on these demonstrations and evaluate; name -> value."""
        ...

    def outlook(self, number: int, need: Need) -> Outlook:
        """What the model of round `number` says of every demonstration of the pool, without its label."""
        ...


@dataclass(frozen=True)
class Plan:
    """rounds: how often is trained; after each but the last, `batch` demonstrations are acquired.

    Raises ConfigError for numbers below 1.
    """

    acquisition: Acquisition = field(default_factory=Acquisition)
    first: int = 16
    batch: int = 16
    rounds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.first, self.batch, self.rounds) < 1:
            raise ConfigError(
                f"first={self.first} batch={self.batch} rounds={self.rounds}",
                where="command line",
                do="give each 1 or more",
            )

    @property
    def total(self) -> int:
        """Demonstrations that the last round has."""
        return self.first + (self.rounds - 1) * self.batch


@dataclass(frozen=True)
class Round:
    """One round: what was labelled, how the model did, what was acquired then; tied: picks that repeat a feature.

    outlier_share: of what was labelled, where somebody knows; None otherwise.
    """

    number: int
    labelled: list[int]
    metrics: dict[str, float]
    acquired: list[int]
    tied: int = 0
    outlier_share: float | None = None


def run(
    plan: Plan,
    n_pool: int,
    learner: Learner,
    out: Path,
    *,
    identity: Mapping[str, Any],
    left_out: Collection[int] = (),
    outliers: Collection[int] | None = None,
) -> list[Round]:
    """All rounds, those on file in `out` first. identity: plain values that tell this run from another.

    left_out: ids that are no part of the pool. outliers: for the record alone. Raises ConfigError for a pool that is
    too small, before anything is trained, or where `out` holds another run; CorruptRecord.
    """
    check_size(plan.total, n_pool - len(set(left_out)))
    settings = {**asdict(plan), "left_out": sorted(int(one) for one in left_out), **identity}
    with locked(out, who="another selection"):
        done = _opened(out, json.loads(json.dumps(settings)))
        for round_ in _further(plan, n_pool, learner, done, sorted(set(left_out)), outliers):
            done.append(round_)
            write_atomically(out / ROUNDS, "".join(json.dumps(asdict(one)) + "\n" for one in done))
            log.info("round %d: %s", round_.number, _line(round_))
    return done


def read_rounds(out: Path) -> list[Round]:
    """The rounds on file, none where none is. Raises CorruptRecord."""
    file = out / ROUNDS
    if not file.is_file():
        return []
    try:
        return [Round(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    except (TypeError, ValueError) as error:
        raise CorruptRecord(f"no rounds: {error}", where=str(file), do="delete the folder, and begin anew") from error


def first_ids(plan: Plan, n_pool: int, left_out: Collection[int] = ()) -> list[int]:
    """What every acquisition of this seed begins with, in order of their draw."""
    order = np.random.default_rng([plan.seed, 0]).permutation(n_pool)
    gone = set(left_out)
    return [int(one) for one in order if int(one) not in gone][: plan.first]


def _further(
    plan: Plan,
    n_pool: int,
    learner: Learner,
    done: Sequence[Round],
    left_out: list[int],
    outliers: Collection[int] | None,
) -> Iterator[Round]:
    labelled = [*done[-1].labelled, *done[-1].acquired] if done else first_ids(plan, n_pool, left_out)
    for number in range(len(done), plan.rounds):
        metrics = {name: float(value) for name, value in learner.fit(number, labelled).items()}
        acquired: list[int] = []
        tied = 0
        if number + 1 < plan.rounds:
            acquired, tied = _acquired(plan, n_pool, learner, number, labelled, left_out)
        share = None if outliers is None else len(set(labelled) & set(outliers)) / len(labelled)
        yield Round(number, labelled, metrics, acquired, tied, share)
        labelled = [*labelled, *acquired]


def _acquired(
    plan: Plan, n_pool: int, learner: Learner, number: int, labelled: Sequence[int], left_out: Sequence[int]
) -> tuple[list[int], int]:
    """What lies outside is taken out first: it is neither chosen, nor a centre that others are far from."""
    kept = np.setdiff1d(np.arange(n_pool), np.asarray(left_out, int))
    places = {int(one): place for place, one in enumerate(kept)}
    seen = _only(learner.outlook(number, plan.acquisition.needs), kept)
    rng = np.random.default_rng([plan.seed, number + 1])
    picks = plan.acquisition.choose(seen, [places[one] for one in labelled], len(kept), plan.batch, rng)
    return [int(kept[place]) for place in picks.positions], picks.tied


def _only(seen: Outlook, kept: np.ndarray) -> Outlook:
    return Outlook(
        None if seen.log_probs is None else seen.log_probs[kept],
        None if seen.passes is None else seen.passes[:, kept],
        {name: features[kept] for name, features in seen.features.items()},
    )


def _opened(out: Path, settings: dict[str, Any]) -> list[Round]:
    file = out / SETTINGS
    if not file.is_file():
        write_atomically(file, json.dumps(settings, indent=1) + "\n")
        return []
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptRecord(f"{SETTINGS} is no JSON: {error}", where=str(file), do="delete the folder") from error
    longer = {**before, "rounds": settings["rounds"]}
    if longer != settings or before["rounds"] > settings["rounds"]:
        differing = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
        raise ConfigError(
            f"the folder holds a selection with another {', '.join(differing)}",
            where=str(out),
            do="give a new folder with out=DIR; more rounds= may be asked for in the same",
        )
    rounds = read_rounds(out)
    if rounds and not rounds[-1].acquired and len(rounds) < settings["rounds"]:
        rounds = rounds[:-1]  # the last round acquired nothing; now that more are asked for, it has to
    write_atomically(file, json.dumps(settings, indent=1) + "\n")
    return rounds


def _line(one: Round) -> str:
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in sorted(one.metrics.items()))
    known = "" if one.outlier_share is None else f", outliers {100 * one.outlier_share:.0f} %"
    return f"{len(one.labelled)} demonstrations{known}; {metrics or 'not evaluated'}; {len(one.acquired)} acquired"
