"""Checkpoints appear whole or not at all: Lightning's own writer copies across devices and can leave half a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from vlakit.files import atomic_writer


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes, then renames; on a full disk the checkpoint before stays as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`; raises DiskFull, and then leaves nothing behind."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(target) as stream:
            torch.save(checkpoint, stream)
