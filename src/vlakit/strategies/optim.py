"""Parameter groups and learning-rate schedules."""

import math
from fnmatch import fnmatch

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(module: nn.Module, *, decay_norms_and_biases: bool) -> list[dict[str, object]]:
    """Trainable parameters and their `names` in two groups: matrices decay; vectors and biases only when asked to.

    OpenVLA's pretraining spares them, its LoRA script decays everything (torch's default AdamW).
    """
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    globs = getattr(module, "undecayed", ())
    undecayed = {name for name, _ in trainable if any(fnmatch(name, glob) for glob in globs)}
    spared = undecayed.union(name for name, p in trainable if p.ndim <= 1 or name.endswith(".bias")) - (
        {name for name, _ in trainable} if decay_norms_and_biases else set()
    )
    groups = [_group([(name, p) for name, p in trainable if name not in spared])]
    if spared:
        groups.append({**_group([(name, p) for name, p in trainable if name in spared]), "weight_decay": 0.0})
    return groups


def _group(named: list[tuple[str, nn.Parameter]]) -> dict[str, object]:
    return {"params": [p for _, p in named], "names": [name for name, _ in named]}


def constant(optimizer: Optimizer, n_steps: int, *, warmup_steps: int = 0) -> LambdaLR:
    """The learning rate as set, after a linear warm-up."""
    return LambdaLR(optimizer, lambda step: _warmup(step, warmup_steps))


def cosine(
    optimizer: Optimizer, n_steps: int, *, warmup_steps: int = 0, final_share: float = 0.0, from_zero: bool = False
) -> LambdaLR:
    """A linear warm-up, then half a cosine down to `final_share` of the learning rate at step `n_steps`.

    from_zero: the first step has a rate of zero, as with diffusers' and transformers' schedules.
    """

    def share(step: int) -> float:
        progress = min(1.0, max(0, step - warmup_steps) / max(1, n_steps - warmup_steps))
        warmth = min(1.0, step / max(1, warmup_steps)) if from_zero else _warmup(step, warmup_steps)
        return warmth * (final_share + (1 - final_share) * (1 + math.cos(math.pi * progress)) / 2)

    return LambdaLR(optimizer, share)


def wsd(optimizer: Optimizer, n_steps: int, *, warmup_steps: int = 0, decay_share: float = 0.3) -> LambdaLR:
    """Warm-up, stable, decay: the rate as set, then a straight line to zero over the last `decay_share` of steps."""
    decay_steps = max(1.0, decay_share * n_steps)

    def share(step: int) -> float:
        return _warmup(step, warmup_steps) * min(1.0, max(0.0, n_steps - step) / decay_steps)

    return LambdaLR(optimizer, share)


def rsqrt(optimizer: Optimizer, n_steps: int, *, warmup_steps: int = 2000, timescale: int = 10_000) -> LambdaLR:
    """A linear warm-up from zero, then the rate falls as one over the root of the steps behind it (Octo).

    No warm-up is longer than a tenth of the run: one of 2,000 steps is the original's, whose runs have 50,000 or more.
    """
    warmup_steps = min(warmup_steps, n_steps // 10)
    return LambdaLR(optimizer, lambda step: rsqrt_share(step, warmup_steps, timescale))


def rsqrt_share(step: int, warmup_steps: int, timescale: int) -> float:
    """The share of the highest rate at a step.

    >>> rsqrt_share(0, 4, 10), rsqrt_share(2, 4, 10), rsqrt_share(4, 4, 10), rsqrt_share(34, 4, 10)
    (0.0, 0.5, 1.0, 0.5)
    """
    return step / warmup_steps if step < warmup_steps else math.sqrt(timescale / (step - warmup_steps + timescale))


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))
