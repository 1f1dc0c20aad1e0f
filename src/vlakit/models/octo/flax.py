"""The original's parameters under their Flax names: `octo_transformer/obs_primary_projection/kernel` and the like."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from vlakit.errors import CheckpointMismatch, nearest

# Pieces of a Flax path and ours, in the order in which they are replaced.
_SENSE = re.compile(r"trunk\.(stems|observed)\.\w+\.")
NAMES = (
    (r"^octo_transformer/", "trunk/"),
    (r"^heads_action/", "head/"),
    (r"BlockTransformer_0/Transformer_0/", "transformer/"),
    (r"encoderblock_(\d+)/LayerNorm_0", r"blocks/\1/norm_attention"),
    (r"encoderblock_(\d+)/LayerNorm_1", r"blocks/\1/norm_mlp"),
    (r"encoderblock_(\d+)/", r"blocks/\1/"),
    (r"encoder_norm/", "norm/"),
    (r"MultiHeadDotProductAttention_0/", "attention/"),
    (r"MlpBlock_0/Dense_0", "mlp/expand"),
    (r"MlpBlock_0/Dense_1", "mlp/contract"),
    (r"observation_tokenizers_(\w+?)/SmallStem\w*_0/", r"stems/\1/"),
    (r"StdConv_(\d+)", r"convolutions/\1"),
    (r"GroupNorm_(\d+)", r"norms/\1"),
    (r"obs_(\w+)_projection/", r"observed/\1/projection/"),
    (r"obs_(\w+)_pos_embedding$", r"observed/\1/place/bias"),
    (r"task_(\w+)_projection/", r"task/\1/projection/"),
    (r"task_(\w+)_pos_embedding$", r"task/\1/place/bias"),
    (r"readout_(\w+)_pos_embedding$", r"readouts/\1/bias"),
    (r"map_head/LayerNorm_0/", "pool/norm/"),
    (r"map_head/", "pool/"),
    (r"probe$", "probe/bias"),
    (r"(mean_proj|vocab_proj)/", "projection/"),
    (r"diffusion_model/time_preprocess/kernel$", "noise_network/frequencies/weight"),
    (r"diffusion_model/cond_encoder/Dense_0", "noise_network/time_expand"),
    (r"diffusion_model/cond_encoder/Dense_1", "noise_network/time_contract"),
    (r"reverse_network/MLPResNetBlock_(\d+)/LayerNorm_0", r"reverse_network/blocks/\1/norm"),
    (r"reverse_network/MLPResNetBlock_(\d+)/Dense_0", r"reverse_network/blocks/\1/expand"),
    (r"reverse_network/MLPResNetBlock_(\d+)/Dense_1", r"reverse_network/blocks/\1/contract"),
    (r"reverse_network/Dense_0", "reverse_network/enter"),
    (r"reverse_network/Dense_1", "reverse_network/leave"),
    (r"diffusion_model/reverse_network/", "noise_network/"),
    (r"(kernel|scale)$", "weight"),
)
FROZEN = "/hf_model/"  # T5, which the original stores beside what it trains


def own_name(path: str) -> str:
    """The name here of a parameter of the original.

    >>> own_name("octo_transformer/BlockTransformer_0/Transformer_0/encoderblock_3/MlpBlock_0/Dense_1/kernel")
    'trunk.transformer.blocks.3.mlp.contract.weight'
    >>> own_name("octo_transformer/task_language_pos_embedding"), own_name("map_head/probe")
    ('trunk.task.language.place.bias', 'pool.probe.bias')
    """
    for pattern, ours in NAMES:
        path = re.sub(pattern, ours, path)
    return path.replace("/", ".")


def own_tensor(path: str, array: np.ndarray) -> Tensor:
    """The parameter as torch lays it out: Dense and Conv kernels have their outputs last in Flax, attention's heads
    an axis of their own, places and probes a batch of one.
    """
    tensor = torch.from_numpy(np.asarray(array, np.float32))
    layer, leaf = f"/{path}".split("/")[-2:]
    if layer in ("query", "key", "value"):
        return tensor.flatten(1).T if leaf == "kernel" else tensor.flatten()
    if leaf == "kernel" and layer == "out":
        return tensor.flatten(0, 1).T
    if leaf == "kernel" and layer != "time_preprocess":
        return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T
    return tensor.squeeze(0) if leaf == "probe" or leaf.endswith("pos_embedding") else tensor


def load_flax(module: nn.Module, parameters: Mapping[str, np.ndarray], *, where: str, part: bool = False) -> list[str]:
    """Fill a module with the original's parameters; the paths left out (frozen T5) are returned.

    part: senses that the module lacks are left out, too, and so is a head of another kind, whose place is not filled.
    Raises CheckpointMismatch for a parameter that is missing, of another shape, or not of this module.
    """
    kept = {path: array for path, array in parameters.items() if FROZEN not in f"/{path}"}
    state = {own_name(path): own_tensor(path, array).contiguous() for path, array in kept.items()}
    present = module.state_dict()
    if part:
        own = [name for name in present if name.startswith("head.")]
        another = any(name not in state or state[name].shape != present[name].shape for name in own)
        senses = {sense[0] for name in state if (sense := _SENSE.match(name))}
        left = {sense for sense in senses if not any(name.startswith(sense) for name in present)}
        left |= {"head."} if another else set[str]()
        kept = {path: array for path, array in kept.items() if not own_name(path).startswith(tuple(left))}
        state = {name: tensor for name, tensor in state.items() if not name.startswith(tuple(left))}
        present = {name: tensor for name, tensor in present.items() if not name.startswith(tuple(left))}
    missing, foreign = sorted(present.keys() - state.keys()), sorted(state.keys() - present.keys())
    if missing or foreign:
        first = missing or foreign
        raise CheckpointMismatch(
            f"{len(missing)} parameters are missing and {len(foreign)} are not of this network, e.g. {first[0]}",
            where=where,
            do=f"{nearest(first[0], foreign if missing else present)} Take the model that these weights belong to",
        )
    other = [name for name in present if present[name].shape != state[name].shape]
    if other:
        shapes = tuple(state[other[0]].shape), tuple(present[other[0]].shape)
        raise CheckpointMismatch(
            f"{other[0]} is {shapes[0]}, the network needs {shapes[1]}",
            where=where,
            do="set model.network to the sizes of these weights",
        )
    module.load_state_dict(state, assign=True, strict=not part)
    return sorted(parameters.keys() - kept.keys())
