"""How long one robot waits for an answer, and how many actions a second it gets: what chunks and few bits are for."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import numpy as np

from vlakit.checkpoints.contract import observation_of
from vlakit.policy import TrainedPolicy

CALLS = 5


def actions_per_second(policy: TrainedPolicy) -> float | None:
    """Actions of a chunk over the median time of an answer to one golden frame; None for a policy that has none."""
    seconds = answer_seconds(policy)
    return policy.processor.settings.chunk / median(seconds) if seconds else None


def latency(policy: TrainedPolicy) -> dict[str, float]:
    """p50_ms and p95_ms of an answer to one golden frame; empty for a policy that has none."""
    seconds = answer_seconds(policy)
    return {f"p{q}_ms": float(np.percentile(seconds, q)) * 1000 for q in (50, 95)} if seconds else {}


def answer_seconds(policy: TrainedPolicy, calls: int = CALLS) -> list[float]:
    """Seconds of each of several answers to one golden frame; empty for a policy that has none."""
    frames = (policy.card.contract or {}).get("frames")
    if not frames:
        return []
    observation = observation_of(frames[0], policy.processor)
    policy.act([observation])  # warms up
    seconds: list[float] = []
    for _ in range(calls):
        began = perf_counter()
        policy.act([observation])  # which ends with numbers on the CPU, so that no device is still at work
        seconds.append(perf_counter() - began)
    return seconds
