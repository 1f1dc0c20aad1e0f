"""The policy that a verb's keys describe: ckpt, device, constrain, strict, base, trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlakit.policy import TrainedPolicy


def load_policy(cfg: Mapping[str, Any]) -> TrainedPolicy:
    """The policy of a checkpoint. Raises CheckpointMismatch, ContractBroken, and what reading its files raises."""
    from vlakit.checkpoints.formats import LoadOptions
    from vlakit.policy import TrainedPolicy

    return TrainedPolicy.from_checkpoint(
        cfg["ckpt"],
        device=cfg["device"],
        constrain=cfg["constrain"],
        strict=cfg["strict"],
        options=LoadOptions(base=cfg["base"], trusted=tuple(cfg["trusted"])),
    )


def home_of(ckpt: str | Path) -> Path | None:
    """The run's folder of a checkpoint; None where it is named without a path, as the shipped ones are."""
    path = Path(ckpt).expanduser()
    return path if path.is_dir() else path.parent if path.is_file() else None
