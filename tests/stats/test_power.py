"""Sample sizes: published and printed figures, and the power that simulation finds at the answer."""

from math import inf

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import power_proportions_2indep

from vlakit.errors import InvalidData
from vlakit.stats.paired import mcnemar
from vlakit.stats.power import (
    power_paired,
    power_unpaired,
    rollouts_mean,
    rollouts_paired,
    rollouts_unpaired,
)


@pytest.mark.parametrize(
    ("a", "b", "n"),  # peers.md 5.4
    [(0.97, 0.96, 5301), (0.97, 0.95, 1506), (0.98, 0.97, 3825), (0.90, 0.85, 686), (0.75, 0.70, 1251)],
)
def test_unpaired_needs_are_those_the_docs_print(a: float, b: float, n: int) -> None:
    assert rollouts_unpaired(a, b) == rollouts_unpaired(b, a) == pytest.approx(n, abs=1)
    assert power_unpaired(n, a, b) == pytest.approx(0.8, abs=0.001)
    assert power_unpaired(n, a, b) == pytest.approx(power_proportions_2indep(a - b, b, n).power, abs=0.002)


@pytest.mark.parametrize(
    ("a", "b", "n"),  # peers.md 5.3: the paper's Table 1
    [(69.7, 30.3, 25), (68.2, 30.3, 26), (62.1, 30.3, 37), (69.7, 47.0, 73), (62.1, 47.0, 170), (68.2, 62.1, 957)],
)
def test_needs_of_the_papers_first_table(a: float, b: float, n: int) -> None:
    assert rollouts_unpaired(a / 100, b / 100) == pytest.approx(n, rel=0.02, abs=1)


@pytest.mark.parametrize(("difference", "variance"), [(0.394, 0.294), (0.076, 0.377)])
def test_needs_of_mean_credits_are_those_of_statsmodels(difference: float, variance: float) -> None:
    effect = difference / np.sqrt(variance / 2)
    expected = NormalIndPower().solve_power(effect, alpha=0.05, power=0.8)
    assert rollouts_mean(difference, variance) == int(np.ceil(expected))


def test_pairing_needs_fewer_rollouts_when_outcomes_go_together() -> None:
    independent = 0.9 * 0.15 + 0.1 * 0.85
    assert rollouts_paired(0.05, independent) == pytest.approx(rollouts_unpaired(0.9, 0.85), rel=0.02)
    assert rollouts_paired(0.05, 0.07) < 0.35 * rollouts_unpaired(0.9, 0.85)


@pytest.mark.parametrize(("difference", "discordance", "n"), [(0.15, 0.25, 110), (0.05, 0.07, 240), (0.2, 0.6, 60)])
def test_paired_power_is_what_simulation_finds(difference: float, discordance: float, n: int) -> None:
    rng = np.random.default_rng(0)
    probabilities = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    draws = rng.multinomial(n, probabilities, size=4000)
    found = np.mean([mcnemar(int(a), int(b)) <= 0.05 for a, b, _ in draws])
    assert power_paired(n, difference, discordance) == pytest.approx(found, abs=4 * np.sqrt(0.25 / 4000))


def test_power_at_no_difference_is_at_most_alpha() -> None:
    for n in (10, 100, 1000):
        assert power_paired(n, 0, 0.2) <= 0.055
    assert power_paired(50, 0, 0) == 0
    assert power_paired(50, 1, 1) == pytest.approx(1)


def test_equal_rates_need_no_finite_number() -> None:
    assert rollouts_unpaired(0.7, 0.7) == rollouts_paired(0, 0.2) == rollouts_mean(0, 1) == inf


def test_what_cannot_be_is_refused() -> None:
    for call in (
        lambda: rollouts_paired(0.3, 0.2),
        lambda: power_paired(10, 0.3, 0.2),
        lambda: rollouts_unpaired(0.1, 0.2, power=1),
    ):
        with pytest.raises(InvalidData):
            call()
