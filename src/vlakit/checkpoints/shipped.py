"""Checkpoints that come with vlakit, by name: `tiny` wherever a checkpoint is expected (a folder of that name: ./tiny).

The weights count only while they are those of the committed checksum.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from vlakit.errors import CheckpointMismatch, PartMissing
from vlakit.files import ASSETS

SHIPPED = {  # name -> file in assets; beside it FILE.sha256, as sha256sum writes it
    "tiny": "tiny.ckpt",  # has acted on five robots
    "tiny_grounded": "tiny_grounded.ckpt",  # the same before any robot data: it sees, and says what lies where
}


def is_shipped(path: str | Path) -> bool:
    """Whether `path` is the name of a checkpoint that comes with vlakit."""
    return str(path) in SHIPPED


def resolve(path: str | Path, assets: Path | None = None) -> Path:
    """The local path that `path` means; raises PartMissing or CheckpointMismatch for an unsound shipped one."""
    if not is_shipped(path):
        return Path(path).expanduser()
    file = (assets or ASSETS) / SHIPPED[str(path)]
    checksum = file.with_name(file.name + ".sha256")
    if not file.is_file() or not checksum.is_file():
        raise PartMissing(
            f"the shipped model {str(path)!r} has not been trained yet",
            where=str(file),
            do="train it as experiments/tiny_pretraining/README.md says, or pass the path of another checkpoint",
        )
    expected, digest = checksum.read_text(encoding="utf-8").split()[0], _digest(file, file.stat().st_mtime_ns)
    if digest != expected:
        raise CheckpointMismatch(
            f"the shipped model {str(path)!r} is not the one of its checksum: {digest[:12]}, not {expected[:12]}",
            where=str(file),
            do="install vlakit again",
        )
    return file


@lru_cache
def _digest(file: Path, modified: int) -> str:
    return sha256(file.read_bytes()).hexdigest()
