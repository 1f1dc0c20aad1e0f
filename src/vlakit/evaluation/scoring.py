"""The use case: a policy's answers to held-out frames of its datasets, scored, drawn and written down."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict

from vlakit.checked import Rows, Text
from vlakit.data.shards.reader import ShardFolder
from vlakit.errors import CheckpointMismatch, ConfigError, nearest
from vlakit.evaluation.open_loop import OpenLoopResult, open_loop
from vlakit.evaluation.plots import draw_trajectories
from vlakit.files import write_atomically
from vlakit.policy import TrainedPolicy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreRequest:
    """What is to be scored; conf/score.yaml says what each key means. data: a shard folder, None: where the card says.

    plots: trajectories drawn, 0: no picture.
    """

    split: Text = "val"
    data: Path | None = None
    batch_size: Rows = 64
    max_frames: Annotated[int, Strict(), Field(ge=1)] | None = None
    plots: Annotated[int, Strict(), Field(ge=0, le=1000)] = 3


@dataclass(frozen=True)
class Scored:
    """Results by dataset, and the files of each: its plot and its numbers."""

    split: str
    results: dict[str, OpenLoopResult] = field(default_factory=dict[str, OpenLoopResult])
    files: dict[str, list[Path]] = field(default_factory=dict[str, list[Path]])

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"split": self.split, "datasets": {name: result.to_dict() for name, result in self.results.items()}}


def score_policy(
    policy: TrainedPolicy, request: ScoreRequest, out: Path, *, progress: Callable[[int, int], None] | None = None
) -> Scored:
    """Score `policy` on each of its datasets; plots, if asked for, and numbers are written to `out`.

    Raises CheckpointMismatch for data that it does not know, ConfigError where its card says none, InvalidData.
    """
    scored = Scored(request.split)
    for folder in shard_folders(policy, request.data):
        result = open_loop(
            policy,
            folder,
            request.split,
            batch_size=request.batch_size,
            max_frames=request.max_frames,
            progress=progress,
        )
        plot = out / f"{result.dataset}_{request.split}.png"
        numbers = plot.with_suffix(".json")
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(numbers, json.dumps(result.to_dict(), indent=1) + "\n")
        drawn = [draw_trajectories(result, plot, request.plots)] if request.plots else []
        scored.results[result.dataset], scored.files[result.dataset] = result, [*drawn, numbers]
    return scored


def shard_folders(policy: TrainedPolicy, data: Path | None) -> list[ShardFolder]:
    """The folders to score on: `data`, or those that the checkpoint's run trained on, checked by their hashes."""
    card, known = policy.card.facts, policy.processor.statistics
    recorded: Mapping[str, str] = card.get("data") or {}
    if data is None and not recorded:
        raise ConfigError("the checkpoint does not say where its data is", do="pass data=DIR, a shard folder")
    folders = [ShardFolder.open(path) for path in ([data] if data else recorded.values())]
    for folder in folders:
        if folder.dataset not in known:
            raise CheckpointMismatch(
                f"the checkpoint has no statistics of {folder.dataset!r}",
                where=str(folder.path),
                do=f"{nearest(folder.dataset, known)} Fine-tune on it first, or pass another data=DIR",
            )
        if card.get("shards", {}).get(folder.dataset) not in {None, folder.content_hash}:
            log.warning("%s holds other shards than the checkpoint's run read", folder.path)
    return folders
