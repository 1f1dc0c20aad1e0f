"""Tensors of released checkpoints into a model: safetensors, or the native .pt; strict about every key."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vlakit.errors import CheckpointMismatch, nearest

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_NATIVE = (  # native prefix -> Hugging Face prefix; the first that fits counts
    ("vision_backbone.dino_featurizer.", "vision_backbone.featurizer."),
    ("vision_backbone.siglip_featurizer.", "vision_backbone.fused_featurizer."),
    ("projector.projector.0.", "projector.fc1."),
    ("projector.projector.2.", "projector.fc2."),
    ("projector.projector.4.", "projector.fc3."),
    ("llm_backbone.llm.", "language_model."),
)


@dataclass
class KeyReport:
    """What became of every tensor of a file: loaded as named, loaded under another name, or not of this model."""

    used: int = 0
    renamed: dict[str, str] = field(default_factory=dict[str, str])
    unexpected: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        text = f"{self.used:,} tensors loaded, {len(self.renamed):,} of them under another name"
        if self.unexpected:
            text += f"; {len(self.unexpected):,} not of this model, left out: {', '.join(self.unexpected)}"
        return text


def load_weights(
    model: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    where: str,
    dtype: torch.dtype | None = None,
    added: Collection[str] = (),
    arrived: Callable[[str], object] | None = None,
) -> KeyReport:
    """Fill a model, made by build_empty or not, tensor by tensor, so that no second copy of it is ever held.

    `dtype` converts, but what is quantised; None keeps that of the file. added: tensors that the file need not have.
    arrived: told the name of each tensor that is in the model now. Raises CheckpointMismatch for a tensor that is
    missing, stored twice, of another shape, or quantised where the model is not; tensors that the model lacks are named
    in the report.
    """
    report = KeyReport()
    wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}
    seen: set[str] = set()
    for stored, tensor in tensors:
        name = own_name(stored)
        if name not in wanted:
            report.unexpected.append(stored)
            continue
        _check(stored, tensor, wanted[name], twice=name in seen, where=where)
        stays = dtype is None or not wanted[name][1].is_floating_point or name.endswith(".absmax")
        if arrived is not None:  # what stays as it is must not keep the whole mapped file in memory
            tensor = tensor.clone()  # noqa: PLW2901
        _assign(model, name, tensor if stays else tensor.to(dtype))
        if arrived is not None:
            arrived(name)
        seen.add(name)
        report.used += 1
        if name != stored:
            report.renamed[stored] = name
    missing = sorted(wanted.keys() - seen - set(added))
    if missing:
        near = f"{nearest(missing[0], report.unexpected)} Or " if report.unexpected else ""
        raise CheckpointMismatch(
            f"{len(missing)} tensors are missing, e.g. {missing[0]}",
            where=where,
            do=f"{near}copy the checkpoint again, or use its own config.json",
        )
    return report


def _check(
    stored: str, tensor: Tensor, wanted: tuple[tuple[int, ...], torch.dtype], *, twice: bool, where: str
) -> None:
    shape, dtype = wanted
    if twice:
        raise CheckpointMismatch(
            f"{stored} is stored twice", where=where, do="remove the shard that does not belong to this model"
        )
    if tuple(tensor.shape) != shape:
        raise CheckpointMismatch(
            f"{stored} is {tuple(tensor.shape)}, the model needs {shape}",
            where=where,
            do="take the config.json that belongs to these weights",
        )
    if not same_kind(tensor.dtype, dtype):
        raise CheckpointMismatch(
            f"{stored} holds {tensor.dtype}, not {'floating point numbers' if dtype.is_floating_point else dtype}",
            where=where,
            do="use the checkpoint before it was quantised",
        )


def same_kind(stored: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether a tensor of one type may stand for the other: any float for a float, whole numbers for their like alone.

    >>> same_kind(torch.bfloat16, torch.float32), same_kind(torch.int8, torch.float32)
    (True, False)
    """
    return stored == wanted or (stored.is_floating_point and wanted.is_floating_point)


def own_name(name: str) -> str:
    """The name here of a tensor in a file; only LayerScale differs, since transformers rewrites names with `gamma`.

    >>> own_name("vision_backbone.featurizer.blocks.0.ls1.scale_factor")
    'vision_backbone.featurizer.blocks.0.ls1.gamma'
    """
    return name.removesuffix("scale_factor") + "gamma" if name.endswith(".scale_factor") else name


def released_name(name: str) -> str:
    """The opposite of own_name."""
    return name.removesuffix("gamma") + "scale_factor" if name.endswith((".ls1.gamma", ".ls2.gamma")) else name


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    module = model.get_submodule(owner)
    if attribute in module._parameters:
        old = module._parameters[attribute]
        trains = old.requires_grad if old is not None else True
        module._parameters[attribute] = nn.Parameter(tensor, requires_grad=trains and tensor.is_floating_point())
    else:
        module._buffers[attribute] = tensor


def safetensors_of(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of model.safetensors, or of the shards that its index names, one in memory at a time."""
    for file in _files(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118  not a dict
                    yield name, opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointMismatch(
                f"the weights cannot be read: {error}", where=str(file), do="copy this file again; it is cut or damaged"
            ) from error


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.is_file():
        if (folder / SINGLE).is_file():
            return [folder / SINGLE]
        raise CheckpointMismatch(
            f"neither {SINGLE} nor {INDEX}", where=str(folder), do="pass a folder with the model's safetensors"
        )
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointMismatch(f"not a weight index: {error}", where=str(index), do="copy it again") from error
    absent = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if absent:
        raise CheckpointMismatch(
            f"{len(absent)} of {len(names)} shards are missing: {', '.join(absent[:3])}",
            where=str(folder),
            do="finish the download or the copy",
        )
    return [folder / name for name in names]


def native_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a native Prismatic .pt under its Hugging Face name; pickled code is refused."""
    do = "use a checkpoint of tensors only; one with pickled code in it is refused on purpose"
    content = load_pickled(file, "the checkpoint", do, mmap=True)
    groups = content.get("model") if isinstance(content, dict) else None
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise CheckpointMismatch(
            "not a native Prismatic checkpoint: no 'model' table of tensors",
            where=str(file),
            do="see openvla's run folders",
        )
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            yield hf_name(f"{group}.{name}"), tensor


def load_pickled(file: Path, what: str, do: str, *, mmap: bool = False) -> Any:
    """What torch saved, in memory or mapped; never code. Raises CheckpointMismatch: `what` cannot be read, `do`."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a cut or foreign file makes torch's reader fail in a dozen ways, IndexError among them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise CheckpointMismatch(f"{what} cannot be read: {reason}", where=str(file), do=do) from error


def hf_name(native: str) -> str:
    """The Hugging Face name of a native tensor.

    >>> hf_name("llm_backbone.llm.lm_head.weight"), hf_name("projector.projector.4.bias")
    ('language_model.lm_head.weight', 'projector.fc3.bias')
    """
    for old, new in _NATIVE:
        if native.startswith(old):
            return new + native.removeprefix(old)
    return native


def save_weights(
    folder: Path,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    shard_bytes: int,
    rename: Callable[[str], str] = released_name,
) -> list[Path]:
    """Write safetensors shards of at most `shard_bytes`, unless one tensor is larger, and their index.

    One shard is held at a time, so `tensors` may be made as they are asked for. Raises OSError.
    """
    contents: list[dict[str, int]] = []
    for shard in _shards(((rename(name), tensor) for name, tensor in tensors), shard_bytes):
        write_tensors(folder / f"part-{len(contents)}.safetensors", shard)
        contents.append({name: tensor.nbytes for name, tensor in shard.items()})
    if len(contents) == 1:
        return [(folder / "part-0.safetensors").rename(folder / SINGLE)]
    names = [f"model-{i + 1:05d}-of-{len(contents):05d}.safetensors" for i in range(len(contents))]
    weight_map: dict[str, str] = {}
    for i, (name, sizes) in enumerate(zip(names, contents, strict=True)):
        (folder / f"part-{i}.safetensors").rename(folder / name)
        weight_map.update(dict.fromkeys(sizes, name))
    total = sum(sum(sizes.values()) for sizes in contents)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [folder / name for name in names]


def _shards(tensors: Iterable[tuple[str, Tensor]], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    yield shard


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file; a full disk is an OSError as for any file, where safetensors puts it into words."""
    try:
        save_file(dict(tensors), file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error
