"""LoRA by peft with an explicit target list: what `all-linear` means depends on the version of peft.

peft is imported where there are adapters: it takes seconds, and a network without them needs none of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from vlakit.errors import PatternUnmatched, nearest
from vlakit.models.cpu import Linear
from vlakit.models.quantized_layers import QuantizedLinear

ADAPTABLE = nn.Linear | nn.Conv2d
_PLAIN_FORWARDS = (nn.Linear.forward, Linear.forward, nn.Conv2d.forward)

# Last name components of every layer that OpenVLA's fine-tuning adapts: `proj` is also the convolution of the patch
# embedding, `lm_head` is included, both as peft < 0.15 understood all-linear (openvla.md 3.7). What an adapter file of
# the original means; a network of its own layers has others: `every_layer`.
OPENVLA_TARGETS = (
    "qkv", "proj", "q", "kv",
    "fc1", "fc2", "fc3",
    "q_proj", "k_proj", "v_proj", "o_proj",
    "gate_proj", "up_proj", "down_proj",
    "lm_head",
)  # fmt: skip


@dataclass(frozen=True)
class LoraNumbers:
    """What a checkpoint stores of its adapters."""

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = OPENVLA_TARGETS

    @classmethod
    def from_dict(cls, numbers: dict[str, Any]) -> LoraNumbers:
        """Numbers from plain values."""
        return cls(**{**numbers, "targets": tuple(numbers["targets"])})

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {**asdict(self), "targets": list(self.targets)}


def inject_lora(model: nn.Module, numbers: LoraNumbers) -> nn.Module:
    """Freeze the model and add adapters to the layers whose last name component is a target; outputs stay, as B = 0.

    Raises PatternUnmatched when a target names no layer; `fc3` may be absent, it exists in fused projectors only.
    """
    from peft import LoraConfig, inject_adapter_in_model

    check_targets(model, numbers.targets)
    config = LoraConfig(
        r=numbers.rank,
        lora_alpha=cast(int, numbers.alpha),  # any number, whatever its annotation says
        lora_dropout=numbers.dropout,
        target_modules=list(numbers.targets),
        exclude_modules=[path for path, module in model.named_modules() if path and _excluded(path, module, model)]
        or None,
        init_lora_weights="gaussian",
        bias="none",
    )
    inject_adapter_in_model(config, model)
    for module in model.modules():
        multiply_by_layers(module)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = ".lora_" in name or is_added(name, model)
    return model


def bare_layers(model: nn.Module) -> list[str]:
    """Paths of every linear and convolutional layer that has no adapter, in the network's order.

    What a full fine-tuning would move and LoRA leaves as it is, when asked after the injection.
    """
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, ADAPTABLE)
        and ".lora_" not in path
        and not path.endswith(".base_layer")
        and not is_added(f"{path}.weight", model)
    ]


def multiply_by_layers(module: nn.Module) -> None:
    """Close the fast path of torch's own transformer layer, which multiplies the weights of its layers itself."""
    if isinstance(module, nn.TransformerEncoderLayer):
        module.activation_relu_or_gelu = 0


def takes_adapter(module: nn.Module) -> bool:
    """Whether W + BA in a layer gives what an adapter beside it gives: where more is done with W, it does not.

    Kernels that are standardised, pictures padded by the layer itself, weights that something else multiplies.
    """
    if isinstance(module, QuantizedLinear):
        return True
    plain = isinstance(module, ADAPTABLE) and type(module).forward in _PLAIN_FORWARDS
    read_by_attention = isinstance(module, NonDynamicallyQuantizableLinear)
    return plain and not read_by_attention and getattr(module, "groups", 1) == 1  # peft's limit


def _excluded(path: str, module: nn.Module, model: nn.Module) -> bool:
    unfit = isinstance(module, ADAPTABLE) and not takes_adapter(module)
    return unfit or is_added(f"{path}.weight", model)


def is_added(name: str, model: nn.Module) -> bool:
    """Whether a parameter is of the network's additions, which begin at random: they train whole, without adapters."""
    return any(fnmatchcase(name, pattern) for pattern in getattr(model, "additions", ()))


def every_layer(model: nn.Module) -> tuple[str, ...]:
    """The targets that give every linear and convolutional layer an adapter that can have one, whatever the network.

    Last name components; a place in a Sequential, such as `stem.3`, keeps its owner's name, for `3` may name anything.

    >>> every_layer(nn.ModuleDict({"q_proj": nn.Linear(2, 2), "stem": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())}))
    ('q_proj', 'stem.0')
    """
    paths = (path for path in bare_layers(model) if takes_adapter(model.get_submodule(path)))
    return tuple(dict.fromkeys(short_name(path) for path in paths))


def short_name(path: str) -> str:
    """The last component of a module's path, with the owners that a number needs to say something.

    >>> short_name("vision.blocks.3.attn.qkv"), short_name("patch_embed.stem.0")
    ('qkv', 'stem.0')
    """
    owner, _, last = path.rpartition(".")
    return f"{short_name(owner)}.{last}" if last.isdecimal() and owner else last


def named_briefly(paths: Iterable[str]) -> str:
    """Layers by their short names, with how many there are of each.

    >>> named_briefly(["blocks.0.attn.qkv", "blocks.1.attn.qkv", "patch_embed.stem.0"])
    'qkv (2), stem.0 (1)'
    """
    return ", ".join(f"{name} ({count})" for name, count in Counter(map(short_name, paths)).items())


def check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Refuse a target list with a name that matches no layer."""
    bare = bare_layers(model)
    paths = {path for path in bare if takes_adapter(model.get_submodule(path))}
    layers = {path.rpartition(".")[2] for path in paths}
    optional = {"fc3", "q", "kv"}  # projector of fused towers; pooling head of SigLIP towers
    for target in targets:
        matched = target in layers or any(path == target or path.endswith(f".{target}") for path in paths)
        if not matched and any(f".{path}".endswith(f".{target}") for path in bare):
            raise PatternUnmatched(
                f"{target!r} can have no adapter: its weight is not multiplied as it is",
                where="strategy.targets",
                do="leave it out; a checkpoint that has one there never used it right: train its adapters again",
            )
        if not matched and target not in optional:
            raise PatternUnmatched(
                f"LoRA target {target!r} matches no layer", where="strategy.targets", do=nearest(target, layers)
            )


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the model would have without adapters; the model stays as it is."""
    return dict(merged_tensors(model))


@torch.no_grad()
def merged_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every name and tensor of merged_state_dict, made one by one: W + alpha / rank * B A under W's own name."""
    from peft.tuners.lora import LoraLayer

    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        owner, _, attribute = name.rpartition(".base_layer.")
        layer = layers.get(owner)
        if layer is not None and attribute == "weight" and not layer.merged:
            for adapter in layer.active_adapters:
                delta = cast(Any, layer).get_delta_weight(adapter)  # defined on every concrete layer
                tensor = (tensor + delta).to(tensor.dtype)  # noqa: PLW2901
        yield name.replace(".base_layer.", "."), tensor


@torch.no_grad()
def merge_in_place(model: nn.Module) -> None:
    """Merge every adapter into its layer and take it away; no second copy of the weights is made."""
    from peft.tuners.lora import LoraLayer

    for path, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            layer = cast(Any, module)
            layer.merge()
            owner, _, attribute = path.rpartition(".")
            setattr(model.get_submodule(owner), attribute, layer.get_base_layer())
