"""Parameter groups and learning-rate schedules."""

import math

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(module: nn.Module, *, decay_norms_and_biases: bool) -> list[dict[str, object]]:
    """Trainable parameters in two groups: matrices decay; vectors and biases do not, unless asked to.

    OpenVLA's pretraining spares them, its LoRA script decays everything (torch's default AdamW).
    """
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    spared = [p for name, p in trainable if not decay_norms_and_biases and (p.ndim <= 1 or name.endswith(".bias"))]
    ids = {id(p) for p in spared}
    groups: list[dict[str, object]] = [{"params": [p for _, p in trainable if id(p) not in ids]}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    return groups


def constant(optimizer: Optimizer, n_steps: int, *, warmup_steps: int = 0) -> LambdaLR:
    """The learning rate as set, after a linear warm-up."""
    return LambdaLR(optimizer, lambda step: _warmup(step, warmup_steps))


def cosine(optimizer: Optimizer, n_steps: int, *, warmup_steps: int = 0, final_share: float = 0.0) -> LambdaLR:
    """A linear warm-up, then half a cosine down to `final_share` of the learning rate at step `n_steps`."""

    def share(step: int) -> float:
        progress = min(1.0, max(0, step - warmup_steps) / max(1, n_steps - warmup_steps))
        return _warmup(step, warmup_steps) * (final_share + (1 - final_share) * (1 + math.cos(math.pi * progress)) / 2)

    return LambdaLR(optimizer, share)


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))
