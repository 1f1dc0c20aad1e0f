"""Greedy k-center against brute force."""

from itertools import combinations

import numpy as np
import pytest
from check_active_learning import distances_before

from vlakit.errors import ConfigError, InvalidData
from vlakit.selection.coreset import Amortised, k_center, reduced


def radius(points: np.ndarray, centers: list[int]) -> float:
    return float(np.linalg.norm(points[:, None] - points[centers], axis=-1).min(axis=1).max())


@pytest.mark.parametrize("taken", [[], [0, 5]], ids=["from scratch", "given a start"])
def test_the_greedy_radius_is_at_most_twice_the_best(taken: list[int]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        n, k = int(rng.integers(8, 11)), int(rng.integers(1, 4))
        points = rng.standard_normal((n, 2)) * rng.random(2)
        free = [i for i in range(n) if i not in taken]
        best = min(radius(points, [*taken, *rest]) for rest in combinations(free, k))
        greedy = radius(points, [*taken, *k_center(points, taken, k).positions])
        assert best - 1e-12 <= greedy <= 2 * best + 1e-12


def test_distances_fall_and_no_position_comes_twice() -> None:
    points = np.random.default_rng(2).standard_normal((60, 5))
    picks = k_center(points, [3, 7], 58).positions
    assert sorted([*picks, 3, 7]) == list(range(60))
    assert (np.diff(distances_before(points, [3, 7], picks)) <= 1e-12).all()


def test_of_copies_one_is_taken_until_only_copies_are_left_and_those_are_counted() -> None:
    points = np.repeat(np.arange(4.0)[:, None], 3, axis=0)
    picks = k_center(points, [0], 5, rng=np.random.default_rng(0))
    assert {int(points[i, 0]) for i in picks.positions[:3]} == {1, 2, 3}
    assert picks.tied == 2
    others = {tuple(k_center(points, [0], 5, rng=np.random.default_rng(seed)).positions) for seed in range(9)}
    assert len(others) > 1


def test_the_short_form_looks_again_only_so_often() -> None:
    points = np.random.default_rng(3).standard_normal((80, 40))
    short = k_center(points, [0], 12, amortised=Amortised(pca=40, updates=12)).positions
    assert short == k_center(points, [0], 12).positions
    stale = k_center(points, [0], 12, amortised=Amortised(pca=40, updates=1)).positions
    first = ((points - points[0]) ** 2).sum(axis=1)
    assert stale == np.argsort(-first)[:12].tolist()


def test_fewer_dimensions_keep_the_distances_that_lie_in_them() -> None:
    rng = np.random.default_rng(4)
    points = rng.standard_normal((30, 3)) @ rng.standard_normal((3, 50))
    less = reduced(points, 3)
    assert less.shape == (30, 3)
    gram = lambda x: ((x[:, None] - x) ** 2).sum(-1)  # noqa: E731
    assert np.allclose(gram(less), gram(points))


def test_more_than_the_pool_has_or_features_without_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="8 demonstrations are asked for, 7"):
        k_center(np.zeros((9, 2)), [0, 1], 8)
    with pytest.raises(InvalidData, match="finite"):
        k_center(np.full((3, 2), np.inf), [0], 1)
