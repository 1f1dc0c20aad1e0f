"""How unsure a policy is of each token of an answer, in nats, and of the answer: N demonstrations, L tokens, C ids.

The originals score one softmax; joining the L positions of an action (sum, product) is vlakit's definition.
Source: Karamcheti et al. 2021, "Mind Your Outliers"; Houlsby et al. 2011 for the mutual information.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import log_softmax, xlogy

from vlakit.errors import InvalidData
from vlakit.schema import Float64

SAME_PASSES = 1e-7  # passes of float32 that differ by less are the same pass


def probabilities(logits: np.ndarray) -> Float64:
    """(..., C) logits or log-probabilities -> probabilities in float64. Raises InvalidData where one is NaN."""
    if np.isnan(logits).any():
        raise InvalidData("a logit is NaN", where=f"scores of shape {logits.shape}", do="look at the policy's loss")
    return np.exp(log_softmax(np.asarray(logits, np.float64), axis=-1))


def entropy_of(p: np.ndarray) -> Float64:
    """(..., C) probabilities -> (...) entropy in nats; 0 log 0 = 0.

    >>> float(entropy_of(np.full(256, 1 / 256)).round(6)) == round(float(np.log(256)), 6)
    True
    """
    return -xlogy(p, p).sum(axis=-1)


def max_prob(p: Float64) -> Float64:
    """(N, L) probability of the likeliest id."""
    return p.max(axis=-1)


def mc_entropy(passes: Float64) -> Float64:
    """(K, N, L, C) -> (N, L) entropy of the mean over the passes: all that is uncertain."""
    return entropy_of(passes.mean(axis=0))


def bald(passes: Float64) -> Float64:
    """(K, N, L, C) -> (N, L) mutual information of answer and weights: 0 to log min(K, C); 0 for identical passes."""
    return mc_entropy(passes) - entropy_of(passes).mean(axis=0)


def least_conf(p: Float64) -> Float64:
    """(N,) 1 minus the probability of the likeliest answer, position by position, in [0, 1]."""
    return 1 - max_prob(p).prod(axis=-1)


def least_conf_mean(p: Float64) -> Float64:
    """(N,) mean over positions of 1 minus the largest probability: does not saturate with the length."""
    return (1 - max_prob(p)).mean(axis=-1)


SINGLE: Mapping[str, Callable[[Float64], Float64]] = {
    "least_conf": least_conf,
    "least_conf_mean": least_conf_mean,
    "entropy": lambda p: entropy_of(p).sum(axis=-1),
}
MONTE_CARLO: Mapping[str, Callable[[Float64], Float64]] = {
    "mc_entropy": lambda passes: mc_entropy(passes).sum(axis=-1),
    "bald": lambda passes: bald(passes).sum(axis=-1),
}


def check_passes(passes: np.ndarray) -> None:
    """Raise InvalidData for fewer than two passes (K, N, L, C), or where all are the same for every demonstration."""
    if len(passes) < 2 or float(np.abs(passes - passes[:1]).max(initial=0)) <= SAME_PASSES:
        raise InvalidData(
            f"{len(passes)} dropout passes gave the same answer for every demonstration: the order would be chance",
            where="acquisition=mc_entropy or bald",
            do="train with dropout (Llama has none: strategy=lora strategy.dropout=0.1), or take another acquisition",
        )
