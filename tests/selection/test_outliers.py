"""Outliers with a reason: what a policy sees does not say what its demonstration does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vlakit.data.rlds.source import RldsSource
from vlakit.data.specs.spec import load_spec
from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.selection.outliers import OUTLIERS, PoolPlan, write_pool
from vlakit.selection.pool import Pool

SUITE = TabletopSuite("target")


def test_a_larger_share_flags_the_same_and_more_in_equal_groups() -> None:
    some, more = PoolPlan(80, 0.25).flagged(), PoolPlan(80, 0.4).flagged()
    assert some.items() <= more.items()
    assert set(Counter(more.values()).values()) == {8}
    assert PoolPlan(80, 0.0).flagged() == {}


@pytest.mark.parametrize("reason", ["hidden_attribute", "illegible_symbol"])
def test_what_is_lifted_follows_from_nothing_that_is_seen_or_said(reason: str) -> None:
    (state,) = SUITE.training_states("lift", 1, 0)
    starts = [OUTLIERS.build(reason).start(state, np.random.default_rng(seed)) for seed in range(20)]
    assert len({start.content["goal"]["x"] for start in starts}) > 1
    assert len({start.instruction for start in starts}) == 1
    assert all(start.content["layout"] == state.content["layout"] for start in starts)


def test_the_other_operator_does_the_opposite_of_what_is_said() -> None:
    for state in SUITE.training_states("push", 6, 0):
        start = OUTLIERS.build("other_convention").start(state, np.random.default_rng(0))
        pair = {state.content["goal"]["direction"], start.content["goal"]["direction"]}
        assert pair in ({"left", "right"}, {"forward", "back"})
        assert start.instruction == state.instruction


def test_noise_has_the_range_of_the_demonstration_and_nothing_else_of_it() -> None:
    actions = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    drawn = OUTLIERS.build("noise").actions(actions, np.random.default_rng(1))
    assert drawn.shape == actions.shape
    assert (drawn >= actions.min(axis=0)).all()
    assert (drawn <= actions.max(axis=0)).all()
    assert abs(np.corrcoef(drawn.ravel(), actions.ravel())[0, 1]) < 0.2


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share"):
        PoolPlan(10, 1.0)
    with pytest.raises(UnknownName, match="noise"):
        PoolPlan(10, 0.5, ("noize",))


@pytest.mark.sim
def test_a_pool_lies_on_disk_with_its_reasons_and_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = PoolPlan(8, 0.5)
    flagged = write_pool(SUITE, plan, tmp_path / "a")
    write_pool(SUITE, plan, tmp_path / "b")
    pool = Pool(RldsSource.open(tmp_path / "a"), load_spec("tabletop_target"))
    assert pool.reasons() == flagged
    assert len(pool) == 8
    looks = pool.first_looks(["primary"])
    said = {look.instruction for one, look in enumerate(looks) if flagged.get(one) == "hidden_attribute"}
    assert said == {"lift the heavy one"}
    files = [sorted(file for file in (tmp_path / name).rglob("*tfrecord*")) for name in "ab"]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    plain = PoolPlan(8, 0.0)
    write_pool(SUITE, plain, tmp_path / "c")
    clean = Pool(RldsSource.open(tmp_path / "c"), load_spec("tabletop_target"))
    same = [one for one in range(8) if clean.headers[one].key == pool.headers[one].key]
    assert same == [one for one in range(8) if one not in flagged]
