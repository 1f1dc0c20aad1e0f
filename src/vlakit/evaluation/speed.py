"""How many actions a second a policy gives to one robot: what chunks and heads that answer in one pass are for."""

from __future__ import annotations

from statistics import median
from time import perf_counter

from vlakit.checkpoints.contract import observation_of
from vlakit.policy import TrainedPolicy

CALLS = 5


def actions_per_second(policy: TrainedPolicy) -> float | None:
    """Actions of a chunk over the median time of an answer to one golden frame; None for a policy that has none."""
    frames = (policy.card.contract or {}).get("frames")
    if not frames:
        return None
    observation = observation_of(frames[0], policy.processor)
    chunk = policy.act([observation]).shape[1]  # the first call warms up
    seconds: list[float] = []
    for _ in range(CALLS):
        began = perf_counter()
        policy.act([observation])  # which ends with numbers on the CPU, so that no device is still at work
        seconds.append(perf_counter() - began)
    return chunk / median(seconds)
