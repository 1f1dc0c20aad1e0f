"""Values learnt from tries: they rank, they are calibrated, and pictures are looked at once."""

from __future__ import annotations

import numpy as np
import pytest

from vlakit.errors import InvalidData
from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.planning.skills import library
from vlakit.planning.values import Calibration, Fit, Tries, ValueNetwork, codes, platt

SKILLS = library(load_embodiment("d0"))
WORDS = sorted({word for skill in SKILLS for need in skill.needs for word in need.split()})


def seen(things: list[str], n_patches: int = 5) -> np.ndarray:
    """(P, D): a patch for each thing, which says its colour and shape."""
    patches = np.zeros((n_patches, len(WORDS)), np.float32)
    for patch, thing in zip(patches, things, strict=False):
        patch[[WORDS.index(word) for word in thing.split()]] = 1
    return patches


def made_tries(n_starts: int, each: int, works: float = 0.8) -> Tries:
    """Skills whose things are there work as often as `works`, others never."""
    rng, places = np.random.default_rng(0), np.arange(len(SKILLS))
    named = sorted({need for skill in SKILLS for need in skill.needs})
    rows = []
    for start in range(n_starts):
        things = [str(one) for one in rng.choice(named, 4, replace=False)]
        can = [i for i, skill in enumerate(SKILLS) if set(skill.needs) <= set(things)]
        for k in range(each):
            skill = int(rng.choice(can if k % 2 else places))
            rows.append((seen(things), skill, skill in can and rng.uniform() < works, start))
    features, skill, success, starts = zip(*rows, strict=True)
    return Tries(np.stack(features), np.array(skill), np.array(success, bool), np.array(starts))


@pytest.mark.slow
def test_values_rank_and_are_calibrated_on_starts_that_were_not_seen() -> None:
    fitted = Fit(epochs=20)(made_tries(1500, 6), SKILLS).held_out
    assert fitted.auroc is not None
    assert fitted.auroc >= 0.85
    assert fitted.ece <= 0.1
    assert fitted.brier < fitted.base_rate * (1 - fitted.base_rate)


def test_all_skills_at_once_are_each_alone_and_the_same_seed_the_same_network() -> None:
    tries = made_tries(10, 2)
    network, again = (Fit(epochs=1)(tries, SKILLS).network for _ in range(2))
    values = network.values(tries.features[:3])
    for skill in (0, 50, 155):
        alone = ValueNetwork(codes(SKILLS)[skill : skill + 1], tries.features.shape[2])
        alone.load_state_dict(network.state_dict() | {"codes": codes(SKILLS)[skill : skill + 1]})
        assert np.allclose(alone.eval().values(tries.features[:3])[:, 0], values[:, skill], atol=1e-6)
    assert np.array_equal(values, again.values(tries.features[:3]))
    assert values.shape == (3, len(SKILLS))


def walks(n_walks: int) -> Tries:
    """Random walks over five states in a row; success is to leave on the right: from state i, with chance i / 6."""
    rng, rows, then = np.random.default_rng(0), [], []
    for start in range(n_walks):
        path = [int(rng.integers(1, 6))]
        while 0 < path[-1] < 6:
            path.append(path[-1] + int(rng.choice([-1, 1])))
        rows += [(np.eye(5, dtype=np.float32)[[state - 1]], 0, path[-1] == 6, start) for state in path[:-1]]
        then += [*range(len(then) + 1, len(rows)), -1]
    features, skill, success, starts = zip(*rows, strict=True)
    return Tries(np.stack(features), np.array(skill), np.array(success, bool), np.array(starts), then=np.array(then))


def test_td_and_monte_carlo_agree_on_a_chain_whose_chances_are_known() -> None:
    chain, known = np.eye(5, dtype=np.float32)[:, None], np.arange(1, 6) / 6
    tries = walks(800)
    monte_carlo, td = (
        Fit(epochs=40, learning_rate=2e-3, bootstrap=bootstrap)(tries, SKILLS).network.values(chain)[:, 0]
        for bootstrap in (False, True)
    )
    assert np.abs(td - monte_carlo).max() < 0.05
    assert np.abs(td - known).max() < 0.08
    assert np.abs(monte_carlo - known).max() < 0.08


def test_a_part_of_tries_keeps_what_follows_what() -> None:
    tries = walks(20)
    assert tries.then is not None
    part = tries.of(tries.start % 2 == 0)
    assert part.then is not None
    goes_on = part.then >= 0
    assert (part.start[part.then[goes_on]] == part.start[goes_on]).all()
    assert len(part.begun) == 10 == (~goes_on).sum()
    assert set(part.begun.start) == set(range(0, 20, 2))


def test_a_split_shares_no_start() -> None:
    first, second = made_tries(10, 3).split(0.3, seed=0)
    assert not set(first.start) & set(second.start)
    assert (len(first), len(second)) == (21, 9)


def test_the_measures_are_their_definitions() -> None:
    values, won = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    found = Calibration.of(values, won)
    assert found.auroc == pytest.approx(0.75)
    assert found.brier == pytest.approx((0.01 + 0.16 + 0.4225 + 0.04) / 4)
    assert found.ece == pytest.approx((0.1 + 0.4 + 0.65 + 0.2) / 4)
    assert Calibration.of(values, np.ones(4, bool)).auroc is None
    assert Calibration.of(np.full(4, 0.5), won).auroc == 0.5  # ties


def test_platt_mends_what_is_too_sure() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, 4000)
    won = rng.uniform(size=4000) < 1 / (1 + np.exp(-(logits + 0.5)))
    slope, shift = platt(4 * logits, won).tolist()
    assert slope == pytest.approx(0.25, abs=0.05)
    assert shift == pytest.approx(0.5, abs=0.15)


def test_tries_that_teach_nothing_are_refused() -> None:
    tries = made_tries(6, 2)
    for success in (np.zeros(12, bool), np.ones(12, bool)):
        with pytest.raises(InvalidData, match="try succeeded"):
            Fit()(Tries(tries.features, tries.skill, success, tries.start), SKILLS)
    with pytest.raises(InvalidData, match="cannot be split"):
        Fit()(made_tries(2, 4), SKILLS)
