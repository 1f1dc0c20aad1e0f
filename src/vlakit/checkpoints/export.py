"""A policy as a folder for others: the Hugging Face OpenVLA layout with adapters merged, or the adapter alone."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vlakit.checkpoints import oft
from vlakit.checkpoints.adapter_files import POLICY_FILE, same_tensor, save_adapter
from vlakit.checkpoints.card import CARD
from vlakit.checkpoints.contract import CONTRACT_FILE, make_contract, with_new_answers
from vlakit.checkpoints.formats import QUANTIZED, Loaded, LoadOptions, base_path, load, plain_network
from vlakit.checkpoints.hf_config import STATISTICS_FILE, write_config
from vlakit.checkpoints.weights import save_weights
from vlakit.data.shards.statistics import statistics_to_json
from vlakit.errors import CheckpointMismatch, ConfigError, PartMissing, UnknownName
from vlakit.files import atomic_writer, new_folder
from vlakit.models.adapters import LoraNumbers, merged_tensors
from vlakit.models.openvla.trunk import Trunk
from vlakit.models.openvla.vla import VLASettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.registry import Registry

log = logging.getLogger(__name__)
EXPORTS: Registry[None] = Registry("export layout")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_OF_THE_RUN = ("data", "mlflow_run_id")  # paths and numbers of the machine that trained


@dataclass(frozen=True)
class ExportOptions:
    """dtype of the weights (None: as they are), size limit of a shard, and what an adapter names as its base.

    trusted: code outside vlakit that the base's checkpoint may name.

    A shard is what merging and converting hold beside the model, so that 1 GB keeps 7B models within a tenth more.
    """

    dtype: torch.dtype | None = None
    shard_bytes: int = 1_000_000_000
    base: str | None = None
    trusted: tuple[str, ...] = ()


Writer = Callable[[Loaded, Path, ExportOptions], None]


def export(policy: Loaded, folder: Path, layout: str, options: ExportOptions) -> None:
    """Write `policy` to a new folder; it appears whole or not at all. Raises ConfigError when it is there already."""
    check_target(folder, layout)
    write: Writer = EXPORTS.get(layout)
    with new_folder(folder) as partial:
        write(policy, partial, options)
        _write_neighbours(policy, partial, options)


def check_target(folder: Path, layout: str) -> None:
    """Refuse a folder that is there already, and an unknown layout, before a model is loaded for them."""
    if folder.exists() or folder.is_symlink():
        raise ConfigError("the target is there already", where=str(folder), do="choose another out=DIR, or remove it")
    try:
        EXPORTS.get(layout)
    except UnknownName as error:
        raise UnknownName(error.what, where=f"layout={layout}", do=error.do) from error


@EXPORTS.register("hf")
def write_hugging_face(policy: Loaded, folder: Path, options: ExportOptions) -> None:
    """config.json, preprocessor_config.json, sharded safetensors with their index; adapters merged into the weights."""
    network, processor = policy.network, policy.processor
    if not isinstance(network, Trunk) or not isinstance(processor, TokenProcessor):
        raise PartMissing(
            f"the Hugging Face OpenVLA layout has no place for a network of the kind {network.kind}",
            where="layout=hf",
            do="export it as layout=ckpt",
        )
    film, beside = network.senses.film, dict[str, Tensor]()
    save_weights(folder, _model_tensors(network, options, beside), shard_bytes=options.shard_bytes)
    settings = VLASettings.from_dict(network.settings)
    if policy.card.quantized is not None:
        (folder / QUANTIZED).write_text(json.dumps(policy.card.quantized, indent=1) + "\n", encoding="utf-8")
    if beside or settings.head != "discrete":
        oft.write_parts(folder, beside, film=film)
        oft.write_settings(folder, settings, processor.settings)
    llama = network.language_model.config.to_dict()
    statistics = statistics_to_json(processor.statistics)
    write_config(folder, settings, processor.settings, llama, statistics)


def _model_tensors(network: Trunk, options: ExportOptions, beside: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors, merged; those that OpenVLA-OFT keeps in files of their own are put into `beside`."""
    film = network.senses.film
    for name, whole in merged_tensors(network):
        stays = options.dtype is None or not whole.is_floating_point() or name.endswith(".absmax")
        tensor = whole if stays else whole.to(options.dtype)
        if oft.is_part(name, film=film) or (film and name.startswith("vision_backbone.")):
            beside[name] = tensor
        if not oft.is_part(name, film=film):
            yield name, tensor


@EXPORTS.register("adapter")
def write_adapter(policy: Loaded, folder: Path, options: ExportOptions) -> None:
    """adapter_config.json and adapter_model.safetensors, MBs to be put on the base again; policy.json, what peft lacks.

    The base that is named must be here, and be the network under the adapter. Raises CheckpointMismatch.
    """
    if policy.card.adapter is None:
        layout = "hf" if isinstance(policy.network, Trunk) else "ckpt"
        raise CheckpointMismatch("the checkpoint has no adapter", do=f"export it whole: layout={layout}")
    if policy.network.additions:
        raise PartMissing(
            f"an adapter's folder has no place for {', '.join(policy.network.additions)}",
            where="layout=adapter",
            do="export it whole: layout=hf, or layout=ckpt",
        )
    base = options.base or policy.card.base
    if base is None:
        log.warning("the adapter names no base: base=DIR, the model that it was trained on, must be given to load it")
    else:
        _check_base(policy, base_path(base, LoadOptions(), folder), options)
    save_adapter(folder, policy.network, LoraNumbers.from_dict(policy.card.adapter), base)
    described = {"network": policy.network.description, "processor": policy.processor.description}
    (folder / POLICY_FILE).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _check_base(policy: Loaded, base: str, options: ExportOptions) -> None:
    plain = plain_network(load(base, LoadOptions(trusted=options.trusted)), where=base).state_dict()
    named = ((name.replace(".base_layer.", "."), tensor) for name, tensor in policy.network.state_dict().items())
    under = {name: tensor for name, tensor in named if ".lora_" not in name}
    other = sorted(name for name in plain.keys() | under.keys() if not same_tensor(plain.get(name), under.get(name)))
    if other:
        raise CheckpointMismatch(
            f"the adapter does not fit this base model: {len(other)} tensors differ, e.g. {other[0]}",
            where=base,
            do="pass base=DIR, the folder of the model that it was trained on",
        )


@EXPORTS.register("ckpt")
def write_checkpoint(policy: Loaded, folder: Path, options: ExportOptions) -> None:
    """last.ckpt with the weights and the card alone: what training needed, and where it ran, is left behind."""
    network, processor = policy.network, policy.processor
    network = network if options.dtype is None else copy.deepcopy(network).to(options.dtype)
    contract = policy.card.contract or make_contract(network, processor, ())
    if options.dtype is not None or policy.card.quantized:
        contract = with_new_answers(contract, network, processor)
    card = replace(
        policy.card,
        network=network.description,
        processor=processor.description,
        statistics=statistics_to_json(processor.statistics),
        contract=contract,
        base=None,
        facts={key: value for key, value in policy.card.facts.items() if key not in _OF_THE_RUN},
    )
    weights = {f"model.{name}": tensor.detach().clone() for name, tensor in network.state_dict().items()}
    with atomic_writer(folder / "last.ckpt") as stream:
        torch.save({CARD: card.to_dict(), "state_dict": weights}, stream)


def _write_neighbours(policy: Loaded, folder: Path, options: ExportOptions) -> None:
    """Statistics, tokenizer files if the policy came with some, and its contract: of fields alone if it had none."""
    network, processor = policy.network, policy.processor
    statistics = statistics_to_json(processor.statistics)
    (folder / STATISTICS_FILE).write_text(json.dumps(statistics, indent=2) + "\n", encoding="utf-8")
    source = processor.description.get("tokenizer_path")
    for name in _TOKENIZER_FILES if source else ():
        if (Path(str(source)) / name).is_file():
            shutil.copyfile(Path(str(source)) / name, folder / name)
    contract = policy.card.contract or make_contract(network, processor, ())
    moved = options.dtype is not None or policy.card.quantized
    if moved and contract["frames"] and (folder / "config.json").is_file():
        contract = with_new_answers(contract, load(folder).network, processor)  # rounding may move a close answer
    (folder / CONTRACT_FILE).write_text(json.dumps(contract) + "\n", encoding="utf-8")
