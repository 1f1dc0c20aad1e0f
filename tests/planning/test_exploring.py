"""Tries of skills: most begin mid-plan, what cannot begin fails, and they teach values that a planner uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlakit.evaluation.actors import Expert
from vlakit.evaluation.suite import InitialState
from vlakit.planning.exploring import IMPOSSIBLE, PER_EPISODE, explored
from vlakit.planning.suite import TabletopPlansSuite
from vlakit.schema import Float32, Observation

SUITE = TabletopPlansSuite(image_size=32)


def pixels(observations: Sequence[Observation]) -> Float32:
    return np.stack([one.image.reshape(-1, 3) / np.float32(255) for one in observations])


def test_the_expert_succeeds_at_what_can_begin_and_nothing_else_counts() -> None:
    tries = explored(Expert(), SUITE, pixels, episodes=6, slots=3)
    tried = len(tries) // (1 + IMPOSSIBLE)
    assert tries.features.shape[1:] == (32 * 32, 3)
    assert 6 * 2 <= tried <= 6 * PER_EPISODE
    assert tries.success.sum() >= 0.7 * tried
    assert tries.success.mean() <= 1 / (1 + IMPOSSIBLE)
    assert len(np.unique(tries.start)) == 6


def test_a_start_is_seen_as_it_is_when_each_skill_begins() -> None:
    tries = explored(Expert(), SUITE, pixels, episodes=6, slots=3)
    for start in np.unique(tries.start):
        seen = tries.of(tries.start == start).features
        assert len(np.unique(seen, axis=0)) >= 2


def test_tries_repeat_and_no_start_is_evaluated() -> None:
    first, again = (explored(Expert(), SUITE, pixels, episodes=6, slots=3) for _ in range(2))
    assert np.array_equal(first.skill, again.skill)
    assert np.array_equal(first.success, again.success)

    def scene(state: InitialState) -> str:
        return str(state.content["layout"])

    assert not {scene(s) for s in SUITE.training_states("noun", 20)} & {scene(s) for s in SUITE.initial_states("noun", 20)}
