"""What two trivial answers score on held-out frames: a policy that beats neither has learnt nothing that shows here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.processing.normalizer import normalize
from vlakit.schema import Float32, Sample

N_FRAMES = 2000  # from the split's begin: enough for three digits, in a second or two


@dataclass(frozen=True)
class Baselines:
    """L1 in normalised units, as `val/l1` is: of the mean action, and of the action of the step before."""

    mean_action: float
    previous_action: float

    def beside(self, l1: float) -> str:
        """A policy's L1 beside them, in words.

        >>> Baselines(0.3, 0.1).beside(0.2)
        'L1 0.200; the mean action 0.300, the previous action again 0.100: better than the first alone'
        """
        won = l1 < self.mean_action, l1 < self.previous_action
        better = {
            (True, True): "better than both",
            (True, False): "better than the first alone",
            (False, True): "better than the second alone",
            (False, False): "better than neither, so nothing that it has learnt shows here",
        }[won]
        told = f"the mean action {self.mean_action:.3f}, the previous action again {self.previous_action:.3f}"
        return f"L1 {l1:.3f}; {told}: {better}"


def trivial_answers(samples: Sequence[Sample], mean: Float32) -> tuple[Float32, Float32]:
    """(N, A) each: the mean action (A,), and the action of the step before; before the first step that is the mean."""
    previous = [mean if sample.previous_action is None else sample.previous_action for sample in samples]
    return np.tile(mean, (len(samples), 1)), np.stack(previous)


def baselines(
    folder: ShardFolder, *, chunk: int = 1, split: str = "val", normalization: str = "openvla"
) -> Baselines | None:
    """Of the first frames of a split, pictures left unread; None where it has none."""
    refs = [
        SampleRef(folder.dataset, row.shard, frame)
        for row in folder.episodes(split)
        for frame in range(row.first_frame, row.first_frame + row.n_frames)
    ][:N_FRAMES]
    if not refs:
        return None
    samples = [folder.read_sample(ref, chunk=chunk, cameras=()) for ref in refs]
    statistics = folder.statistics
    real = np.stack([sample.chunk_mask for sample in samples])  # (N, H)
    truth = normalize(np.stack([sample.actions for sample in samples]), statistics, normalization)  # (N, H, A)
    answers = trivial_answers(samples, statistics.mean.astype(np.float32))  # the same for each step of a chunk
    told = [normalize(answer[:, None], statistics, normalization) for answer in answers]
    off = [np.abs(answer - truth).mean(axis=-1)[real].mean() for answer in told]
    return Baselines(*map(float, off))
