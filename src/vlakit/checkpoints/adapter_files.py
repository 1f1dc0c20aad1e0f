"""LoRA adapters as files: what peft writes, old and new, and what OpenVLA's own fine-tuning left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from operator import index
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vlakit.checkpoints.weights import load_pickled, write_tensors
from vlakit.errors import CheckpointMismatch, PatternUnmatched
from vlakit.models.adapters import LoraNumbers, inject_lora

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
POLICY_FILE = "policy.json"  # what peft's files do not say: what the network answers with, how it is asked
_PREFIX = "base_model.model."
# Keys of peft's LoraConfig (0.2 to 0.21) that mean nothing for A and B as they are stored, whatever they hold. Any
# other key, one of a later peft too, must hold what a plain adapter has: it may change A, B or the base.
_HARMLESS = {
    *("r", "lora_alpha", "target_modules"),  # what is read here
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"),
    *("eva_config", "layers_pattern", "lora_dropout", "megatron_core", "qalora_group_size", "runtime_config"),
}
_PLAIN = {"peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": (True, "gaussian", "eva", "orthogonal")}


def load_adapter(model: nn.Module, folder: Path) -> LoraNumbers:
    """Put a saved adapter on its base model and return its numbers. Raises CheckpointMismatch.

    peft < 0.15 also stored a full copy of lm_head beside its adapter: such base tensors must equal the base's own, else
    the adapter belongs to another model.
    """
    numbers, tensors = _numbers(folder), _tensors(folder)
    try:
        inject_lora(model, numbers)
    except PatternUnmatched as error:
        raise _of_another_base(folder, error.what) from error
    base = model.state_dict()
    adapters = {name for name in base if ".lora_" in name}
    loaded: dict[str, Tensor] = {}
    for stored, tensor in tensors.items():
        name = own_adapter_name(stored)
        if name not in base:
            name = name.removesuffix(".weight") + ".base_layer.weight"
        if name not in base or base[name].shape != tensor.shape:
            expected = tuple(base[name].shape) if name in base else "no such tensor"
            raise _of_another_base(folder, f"{stored} is {tuple(tensor.shape)}, the base has {expected}")
        if name in adapters:
            loaded[name] = tensor
        elif not same_tensor(base[name], tensor):
            raise _of_another_base(folder, f"the stored copy of {stored} differs from the base's")
    missing = sorted(adapters - loaded.keys())
    if missing:
        raise CheckpointMismatch(
            f"{len(missing)} adapter tensors are missing, e.g. {missing[0]}", where=str(folder), do="copy it again"
        )
    model.load_state_dict(loaded, strict=False)
    return numbers


def same_tensor(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether both are there and equal, but for a precision that was lost."""
    if one is None or other is None or one.shape != other.shape:
        return False
    return torch.allclose(one.float(), other.float(), atol=1e-3)


def _of_another_base(folder: Path, detail: str) -> CheckpointMismatch:
    return CheckpointMismatch(
        f"the adapter does not fit this base model: {detail}",
        where=str(folder),
        do="pass base=DIR, the folder of the model that it was trained on",
    )


def own_adapter_name(stored: str) -> str:
    """The name here of a tensor in an adapter file.

    >>> own_adapter_name("base_model.model.projector.fc1.lora_A.weight")
    'projector.fc1.lora_A.default.weight'
    """
    name = stored.removeprefix(_PREFIX)
    for part in (".lora_A.", ".lora_B."):
        if part in name and f"{part}default." not in name:
            name = name.replace(part, f"{part}default.")
    return name


def _numbers(folder: Path) -> LoraNumbers:
    file = folder / ADAPTER_CONFIG
    try:
        config: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        check_plain(config, file)
        targets = config["target_modules"]
        if isinstance(targets, str):
            raise CheckpointMismatch(
                f"target_modules is the pattern {targets!r}",
                where=str(file),
                do="save the adapter with a list of names",
            )
        return LoraNumbers(index(config["r"]), _alpha(config["lora_alpha"]), 0.0, tuple(sorted(targets)))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointMismatch(
            f"not an adapter's configuration: {error}", where=str(file), do="copy it again"
        ) from error


def _alpha(value: Any) -> float:
    """As the file has it: peft takes 16.5, too. Raises ValueError for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"lora_alpha is {value!r}")
    return value


def check_plain(config: Mapping[str, Any], file: Path) -> None:
    """Raise CheckpointMismatch for an adapter whose A and B are not all, or mean something else than usual."""
    others = ((key, value) for key, value in sorted(config.items()) if key not in _HARMLESS)
    variants = [f"{key}={value}" for key, value in others if value and value not in _PLAIN.get(key, ())]
    if variants:
        what = f"not a plain LoRA adapter: {', '.join(variants)}"
        raise CheckpointMismatch(what, where=str(file), do="merge it with the tool that made it")


def _tensors(folder: Path) -> dict[str, Tensor]:
    file = next((folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointMismatch(f"no {ADAPTER_WEIGHTS[0]}", where=str(folder), do="copy the adapter again")
    do = "use adapter_model.safetensors; a file with pickled code in it is refused on purpose"
    try:
        content = load_file(file) if file.suffix == ".safetensors" else load_pickled(file, "the adapter", do)
    except (SafetensorError, OSError) as error:
        raise CheckpointMismatch(f"the adapter cannot be read: {error}", where=str(file), do="copy it again") from error
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointMismatch("not a table of tensors", where=str(file), do="copy the adapter again")
    return content


def save_adapter(folder: Path, model: nn.Module, numbers: LoraNumbers, base: str | None) -> list[Path]:
    """Write the adapter alone, as peft and OpenVLA's users expect it: MBs, not GBs."""
    state = {
        _PREFIX + name.replace(".default.", "."): tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if ".lora_" in name
    }
    write_tensors(folder / ADAPTER_WEIGHTS[0], state)
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": numbers.rank,
        "lora_alpha": numbers.alpha,
        "lora_dropout": numbers.dropout,
        "target_modules": sorted(numbers.targets),
        "bias": "none",
        "init_lora_weights": "gaussian",
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return [folder / ADAPTER_WEIGHTS[0], folder / ADAPTER_CONFIG]
