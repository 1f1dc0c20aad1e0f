"""Which episodes go into which shard, decided before any shard is written: then each is made alone, by any process.

An episode is never split over two shards. What counts is its frames after the transform and its images as stored, since
what recoding will make of them is not known yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from vlakit.data.rlds.images import decode_image
from vlakit.data.shards.checks import check_trajectory
from vlakit.data.shards.frames import episode_id, episode_members, planned_bytes
from vlakit.data.shards.options import ConversionOptions
from vlakit.data.source import Header, Source
from vlakit.data.specs.spec import DatasetSpec
from vlakit.data.specs.standardize import standardize
from vlakit.errors import CorruptRecord, FeatureMissing, InvalidData, VlakitError
from vlakit.schema import Int64, Trajectory

BROKEN, UNLABELED, EMPTY = -2, -1, 0  # in place of the frames of an episode that is skipped
SKIPPED = {EMPTY: "no step", UNLABELED: "no instruction", BROKEN: "cannot be used"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What all shards of one conversion have in common; sent to worker processes.

    first: split -> the numbers of its first shard and first episode, where others are in front of them.
    """

    source: Source
    spec: DatasetSpec
    options: ConversionOptions
    first: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def trajectory(self, header: Header) -> Trajectory:
        """Read and standardise one episode; raises what both raise, naming the episode."""
        where, cameras = str(header), self.options.cameras
        steps = self.source.read(header, self.spec.keys(cameras))
        return standardize(steps, self.spec, where=where, metadata=dict(header.metadata), cameras=cameras)

    def sizes(self, split: str, headers: Iterable[Header]) -> Int64:
        """What the plan must know of each episode, (n, 2): its frames, or why it is skipped, and its bytes in a tar.

        Raises InvalidData for an episode that must not be trained on (vlakit.data.shards.checks).
        """
        found = [self._size(split, header) if self.why_not(header) is None else (BROKEN, 0) for header in headers]
        return np.array(found, np.int64)

    def why_not(self, header: Header) -> VlakitError | None:
        """What is wrong with an episode, its pictures included; None where nothing is, or errors are not skipped."""
        if self.options.on_error == "raise":
            return None
        try:
            trajectory = self.trajectory(header)
            self.frames(trajectory, str(header))
            episode_members(trajectory, "", self.options.cameras, self.options.image_size, str(header))
            for picture in (data for images in trajectory.images.values() for data in images):
                decode_image(picture)
        except (CorruptRecord, FeatureMissing, InvalidData) as error:
            return error
        return None

    def frames(self, trajectory: Trajectory, where: str) -> int:
        """How many frames of an episode are used; a key of SKIPPED where it is left out. Raises as `sizes`."""
        if not any(text.strip() for text in trajectory.instructions):
            return UNLABELED if len(trajectory) else EMPTY
        check_trajectory(trajectory, self.spec, where)
        return len(trajectory)

    def _size(self, split: str, header: Header) -> tuple[int, int]:
        trajectory = self.trajectory(header)
        frames = self.frames(trajectory, str(header))
        return frames, planned_bytes(trajectory, split, self.options.cameras) if frames > 0 else 0


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to be made: its name without an ending, and the episodes that it will hold under which ids."""

    name: str
    split: str
    episodes: tuple[tuple[str, Header], ...]


def plan_shards(recipe: Recipe, split: str, headers: Iterable[Header], sizes: Int64) -> Iterator[ShardPlan]:
    """Fill one shard after the other up to the options' limits; one episode always fits."""
    options, dataset = recipe.options, recipe.spec.name
    (number, n_episodes), n_frames, n_bytes = recipe.first.get(split, (0, 0)), 0, 0
    episodes: list[tuple[str, Header]] = []
    for header, (frames, size) in zip(headers, sizes.tolist(), strict=True):
        if frames <= 0:
            continue
        fits = n_frames + frames <= options.max_frames_per_shard and n_bytes + size <= options.max_bytes_per_shard
        if episodes and not fits:
            yield ShardPlan(f"{split}-{number:06d}", split, tuple(episodes))
            number, n_frames, n_bytes, episodes = number + 1, 0, 0, []
        episodes.append((episode_id(dataset, split, n_episodes), header))
        n_episodes, n_frames, n_bytes = n_episodes + 1, n_frames + frames, n_bytes + size
    if episodes:
        yield ShardPlan(f"{split}-{number:06d}", split, tuple(episodes))
