"""The test that may be watched: it errs no more often than it says, however often one looks."""

import numpy as np
import pytest

from vlakit.errors import InvalidData
from vlakit.stats.sequential import SequentialTest, log_evidence, stakes, stopping_times


def differences(p_a: float, p_b: float, p_half: float, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rest = 1 - p_a - p_b - 2 * p_half
    return np.random.default_rng(seed).choice([1, -1, 0.5, -0.5, 0], p=[p_a, p_b, p_half, p_half, rest], size=shape)


@pytest.mark.parametrize("half", [0.0, 0.1])
def test_equal_policies_are_told_apart_in_at_most_alpha_of_tests(half: float) -> None:
    stopped = stopping_times(differences(0.15, 0.15, half, (500, 150)), 150) > 0
    assert stopped.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)
    assert stopped.mean() > 0.003  # and the test is not asleep


def test_a_clear_difference_ends_the_test_early() -> None:
    times = stopping_times(differences(0.4, 0.1, 0, (500, 300)), 300)
    assert (times > 0).mean() > 0.95
    assert np.median(times[times > 0]) < 100


def test_expected_capital_is_one_when_the_game_is_fair() -> None:
    # every outcome of four fair pairs, weighted: the martingale's mean, not a simulation
    steps = np.array(np.meshgrid(*[[1, 0.5, -0.5, -1]] * 4)).reshape(4, -1).T
    counts = np.stack([(steps == gain).sum(axis=1) for gain in (1, 0.5, -0.5, -1)], axis=1)
    capital = np.exp(log_evidence(counts, stakes(100, 0.05)))
    assert capital.mean() == pytest.approx(1)


def test_one_at_a_time_and_all_at_once_agree() -> None:
    paths = differences(0.35, 0.1, 0.05, (20, 80), seed=3)
    times = stopping_times(paths, 80)
    for path, time in zip(paths, times, strict=True):
        test = SequentialTest(80)
        said = [test.add(max(d, 0), max(-d, 0)) for d in path]
        first = next((i + 1 for i, word in enumerate(said) if word.endswith("better")), 0)
        assert first == time
        assert said[-1] == (said[first - 1] if first else "cannot tell")


def test_the_budget_is_fixed_beforehand() -> None:
    test = SequentialTest(2)
    assert [test.add(1, 0), test.add(0, 1)] == ["go on", "cannot tell"]
    with pytest.raises(InvalidData, match="budget of 2"):
        test.add(1, 0)
    for wrong in ({"budget": 0}, {"budget": 5, "alpha": 0.0}):
        with pytest.raises(InvalidData):
            SequentialTest(**wrong)


def test_pairs_that_end_alike_say_nothing_and_odd_credits_are_refused() -> None:
    test = SequentialTest(50)
    for credit in (0, 0.5, 1):
        assert test.add(credit, credit) == "go on"
    assert test.p == 1
    with pytest.raises(InvalidData, match="credits"):
        test.add(0.3, 0)


def test_the_p_value_never_rises() -> None:
    test, seen = SequentialTest(60), []
    for d in differences(0.4, 0.1, 0, (1, 60), seed=1)[0]:
        test.add(max(d, 0), max(-d, 0))
        seen.append(test.p)
    assert seen == sorted(seen, reverse=True)
    assert (test.decision == "a better") == (seen[-1] <= 0.05)
