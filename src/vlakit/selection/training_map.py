"""A dataset map as a by-product of training: each visit of a frame leaves what the step made of it, dropout on.

A frame's p(label) is exp(-row_loss): the geometric mean over the ids that carry a label, which every network has that
answers in ids. Correctness is its token accuracy; a network without one has a map without buckets.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from vlakit.errors import ConfigError, InvalidData
from vlakit.models.network import Output
from vlakit.schema import Batch
from vlakit.selection.maps import DatasetMap

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from vlakit.data.shards.reader import ShardFolder

log = logging.getLogger(__name__)


class Visits:
    """One dataset: demonstration by row of its shards, and sums over the frames of each epoch.

    owner (F,): demonstration of each row, -1 for held-out rows. An epoch of a row is its so-many-th visit.
    """

    def __init__(self, owner: np.ndarray) -> None:
        self.owner = owner
        self.lengths = np.bincount(owner[owner >= 0])
        self.visited = np.zeros(len(owner), np.int64)
        self.sums: list[np.ndarray] = []  # an epoch: (3, N): frames met, p(label), hits

    @classmethod
    def of(cls, shards: ShardFolder) -> Visits:
        """Of the train split, in the order of `episodes("train")`."""
        owner = np.full(shards.first_rows[-1], -1, np.int64)
        for number, row in enumerate(shards.episodes("train")):
            first = shards.first_rows[row.shard] + row.first_frame
            owner[first : first + row.n_frames] = number
        return cls(owner)

    def add(self, row: int, p_label: float, hit: float) -> None:
        """A visit. Raises InvalidData for a row that is none of the training's."""
        if not 0 <= row < len(self.owner) or self.owner[row] < 0:
            raise InvalidData(
                f"row {row} is no training frame", where="Batch.rows", do="a dataset map needs samples from shards"
            )
        epoch = int(self.visited[row])
        self.visited[row] += 1
        if epoch == len(self.sums):
            self.sums.append(np.zeros((3, len(self.lengths))))
        self.sums[epoch][:, self.owner[row]] += (1, p_label, hit)

    @property
    def epochs(self) -> int:
        """Epochs in which every frame was met."""
        return sum(bool((one[0] == self.lengths).all()) for one in self.sums)

    def known(self) -> DatasetMap:
        """The map over whole epochs. Raises InvalidData before the first has ended."""
        whole = [one / self.lengths for one in self.sums[: self.epochs]]
        means = np.array(whole).reshape(-1, 3, len(self.lengths))
        return DatasetMap.of(range(len(self.lengths)), means[:, 1], means[:, 2])

    def state(self) -> dict[str, Any]:
        """Plain tensors, as a checkpoint can hold them."""
        sums = np.array(self.sums).reshape(-1, 3, len(self.lengths))
        return {"visited": torch.from_numpy(self.visited.copy()), "sums": torch.from_numpy(sums)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises InvalidData for another dataset's."""
        if state["visited"].shape != self.visited.shape:
            raise InvalidData("the checkpoint's map is of another dataset", do="resume with the same data")
        self.visited, self.sums = state["visited"].numpy().copy(), [*state["sums"].numpy().copy()]


class TrainingMap(Callback):
    """Writes map-DATASET.csv into `folder` when training ends, one line a demonstration of the train split.

    Raises ConfigError on several devices, each of which sees a part of the data.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.visits: dict[str, Visits] = {}
        self._restored: Mapping[str, Any] = {}
        self._hook: RemovableHandle | None = None
        self._seen: Output | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Number the demonstrations, and watch what the network makes of each batch."""
        if trainer.world_size > 1:
            raise ConfigError(
                f"a dataset map on {trainer.world_size} devices",
                where="callbacks=dataset_map",
                do="train on one: trainer.devices=1",
            )
        shards: Mapping[str, ShardFolder] = trainer.datamodule.shards  # pyright: ignore[reportAttributeAccessIssue]
        self.visits = {name: Visits.of(folder) for name, folder in shards.items()}
        for name, state in self._restored.items():
            self.visits[name].restore(state)
        network: torch.nn.Module = pl_module.model  # pyright: ignore[reportAssignmentType]
        self._hook = network.register_forward_hook(self._see)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Note each row of the batch."""
        if self._seen is None:
            return
        p_label = (-self._seen.row_losses.double()).exp().tolist()
        hits = _hits(self._seen, len(batch))
        self._seen = None
        for name, row, p, hit in zip(batch.datasets, batch.rows, p_label, hits, strict=True):
            self.visits[name].add(row, p, hit)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is known; a training that ended within its first epoch has no map."""
        self._unhook()
        for name, visits in self.visits.items():
            file = self.folder / f"map-{name}.csv"
            if not visits.epochs:
                log.warning("no dataset map of %s: training ended before every frame was met once", name)
                continue
            visits.known().save(file)
            log.info("dataset map of %s over %d epochs: %s", name, visits.epochs, file)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._unhook()

    def state_dict(self) -> dict[str, Any]:
        """A resumed training goes on with its map."""
        return {name: visits.state() for name, visits in self.visits.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts."""
        self._restored = state_dict

    def _see(self, network: torch.nn.Module, _: Any, output: Any) -> None:
        if network.training and isinstance(output, Output):
            self._seen = output

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()


def _hits(output: Output, n_rows: int) -> Sequence[float]:
    accuracy = output.scores.get("token_accuracy")
    return [float("nan")] * n_rows if accuracy is None else accuracy.double().tolist()
