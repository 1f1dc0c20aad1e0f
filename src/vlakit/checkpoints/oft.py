"""Folders of OpenVLA-OFT (vla-scripts/finetune.py of moojink/openvla-oft): the model, and its further parts beside it.

What the files cannot say, the chunk, the cameras and the bounds of normalisation, is in oft.json: the original's code
guesses it from the words of its command line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vlakit.checkpoints.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_plain
from vlakit.checkpoints.hf_config import OWN_KEY, HfDescription, read_table
from vlakit.checkpoints.weights import INDEX, SINGLE, load_pickled
from vlakit.errors import CheckpointMismatch, nearest
from vlakit.models.openvla.vla import VLASettings
from vlakit.processing.normalizer import NORMALIZATIONS
from vlakit.processing.settings import TokenSettings

SETTINGS = "oft.json"
ADAPTER = "lora_adapter"
MARKS = (SETTINGS, f"{ADAPTER}/{ADAPTER_CONFIG}")  # files that no other checkpoint has
PARTS = ("action_head", "proprio_projector", "noisy_action_projector", "vision_backbone")
CAMERAS = {1: ("primary",), 2: ("primary", "wrist"), 3: ("primary", "left_wrist", "right_wrist")}
_STEPS = {"train_steps": "diffusion_steps_train", "steps": "diffusion_steps"}  # of the head: in oft.json
_EXAMPLE = (
    'write it: {"chunk": 8, "images": 2, "normalization": "bounds_q99"} is LIBERO\'s,'
    ' {"chunk": 25, "images": 3, "normalization": "bounds"} ALOHA\'s,'
    ' {"chunk": 5, "images": 1, "normalization": "bounds_q99"} Bridge\'s; cameras: [names] if they have others'
)


def parts_of(folder: Path) -> dict[str, Path]:
    """Part -> its file; empty for any other folder. Raises CheckpointMismatch for a part of two training steps."""
    parts: dict[str, Path] = {}
    for part in PARTS:
        files = sorted(folder.glob(f"{part}--*.pt"))
        if len(files) > 1:
            raise CheckpointMismatch(
                f"an OpenVLA-OFT checkpoint with {part} of several steps: {', '.join(file.name for file in files)}",
                where=str(folder),
                do="leave the files of one step there",
            )
        if files:
            parts[part] = files[0]
    return parts


def is_unmerged(folder: Path) -> bool:
    """Whether the language model is there as an adapter alone."""
    whole = (folder / SINGLE).is_file() or (folder / INDEX).is_file()
    return not whole and (folder / ADAPTER / ADAPTER_CONFIG).is_file()


def described(folder: Path, parts: Mapping[str, Path], plain: HfDescription) -> HfDescription:
    """What config.json says, with head and senses. Raises CheckpointMismatch where settings and files disagree."""
    sizes = {part: {name: tuple(t.shape) for name, t in _stored(file).items()} for part, file in parts.items()}
    head, options = _head(sizes, folder)
    proprio = sizes["proprio_projector"]["fc1.weight"][1] if "proprio_projector" in sizes else 0
    film = any(".scale.weight" in name for name in sizes.get("vision_backbone", {}))
    if not film and _trained_with_film(folder):
        what = "an OpenVLA-OFT checkpoint trained with FiLM and without vision_backbone--*, where its towers are"
        raise CheckpointMismatch(what, where=str(folder), do="copy it too: those of the merged model are untuned")
    if OWN_KEY in read_table(folder / "config.json"):  # vlakit's own export says the rest itself
        settings = {"action_dim": options.get("action_size"), "proprio_dim": plain.processor.proprio}
        processor, model = plain.processor, plain.model
    else:
        settings = _settings(folder)
        if "action_head" not in parts and settings.get("head") != "parallel":
            raise CheckpointMismatch(
                "an OpenVLA-OFT checkpoint without action_head--*",
                where=str(folder),
                do=f'copy it; for tokens in parallel, which need none, write "head": "parallel" into {SETTINGS}',
            )
        processor = _processor(settings, plain.processor, proprio, folder)
        steps = {ours: settings[key] for ours, key in _STEPS.items() if head == "diffusion" and key in settings}
        model = replace(plain.model, head=head, film=film, head_options=options | steps)
    stated = {
        "action_dim": options.get("action_size"),
        "proprio_dim": proprio,
        "head": head if options else None,
        "film": film,
    }
    stored = {"head": model.head, "film": model.film, **settings}
    wrong = [key for key, value in stated.items() if value is not None and stored.get(key, value) not in (None, value)]
    if wrong:
        raise CheckpointMismatch(
            "; ".join(f"{key} is {stored[key]} in the settings, {stated[key]} in the files" for key in wrong),
            where=str(folder),
            do=f"mend {SETTINGS}, or copy the missing part",
        )
    return replace(plain, model=model, processor=processor)


def tensors_of(
    folder: Path, parts: Mapping[str, Path], model: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its name in the network.

    Towers trained with FiLM are in their own file only, with adapters unmerged: those in the merged model are as they
    were before the training, and are left out.
    """
    tuned = "vision_backbone" in parts
    yield from ((name, tensor) for name, tensor in model if not (tuned and name.startswith("vision_backbone.")))
    for part, file in parts.items():
        if part == "vision_backbone":
            yield from _towers(file, folder)
        else:
            yield from ((f"{part}.{name}", tensor) for name, tensor in _stored(file).items())


def _trained_with_film(folder: Path) -> bool:
    """Whether the adapter's tensors are named through FiLM's wrapper of the towers."""
    file = folder / ADAPTER / ADAPTER_WEIGHTS[0]
    if not file.is_file():
        return False
    with safe_open(file, "pt") as stored:
        return any("vision_backbone.vision_backbone." in name for name in stored.keys())  # noqa: SIM118  no mapping


def _stored(file: Path) -> dict[str, Tensor]:
    content = load_pickled(file, "a part of the checkpoint", "copy it again; pickled code is refused", mmap=True)
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointMismatch("not a table of tensors", where=str(file), do="copy it again")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _head(sizes: Mapping[str, Mapping[str, tuple[int, ...]]], folder: Path) -> tuple[str, dict[str, Any]]:
    """The head that a folder's files make, and its size."""
    names = sizes.get("action_head", {})
    diffusion = any(name.startswith("noise_predictor.") for name in names)
    if diffusion != ("noisy_action_projector" in sizes):
        lacking = "noisy_action_projector--*" if diffusion else "action_head--* of the diffusion head"
        raise CheckpointMismatch(
            f"an OpenVLA-OFT checkpoint without {lacking}", where=str(folder), do="copy all of its files"
        )
    last = "noise_predictor.mlp_resnet.fc2.bias" if diffusion else "model.fc2.bias"
    if not names:
        return "parallel", {}
    if last not in names:
        raise CheckpointMismatch(
            "an OpenVLA-OFT action head of no known kind", where=str(folder), do="copy action_head--* again"
        )
    return ("diffusion" if diffusion else "l1"), {"action_size": names[last][0]}


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / SETTINGS
    settings = read_table(file) if file.is_file() else {}
    lacking = [key for key in ("chunk", "normalization") if key not in settings]
    lacking += ["images"] if not {"images", "cameras"} & set(settings) else []
    if lacking:
        raise CheckpointMismatch(
            f"an OpenVLA-OFT checkpoint whose {', '.join(lacking)} no file says", where=str(file), do=_EXAMPLE
        )
    return settings


def _processor(settings: Mapping[str, Any], plain: TokenSettings, proprio: int, folder: Path) -> TokenSettings:
    where = str(folder / SETTINGS)
    try:
        chunk, images = index(settings["chunk"]), index(settings.get("images", len(settings.get("cameras", ()))))
        cameras = tuple(str(name) for name in settings.get("cameras") or CAMERAS.get(images, ()))
    except TypeError as error:
        raise CheckpointMismatch(f"garbled: {error}", where=where, do=_EXAMPLE) from error
    normalization = str(settings["normalization"])
    if normalization not in NORMALIZATIONS:
        raise CheckpointMismatch(
            f"normalization is {normalization!r}", where=where, do=nearest(normalization, NORMALIZATIONS)
        )
    if len(cameras) != images or len(set(cameras)) != images or chunk < 1:
        raise CheckpointMismatch(f"chunk {chunk}, {images} images, cameras {list(cameras)}", where=where, do=_EXAMPLE)
    return replace(plain, chunk=chunk, cameras=cameras, proprio=proprio, normalization=normalization)


def _towers(file: Path, folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The towers of a vision_backbone--* file with their adapters merged; FiLM's layers as they are."""
    tensors = _stored(file)
    scale = _adapter_scale(folder, tensors) if any(".lora_A." in name for name in tensors) else 0.0
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        owner, _, attribute = name.rpartition(".base_layer.")
        down = tensors.get(f"{owner}.lora_A.default.weight") if attribute == "weight" else None
        if down is not None:
            up = tensors[f"{owner}.lora_B.default.weight"]
            delta = (up.flatten(1).float() @ down.flatten(1).float()).reshape(tensor.shape)
            tensor = (tensor.float() + scale * delta).to(tensor.dtype)  # noqa: PLW2901
        yield name.replace(".base_layer.", ".").replace(".block.", "."), tensor


def _adapter_scale(folder: Path, tensors: Mapping[str, Tensor]) -> float:
    """alpha / rank of adapter_config.json; the tensors say the rank alone."""
    file = folder / ADAPTER / ADAPTER_CONFIG
    if not file.is_file():
        raise CheckpointMismatch(
            f"the towers of this OpenVLA-OFT checkpoint hold adapters, and there is no {ADAPTER}/{ADAPTER_CONFIG}",
            where=str(folder),
            do="copy it too: without its lora_alpha they cannot be merged",
        )
    config = read_table(file)
    check_plain(config, file)
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name}
    if ranks != {config.get("r")}:
        raise CheckpointMismatch(
            f"the rank is {config.get('r')}, that of the towers' adapters {sorted(ranks)}",
            where=str(file),
            do="copy the file that came with this checkpoint",
        )
    return float(config["lora_alpha"]) / float(config["r"])


def write_parts(folder: Path, tensors: Mapping[str, Tensor], *, film: bool) -> None:
    """The files beside the model, in the original's names, from the network's merged tensors."""
    for part in PARTS[:3]:
        stored = {f"module.{n.removeprefix(f'{part}.')}": t for n, t in tensors.items() if n.startswith(f"{part}.")}
        if stored:
            torch.save({name: tensor.detach().cpu().clone() for name, tensor in stored.items()}, folder / _file(part))
    if film:
        towers = {n: t.detach().cpu().clone() for n, t in tensors.items() if n.startswith("vision_backbone.")}
        torch.save({_film_name(name): tensor for name, tensor in towers.items()}, folder / _file("vision_backbone"))


def is_part(name: str, *, film: bool) -> bool:
    """Whether a tensor of the network lies in a file of its own."""
    return name.startswith(tuple(f"{part}." for part in PARTS[:3])) or (
        film and ".blocks." in name and (".scale." in name or ".shift." in name)
    )


def write_settings(folder: Path, model: VLASettings, processor: TokenSettings) -> None:
    """oft.json: what the other files cannot say."""
    content: dict[str, Any] = {
        "chunk": processor.chunk,
        "images": len(processor.cameras),
        "cameras": list(processor.cameras),
        "normalization": processor.normalization,
        "head": model.head,
        "film": model.film,
    }
    content |= {key: model.head_options[ours] for ours, key in _STEPS.items() if ours in model.head_options}
    (folder / SETTINGS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _file(part: str) -> str:
    return f"{part}--latest_checkpoint.pt"


def _film_name(name: str) -> str:
    """A tower's tensor in the original's wrapper of a block.

    >>> _film_name("vision_backbone.featurizer.blocks.0.attn.qkv.bias")
    'vision_backbone.featurizer.blocks.0.block.attn.qkv.bias'
    """
    head, blocks, rest = name.partition(".blocks.")
    number, _, inner = rest.partition(".")
    if not blocks or inner.startswith(("scale.", "shift.")):
        return name
    return f"{head}.blocks.{number}.block.{inner}"
