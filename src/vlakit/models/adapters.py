"""LoRA by peft with an explicit target list: what `all-linear` means depends on the version of peft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from vlakit.errors import PatternUnmatched, nearest

# Last name components of every layer that OpenVLA's fine-tuning adapts: `proj` is also the convolution of the patch
# embedding, `lm_head` is included, both as peft < 0.15 understood all-linear (openvla.md 3.7).
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
    alpha: int
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
    check_targets(model, numbers.targets)
    config = LoraConfig(
        r=numbers.rank,
        lora_alpha=numbers.alpha,
        lora_dropout=numbers.dropout,
        target_modules=list(numbers.targets),
        init_lora_weights="gaussian",
        bias="none",
    )
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = ".lora_" in name
    return model


def check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Refuse a target list with a name that matches no layer."""
    adaptable = nn.Linear | nn.Conv2d
    layers = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, adaptable)}
    optional = {"fc3", "q", "kv"}  # projector of fused towers; pooling head of SigLIP towers
    for target in targets:
        if target not in layers and target not in optional:
            raise PatternUnmatched(
                f"LoRA target {target!r} matches no layer", where="strategy.targets", do=nearest(target, layers)
            )


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the model would have without adapters: W + alpha / rank * B A under W's own name."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.merge()  # pyright: ignore[reportAttributeAccessIssue]  defined on every concrete layer
    return {
        name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if ".lora_" not in name
    }
