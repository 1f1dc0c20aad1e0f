"""Weights from a vlakit checkpoint. It stores names and numbers only, so loading one runs no code that it chose."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlakit.checkpoints.shipped import resolve
from vlakit.errors import CheckpointMismatch, nearest
from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.models.openvla.vla import ModelNames, OpenVLA, build_empty

CARD = "vlakit"  # the key under which a checkpoint file says what it is
BASE = "base"  # in the card: the path of the model under an adapter-only checkpoint
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


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a .ckpt file, or of the last.ckpt of a run's folder; raises CheckpointMismatch."""
    file = checkpoint_file(path)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut or foreign file makes torch's reader fail in a dozen ways, IndexError among them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise CheckpointMismatch(
            f"the checkpoint cannot be read: {reason}",
            where=str(file),
            do="use the checkpoint before it; a file with pickled code in it is refused on purpose",
        ) from error
    if not isinstance(content, dict) or CARD not in content or "state_dict" not in content:
        raise CheckpointMismatch(
            "the file is not a vlakit checkpoint", where=str(file), do="pass a .ckpt written by vlakit train"
        )
    return content


def refuse_code(
    model: Mapping[str, Any], processor: Mapping[str, Any], *, where: str, trusted: Collection[str] = ()
) -> None:
    """Raise CheckpointMismatch where a file names `package.module:function`: it would choose what code runs.

    `trusted` lists such names that the user vouches for.
    """
    named = [model.get("vision"), model.get("llm"), *(processor.get(key) for key in ("tokenizer", "prompt", "resize"))]
    foreign = sorted({str(name) for name in named if ":" in str(name)} - set(trusted))
    if foreign:
        raise CheckpointMismatch(
            f"the checkpoint names code outside vlakit: {', '.join(foreign)}",
            where=where,
            do=f"if it is yours, say so: trusted=[{','.join(foreign)}]; else do not use this file",
        )


def model_state(content: dict[str, Any]) -> dict[str, Tensor]:
    """The network's own tensors, without the LightningModule's prefix."""
    return {name.removeprefix("model."): t for name, t in content["state_dict"].items() if name.startswith("model.")}


def load_strictly(model: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Load a state dict that must fit exactly; CheckpointMismatch names the first tensors that do not."""
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    reshaped = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if missing or unexpected or reshaped:
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": sorted(reshaped)}
        said = "; ".join(f"{len(names)} {word}, e.g. {names[0]}" for word, names in parts.items() if names)
        raise CheckpointMismatch(
            f"the checkpoint holds another model: {said}",
            where=where,
            do="pass the model it was trained with: model=NAME",
        )
    model.load_state_dict(state, assign=True)


def load_model(
    content: dict[str, Any], *, where: str, base: OpenVLA | None = None, trusted: Collection[str] = ()
) -> OpenVLA:
    """Rebuild the checkpoint's model, adapters included; `base` is the model under an adapter-only checkpoint."""
    card = content[CARD]
    lacking = sorted({"model", "processor", "adapter", "statistics"} - set(card))
    if lacking:
        raise CheckpointMismatch(
            f"the checkpoint does not say its {', '.join(lacking)}", where=where, do="pass one written by vlakit train"
        )
    refuse_code(card["model"], card["processor"], where=where, trusted=trusted)
    model = base or build_empty(ModelNames.from_dict(card["model"]))
    if card["adapter"] is not None:
        inject_lora(model, LoraNumbers.from_dict(card["adapter"]))
    state = model_state(content)
    if base is not None:
        state = {**{name: t for name, t in model.state_dict().items() if ".lora_" not in name}, **state}
    load_strictly(model, state, where=where)
    return model
