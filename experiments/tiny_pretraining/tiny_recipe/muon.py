"""Muon for hidden matrices, AdamW for all else, as one optimizer with one state: it steps, saves and resumes like any.

Source: torch.optim.Muon (Jordan 2024); here matrices of one shape are orthogonalised together, in one batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of the Newton-Schulz iteration, as in torch.optim.Muon
STEPS = 5
NOT_HIDDEN = ("embed_tokens", "lm_head", "pos_embed", "cls_token", "reg_token", "latent", "heads.")


class MuonAdamW(Optimizer):
    """Groups with `names` beside their `params`; each is split into its hidden matrices and the rest.

    lr is Muon's; the rest learns at `adamw_share` of it. A matrix moves by lr sqrt(max(1, rows / columns)) along the
    nearest orthogonal one, as torch.optim.Muon does by default. weight_decay is decoupled; a group's own value wins.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        *,
        adamw_share: float = 1.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": tuple(betas), "weight_decay": weight_decay, "eps": eps}
        groups = [part for group in params for part in split(group, lr, adamw_share)]
        super().__init__(groups, {**defaults, "muon": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]  torch overloads it
        """One step of both; a parameter without a gradient stays."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                (self._muon if group["muon"] else self._adamw)(group, parameters)
        return loss

    def _muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p in parameters:
            gradient, state = gradient_of(p), self.state[p]
            state.setdefault("momentum_buffer", torch.zeros_like(p))
            buffer = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            shapes[p.shape].append((p, gradient.lerp(buffer, group["momentum"])))
        for shape, same in shapes.items():
            rate = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
            updates = orthogonal(torch.stack([update for _, update in same]))  # (n, rows, columns)
            for (p, _), update in zip(same, updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.to(p.dtype), alpha=-rate)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p] |= {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        states = [self.state[p] for p in parameters]
        moments, squares, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
        adamw(
            parameters,
            [gradient_of(p) for p in parameters],
            moments,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            **{key: group[key] for key in ("lr", "weight_decay", "eps")},
        )


def gradient_of(parameter: Tensor) -> Tensor:
    """The gradient, which is there."""
    if parameter.grad is None:
        raise ValueError("the parameter has no gradient")
    return parameter.grad


def split(group: dict[str, Any], lr: float, adamw_share: float) -> list[dict[str, Any]]:
    """A group as up to two: hidden matrices for Muon, and the rest with its own lr for AdamW."""
    rest = {key: value for key, value in group.items() if key not in ("params", "names")}
    pairs = list(zip(group["names"], group["params"], strict=True))
    parts = []
    for muon in (True, False):
        chosen = [(name, p) for name, p in pairs if is_hidden_matrix(name, p) == muon]
        if chosen:
            names, parameters = zip(*chosen, strict=True)
            own = {"params": list(parameters), "names": list(names), "muon": muon}
            parts.append({**rest, **own, "lr": lr if muon else lr * adamw_share})
    return parts


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter maps hidden states to hidden states: a matrix, no embedding, head or convolution."""
    return parameter.ndim == 2 and not any(part in name for part in NOT_HIDDEN)


def orthogonal(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> each with its singular values pushed to about 1, in bfloat16 as torch.optim.Muon does."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
