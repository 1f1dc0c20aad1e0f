"""What a policy says of demonstrations that do not exist yet: their first picture and their instruction.

The answer that uncertainty is measured along is the greedy one, fixed once without dropout: otherwise a pass would
differ by its prefix too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from vlakit.errors import PartMissing
from vlakit.models.network import Distribution, Represents, capability
from vlakit.policy import TrainedPolicy
from vlakit.schema import Inputs, Observation
from vlakit.selection.acquisitions import Need, Outlook

PASSES = 10  # the original's


@contextmanager
def dropout_only(network: nn.Module) -> Iterator[list[str]]:
    """The network in evaluation mode but for its dropout layers, whose names are given; afterwards as it was.

    Switching the whole network to training would move the statistics of batch norms. Raises PartMissing without any
    dropout that drops something: Llama has none.
    """
    before = {module: module.training for module in network.modules()}
    dropping = {name: m for name, m in network.named_modules() if isinstance(m, _DropoutNd) and m.p > 0}
    if not dropping:
        raise PartMissing(
            "the network has no dropout: all passes would be the same",
            where="acquisition=mc_entropy or bald",
            do="train with some (strategy=lora strategy.dropout=0.1), or take another acquisition",
        )
    try:
        network.eval()
        for module in dropping.values():
            module.training = True
        yield list(dropping)
    finally:
        for module, mode in before.items():
            module.training = mode


def outlook(
    policy: TrainedPolicy,
    observations: Sequence[Observation],
    need: Need,
    *,
    passes: int = PASSES,
    seed: int = 0,
    rows: int = 64,
) -> Outlook:
    """What an acquisition needs to know of N observations, `rows` at a time; seed: of the dropout masks.

    Raises PartMissing for what the policy's network cannot say.
    """
    if need == "nothing":
        return Outlook()
    batches = [policy.observed(observations[start : start + rows]) for start in range(0, len(observations), rows)]
    if need in ("answers", "passes"):
        return _answers(policy.network, batches, passes if need == "passes" else 0, seed)
    network = capability(policy.network, Represents, purpose=f"acquisition=coreset_{need}")
    with torch.inference_mode():
        parts = [network.representations(batch)[need].float().cpu().numpy() for batch in batches]
    return Outlook(features={need: np.concatenate(parts)})


@torch.no_grad()
def _answers(network: nn.Module, batches: Sequence[Inputs], passes: int, seed: int) -> Outlook:
    answering = capability(network, Distribution, purpose="an acquisition by uncertainty")
    greedy = [answering.sample(batch, temperature=0.0).ids for batch in batches]

    def all_batches() -> np.ndarray:
        parts = [answering.distribution(batch, ids) for batch, ids in zip(batches, greedy, strict=True)]
        return torch.cat(parts).float().cpu().numpy()

    certain = all_batches()
    if not passes:
        return Outlook(certain)
    device = next(network.parameters()).device
    with dropout_only(network), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return Outlook(certain, np.stack([all_batches() for _ in range(passes)]))
