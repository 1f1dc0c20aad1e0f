"""One demonstration as other formats want it: pictures still encoded, proprio side by side, physical units."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlakit.data.shards.convert import open_recipe
from vlakit.data.shards.index import INDEX_NAME
from vlakit.data.shards.plan import UNLABELED
from vlakit.data.shards.reader import EpisodeRow, SampleRef, ShardFolder
from vlakit.data.shards.statistics import proprio_columns
from vlakit.data.specs.spec import DatasetSpec
from vlakit.errors import ConfigError
from vlakit.schema import Float32


@dataclass(frozen=True, slots=True)
class Demonstration:
    """images: camera -> T encoded pictures; action (T, A), state (T, P), instructions (T,); where: for errors."""

    images: Mapping[str, Sequence[bytes]]
    action: Float32
    state: Float32
    instructions: Sequence[str]
    where: str = ""

    def __len__(self) -> int:
        return len(self.action)


def demonstrations(source: Path, spec: DatasetSpec | None, cameras: Collection[str]) -> Iterator[Demonstration]:
    """All labelled episodes of a shard folder (train, then val), or of any source that `spec` says the meaning of.

    cameras: those to take, all where it is empty. Raises ConfigError without a spec where one is needed.
    """
    if (source / INDEX_NAME).is_file():
        folder = ShardFolder.open(source)
        wanted = list(cameras) or list(folder.index.cameras)
        for split in folder.splits:
            yield from (_of_shards(folder, row, wanted) for row in folder.episodes(split))
        return
    if spec is None:
        what = "a source that is no shard folder needs a spec"
        raise ConfigError(what, where=str(source), do="add dataset=NAME or dataset=FILE.yaml")
    chosen = tuple(cameras) or tuple(camera for camera, key in spec.images.items() if key)
    recipe = open_recipe(source, spec, cameras=chosen)
    for split in recipe.source.splits:
        for header in recipe.source.headers(split):
            trajectory = recipe.trajectory(header)
            if recipe.frames(trajectory, str(header)) in (0, UNLABELED):
                continue
            state = proprio_columns(trajectory.proprio, spec.proprio, len(trajectory))
            yield Demonstration(trajectory.images, trajectory.action, state, trajectory.instructions, str(header))


def _of_shards(folder: ShardFolder, row: EpisodeRow, cameras: Sequence[str]) -> Demonstration:
    samples = [
        folder.read_sample(SampleRef(folder.dataset, row.shard, row.first_frame + step), cameras=cameras)
        for step in range(row.n_frames)
    ]
    nothing = np.zeros((1, 0), np.float32)
    return Demonstration(
        {camera: [sample.images[camera][0] for sample in samples] for camera in cameras},
        np.concatenate([sample.actions for sample in samples]),
        np.concatenate([nothing if sample.proprio is None else sample.proprio for sample in samples]),
        [sample.instruction for sample in samples],
        f"{folder.path}, {row.episode}",
    )
