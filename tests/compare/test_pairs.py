"""What more trainings can decide, and what only more initial states can."""

from math import inf

import numpy as np
import pytest
from table_fills import filled

from vlakit.compare.episodes import Arm
from vlakit.compare.pairs import Finding, Settings, compare_paired, more_states, needed, trainings_needed
from vlakit.compare.versus import ALL, compare_arms, judge
from vlakit.stats.intervals import wilson


def trainings(n_seeds: int, *, seed_sd: float, gain: float, n: int = 200) -> list[np.ndarray]:
    """Successes (S, N) of two strategies; without seed_sd the states alone decide, but for 3 % of the episodes."""
    rng = np.random.default_rng(5)
    sure = [rng.random(n) < 0.5 + gain, rng.random(n) < 0.5]
    if seed_sd:
        level = [0.5 + g + seed_sd * np.linspace(-1, 1, n_seeds)[:, None] for g in (gain, 0.0)]
        rates = [rate + 0.4 * (own - 0.5) for rate, own in zip(level, sure, strict=True)]
        return [(rng.random((n_seeds, n)) < rate).astype(float) for rate in rates]
    return [(s ^ (rng.random((n_seeds, n)) < 0.03)).astype(float) for s in sure]


def finding(n_seeds: int, **options: float) -> Finding:
    a, b = trainings(n_seeds, **options)  # type: ignore[arg-type]
    return compare_paired(a, b, np.zeros(a.shape[1], np.int64), Settings())


@pytest.mark.parametrize("n_seeds", [3, 10, 40])
def test_where_the_initial_states_decide_no_number_of_trainings_is_promised(n_seeds: int) -> None:
    found = finding(n_seeds, seed_sd=0.0, gain=0.05)
    assert needed(found, Settings(), 1) == inf
    assert "these 200" not in judge({("a", "b", ALL): found}, Settings())[0].verdict


def test_more_states_need_fewer_trainings() -> None:
    found = finding(3, seed_sd=0.05, gain=0.0)
    here, (there, n_states) = needed(found, Settings(), 4), more_states(found, Settings(), 4)
    assert there <= here / 2
    assert n_states >= 500
    assert trainings_needed(found, Settings(), 4, n_states) == there
    (judged,) = judge({("a", "b", ALL): found}, Settings())
    assert judged.verdict.startswith("cannot tell (more trainings of each would: ")
    assert f"on {n_states:,} starts)" in judged.verdict


def test_trainings_too_many_to_count_on_a_lattice_are_compared_all_the_same() -> None:
    a, b = trainings(9, seed_sd=0.1, gain=0.2)
    found = compare_paired(a[:7], b, np.zeros(a.shape[1], np.int64), Settings())
    assert found.p is not None
    assert found.interval is not None
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.p_checkpoints is None


def test_trainings_that_all_fail_have_the_interval_of_one() -> None:
    for rate, k in ((-9.0, 0), (9.0, 50)):
        runs = filled({"full": rate}, n=50).runs
        arm = Arm("full", [run.episodes for run in runs if run.episodes])
        (found,) = compare_arms([arm], Settings(confidence=0.9), pairs=[]).rates
        assert (found.seeds, found.n, found.rate) == (3, 150, k / 50)
        assert found.interval == wilson(k, 50, 0.9)
