"""`SceneData`: a scene folder to batches in an order that the seed decides, and the position into every checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from tiny_recipe.scenes import SceneArrays, SceneAugmentation, SceneBatch, SceneFolder, to_batch
from vlakit.errors import ConfigError, InvalidData
from vlakit.models.network import HasFeatures
from vlakit.processing.processor import Processor
from vlakit.schema import Int64, Sample
from vlakit.strategies.feature_cache import check_frozen

HELD_OUT_SEED = 0  # the held-out scenes are the same for every run's seed


class SceneData(LightningDataModule):
    """Batches of the scenes under `root`; val_fraction of them are held out, the same in every run."""

    def __init__(
        self,
        processor: Processor,
        root: str,
        *,
        batch_size: int,
        seed: int,
        val_fraction: float = 0.02,
        augment: bool = True,
    ) -> None:
        super().__init__()
        self.processor, self.batch_size, self.seed = processor, batch_size, seed
        self.scenes = SceneFolder.open(root)
        if self.scenes.image_size != processor.settings.image_size:
            raise InvalidData(
                f"scenes of {self.scenes.image_size} px, the model sees {processor.settings.image_size}",
                where=root,
                do=f"render them with image_size={processor.settings.image_size}",
            )
        self.train_rows, self.val_rows = held_out(len(self.scenes), val_fraction)
        self.augmentation = SceneAugmentation() if augment else None
        self.features: torch.Tensor | None = None
        self._first, self._first_step = 0, 0

    @property
    def hashes(self) -> dict[str, str]:
        """Name of the folder -> sha256 over its files."""
        return {self.scenes.path.name: self.scenes.hash()}

    @property
    def folders(self) -> dict[str, str]:
        """Name of the folder -> where it is."""
        return {self.scenes.path.name: str(self.scenes.path)}

    @property
    def surroundings(self) -> dict[str, dict[str, Any]]:
        """None: scenes have no camera name and no control rate."""
        return {}

    def golden_samples(self, n_samples: int) -> list[Sample]:
        """None: scenes have no action."""
        return []

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless shuffled batches, from the position of the checkpoint that was restored, if any."""
        self._first_step = self.trainer.global_step if self.trainer else 0
        return DataLoader(_Stream(self), batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every held-out scene once, never augmented."""
        chunks = np.array_split(self.val_rows, -(-len(self.val_rows) // self.batch_size))
        return DataLoader([self.batch(rows) for rows in chunks], batch_size=None)  # pyright: ignore[reportArgumentType]  a list is a dataset

    def batch(self, rows: Int64, position: int = -1) -> SceneBatch:
        """The scenes `rows`; a position in the stream asks for augmentation by its random numbers."""
        arrays = SceneArrays.read(self.scenes, rows)
        if self.features is not None:
            return to_batch(arrays, self.processor, position, self.features[torch.from_numpy(rows)])
        if position >= 0 and self.augmentation is not None:
            arrays = self.augmentation(arrays, np.random.default_rng([self.seed, position]))
        return to_batch(arrays, self.processor, position)

    @torch.no_grad()
    def keep_features(self, network: HasFeatures, chunk: int = 256) -> None:
        """From now on batches hold what this frozen encoder makes of each scene, float32, computed once; no pixels."""
        if self.augmentation is not None:
            raise ConfigError(
                "features of frozen towers are kept, so the scenes cannot be augmented",
                where="data.augment",
                do="set data.augment=false",
            )
        check_frozen(network.encoder)
        parts = np.array_split(np.arange(len(self.scenes)), range(chunk, len(self.scenes), chunk))
        pictures = (to_batch(SceneArrays.read(self.scenes, rows), self.processor) for rows in parts)
        self.features = torch.cat([network.features(batch).float() for batch in pictures])  # (n, N, D_v)

    def state_dict(self) -> dict[str, Any]:
        """Samples that optimizer steps have used."""
        if self.trainer is None:
            return {}
        steps = (self.trainer.global_step - self._first_step) * self.trainer.accumulate_grad_batches
        return {"position": self._first + steps * self.batch_size * self.trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Where the stream goes on."""
        self._first = int(state_dict.get("position", 0))

    def stream(self) -> Iterator[SceneBatch]:
        """This rank's share of every batch, without end; each epoch has its own order."""
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        n, position = len(self.train_rows), self._first
        orders: dict[int, Int64] = {}
        while True:
            places = position + rank + world * np.arange(self.batch_size)
            epochs = range(int(places[0]) // n, int(places[-1]) // n + 1)
            orders = {e: orders.get(e, np.empty(0, np.int64)) for e in epochs}
            for epoch in epochs:
                if not len(orders[epoch]):
                    orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.train_rows)
            yield self.batch(np.array([orders[int(p) // n][int(p) % n] for p in places]), int(places[0]))
            position += self.batch_size * world


class _Stream(IterableDataset[SceneBatch]):
    def __init__(self, data: SceneData) -> None:
        self.data = data

    def __iter__(self) -> Iterator[SceneBatch]:
        return self.data.stream()


def held_out(n: int, fraction: float) -> tuple[Int64, Int64]:
    """Rows to train on, and those held out: at least one, as many as `fraction` says."""
    if not 0 < fraction < 1 or n < 2:
        raise ConfigError(
            f"{fraction} of {n} scenes cannot be held out", where="data.val_fraction", do="give a share such as 0.02"
        )
    order = np.random.default_rng(HELD_OUT_SEED).permutation(n)
    count = max(1, round(fraction * n))
    return np.sort(order[count:]), np.sort(order[:count])
