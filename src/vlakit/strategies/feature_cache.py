"""Features of frozen vision towers on disk: float32, so exact; one file a dataset, filled as frames are first visited.

A row's flag is written after the row, so that neither a killed run nor a reader beside it meets half a row.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.files import disk_full_as_error, write_atomically
from vlakit.models.network import HasFeatures, capability, tensors_hash
from vlakit.schema import Batch

if TYPE_CHECKING:
    from vlakit.strategies.base import PolicyModule


class RowFile:
    """Float32 rows of one shape, memory-mapped; a row that was never written reads as None. Raises DiskFull."""

    def __init__(self, folder: Path, n_rows: int, shape: tuple[int, int], description: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.shape = folder / "rows.float32", shape
        self.row_bytes = 4 * shape[0] * shape[1]
        self._rows = _opened(self.path, n_rows * self.row_bytes)
        # A byte a row, not a bit: writers of neighbouring rows never touch each other's flag.
        self._flags = _opened(folder / "written.uint8", n_rows)
        self._mapped = np.memmap(self.path, np.float32, "r", shape=(n_rows, *shape))
        self._written = np.memmap(folder / "written.uint8", np.uint8, "r", shape=(n_rows,))
        write_atomically(folder / "description.json", json.dumps(description, indent=2) + "\n")

    def read(self, row: int) -> np.ndarray | None:
        """The row, or None where it was never written."""
        return self._mapped[row] if self._written[row] else None

    def write(self, row: int, values: np.ndarray) -> None:
        """Store a row, then say so; not through the map, where a full disk would be a signal instead of an error."""
        with disk_full_as_error(self.path):
            _write_all(self._rows, np.ascontiguousarray(values, np.float32).tobytes(), row * self.row_bytes)
            _write_all(self._flags, b"\x01", row)

    def close(self) -> None:
        """Close both files."""
        os.close(self._rows)
        os.close(self._flags)


def _opened(path: Path, size: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if os.fstat(descriptor).st_size < size:
        with disk_full_as_error(path):
            os.ftruncate(descriptor, size)  # a hole: disk is taken as rows are written
    return descriptor


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    written = 0
    while written < len(content):
        count = os.pwrite(descriptor, content[written:], offset + written)
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += count


class FeatureCache:
    """Features (B, N, D) of a frozen encoder by dataset and row, `copies` of each under augmentation.

    datasets: name -> (hash of its shards, frames). preparation: plain values, the towers' names and how pixels are
    made; they belong to the key, as do the towers' weights. Raises ConfigError when a tower trains.
    """

    def __init__(
        self,
        folder: str | Path,
        model: HasFeatures,
        datasets: Mapping[str, tuple[str, int]],
        preparation: Mapping[str, Any],
        copies: int = 1,
    ) -> None:
        check_frozen(model.encoder)
        if copies < 1:
            raise ConfigError(f"feature_copies is {copies}", where="strategy.feature_copies", do="set it to 1 or more")
        self.model, self.copies = model, copies
        shape = model.feature_shape
        weights = tensors_hash(model.encoder)
        self.files: dict[str, RowFile] = {}
        for name, (shards, n_frames) in datasets.items():
            description = {
                "dataset": name,
                "shards": shards,
                "weights": weights,
                "shape": list(shape),
                "copies": copies,
                "preparation": dict(preparation),
            }
            key = sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
            self.files[name] = RowFile(Path(folder) / f"{name}-{key}", n_frames * copies, shape, description)

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """(B, N, D) from disk; where a row is missing the encoder sees the whole batch, and what was missing is kept.

        The whole batch, because a product over fewer rows may round otherwise.
        """
        places = [
            (self.files[name], row * self.copies + self.copy_of(row, batch.position))
            for name, row in zip(batch.datasets, batch.rows, strict=True)
        ]
        stored = [file.read(place) for file, place in places]
        known = [row for row in stored if row is not None]
        if len(known) == len(stored):
            return torch.from_numpy(np.stack(known)).to(batch.normalized.device)
        features = self.model.features(batch)
        values = features.float().cpu().numpy()
        for (file, place), row, value in zip(places, stored, values, strict=True):
            if row is None:
                file.write(place, value)
        return features

    def copy_of(self, row: int, position: int) -> int:
        """Which copy a frame shows at a position of the stream; the same in a resumed run."""
        return int.from_bytes(sha256(f"{row},{position}".encode()).digest()[:4]) % self.copies

    def close(self) -> None:
        """Close all files."""
        for file in self.files.values():
            file.close()


def opened(folder: str, module: PolicyModule, copies: int) -> FeatureCache:
    """The cache of a run that fits, whose key names the data's shards, how pixels are made and in what precision.

    Raises ConfigError where every visit of a frame would show it augmented in the same way.
    """
    processor, trainer = module.processor, module.trainer
    augmented = processor.augmentation is not None
    if augmented and copies == 1:
        raise ConfigError(
            "augmentation with one stored copy of each frame would show the same picture every time",
            where="strategy.feature_copies",
            do="set feature_copies to 2 or more, or data.augment=false",
        )
    shards = trainer.datamodule.shards  # pyright: ignore[reportAttributeAccessIssue]  set by Trainer.fit
    preparation = {
        "network": module.model.description,
        "processor": processor.description,
        "augmentation_seed": processor.seed if augmented else None,
        "precision": str(trainer.precision),
    }
    return FeatureCache(
        folder,
        capability(module.model, HasFeatures, purpose="strategy.feature_cache"),
        {name: (read.content_hash, read.first_rows[-1]) for name, read in shards.items()},
        preparation,
        copies if augmented else 1,
    )


def check_no_questions(there: bool) -> None:
    """Raise ConfigError where a run with a cache has questions, too."""
    if there:
        raise ConfigError(
            "features are kept of frames of shards, and data.questions brings other pictures",
            where="strategy.feature_cache",
            do="set feature_cache=null, or data.questions={}",
        )


def check_frozen(towers: nn.Module) -> None:
    """Raise ConfigError when a parameter of the towers trains: its features would go stale with every step."""
    trains = [name for name, parameter in towers.named_parameters() if parameter.requires_grad]
    if trains:
        raise ConfigError(
            f"the strategy trains the vision towers ({len(trains)} tensors, e.g. {trains[0]}), whose features would go "
            "stale",
            where="strategy.feature_cache",
            do="set feature_cache=null, or take frozen_vision or last_layer",
        )
