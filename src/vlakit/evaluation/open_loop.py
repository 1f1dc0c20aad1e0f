"""Open-loop evaluation: what a policy answers to recorded frames, beside what was recorded and two trivial answers.

A policy that does not beat "the mean action" and "the previous action again" has learnt nothing that shows here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlakit.data.reader import EpisodeRow, SampleRef, ShardFolder
from vlakit.errors import InvalidData
from vlakit.policy import VLAPolicy
from vlakit.processing.images import decode_jpeg
from vlakit.processing.normalizer import normalize
from vlakit.schema import Float32, Observation, Sample

POLICY, MEAN, PREVIOUS = "policy", "mean action", "previous action"


@dataclass(frozen=True)
class EpisodeResult:
    """One recorded episode: actions (T, A) physical, of the record and of each answerer."""

    episode: str
    instruction: str
    recorded: Float32
    answers: dict[str, Float32]


@dataclass(frozen=True)
class OpenLoopResult:
    """All episodes of a split, and the scores of the policy and of the two baselines over all frames."""

    dataset: str
    split: str
    episodes: list[EpisodeResult]
    scores: dict[str, Scores]

    @property
    def n_frames(self) -> int:
        """Frames evaluated."""
        return sum(len(episode.recorded) for episode in self.episodes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the trajectories."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "episodes": len(self.episodes),
            "frames": self.n_frames,
            "scores": {name: scores.to_dict() for name, scores in self.scores.items()},
        }


@dataclass(frozen=True)
class Scores:
    """Share of right action tokens, mean L1 in normalised units, and L1 per dimension (A,) in physical units."""

    token_accuracy: float
    l1: float
    l1_per_dimension: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"token_accuracy": self.token_accuracy, "l1": self.l1, "l1_per_dimension": self.l1_per_dimension}


def open_loop(
    policy: VLAPolicy,
    folder: ShardFolder,
    split: str,
    *,
    batch_size: int = 64,
    max_frames: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> OpenLoopResult:
    """Ask the policy about every frame of a split, or of its first episodes up to `max_frames`. Raises InvalidData."""
    rows = _first_episodes(folder, split, max_frames)
    policy.processor.statistics_of(folder.dataset)  # fails before the first forward pass
    camera = policy.processor.names.camera
    samples = [
        [folder.read_sample(SampleRef(folder.dataset, r.shard, r.first_frame + t)) for t in range(r.n_frames)]
        for r in rows
    ]
    flat = [sample for episode in samples for sample in episode]
    predicted: list[Float32] = []
    for start in range(0, len(flat), batch_size):
        batch = [_observation(sample, camera) for sample in flat[start : start + batch_size]]
        predicted.append(policy.act(batch)[:, 0])
        if progress:
            progress(min(start + batch_size, len(flat)), len(flat))
    answers = iter(np.concatenate(predicted))
    results = [
        _episode(row, episode, np.stack([next(answers) for _ in episode]), policy, folder.dataset)
        for row, episode in zip(rows, samples, strict=True)
    ]
    scores = {name: score(policy, folder.dataset, results, name) for name in (POLICY, MEAN, PREVIOUS)}
    return OpenLoopResult(folder.dataset, split, results, scores)


def score(policy: VLAPolicy, dataset: str, episodes: Sequence[EpisodeResult], name: str) -> Scores:
    """Scores of one answerer over all frames of the episodes."""
    statistics, tokens = policy.processor.statistics_of(dataset), policy.processor.actions
    recorded = np.concatenate([episode.recorded for episode in episodes])
    answered = np.concatenate([episode.answers[name] for episode in episodes])
    # The policy's own tokens survive this round trip: a bin's centre is binned into the bin it came from.
    normalized, truth = normalize(answered, statistics), normalize(recorded, statistics)
    same = tokens.encode(normalized) == tokens.encode(truth)
    return Scores(
        token_accuracy=float(same.mean()),
        l1=float(np.abs(normalized - truth).mean()),
        l1_per_dimension=[float(value) for value in np.abs(answered - recorded).mean(axis=0)],
    )


def _episode(
    row: EpisodeRow, samples: Sequence[Sample], predicted: Float32, policy: VLAPolicy, dataset: str
) -> EpisodeResult:
    recorded = np.stack([sample.actions[0] for sample in samples])
    mean = np.broadcast_to(policy.processor.statistics_of(dataset).mean.astype(np.float32), recorded.shape)
    previous = np.stack(
        [m if s.previous_action is None else s.previous_action for s, m in zip(samples, mean, strict=True)]
    )
    answers = {POLICY: predicted, MEAN: mean, PREVIOUS: previous}
    return EpisodeResult(row.episode, samples[0].instruction, recorded, answers)


def _observation(sample: Sample, camera: str) -> Observation:
    image = decode_jpeg(sample.images[camera][-1], where=f"sample {sample.key}")
    return Observation(image, sample.instruction, sample.dataset)


def _first_episodes(folder: ShardFolder, split: str, max_frames: int | None) -> list[EpisodeRow]:
    rows, n_frames = [], 0
    for row in folder.episodes(split):
        if max_frames is not None and rows and n_frames + row.n_frames > max_frames:
            break
        rows.append(row)
        n_frames += row.n_frames
    if not rows:
        raise InvalidData(
            f"the split {split!r} of {folder.dataset} is empty",
            where=str(folder.path),
            do=f"it has: {', '.join(folder.splits)}; convert again with another val_fraction",
        )
    return rows
