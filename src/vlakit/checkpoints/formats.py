"""A model from whatever a path holds: one reader a format, tried in turn. A new format is one decorated function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlakit.checkpoints.adapter_files import ADAPTER_CONFIG, load_adapter
from vlakit.checkpoints.card import BASE, CARD, load_model, load_strictly, read_checkpoint
from vlakit.checkpoints.hf_config import STATISTICS_FILE, HfDescription, read_description, read_table
from vlakit.checkpoints.shipped import is_shipped, resolve
from vlakit.checkpoints.weights import load_weights, native_tensors, safetensors_of
from vlakit.errors import CheckpointMismatch, VlakitError
from vlakit.models.adapters import merged_state_dict
from vlakit.models.openvla.vla import ModelNames, OpenVLA, build_empty, build_vla
from vlakit.processing.processor import ProcessorNames

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model with all that a checkpoint says about it; statistics are plain JSON in OpenVLA's layout."""

    model: OpenVLA
    names: ModelNames
    processor: ProcessorNames
    statistics: dict[str, Any]
    card: dict[str, Any] = field(default_factory=dict[str, Any])
    adapter: dict[str, Any] | None = None


@dataclass(frozen=True)
class LoadOptions:
    """dtype: None keeps that of the file. base: the model under an adapter; None: where the adapter says it is.

    trusted: names of code outside vlakit (`package.module:function`) that a checkpoint may choose.
    """

    dtype: torch.dtype | None = None
    base: str | None = None
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint: `matches` looks at the path only, `read` loads."""

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, LoadOptions], Loaded]


FORMATS: list[Format] = []


def reader(name: str, matches: Callable[[Path], bool]) -> Callable[[Callable[[Path, LoadOptions], Loaded]], Any]:
    """Decorator that files a reader; the first whose `matches` is true is used."""

    def add(read: Callable[[Path, LoadOptions], Loaded]) -> Callable[[Path, LoadOptions], Loaded]:
        FORMATS.append(Format(name, matches, read))
        return read

    return add


def load(path: str | Path, options: LoadOptions | None = None) -> Loaded:
    """Load any known format, or `tiny`, which vlakit brings; a path that is none raises CheckpointMismatch."""
    found = resolve(path)
    for known in FORMATS:
        if known.matches(found):
            return known.read(found, options or LoadOptions())
    raise CheckpointMismatch(
        "no checkpoint here",
        where=str(found),
        do=f"pass one of: {', '.join(known.name for known in FORMATS)}. Nothing is downloaded: the path must be local",
    )


@reader("a native Prismatic .pt", lambda path: path.suffix == ".pt")
def _native(path: Path, options: LoadOptions) -> Loaded:
    """Towers follow from the tensors' names; the language model is Llama-2's own 1e-5, not the converter's 1e-6."""
    tensors = list(native_tensors(path))  # mapped from the file, not read yet
    config = path.parent / "config.json"
    if config.is_file() and "timm_model_ids" in read_table(config):
        told = read_description(path.parent)
    else:
        told = native_description(any(name.startswith("vision_backbone.fused_featurizer.") for name, _ in tensors))
    model = _filled(told.model, tensors, path, options)
    return Loaded(model, told.model, told.processor, _statistics_near(path) or told.statistics or {})


def native_description(fused: bool) -> HfDescription:
    """What a native file of 7B parameters is: the released model's two towers, or SigLIP alone."""
    llama = {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096}
    if fused:
        names = ModelNames("dinosiglip_so400m", "llama2_7b", llm_options=llama)
        return HfDescription(names, ProcessorNames(224, ("imagenet", "half"), "llama2"), None)
    names = ModelNames("siglip_so400m", "llama2_7b", llm_options=llama)
    return HfDescription(names, ProcessorNames(224, ("half",), "llama2", resize="letterbox"), None)


def _filled(names: ModelNames, tensors: Iterable[tuple[str, Tensor]], path: Path, options: LoadOptions) -> OpenVLA:
    """The model of these names with these weights; says what became of every tensor."""
    try:
        model = build_empty(names)
    except Exception as error:  # timm and transformers refuse numbers in a dozen ways
        reason = (error.what if isinstance(error, VlakitError) else str(error).strip()) or type(error).__name__
        raise CheckpointMismatch(
            f"config.json describes no model that can be built: {reason.splitlines()[0][:300]}",
            where=str(path),
            do="take the config.json that came with these weights",
        ) from error
    report = load_weights(model, tensors, where=str(path), dtype=options.dtype)
    log.log(logging.WARNING if report.unexpected else logging.INFO, "%s: %s", path, report)
    return model


@reader("a folder with an adapter (adapter_config.json)", lambda path: (path / ADAPTER_CONFIG).is_file())
def _adapter(path: Path, options: LoadOptions) -> Loaded:
    """The base model with the adapter on it, unmerged."""
    config = read_table(path / ADAPTER_CONFIG)
    base = base_path(config.get("base_model_name_or_path"), options, path)
    under = load(base, replace(options, base=None))
    model = plain_model(under, where=base)
    numbers = load_adapter(model, path)
    statistics = {**under.statistics, **_statistics_near(path)}
    card = _contract_card(path)  # the base's own contract does not hold for the adapted model
    return Loaded(model, under.names, under.processor, statistics, card, numbers.to_dict())


@reader("a folder in the Hugging Face layout (config.json)", lambda path: (path / "config.json").is_file())
def _hugging_face(path: Path, options: LoadOptions) -> Loaded:
    description = read_description(path)
    model = _filled(description.model, safetensors_of(path), path, options)
    return Loaded(model, description.model, description.processor, description.statistics or {}, _contract_card(path))


@reader("a vlakit .ckpt or a run's folder", lambda path: path.suffix == ".ckpt" or path.is_dir())
def _lightning(path: Path, options: LoadOptions) -> Loaded:
    content = read_checkpoint(path)
    card = content[CARD]
    base = None
    if BASE in card:
        under = base_path(card[BASE], options, path)
        base = plain_model(load(under, replace(options, base=None)), where=under)
    model = load_model(content, where=str(path), base=base, trusted=options.trusted)
    if options.dtype is not None:
        model.to(options.dtype)
    names, processor = ModelNames.from_dict(card["model"]), ProcessorNames.from_dict(card["processor"])
    return Loaded(model, names, processor, card["statistics"], card, card["adapter"])


def base_path(named: str | None, options: LoadOptions, where: Path) -> str:
    """Where the model under an adapter is: `options.base` if given, else the path that the adapter names."""
    path = options.base or named
    if path and is_shipped(path):
        return path
    found = Path(path).expanduser() if path else None
    if path is None or found is None or not found.exists() or found.resolve() == where.resolve():
        raise CheckpointMismatch(
            f"the adapter's base model {path!r} is not a local path",
            where=str(where),
            do="pass base=DIR, the folder of the model that it was trained on",
        )
    return path


def plain_model(loaded: Loaded, *, where: str) -> OpenVLA:
    """The model without adapter layers: as loaded, or rebuilt with its adapters merged into the weights."""
    if loaded.adapter is None:
        return loaded.model
    plain = build_empty(loaded.names)
    load_strictly(plain, merged_state_dict(loaded.model), where=where)
    return plain


def start_from(path: str | Path, names: ModelNames) -> tuple[OpenVLA, ModelNames]:
    """The model at `path` as a start for training, if its tensors are those of a model called `names`.

    Returned with its own names, whose numbers (such as rms_norm_eps) are part of the weights' meaning.
    """
    loaded = load(path, LoadOptions(trusted=(names.vision, names.llm)))  # the run names them itself
    model = plain_model(loaded, where=str(path))
    wanted = {name: tensor.shape for name, tensor in build_vla(names, "meta").state_dict().items()}
    found = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if wanted != found:
        other = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise CheckpointMismatch(
            f"the checkpoint is of {_short(loaded.names)}, this run builds {_short(names)};"
            f" {len(other)} tensors differ, e.g. {other[0]}",
            where=str(path),
            do="choose the checkpoint's model with model=NAME, or another checkpoint in model.weights",
        )
    return model, loaded.names


def _short(names: ModelNames) -> str:
    return f"{names.vision} + {names.llm}"


def _contract_card(folder: Path) -> dict[str, Any]:
    """What contract.json adds to the card of a folder; empty when there is none."""
    file = folder / "contract.json"
    return {"contract": read_table(file)} if file.is_file() else {}


def _statistics_near(path: Path) -> dict[str, Any]:
    """dataset_statistics.json of this folder, or of the run's folder above it; empty when there is none."""
    for folder in (path if path.is_dir() else path.parent, path.parent.parent):
        if (folder / STATISTICS_FILE).is_file():
            return read_table(folder / STATISTICS_FILE)
    return {}
