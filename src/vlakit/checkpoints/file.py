"""A vlakit checkpoint on disk: which file a path means, its content, and its tensors into a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import ZipFile

from torch import Tensor, nn

from vlakit.checkpoints.card import CARD
from vlakit.checkpoints.shipped import resolve
from vlakit.checkpoints.weights import load_pickled, same_kind
from vlakit.errors import CheckpointMismatch, nearest

START = (
    "start"  # in the card: {name, sha256} of those weights, random ones included: what tells the arms of a table apart
)
WEIGHTS = "weights_sha256"  # in the card: content_hash of what training started from, None: random weights


def checkpoint_file(path: str | Path) -> Path:
    """The .ckpt file that `path` means: itself, a run's last.ckpt, or a shipped one. Raises CheckpointMismatch."""
    file = resolve(path)
    for last in (file / "last.ckpt", file / "checkpoints" / "last.ckpt"):
        if last.is_file():
            return last
    if not file.is_file():
        folder = file if file.is_dir() else file.parent
        beside = [str(f) for f in sorted(folder.glob("*.ckpt"))]
        remedy = nearest(str(file), beside) if beside else f"pass a .ckpt file or a run's folder; {folder} holds none"
        raise CheckpointMismatch("no checkpoint here", where=str(file), do=remedy)
    return file


def weights_file(path: str | Path) -> Path | None:
    """What holds the weights that `path` means: a .ckpt file, or a folder in another kit's layout; None: nothing."""
    try:
        return checkpoint_file(path).resolve()
    except CheckpointMismatch:
        place = resolve(path)
        return place.resolve() if any(place.glob("*.safetensors")) else None


def read_checkpoint(path: str | Path, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a .ckpt file, or of the last.ckpt of a run's folder; raises CheckpointMismatch.

    mmap: tensors are read when they are used.
    """
    file = checkpoint_file(path)
    do = "use the checkpoint before it; a file with pickled code in it is refused on purpose"
    content = load_pickled(file, "the checkpoint", do, mmap=mmap)
    if not isinstance(content, dict) or CARD not in content or "state_dict" not in content:
        raise CheckpointMismatch(
            "the file is not a vlakit checkpoint", where=str(file), do="pass a .ckpt written by vlakit train"
        )
    return content


def check_whole(file: Path) -> None:
    """Read every byte of a .ckpt file and hold it against its checksums, which torch does not ask for.

    Raises CheckpointMismatch.
    """
    do = "use the checkpoint before it"
    try:
        with ZipFile(file) as parts:
            broken = parts.testzip()
    except Exception as error:  # BadZipFile, and whatever else flipped bytes make of lengths and flags
        raise CheckpointMismatch("the file is torn or no checkpoint", where=str(file), do=do) from error
    if broken is not None:
        raise CheckpointMismatch(f"the file is damaged: {broken}", where=str(file), do=do)


def network_state(content: dict[str, Any]) -> dict[str, Tensor]:
    """The network's own tensors, without the LightningModule's prefix."""
    return {name.removeprefix("model."): t for name, t in content["state_dict"].items() if name.startswith("model.")}


def load_strictly(network: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Load a state dict that must fit exactly; CheckpointMismatch names the first tensors that do not."""
    present = network.state_dict()
    missing, unexpected = sorted(present.keys() - state.keys()), sorted(state.keys() - present.keys())
    shared = sorted(present.keys() & state.keys())
    reshaped = [name for name in shared if present[name].shape != state[name].shape]
    retyped = [name for name in shared if not same_kind(state[name].dtype, present[name].dtype)]
    if missing or unexpected or reshaped or retyped:
        parts = {
            "missing": missing,
            "unexpected": unexpected,
            "of another shape": reshaped,
            "quantised on one side only": retyped,
        }
        counts = "; ".join(f"{len(names)} {word}, e.g. {names[0]}" for word, names in parts.items() if names)
        raise CheckpointMismatch(
            f"the checkpoint holds another model: {counts}",
            where=where,
            do="pass the model it was trained with: model=NAME",
        )
    network.load_state_dict(state, assign=True)
