"""Checkpoints that other frameworks write and nothing here reads: refused with the way out."""

from __future__ import annotations

from pathlib import Path

from vlakit.errors import CheckpointMismatch


def refuse_tensorflow(place: Path) -> None:
    """Raise CheckpointMismatch for a TensorFlow checkpoint or SavedModel, as RT-1's authors released theirs."""
    named = place.suffix in {".pb", ".index", ".h5"} or ".data-" in place.name or Path(f"{place}.index").is_file()
    if named or any(file for name in ("saved_model.pb", "*.index") for file in place.glob(name)):
        raise CheckpointMismatch(
            "a checkpoint of TensorFlow, which is not read here",
            where=str(place),
            do="serve it from an environment of its own and evaluate that (policy=remote), or train the network here:"
            " train.py experiment=rt1_x",
        )
