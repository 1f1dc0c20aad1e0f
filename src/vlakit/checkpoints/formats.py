"""A policy from whatever a path holds: one reader a format, tried in turn. A new format is one decorated function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vlakit.checkpoints import diffusion_policy, octo, oft
from vlakit.checkpoints.adapter_files import ADAPTER_CONFIG, POLICY_FILE, check_plain, load_adapter
from vlakit.checkpoints.card import CARD, Card
from vlakit.checkpoints.contract import CONTRACT_FILE
from vlakit.checkpoints.file import checkpoint_file, load_strictly, network_state, read_checkpoint
from vlakit.checkpoints.foreign import refuse_tensorflow
from vlakit.checkpoints.hf_config import STATISTICS_FILE, HfDescription, read_description, read_table
from vlakit.checkpoints.loaded import Loaded, LoadOptions, grown, plain_network, quantized, refuse_quantized
from vlakit.checkpoints.shipped import is_shipped, resolve
from vlakit.checkpoints.weights import load_weights, native_tensors, safetensors_of
from vlakit.data.shards.statistics import statistics_from_json
from vlakit.errors import CheckpointMismatch, PatternUnmatched, VlakitError
from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.models.network import Network, build_empty
from vlakit.models.openvla.vla import VLASettings
from vlakit.models.quantize import Arriving, quantizable, restore
from vlakit.models.quantized_layers import NONE
from vlakit.processing.processor import Processor, build_processor
from vlakit.processing.settings import TokenSettings

log = logging.getLogger(__name__)
QUANTIZED = "quantization.json"  # in a folder of quantised weights: what a card says of them


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
    place, options = resolve(path), options or LoadOptions()
    loaded = format_of(place).read(place, options)
    return loaded if options.quantize == NONE or loaded.card.quantized else quantized(loaded, options)


def format_of(place: Path) -> Format:
    """What reads the checkpoint there, by its path alone; raises CheckpointMismatch for what nothing here reads."""
    for refuse in (_refuse_oft_part, octo.refuse_flax, diffusion_policy.refuse_pickle, refuse_tensorflow):
        refuse(place)
    for known in FORMATS:
        if known.matches(place):
            return known
    raise CheckpointMismatch(
        "no checkpoint here",
        where=str(place),
        do=f"pass one of: {', '.join(known.name for known in FORMATS)}. Nothing is downloaded: the path must be local",
    )


def _refuse_oft_part(place: Path) -> None:
    """Raise CheckpointMismatch for a file, or the `lora_adapter`, of an OpenVLA-OFT folder: it is nothing by itself."""
    inside = place.suffix == ".pt" or place.name == oft.ADAPTER
    parts = [file.name for file in oft.parts_of(place.parent).values()] if inside else []
    if parts:
        raise CheckpointMismatch(
            f"a part of an OpenVLA-OFT checkpoint: {', '.join(sorted(parts))}",
            where=str(place),
            do=f"pass its folder, {place.parent}: read alone, these weights would answer something else",
        )


@reader("a native Prismatic .pt", lambda path: path.suffix == ".pt")
def _native(path: Path, options: LoadOptions) -> Loaded:
    """Towers follow from the tensors' names; the language model is Llama-2's own 1e-5, not the converter's 1e-6."""
    tensors = list(native_tensors(path))  # mapped from the file, not read yet
    config = path.parent / "config.json"
    if config.is_file() and "timm_model_ids" in read_table(config):
        description = read_description(path.parent)
    else:
        fused = any(name.startswith("vision_backbone.fused_featurizer.") for name, _ in tensors)
        description = native_description(fused)
    statistics = _statistics_near(path) or description.statistics or {}
    return _filled(_card(description, statistics), tensors, path, options)


def native_description(fused: bool) -> HfDescription:
    """What a native file of 7B parameters is: the released model's two towers, or SigLIP alone."""
    llama = {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096}
    if fused:
        model = VLASettings("dinosiglip_so400m", "llama2_7b", llm_options=llama)
        towers, resize = ("imagenet", "half"), "resize-naive"
    else:
        model = VLASettings("siglip_so400m", "llama2_7b", llm_options=llama)
        towers, resize = ("half",), "letterbox"
    processor = TokenSettings(image_size=224, channel_statistics=towers, tokenizer="llama2", resize=resize)
    return HfDescription(model, processor, None)


def _card(description: HfDescription, statistics: dict[str, Any], contract: dict[str, Any] | None = None) -> Card:
    processor = {"kind": "tokens", **description.processor.to_dict()}
    return Card(description.model.description, processor, statistics, contract=contract)


def _filled(card: Card, tensors: Iterable[tuple[str, Tensor]], path: Path, options: LoadOptions) -> Loaded:
    """The network of a card with these weights; says what became of every tensor."""
    card.check_trust(options.trusted, where=str(path))
    if options.quantize != NONE:
        refuse_quantized(card, where=str(path))
    statistics = statistics_from_json(card.statistics, where=str(path))
    try:
        network, processor = card.build(statistics)
    except Exception as error:  # timm and transformers refuse numbers in a dozen ways
        reason = (error.what if isinstance(error, VlakitError) else str(error).strip()) or type(error).__name__
        raise CheckpointMismatch(
            f"config.json describes no model that can be built: {reason.splitlines()[0][:300]}",
            where=str(path),
            do="take the config.json that came with these weights",
        ) from error
    arriving = None
    if card.quantized is not None:
        restore(network, card.quantized, where=str(path))
    elif options.quantize != NONE:
        arriving = Arriving(network, options.quantize, quantizable(network, options.quantize_also))
        card = replace(card, quantized=arriving.said)
    report = load_weights(network, tensors, where=str(path), dtype=options.dtype, arrived=arriving)
    log.log(logging.WARNING if report.unexpected else logging.INFO, "%s: %s", path, report)
    return Loaded(network, processor, card)


@reader("a folder with an adapter (adapter_config.json)", lambda path: (path / ADAPTER_CONFIG).is_file())
def _adapter(path: Path, options: LoadOptions) -> Loaded:
    """The base network with the adapter on it, unmerged."""
    config = read_table(path / ADAPTER_CONFIG)
    check_plain(config, path / ADAPTER_CONFIG)  # before gigabytes of the base are read
    base = base_path(config.get("base_model_name_or_path"), options, path)
    under = load(base, options.under)
    own: dict[str, Any] = read_table(path / POLICY_FILE) if (path / POLICY_FILE).is_file() else {}
    described = own.get("processor", under.card.processor)
    if "tokenizer_path" in under.card.processor:
        described = {**described, "tokenizer_path": under.card.processor["tokenizer_path"]}
    statistics = _statistics_near(path) or under.card.statistics
    processor = build_processor(described, statistics_from_json(statistics, where=str(path)))
    network = plain_network(under, where=base)
    network = grown(network, under.processor, own.get("network", network.description), processor, where=base)
    numbers = load_adapter(network, path)
    # The base's own contract does not hold for the adapted network.
    card = Card(network.description, described, statistics, adapter=numbers.to_dict(), contract=_contract_in(path))
    return Loaded(network, processor, card)


@reader("a folder in the Hugging Face layout (config.json)", lambda path: (path / "config.json").is_file())
def _hugging_face(path: Path, options: LoadOptions) -> Loaded:
    description = read_description(path)
    parts = oft.parts_of(path)
    if parts or any((path / mark).is_file() for mark in oft.MARKS):
        description = oft.described(path, parts, description)
    card = _card(description, description.statistics or {}, _contract_in(path))
    if (path / QUANTIZED).is_file():
        card = replace(card, quantized=read_table(path / QUANTIZED))
    tensors = _under_oft(path, options) if oft.is_unmerged(path) else safetensors_of(path)
    return _filled(card, oft.tensors_of(path, parts, tensors) if parts else tensors, path, options)


def _under_oft(path: Path, options: LoadOptions) -> Iterable[tuple[str, Tensor]]:
    """The language model of an OpenVLA-OFT folder whose adapter was not merged: the adapter's base with it."""
    adapted = _adapter(path / oft.ADAPTER, replace(options, quantize=NONE))
    return plain_network(adapted, where=str(path)).state_dict().items()


@reader("a converted Diffusion Policy folder", lambda path: (path / diffusion_policy.SETTINGS).is_file())
def _diffusion_policy(path: Path, options: LoadOptions) -> Loaded:
    config = read_table(path / diffusion_policy.SETTINGS)
    card = diffusion_policy.card_of(config, safetensors_of(path), where=str(path))
    return _filled(card, diffusion_policy.tensors_of(safetensors_of(path)), path, options)


@reader("a vlakit .ckpt or a run's folder", lambda path: path.suffix == ".ckpt" or path.is_dir())
def _lightning(path: Path, options: LoadOptions) -> Loaded:
    """The card's network with the file's tensors, or its adapters on the base that the card names."""
    content, where = read_checkpoint(path), str(path)
    card = Card.from_dict(content[CARD], where=where)
    card.check_trust(options.trusted, where=where)
    if options.quantize != NONE:
        refuse_quantized(card, where=where)
    statistics = statistics_from_json(card.statistics, where=where) if card.statistics else {}
    state = network_state(content)
    if card.base is None:
        network, processor = card.build(statistics)
    else:
        under = base_path(card.base, options, path)
        base, processor = load(under, options.under), build_processor(card.processor, statistics)
        network = grown(plain_network(base, where=under), base.processor, card.network, processor, where=under)
    if card.quantized is not None:
        restore(network, card.quantized, where=where)
    if card.adapter is not None:
        try:
            inject_lora(network, LoraNumbers.from_dict(card.adapter))
        except PatternUnmatched as error:
            raise CheckpointMismatch(error.what, where=f"{where}, its adapters", do=error.do) from error
    if card.base is not None:
        state = {**{name: t for name, t in network.state_dict().items() if ".lora_" not in name}, **state}
    load_strictly(network, state, where=where)
    if options.dtype is not None:
        network.to(options.dtype)
    return Loaded(network, processor, card)


def base_path(named: str | None, options: LoadOptions, where: Path) -> str:
    """Where the model under an adapter is: `options.base` if given, else the path that the adapter names."""
    path = options.base or named
    if path and is_shipped(path):
        return path
    folder = Path(path).expanduser() if path else None
    if path is None or folder is None or not folder.exists() or folder.resolve() == where.resolve():
        raise CheckpointMismatch(
            f"the adapter's base model {path!r} is not a local path",
            where=str(where),
            do="pass base=DIR, the folder of the model that it was trained on",
        )
    return path


def start_from(path: str | Path, description: Mapping[str, Any], processor: Processor) -> Network:
    """The network at `path` as a start for training, if its tensors are those of the network described.

    It keeps its own settings, whose numbers (such as rms_norm_eps) are part of the weights' meaning.
    """
    if Path(path).suffix == ".npz":
        return octo.filled(build_empty(description, processor), Path(path))
    trusted = tuple(name for name in description.values() if isinstance(name, str) and ":" in name)
    loaded = load(path, LoadOptions(trusted=trusted))  # the run names them itself
    return grown(plain_network(loaded, where=str(path)), loaded.processor, description, processor, where=str(path))


def check_start(path: str | Path) -> None:
    """Raise CheckpointMismatch where `start_from` has nothing to read."""
    place = resolve(path)
    if place.suffix == ".npz" and place.is_file():
        return
    if format_of(place).read is _lightning:
        checkpoint_file(place)


def _contract_in(folder: Path) -> dict[str, Any] | None:
    """The content of contract.json; None when there is none."""
    file = folder / CONTRACT_FILE
    return read_table(file) if file.is_file() else None


def _statistics_near(path: Path) -> dict[str, Any]:
    """dataset_statistics.json of this folder, or of the run's folder above it; empty when there is none."""
    for folder in (path if path.is_dir() else path.parent, path.parent.parent):
        if (folder / STATISTICS_FILE).is_file():
            return read_table(folder / STATISTICS_FILE)
    return {}
