"""Corrections for many comparisons and the letters in tables."""

from itertools import combinations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from vlakit.errors import InvalidData
from vlakit.stats.multiple import compact_letters, holm


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_that_of_statsmodels(seed: int) -> None:
    p = list(np.random.default_rng(seed).uniform(0, 0.2, size=15).round(2))
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_of_none_and_of_one() -> None:
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    for wrong in (float("nan"), -0.1, 1.1):
        with pytest.raises(InvalidData):
            holm([0.1, wrong])


@pytest.mark.parametrize("seed", range(20))
def test_names_share_a_letter_exactly_when_they_were_not_told_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"run{i}" for i in range(7)]
    different = [pair for pair in combinations(names, 2) if rng.random() < rng.random()]
    letters = compact_letters(names, different)
    for one, other in combinations(names, 2):
        assert bool(set(letters[one]) & set(letters[other])) == ((one, other) not in different)
    assert all(letters.values())


def test_letters_start_with_the_first_name_and_none_is_superfluous() -> None:
    assert compact_letters(["x", "y"], []) == {"x": "a", "y": "a"}
    assert compact_letters(["x", "y"], [("x", "y")]) == {"x": "a", "y": "b"}
    with pytest.raises(InvalidData):
        compact_letters(["x"], [("x", "z")])
