"""Choosing: names, sizes, ties, duplicates."""

import numpy as np
import pytest

from vlakit.errors import ConfigError, PartMissing
from vlakit.selection.acquisitions import ACQUISITIONS, Acquisition, Outlook, highest


def test_there_are_eight() -> None:
    assert len(ACQUISITIONS) == 8


def test_a_name_that_is_none_of_them_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="coreset_vision"):
        Acquisition("coreset_visual")


@pytest.mark.parametrize("n", [0, 8])
@pytest.mark.parametrize("name", ACQUISITIONS)
def test_more_than_the_pool_still_has_or_nothing_is_refused(name: str, n: int) -> None:
    with pytest.raises(ConfigError, match="1 to 7"):
        Acquisition(name).choose(Outlook(), [0, 4], 9, n, np.random.default_rng(0))


@pytest.mark.parametrize("name", [name for name in ACQUISITIONS if name != "random"])
def test_what_the_policy_does_not_say_is_named(name: str) -> None:
    with pytest.raises(PartMissing, match=name):
        Acquisition(name).choose(Outlook(), [0], 9, 2, np.random.default_rng(0))


def test_the_highest_scores_come_first_and_equal_ones_by_chance() -> None:
    scores = np.array([5.0, 1, 9, 5, 5, 7])
    assert highest(scores, [2], 2, np.random.default_rng(0))[0] == 5
    seconds = {highest(scores, [2], 2, np.random.default_rng(seed))[1] for seed in range(20)}
    assert seconds == {0, 3, 4}
    assert highest(scores, [], 6, np.random.default_rng(1)) == highest(scores, [], 6, np.random.default_rng(1))


def test_random_takes_all_with_the_same_chance() -> None:
    counts = np.zeros(6)
    for seed in range(600):
        counts[Acquisition().choose(Outlook(), [2], 6, 2, np.random.default_rng(seed)).positions] += 1
    assert counts[2] == 0
    assert np.abs(np.delete(counts, 2) - 240).max() < 60
