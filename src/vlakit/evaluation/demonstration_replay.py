"""Demonstrations on disk, replayed: the strictest gate, as it reads what training reads and compares pictures too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.rlds.images import decode_image
from vlakit.data.rlds.reader import open_rlds, parse_episode, read_record, record_headers
from vlakit.errors import ConfigError, InvalidData
from vlakit.evaluation.demonstration_writer import RECORD
from vlakit.evaluation.gate import Codec, GateResult, replay_recorded
from vlakit.evaluation.rollout import Options
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.schema import Float32, UInt8

OTHER_PICTURE = 12.0  # grey levels of mean difference; JPEG costs 1 to 3, another camera or a flip far more


@dataclass(frozen=True)
class Recorded:
    """One demonstration on disk: the start's name, actions (T, A) as stored, the first picture."""

    task: str
    initial_state: str
    actions: Float32
    image: UInt8


def replay_demonstrations(
    suite: Suite,
    folder: Path,
    codec: Codec,
    episodes: int,
    options: Options = Options(),  # noqa: B008
) -> GateResult:
    """Replay the first `episodes` of a folder that `vlakit demonstrate noise=0` wrote.

    Recorded actions of disturbed demonstrations are not those that were carried out: ConfigError. Raises InvalidData
    for another suite's.
    """
    plan = _plan(folder, suite)
    demonstrations = list(islice(recorded_demonstrations(folder), episodes))
    starts = _starts(suite, plan, demonstrations)
    states = [starts[one.initial_state] for one in demonstrations]
    result = replay_recorded(
        suite, states, [one.actions for one in demonstrations], codec, options, tried=len(demonstrations)
    )
    pixels = picture_difference(suite, states, demonstrations)
    return replace(result, pixels=pixels, passed=result.passed and pixels <= OTHER_PICTURE)


def recorded_demonstrations(folder: Path) -> Iterator[Recorded]:
    """The demonstrations of a folder in order."""
    source = open_rlds(folder)
    for file in source.splits.get("train", []):
        for header in record_headers(file):
            episode = parse_episode(read_record(header), source.features, where=str(header))
            metadata = {path.rpartition("/")[2]: value for path, value in episode.metadata.items()}
            task, initial_state = (metadata[key].decode() for key in ("task", "initial_state"))
            image = decode_image(episode.steps["observation/image"][0])
            actions = np.asarray(episode.steps["action"], np.float32)
            yield Recorded(task, initial_state, actions, image)


def picture_difference(suite: Suite, states: list[InitialState], demonstrations: list[Recorded]) -> float:
    """Largest mean absolute difference between a recorded first picture and the suite's; 255 for another size."""
    worst = 0.0
    with closing(suite.environment()) as environment:
        for state, one in zip(states, demonstrations, strict=True):
            image = environment.reset(state).image
            same = image.shape == one.image.shape
            worst = max(worst, float(np.abs(image.astype(int) - one.image).mean()) if same else 255.0)
    return worst


def _plan(folder: Path, suite: Suite) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        plan, noise, of = record["plan"], float(record["plan"]["noise"]), str(record["suite"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidData(
            f"{RECORD} is not there or cannot be read: {error}",
            where=str(folder),
            do="pass a folder that vlakit demonstrate wrote",
        ) from error
    if of != suite.name:
        raise InvalidData(f"demonstrations of suite {of}, not {suite.name}", where=str(folder), do=f"suite={of}")
    if noise > 0:
        raise ConfigError(
            f"noise={noise}: what these demonstrations record is not what was carried out",
            where=str(folder),
            do=f"vlakit demonstrate suite={suite.name} noise=0 episodes=10 out=DIR, and pass that folder",
        )
    return plan


def _starts(suite: Suite, plan: dict[str, Any], demonstrations: list[Recorded]) -> dict[str, InitialState]:
    """The starts of these demonstrations by name; those that failed lie between them."""
    starts: dict[str, InitialState] = {}
    for task in dict.fromkeys(one.task for one in demonstrations):
        wanted = {one.initial_state for one in demonstrations if one.task == task}
        n = len(wanted)
        while not wanted <= starts.keys() and n < 1_000_000:
            fresh = suite.training_states(task, n, int(plan["seed"]))
            starts.update({state.name: state for state in fresh})
            if len(fresh) < n:
                break
            n *= 2
        missing = sorted(wanted - starts.keys())
        if missing:
            raise InvalidData(f"the suite has no training start {missing[0]!r}", where=f"suite {suite.name}, {task}")
    return starts
