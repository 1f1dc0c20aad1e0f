"""How likely a network finds recorded tokens, so many observations at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from vlakit.models.network import Likelihood
from vlakit.schema import Inputs

Observe: TypeAlias = Callable[[Sequence[int]], Inputs]  # numbers of observations -> what the network sees of them


def in_parts(rows: Sequence[int], at_once: int) -> Iterator[Sequence[int]]:
    """The rows, `at_once` at a time."""
    for first in range(0, len(rows), at_once):
        yield rows[first : first + at_once]


def precise(values: Tensor) -> Tensor:
    """In float32, or float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@torch.no_grad()
def log_probs(network: Likelihood, observe: Observe, rows: Sequence[int], ids: Tensor, at_once: int) -> Tensor:
    """(R, n) log-probabilities, float32 at least, of ids (R, n) after the observations of these rows."""
    parts: list[Tensor] = []
    done = 0
    for some in in_parts(rows, at_once):
        parts.append(precise(network.log_prob(observe(some), ids[done : done + len(some)])))
        done += len(some)
    return torch.cat(parts)


def push(
    network: Likelihood, observe: Observe, rows: Sequence[int], ids: Tensor, weights: Tensor, at_once: int
) -> None:
    """Add sum(weights x gradient of log_prob) to the parameters' gradients, with the graph of `at_once` rows in memory.

    The gradient of a loss of the log-probabilities is that sum for weights = dL/dlogp (R, n). Rows that weigh nothing
    are left out.
    """
    kept = [row for row in range(len(rows)) if bool(weights[row].any())]
    for some in in_parts(kept, at_once):
        logp = network.log_prob(observe([rows[row] for row in some]), ids[list(some)])
        logp.backward(weights[list(some)].to(logp.dtype))
