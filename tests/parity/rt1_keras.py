"""The original's parameters by name: Keras paths and layouts to vlakit's state dicts.

Keras: Dense [in, out], Conv [H, W, in, out], depthwise [H, W, channels, 1], attention query, key and value
[in, heads, width], its output [heads, width, out].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vlakit.errors import CheckpointMismatch, nearest
from vlakit.models.rt1.vision import STAGES
from vlakit.schema import Float32

# Pattern of a Keras path -> vlakit's name, part by part of the network; \1 ... as in re.
_FILM = (r"film_(add|mult)/(\w+)", r"\1/\2")
_LEARNER = [(r"layernorm/(\w+)", r"norm/\1"), (r"(hidden|final)_dense/(\w+)", r"\1/\2")]
_DECODER = [
    (r"(token_emb|position_emb|output_tokens)/(\w+)", r"\1/\2"),
    (r"layer_(\d+)/layernorm([12])/(\w+)", r"layers/\1/norm\2/\3"),
    (r"layer_(\d+)/ff/(\w+)", r"layers/\1/ff/\2"),
    (r"layer_(\d+)/mha1/(query|key|value|output)/(\w+)", r"layers/\1/\2/\3"),
]
_VISION = [
    (r"stem_conv/(\w+)", r"net/conv_stem/\1"),
    (r"stem_bn/(\w+)", r"net/bn1/\1"),
    (r"top_conv/(\w+)", r"net/conv_head/\1"),
    (r"top_bn/(\w+)", r"net/bn2/\1"),
    (r"conv1x1/(\w+)", r"conv1x1/\1"),
    (r"film_top/(add|mult)/(\w+)", r"film_top/\1/\2"),
    (r"film_(\d+)/(add|mult)/(\w+)", r"films/\1/\2/\3"),
]
PARTS: dict[str, Sequence[tuple[str, str]]] = {
    "film": [_FILM],
    "token_learner": _LEARNER,
    "transformer": _DECODER,
    "efficientnet": _VISION,
}
# Layers of a block: with an expansion before the depthwise convolution, and without one.
_EXPANDED = {"expand_conv": "conv_pw", "expand_bn": "bn1", "dwconv": "conv_dw", "bn": "bn2"}
_EXPANDED |= {"project_conv": "conv_pwl", "project_bn": "bn3"}
_PLAIN = {"dwconv": "conv_dw", "bn": "bn1", "project_conv": "conv_pw", "project_bn": "bn2"}
_SQUEEZE = {"se_reduce": "se/conv_reduce", "se_expand": "se/conv_expand"}
_LEAVES = {"kernel": "weight", "depthwise_kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
_LEAVES |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


def own_name(path: str, part: str) -> str:
    """vlakit's name of a Keras path in a part of PARTS. Raises CheckpointMismatch for a path that the part lacks.

    >>> own_name("layer_0/mha1/query/kernel", "transformer")
    'layers.0.query.weight'
    >>> own_name("block1a_bn/gamma", "efficientnet"), own_name("block2b_bn/gamma", "efficientnet")
    ('net.blocks.0.0.bn1.weight', 'net.blocks.1.1.bn2.weight')
    """
    block = re.fullmatch(r"block(\d)([a-z])_(\w+)/(\w+)", path) if part == "efficientnet" else None
    names = [pattern.sub(to, path) for pattern, to in _compiled(PARTS[part]) if pattern.fullmatch(path)]
    if block:
        layers = (_PLAIN if STAGES[int(block[1]) - 1][3] == 1 else _EXPANDED) | _SQUEEZE
        stage, number = int(block[1]) - 1, ord(block[2]) - ord("a")
        names = [f"net/blocks/{stage}/{number}/{layers[block[3]]}/{block[4]}"] if block[3] in layers else []
    owner, _, leaf = names[0].rpartition("/") if names else ("", "", "")
    if leaf not in _LEAVES:
        raise CheckpointMismatch(
            f"RT-1's {part} has no parameter {path!r}",
            where="Keras names",
            do=nearest(path, [p for p, _ in PARTS[part]]),
        )
    return f"{owner}/{_LEAVES[leaf]}".replace("/", ".").lstrip(".")


def _compiled(pairs: Sequence[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), to) for pattern, to in pairs]


def _dense(value: Float32, path: str) -> Float32:
    if "/mha1/" in path:
        axes = 2 if path.endswith("output/kernel") else 1
        value = value.reshape(int(np.prod(value.shape[:axes])), -1)
    return value.T


_LAYOUTS: dict[str, Callable[[Float32, str], Float32]] = {
    "depthwise_kernel": lambda value, _: value.transpose(2, 3, 0, 1),
    "kernel": lambda value, path: value.transpose(3, 2, 0, 1) if value.ndim == 4 else _dense(value, path),
    "bias": lambda value, _: value.reshape(-1),
}


def from_keras(arrays: Mapping[str, Float32], part: str) -> dict[str, Tensor]:
    """The state dict of a part from its Keras arrays by path; counters of batch normalisation begin at zero."""
    state: dict[str, Tensor] = {}
    for path, value in arrays.items():
        name, layout = own_name(path, part), _LAYOUTS.get(path.rpartition("/")[2])
        changed = value if layout is None else layout(value, path)
        state[name] = torch.from_numpy(np.ascontiguousarray(changed))
        if name.endswith("running_mean"):
            state[f"{name.removesuffix('running_mean')}num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return state
