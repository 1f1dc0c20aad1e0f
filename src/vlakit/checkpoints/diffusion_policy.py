"""Released Diffusion Policy checkpoints: refused as they are, for they are pickles that run code; read once converted.

A converted folder holds diffusion_policy.json, the run's resolved configuration, and model.safetensors.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vlakit.checkpoints.card import Card
from vlakit.data.shards.statistics import NAMES, statistics_to_json
from vlakit.errors import CheckpointMismatch
from vlakit.processing.normalizer import TOLD_LIMITS
from vlakit.schema import DatasetStatistics, Float64

SETTINGS = "diffusion_policy.json"
RECIPE = """convert it where it was trained, if you trust the file, and pass the folder DIR:
           import dill, json, torch; from omegaconf import OmegaConf; from safetensors.torch import save_file
           run = torch.load(CKPT, pickle_module=dill, map_location="cpu"); states = run["state_dicts"]
           weights = states.get("ema_model", states["model"])
           save_file({name: t.contiguous() for name, t in weights.items()}, "DIR/model.safetensors")
           json.dump(OmegaConf.to_container(run["cfg"], resolve=True), open("DIR/diffusion_policy.json", "w"))"""
_HEAD = 2**20  # bytes of an old file that are looked through
_DROPPED = ("normalizer.", "mask_generator.", "model.mask", "model.memory_mask", "model.local_cond_encoder.1.")
_TWICE = {True: "imagenet_twice", False: "half"}  # to [-1, 1] first, whether ImageNet's numbers follow or not


def refuse_pickle(place: Path) -> None:
    """Raise CheckpointMismatch for a released .ckpt, or its run's folder, without reading any object in it."""
    for inside in sorted(place.glob("checkpoints/*.ckpt")) if place.is_dir() else []:
        refuse_pickle(inside)
    if place.suffix not in (".ckpt", ".pt", ".pth") or not place.is_file():
        return
    if zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            pickled = b"".join(archive.read(name) for name in names)
    else:  # torch's file of before 2020, whose pickle begins behind its magic number
        with place.open("rb") as file:
            pickled = file.read(_HEAD)
    if b"state_dicts" in pickled and b"pickles" in pickled:
        raise CheckpointMismatch(
            "a checkpoint of Diffusion Policy's own code, a dill pickle: reading it runs whatever code is in it",
            where=str(place),
            do=RECIPE,
        )


def tensors_of(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Those of the networks: no normalisers, constants, or encoder whose output the original never uses."""
    for name, tensor in tensors:
        if not name.endswith("_dummy_variable") and not name.startswith(_DROPPED):
            yield name, tensor.long() if name.endswith("num_batches_tracked") else tensor


def card_of(config: Mapping[str, Any], tensors: Iterable[tuple[str, Tensor]], *, where: str) -> Card:
    """What the configuration and the normalisers in the file say. Raises CheckpointMismatch for another policy."""
    fitted = {
        name.removeprefix("normalizer.params_dict."): t.double().numpy() for name, t in tensors if "params_dict" in name
    }
    try:
        policy = config["policy"]
        name = str(policy["_target_"]).rpartition(".")[2]
        if name not in _POLICIES:
            raise CheckpointMismatch(
                f"a policy of the class {name}", where=where, do=f"those that can be read: {', '.join(_POLICIES)}"
            )
        network, processor, senses = _POLICIES[name](policy)
        action, proprio = _bounds(fitted, ["action"]), _bounds(fitted, senses) if senses else None
        sampler, horizon = _sampler(policy), [int(policy[key]) for key in ("n_obs_steps", "n_action_steps", "horizon")]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointMismatch(
            f"{SETTINGS} or the normalisers lack or garble {error}", where=where, do="convert it again: " + RECIPE
        ) from error
    horizon[1] = min(horizon[1], horizon[2] - network.get("executed_from", 0))  # the original cuts at the end, too
    everything = np.ones(len(action["min"]), bool)
    statistics = DatasetStatistics(**action, mask=everything, num_transitions=0, num_trajectories=0, proprio=proprio)
    network = {"kind": "diffusion_policy", **network, "sampler": sampler, "action_size": len(action["min"])}
    processor = {
        "kind": "diffusion",
        **processor,
        **dict(zip(("window", "chunk", "horizon"), horizon, strict=True)),
        "proprio": len(proprio["min"]) if proprio else 0,
        "normalization": TOLD_LIMITS,  # so that a column fitted between 1e-7 and 1e-4 keeps its scale
        "language": None,
    }
    dataset = str(config.get("task_name", "diffusion_policy"))
    return Card(network, processor, statistics_to_json({dataset: statistics}))


def _bounds(fitted: Mapping[str, Float64], keys: Sequence[str]) -> dict[str, Float64]:
    """What becomes -1 and 1 by the normalisers of these keys, side by side: any linear normaliser is told by it."""
    scale, offset = (np.concatenate([fitted[f"{key}.{name}"] for key in keys]) for name in ("scale", "offset"))
    low, high = (-1 - offset) / scale, (1 - offset) / scale
    ends = {"q01": low, "q99": high, "min": low, "max": high}
    return {name: ends.get(name, (low + high) / 2) for name in NAMES}


def _sampler(policy: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in policy["noise_scheduler"].items() if not key.startswith("_")}
    kind = str(policy["noise_scheduler"]["_target_"]).rpartition(".")[2].removesuffix("Scheduler").lower()
    usual = {"beta_schedule": "linear", "num_train_timesteps": 1000}  # diffusers' own
    return {"scheduler": kind, "steps": policy.get("num_inference_steps"), **usual, **options}


def _image_unet(policy: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    encoder, meta = policy["obs_encoder"], policy["shape_meta"]["obs"]
    cameras = sorted(key for key, one in meta.items() if one.get("type", "low_dim") == "rgb")
    lowdim = sorted(set(meta) - set(cameras))
    sides = sorted({tuple(encoder.get("resize_shape") or meta[camera]["shape"][1:]) for camera in cameras})
    crop = encoder.get("crop_shape") if encoder.get("random_crop", True) else None  # else the original does not crop
    _square([*sides, *([tuple(crop)] if crop else [])])
    if len(sides) != 1:
        raise CheckpointMismatch(f"pictures of {len(sides)} sizes: {sides}", do="only those of one size can be read")
    side = sides[0]
    network = {
        "backbone": "unet",
        "options": _unet_options(policy, kernel=5, scale=True),
        "condition": "global" if policy.get("obs_as_global_cond", True) else "inpaint",
        "vision": encoder["rgb_model"]["name"],
        "crop": crop[0] if crop else None,
        "shared": bool(encoder.get("share_rgb_model", False)),
        "group_norm": bool(encoder.get("use_group_norm", False)),
    }
    picture = {"image_size": side[0], "channel_statistics": [_TWICE[bool(encoder.get("imagenet_norm", False))]]}
    return network, {**picture, "cameras": cameras}, lowdim


def _square(shapes: Sequence[tuple[int, ...]]) -> None:
    for shape in shapes:
        if len(set(shape)) != 1:
            raise CheckpointMismatch(f"pictures or crops of {shape} pixels", do="only square ones can be read")


def _lowdim_unet(policy: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    condition = next((kind for kind in ("local", "global") if policy.get(f"obs_as_{kind}_cond")), "inpaint")
    network = {
        "backbone": "unet",
        "options": _unet_options(policy["model"], kernel=3, scale=False),
        "condition": condition,
    }
    if not policy.get("oa_step_convention"):
        network["executed_from"] = int(policy["n_obs_steps"])
    return _lowdim(policy, network)


def _lowdim_transformer(policy: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    model, names = policy["model"], {"n_emb": "width", "n_head": "heads", "n_layer": "layers"}
    names |= {"n_cond_layers": "condition_layers", "p_drop_emb": "dropout", "p_drop_attn": "attention_dropout"}
    options = {own: model[theirs] for theirs, own in names.items() if theirs in model}
    options |= {"causal": bool(model.get("causal_attn")), "time_as_token": not model.get("time_as_cond", True)}
    condition = "global" if policy.get("obs_as_cond") else "inpaint"
    return _lowdim(policy, {"backbone": "transformer", "options": options, "condition": condition})


def _lowdim(policy: Mapping[str, Any], network: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    if policy.get("pred_action_steps_only"):
        raise CheckpointMismatch(
            "pred_action_steps_only=True", do="policies that predict the whole horizon can be read"
        )
    return network, {"image_size": 1, "channel_statistics": ["half"], "cameras": []}, ["obs"]


def _unet_options(unet: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    names = {"down_dims": "widths", "diffusion_step_embed_dim": "time_width", "kernel_size": "kernel"}
    names |= {"n_groups": "groups", "cond_predict_scale": "scale"}
    return defaults | {own: unet[theirs] for theirs, own in names.items() if theirs in unet}


_POLICIES = {
    "DiffusionUnetImagePolicy": _image_unet,
    "DiffusionUnetLowdimPolicy": _lowdim_unet,
    "DiffusionTransformerLowdimPolicy": _lowdim_transformer,
}
