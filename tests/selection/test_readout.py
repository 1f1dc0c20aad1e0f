"""The learner of seconds: it learns, reads no label that was not bought, and its passes differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlakit.data.rlds.source import RldsSource
from vlakit.errors import InvalidData, PartMissing
from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation
from vlakit.selection.acquisitions import ACQUISITIONS, Acquisition
from vlakit.selection.maps import auroc, rank_of
from vlakit.selection.pool import LabelNotBought, Pool
from vlakit.selection.readout import Frames, Readout, ReadoutPolicy, ReadoutSettings, extended, frames_of
from vlakit.selection.rounds import Plan, run

SETTINGS = ReadoutSettings(hidden=64, steps=120, bins=8, passes=4)


def frames(n: int, seed: int, outliers: int = 0) -> Frames:
    """Demonstrations of three frames whose tokens follow from what is seen, but for the first `outliers`."""
    rng = np.random.default_rng(seed)
    parts = {kind: rng.standard_normal((3 * n, 6)).astype(np.float32) for kind in ("fused", "vision", "language")}
    tokens = (parts["fused"][:, :2] > 0).astype(np.int64) * 5
    tokens[: 3 * outliers] = rng.integers(0, 8, (3 * outliers, 2))
    parts["vision"][: 3 * outliers, 0] += 3  # where they come from can be seen, what they do cannot
    return Frames(parts, tokens, np.repeat(np.arange(n), 3))


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_rounds_of_every_acquisition_end_above_chance(name: str, tmp_path: Path) -> None:
    learner = Readout(frames(60, 0), frames(40, 1), SETTINGS)
    done = run(Plan(Acquisition(name), 10, 10, 2), 60, learner, tmp_path, identity={})
    assert done[-1].metrics["eval/token_accuracy"] > 0.6


def test_labels_of_what_was_not_bought_raise() -> None:
    learner = Readout(frames(9, 0), frames(9, 1), SETTINGS)
    with pytest.raises(InvalidData, match="fit first"):
        learner.logits(learner.held_out.seen)
    learner.fit(0, [1, 2, 5])
    assert learner.labels(learner.frames.rows([2, 5])).shape == (6, 2)
    with pytest.raises(LabelNotBought, match="demonstration 3"):
        learner.labels(learner.frames.rows([2, 3]))


def test_the_map_of_a_training_finds_what_cannot_be_learnt_and_so_does_its_usable_form() -> None:
    pool = frames(60, 0, outliers=20)
    learner = Readout(pool, pool, ReadoutSettings(hidden=64, bins=8))
    known = learner.mapped(range(60), epochs=30)
    flags = np.arange(60) < 20
    assert all(auroc(-rank_of(known, by), flags) > 0.9 for by in ("confidence", "variability", "conf_x_var"))
    half = list(range(0, 60, 2))
    part = learner.mapped(half, epochs=30)
    assert part.ids.tolist() == half
    guessed = extended(part, rank_of(part, "confidence"), pool.features["vision"][pool.first])
    rest = np.arange(1, 60, 2)
    assert auroc(-guessed[rest], flags[rest]) > 0.7


def test_a_readout_without_dropout_is_refused_for_passes() -> None:
    learner = Readout(frames(9, 0), frames(9, 1), ReadoutSettings(hidden=8, bins=8, steps=2, dropout=0.0))
    learner.fit(0, [1, 2])
    with pytest.raises(PartMissing, match="no dropout"):
        learner.outlook(0, "passes")


def test_it_acts_as_a_policy_over_the_frozen_model(tmp_path: Path) -> None:
    from selection.test_pool import SPEC, write_pool

    pool, policy = Pool(RldsSource.open(write_pool(tmp_path, 3)), SPEC), TrainedPolicy.from_checkpoint("tiny")
    seen = frames_of(pool, policy, "tabletop_d0")
    assert seen.tokens.shape == (9, 7)
    assert seen.owner.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    learner = Readout(seen, seen, ReadoutSettings(hidden=64, steps=150, dropout=0.0))
    assert learner.fit(0, [0, 1, 2])["eval/token_accuracy"] == 1
    look = pool.first_looks(["primary"], [1])[0]
    (acted,) = ReadoutPolicy(policy, learner).act([Observation(look.images, look.instruction, "tabletop_d0")])
    recorded = pool.source.read(pool.headers[1], ["action"])["action"][0]
    statistics = policy.processor.statistics_of("tabletop_d0")
    within = recorded.clip(statistics.q01, statistics.q99)[:6]
    assert np.abs(acted[0][:6] - within).max() <= float((statistics.q99 - statistics.q01)[:6].max()) / 255
