"""Tries of skills: most begin mid-plan, what cannot begin fails, and they teach values that a planner uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vlakit.errors import CheckpointMismatch, CorruptRecord
from vlakit.evaluation.actors import Expert, Turn
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.worlds import LocalWorlds
from vlakit.planning.affordances import Learned
from vlakit.planning.exploring import IMPOSSIBLE, PER_EPISODE, explored
from vlakit.planning.suite import TabletopPlansSuite
from vlakit.planning.value_files import load_values, save_values
from vlakit.planning.values import Fit
from vlakit.schema import Float32, Observation

SUITE = TabletopPlansSuite(image_size=32)


def pixels(observations: Sequence[Observation], _: Sequence[int] | None) -> Float32:
    return np.stack([one.image.reshape(-1, 3) / np.float32(255) for one in observations])


def test_the_expert_succeeds_at_what_can_begin_and_nothing_else_counts() -> None:
    tries = explored(Expert(), SUITE, pixels, episodes=6, slots=3)
    tried = len(tries) // (1 + IMPOSSIBLE)
    assert tries.features.shape[1:] == (32 * 32, 3)
    assert 6 * 2 <= tried <= 6 * PER_EPISODE
    assert tries.success.sum() >= 0.7 * tried
    assert tries.success.mean() <= 1 / (1 + IMPOSSIBLE)
    assert len(np.unique(tries.start)) == 6
    assert tries.ended is not None
    before, after = tries.ended.success[::2], tries.ended.success[1::2]
    assert (len(before), before.any(), after.sum()) == (tried, False, tries.success.sum())


def test_a_start_is_seen_as_it_is_when_each_skill_begins() -> None:
    tries = explored(Expert(), SUITE, pixels, episodes=6, slots=3)
    for start in np.unique(tries.start):
        seen = tries.of(tries.start == start).features
        assert len(np.unique(seen, axis=0)) >= 2


def test_a_skill_under_way_is_looked_at_again_and_ends_alike() -> None:
    once, often = (explored(Expert(), SUITE, pixels, episodes=6, slots=3, every=every) for every in (None, 3))
    assert once.then is None
    assert often.then is not None
    assert np.array_equal(often.begun.features, once.features)
    assert np.array_equal(often.begun.success, once.success)
    goes_on = often.then >= 0
    assert goes_on.sum() > 20
    assert np.array_equal(often.success[often.then[goes_on]], often.success[goes_on])
    assert np.array_equal(often.skill[often.then[goes_on]], often.skill[goes_on])


def test_tries_repeat_and_no_start_is_evaluated() -> None:
    first, again = (explored(Expert(), SUITE, pixels, episodes=6, slots=3) for _ in range(2))
    assert np.array_equal(first.skill, again.skill)
    assert np.array_equal(first.success, again.success)

    def scene(state: InitialState) -> str:
        return str(state.content["layout"])

    assert not {scene(s) for s in SUITE.training_states("noun", 20)} & {
        scene(s) for s in SUITE.initial_states("noun", 20)
    }


def test_values_come_back_from_their_file_and_serve_a_planner(tmp_path: Path) -> None:
    tries = explored(Expert(), SUITE, pixels, episodes=6, slots=3)
    fitted = Fit(epochs=1)(tries, SUITE.skills)
    file = tmp_path / "values.pt"
    save_values(file, fitted, SUITE.skills, "a policy", "patches")
    learned = Learned(load_values(file, SUITE.skills, "a policy")[0], pixels, SUITE.skills)
    states = SUITE.initial_states("single", 2)
    seen = [SUITE.environment().reset(state) for state in states]
    turns = {slot: Turn(state, 0, one) for slot, (state, one) in enumerate(zip(states, seen, strict=True))}
    values = learned.values(turns, LocalWorlds(SUITE))
    assert np.allclose(np.stack([values[0], values[1]])[:, :-1], fitted.network.values(pixels(seen, None)), atol=1e-6)
    assert values[0][-1] == 1
    skills, ended = [SUITE.skills.options[3], SUITE.skills.options[40]], fitted.network.ended
    assert ended is not None
    come_about = ended.values(pixels(seen, None))
    done = learned.values(turns, LocalWorlds(SUITE), {0: skills, 1: []})
    assert np.isclose(done[0][-1], come_about[0, 3] * come_about[0, 40])
    assert done[1][-1] == 1
    with pytest.raises(CheckpointMismatch, match="another policy"):
        load_values(file, SUITE.skills, "another")
    with pytest.raises(CheckpointMismatch, match="other skills"):
        load_values(file, SUITE.skills.only(["lift red cube"]), "a policy")
    file.write_bytes(b"no such thing")
    with pytest.raises(CorruptRecord):
        load_values(file, SUITE.skills, "a policy")
