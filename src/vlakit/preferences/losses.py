"""Preference losses over log-probabilities per token, as TRL 1.16 and the DPO paper's repository compute them.

A loss is one function in a registry; any of them takes `sft_weight`. Two names that mislead: label smoothing is `cdpo`
in the paper's repository and `robust` in TRL, and TRL's `ipo` is `ipo_length_norm` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.errors import ConfigError, InvalidData
from vlakit.registry import Registry


@dataclass(frozen=True)
class LossSettings:
    """Which loss, and its numbers. sft_weight: of minus the mean log-probability of all preferred tokens, added.

    label_smoothing: the share of pairs that are taken to be the wrong way round. Raises ConfigError, UnknownName.
    """

    loss: str = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0
    sft_weight: float = 0.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        LOSSES.get(self.loss)
        weights = (self.sft_weight, self.desirable_weight, self.undesirable_weight)
        if self.beta <= 0 or not 0 <= self.label_smoothing < 0.5 or min(weights) < 0:
            raise ConfigError(
                f"beta={self.beta} label_smoothing={self.label_smoothing} weights={weights}",
                where="strategy",
                do="beta above 0, label_smoothing in [0, 0.5), no weight below 0",
            )
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ConfigError(
                f"label_smoothing={self.label_smoothing} changes nothing under loss={self.loss}",
                where="strategy",
                do=f"leave it out, or take loss={' or loss='.join(SMOOTHED)}",
            )

    @property
    def unpaired(self) -> bool:
        """Whether it judges episode by episode and not pair by pair."""
        return self.loss in UNPAIRED


@dataclass(frozen=True)
class Scored:
    """Log-probabilities of R answers: logp and reference (R, T), mask (R, T) bool: False where a number is noise.

    preferred (R,) bool. Of pairs the first half is preferred, row i over row R/2 + i. mismatched: (policy, reference)
    sums (K,) of answers to other questions, for the estimate of the divergence that kto subtracts.
    """

    logp: Tensor
    reference: Tensor
    mask: Tensor
    preferred: Tensor
    mismatched: tuple[Tensor, Tensor] | None = None
    paired: bool = False

    @classmethod
    def pairs(cls, logp: Tensor, reference: Tensor, mask: Tensor) -> Scored:
        """Rows of pairs. Raises InvalidData for an odd number of rows."""
        if len(logp) % 2 or not len(logp):
            raise InvalidData(f"{len(logp)} rows are no pairs", where="batch", do="the chosen ones, then the rejected")
        preferred = torch.arange(len(logp), device=logp.device) < len(logp) // 2
        return cls(logp, reference, mask, preferred, paired=True)

    def summed(self, values: Tensor) -> Tensor:
        """(R,) sums over what counts, in float32 at least; noise has no gradient."""
        kept = values.where(self.mask.bool(), torch.zeros_like(values))
        return kept.to(torch.promote_types(values.dtype, torch.float32)).sum(dim=1)

    @property
    def n_tokens(self) -> Tensor:
        """(R,), at least 1."""
        return self.mask.bool().sum(dim=1).clamp(min=1)

    @property
    def policy(self) -> Tensor:
        """(R,) log-probability of each answer."""
        return self.summed(self.logp)

    @property
    def ratio(self) -> Tensor:
        """d (R,): what the policy gives above the reference, in nats."""
        return self.policy - self.summed(self.reference)

    def gap(self, values: Tensor) -> Tensor:
        """(R/2,) chosen minus rejected of (R,)."""
        chosen, rejected = values.chunk(2)
        return chosen - rejected


@dataclass(frozen=True)
class Judged:
    """loss: scalar, the mean of rows and the sft term. rows: of each pair, or each episode. rewards (R,): beta d.

    z0: the divergence that was subtracted, where the loss has one.
    """

    loss: Tensor
    rows: Tensor
    rewards: Tensor
    z0: Tensor | None = None

    def scalars(self, scored: Scored) -> dict[str, Tensor]:
        """What TRL logs of a batch, by its names; an accuracy counts strictly greater rewards alone."""
        won, sums = scored.preferred, scored.policy.detach()
        rewards = {"chosen": self.rewards[won].mean(), "rejected": self.rewards[~won].mean()}
        values = {f"rewards/{name}": mean for name, mean in rewards.items()}
        values |= {"logps/chosen": sums[won].mean(), "logps/rejected": sums[~won].mean()}
        values["rewards/margins"] = rewards["chosen"] - rewards["rejected"]
        if scored.paired:
            values["rewards/accuracies"] = (scored.gap(self.rewards) > 0).float().mean()
        return values if self.z0 is None else {**values, "kto/z0": self.z0}


Rows: TypeAlias = Tensor | tuple[Tensor, Tensor]
LossFunction: TypeAlias = Callable[[Scored, LossSettings], Rows]
LOSSES: Registry[Any] = Registry("preference loss")
UNPAIRED = ("kto", "apo_zero_unpaired", "filtered_bc")
SMOOTHED = ("cdpo", "robust")


def judge(scored: Scored, settings: LossSettings) -> Judged:
    """The loss of a batch. Raises InvalidData where the batch lacks what this loss needs."""
    function: LossFunction = LOSSES.get(settings.loss)
    answer = function(scored, settings)
    rows, z0 = answer if isinstance(answer, tuple) else (answer, None)
    loss = rows.mean()
    if settings.sft_weight:
        loss = loss + settings.sft_weight * _sft(scored)
    return Judged(loss, rows, settings.beta * scored.ratio.detach(), z0)


@LOSSES.register("dpo")
def _dpo(scored: Scored, settings: LossSettings) -> Tensor:
    """Rafailov et al. 2023, equation 7."""
    return -F.logsigmoid(settings.beta * scored.gap(scored.ratio))


@LOSSES.register("dpo_reference_free")
def _dpo_reference_free(scored: Scored, settings: LossSettings) -> Tensor:
    return -F.logsigmoid(settings.beta * scored.gap(scored.policy))


@LOSSES.register("dpo_norm")
def _dpo_norm(scored: Scored, settings: LossSettings) -> Tensor:
    return -F.logsigmoid(settings.beta * scored.gap(scored.ratio / scored.n_tokens))


@LOSSES.register("cdpo")
def _cdpo(scored: Scored, settings: LossSettings) -> Tensor:
    right, wrong = _both_ways(scored, settings)
    return (1 - settings.label_smoothing) * right + settings.label_smoothing * wrong


@LOSSES.register("robust")
def _robust(scored: Scored, settings: LossSettings) -> Tensor:
    right, wrong = _both_ways(scored, settings)
    share = settings.label_smoothing
    return ((1 - share) * right - share * wrong) / (1 - 2 * share)


@LOSSES.register("hinge")
def _hinge(scored: Scored, settings: LossSettings) -> Tensor:
    return torch.relu(1 - settings.beta * scored.gap(scored.ratio))


@LOSSES.register("ipo")
def _ipo(scored: Scored, settings: LossSettings) -> Tensor:
    return (scored.gap(scored.ratio) - 1 / (2 * settings.beta)) ** 2


@LOSSES.register("ipo_length_norm")
def _ipo_length_norm(scored: Scored, settings: LossSettings) -> Tensor:
    return (scored.gap(scored.ratio / scored.n_tokens) - 1 / (2 * settings.beta)) ** 2


@LOSSES.register("apo_zero")
def _apo_zero(scored: Scored, settings: LossSettings) -> Tensor:
    chosen, rejected = torch.sigmoid(settings.beta * scored.ratio).chunk(2)
    return 1 - chosen + rejected


@LOSSES.register("sft")
def _sft_on_chosen(scored: Scored, settings: LossSettings) -> Tensor:
    return _sft(scored)[None]


@LOSSES.register("filtered_bc")
def _filtered_bc(scored: Scored, settings: LossSettings) -> Tensor:
    return _sft(scored)[None]


@LOSSES.register("kto")
def _kto(scored: Scored, settings: LossSettings) -> tuple[Tensor, Tensor]:
    if scored.mismatched is None:
        raise InvalidData("kto needs answers to other questions", where="batch", do="mismatched=(policy, reference)")
    policy, reference = scored.mismatched
    return _one_by_one(scored, settings, (policy - reference).mean().clamp(min=0).detach())


@LOSSES.register("apo_zero_unpaired")
def _apo_zero_unpaired(scored: Scored, settings: LossSettings) -> tuple[Tensor, Tensor]:
    return _one_by_one(scored, settings, scored.logp.new_zeros(()))


def _one_by_one(scored: Scored, settings: LossSettings, z0: Tensor) -> tuple[Tensor, Tensor]:
    above = settings.beta * (scored.ratio - z0)
    good = settings.desirable_weight * (1 - torch.sigmoid(above))
    bad = settings.undesirable_weight * (1 - torch.sigmoid(-above))
    return torch.where(scored.preferred, good, bad), z0


def _both_ways(scored: Scored, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """Minus log-sigmoid of the pairs as they stand, and of them turned round."""
    h = settings.beta * scored.gap(scored.ratio)
    return -F.logsigmoid(h), -F.logsigmoid(-h)


def _sft(scored: Scored) -> Tensor:
    """Minus ONE mean over all preferred tokens of the batch, so that long answers weigh more, as in TRL.

    Nothing where no row is preferred, which a batch of single episodes can be.
    """
    tokens = (scored.mask.bool() & scored.preferred[:, None]).sum().clamp(min=1)
    return -scored.policy[scored.preferred].sum() / tokens


def weights_ratio(n_preferred: int, n_other: int, settings: LossSettings) -> float:
    """(desirable weight x their number) / (the same of the others): TRL warns outside [1, 4/3]; inf without others."""
    other = settings.undesirable_weight * n_other
    return settings.desirable_weight * n_preferred / other if other else float("inf")


@dataclass(frozen=True)
class Exact:
    """The gradient of a loss over whole answers, taken apart token by token.

    weights (R, T): dL/dlogp. Since L depends on the network through logp alone, sum_t weights_t grad logp_t is its
    gradient, whichever tokens are in memory together.
    """

    judged: Judged
    weights: Tensor

    @classmethod
    def of(cls, scored: Scored, settings: LossSettings) -> Exact:
        """Loss and weights; scored.logp need not have a graph."""
        leaf = scored.logp.detach().requires_grad_(True)
        with torch.enable_grad():
            judged = judge(replace(scored, logp=leaf), settings)
            (weights,) = torch.autograd.grad(judged.loss, leaf)
        return cls(judged, weights)
