"""Open-loop evaluation: what a policy answers to recorded frames, beside what was recorded and two trivial answers.

A policy that does not beat "the mean action" and "the previous action again" has learnt nothing that shows here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vlakit.data.shards.reader import EpisodeRow, SampleRef, ShardFolder
from vlakit.errors import InvalidData
from vlakit.evaluation.baselines import trivial_answers
from vlakit.models.network import Likelihood
from vlakit.policy import TrainedPolicy
from vlakit.processing.images import decode_jpeg
from vlakit.processing.normalizer import distance
from vlakit.processing.processor import Processor
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics, Float32, Int64, Observation, Sample

POLICY, MEAN, PREVIOUS = ANSWERERS = ("policy", "mean action", "previous action")


@dataclass(frozen=True)
class EpisodeResult:
    """One recorded episode: actions (T, A) in physical units and their token ids, recorded and of each answerer."""

    episode: str
    instruction: str
    recorded: Float32
    recorded_ids: Int64 | None  # None, and no ids: a policy that does not answer in tokens
    answers: dict[str, Float32]
    ids: dict[str, Int64]


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
            "scores": {name: asdict(scores) for name, scores in self.scores.items()},
        }


@dataclass(frozen=True)
class Scores:
    """Share of right action tokens, mean L1 in normalised units, and L1 per dimension (A,) in physical units."""

    token_accuracy: float | None
    l1: float
    l1_per_dimension: list[float]


def open_loop(
    policy: TrainedPolicy,
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
    samples = [_samples(folder, row, policy.window) for row in rows]
    flat = [sample for episode in samples for sample in episode]
    answers: list[tuple[Float32, Int64 | None]] = []
    for start in range(0, len(flat), batch_size):
        batch = [
            observation_of(sample, policy.processor.settings.cameras) for sample in flat[start : start + batch_size]
        ]
        answers += _answers(policy, batch)
        if progress:
            progress(min(start + batch_size, len(flat)), len(flat))
    answered = iter(answers)
    results = [
        _episode(row, episode, [next(answered) for _ in episode], policy.processor)
        for row, episode in zip(rows, samples, strict=True)
    ]
    scores = {name: score(policy.processor.statistics_of(folder.dataset), results, name) for name in ANSWERERS}
    return OpenLoopResult(folder.dataset, split, results, scores)


def score(statistics: DatasetStatistics, episodes: Sequence[EpisodeResult], name: str) -> Scores:
    """Scores of one answerer over all frames of the episodes."""
    recorded = np.concatenate([episode.recorded for episode in episodes])
    answered = np.concatenate([episode.answers[name] for episode in episodes])
    same = [episode.ids[name] == episode.recorded_ids for episode in episodes if episode.recorded_ids is not None]
    return Scores(
        token_accuracy=float(np.concatenate(same).mean()) if same else None,
        l1=float(distance(answered, recorded, statistics).mean()),
        l1_per_dimension=[float(value) for value in np.abs(answered - recorded).mean(axis=0)],
    )


def observation_of(sample: Sample, cameras: Sequence[str]) -> Observation:
    """What a policy would have seen at a recorded moment."""
    where = f"sample {sample.key}"
    images = {
        camera: np.stack([decode_jpeg(image, where=where) for image in sample.images[camera]]) for camera in cameras
    }
    return Observation(images, sample.instruction, sample.dataset, sample.proprio, sample.window_mask)


def _answers(policy: TrainedPolicy, observations: Sequence[Observation]) -> list[tuple[Float32, Int64 | None]]:
    """The first action (A,) of each answer, and its ids (A,) where the policy answers in ids.

    The ids are the policy's own: two ids share the largest centre, so they cannot be had back from its actions.
    """
    if not isinstance(policy.network, Likelihood):
        return [(answer[0], None) for answer in policy.act(observations)]
    greedy = policy.sample(observations, temperature=0.0)
    return [(a[0], i[: a.shape[1]]) for a, i in zip(greedy.actions, greedy.ids, strict=True)]


def _episode(
    row: EpisodeRow, samples: Sequence[Sample], answered: Sequence[tuple[Float32, Int64 | None]], processor: Processor
) -> EpisodeResult:
    """The first action of each answer beside the record; before the first step, "previous" answers the mean."""
    statistics = processor.statistics_of(samples[0].dataset)
    recorded = np.stack([sample.actions[0] for sample in samples])
    mean, previous = trivial_answers(samples, statistics.mean.astype(np.float32))
    answers = {POLICY: np.stack([action for action, _ in answered]), MEAN: mean, PREVIOUS: previous}
    ids = [one for _, one in answered if one is not None]
    if not ids or not isinstance(processor, TokenProcessor):
        return EpisodeResult(row.episode, samples[0].instruction, recorded, None, answers, {})
    dataset = samples[0].dataset
    binned = {name: _spelled(answers[name], processor, dataset) for name in (MEAN, PREVIOUS)}
    truth = _spelled(recorded, processor, dataset)
    return EpisodeResult(
        row.episode, samples[0].instruction, recorded, truth, answers, {POLICY: np.stack(ids), **binned}
    )


def _spelled(actions: Float32, processor: TokenProcessor, dataset: str) -> Int64:
    return processor.actions.encode(processor.normalized_actions(actions, dataset))


def _samples(folder: ShardFolder, row: EpisodeRow, window: int) -> list[Sample]:
    frames = range(row.first_frame, row.first_frame + row.n_frames)
    return [folder.read_sample(SampleRef(folder.dataset, row.shard, frame), window=window) for frame in frames]


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
