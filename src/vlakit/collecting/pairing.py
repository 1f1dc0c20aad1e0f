"""From rollouts to a folder of pairs: the outcome decides, the policy that drew them is the reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlakit.collecting.collector import seen_again
from vlakit.errors import CheckpointMismatch, InvalidData
from vlakit.evaluation.suite import Suite
from vlakit.models.network import Likelihood, capability
from vlakit.preferences.episodes import Episode, Rollouts
from vlakit.preferences.pair_file import Reference, write_pairs
from vlakit.preferences.pairs import PairPlan, paired
from vlakit.processing.tokens import TokenProcessor

if TYPE_CHECKING:
    from vlakit.policy import TrainedPolicy


def make_pairs(
    policy: TrainedPolicy,
    rollouts: Rollouts,
    suite: Suite,
    plan: PairPlan,
    out: Path,
    *,
    name: str = "",
    at_once: int = 128,
) -> dict[str, Any]:
    """Write the pairs and return their header. policy: that which drew the rollouts, and the reference.

    Raises CheckpointMismatch for another policy, InvalidData where there is no pair, or tokens are not those executed.
    """
    network = capability(policy.network, Likelihood, purpose="a reference for preferences (log_prob)")
    drew, sha256 = rollouts.header["policy"], policy.content_hash()
    if sha256 != drew["sha256"]:
        raise CheckpointMismatch(
            f"these are rollouts of another policy: {drew['name']}",
            where=f"{rollouts.path}; ckpt {name}",
            do="name the policy that drew them with ckpt=, or collect with this one",
        )
    episodes = rollouts.episodes()
    made = paired(episodes, plan)
    _check_tokens(policy, [one for one in episodes if one.usable], rollouts)
    reference = Reference(network, policy.processor.for_validation(), name, sha256, policy.device)
    frames = seen_again(rollouts, suite, policy.window)
    return write_pairs(out, rollouts, made, plan, reference, frames, at_once)


def _check_tokens(policy: TrainedPolicy, episodes: list[Episode], rollouts: Rollouts) -> None:
    """Raise InvalidData unless the first action of each answer is what its tokens mean, to the last bit."""
    processor = policy.processor
    if not isinstance(processor, TokenProcessor):
        return
    for episode in episodes:
        actions = np.array(episode.actions, np.float32)
        normalized = processor.from_ids(episode.tokens).reshape(len(episode.asked), episode.chunk, -1)
        meant = processor.physical(normalized.astype(np.float32), [rollouts.header["dataset"]] * len(normalized))[:, 0]
        if not np.array_equal(meant, actions[episode.asked]):
            raise InvalidData(
                f"the tokens of {episode.start}, rollout {episode.rollout}, are not those of its actions",
                where=str(rollouts.path),
                do="tokens that were made of actions afterwards are others: vlakit collect records those drawn",
            )
