"""Paired outcomes: against SciPy, statsmodels and published examples, by enumeration, and where nothing differs."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import multinomial, norm, permutation_test
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from vlakit.errors import InvalidData
from vlakit.stats.paired import (
    PairCounts,
    bootstrap,
    count_pairs,
    credit_equivalence,
    equivalence,
    mcnemar,
    newcombe_paired,
    non_inferiority,
    sign_flip,
    tango,
)

BENTUR = PairCounts(1, 1, 7, 12)  # airway hyper-responsiveness; Fagerland, Lydersen, Laake, Stat. Med. 33 (2014) 2850
CAVO = PairCounts(
    59, 6, 16, 80
)  # complete response; Fagerland et al., Statistical Analysis of Contingency Tables, ch. 8


def tango_interval(counts: PairCounts) -> tuple[float, float]:
    z = norm.ppf(0.975)
    low, high = (brentq(lambda d, s=s: tango(counts, d) - s * z, -0.9999, 0.9999) for s in (1, -1))
    return low, high


def test_pairs_are_counted_by_outcome() -> None:
    a, b = np.array([1, 1, 1, 0, 0, 0], bool), np.array([1, 0, 0, 1, 0, 0], bool)
    assert count_pairs(a, b) == PairCounts(1, 2, 1, 2)
    assert count_pairs(a, b).difference == pytest.approx(a.mean() - b.mean())
    assert count_pairs(a, b).discordance == 0.5
    with pytest.raises(InvalidData, match="do not pair"):
        count_pairs(a, b[:-1])
    with pytest.raises(InvalidData, match="no pair"):
        count_pairs(a[:0], b[:0])


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 7), (6, 16), (0, 1), (0, 12), (30, 10), (5, 5)])
def test_exact_mcnemar_is_that_of_statsmodels_and_mid_p_takes_half_the_observed(only_a: int, only_b: int) -> None:
    exact = statsmodels_mcnemar([[3, only_a], [only_b, 4]], exact=True).pvalue
    assert mcnemar(only_a, only_b, mid=False) == pytest.approx(min(1, exact), abs=1e-12)
    n, k = only_a + only_b, min(only_a, only_b)
    tails = [1 if j < k else 0.5 for j in range(k + 1)]
    mid = sum(2 * t * multinomial.pmf([j, n - j], n, [0.5, 0.5]) for j, t in enumerate(tails))
    assert mcnemar(only_a, only_b) == pytest.approx(min(1, mid), abs=1e-12)


def test_without_discordant_pairs_nothing_speaks_against_equality() -> None:
    assert mcnemar(0, 0) == mcnemar(0, 0, mid=False) == sign_flip(np.zeros(9)) == 1


def test_newcombes_and_tangos_intervals_repeat_published_examples() -> None:
    assert [round(x, 3) for x in newcombe_paired(BENTUR)] == [-0.507, -0.026]
    assert [round(x, 3) for x in tango_interval(BENTUR)] == [-0.517, -0.026]
    assert [round(x, 4) for x in newcombe_paired(CAVO)] == [-0.1186, -0.0046]


@pytest.mark.parametrize("counts", [PairCounts(10, 0, 0, 0), PairCounts(0, 0, 0, 10), PairCounts(5, 0, 0, 5)])
def test_without_discordant_pairs_the_interval_still_has_width(counts: PairCounts) -> None:
    low, high = newcombe_paired(counts)
    assert low == pytest.approx(-high)
    assert 0.01 < high < 0.5
    assert equivalence(counts, 0.05) > 0.05  # ten pairs do not show five points


def test_equivalence_comes_with_enough_agreeing_pairs_and_only_inside_the_margin() -> None:
    assert equivalence(PairCounts(700, 0, 0, 300), 0.05) < 1e-6
    assert equivalence(PairCounts(600, 100, 100, 200), 0.05) < 0.001
    assert equivalence(PairCounts(600, 150, 50, 200), 0.05) > 0.99
    assert non_inferiority(PairCounts(600, 150, 50, 200), 0.05) < 1e-6
    assert non_inferiority(PairCounts(600, 50, 150, 200), 0.05) > 0.99
    for margin in (0, 1, 5):
        with pytest.raises(InvalidData, match="margin"):
            equivalence(CAVO, margin)


def test_swapping_the_policies_turns_every_answer_round() -> None:
    swapped = PairCounts(CAVO.both, CAVO.only_b, CAVO.only_a, CAVO.neither)
    low, high = newcombe_paired(CAVO)
    assert newcombe_paired(swapped) == pytest.approx((-high, -low))
    assert tango(swapped, -0.03) == pytest.approx(-tango(CAVO, 0.03))
    assert mcnemar(6, 16) == mcnemar(16, 6)


@pytest.mark.parametrize("seed", range(4))
def test_sign_flips_are_enumerated_exactly(seed: int) -> None:
    d = np.random.default_rng(seed).choice([-1, -0.5, 0, 0.5, 1], size=10)
    sums = np.array([np.dot(signs, d) for signs in product([1, -1], repeat=len(d))])
    reached = abs(d.sum())
    exact = (np.abs(sums) >= reached - 1e-9).mean()
    assert sign_flip(d, mid=False) == pytest.approx(exact, abs=1e-9)
    beyond = (np.abs(sums) > reached + 1e-9).mean()
    assert sign_flip(d) == pytest.approx(min(1, (exact + beyond) / 2), abs=1e-9)
    if reached:
        found = permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip(d, mid=False) == pytest.approx(found.pvalue, abs=1e-9)


def test_sign_flips_of_outcomes_are_mcnemars_test_and_of_thirds_are_read_too() -> None:
    d = np.array([1] * 7 + [-1] + [0] * 12)
    assert sign_flip(d) == mcnemar(7, 1)
    assert 0 < sign_flip(np.array([1 / 3, 1 / 6, 0.5, 2 / 3])) < 0.1
    with pytest.raises(InvalidData, match="multiples"):
        sign_flip(np.array([0.1234567, 0.5]))
    assert sign_flip(np.array([0.5, 1.0] * 600)) > 0  # far in the tail rounding must not give zero or less


def test_the_bootstrap_is_that_of_scipy_but_for_its_small_sample_widening() -> None:
    d = np.random.default_rng(0).choice([-1, -0.5, 0, 0.5, 1], p=[0.1, 0.1, 0.5, 0.1, 0.2], size=400)
    expected = scipy_bootstrap((d,), np.mean, method="percentile", rng=1).confidence_interval
    assert bootstrap(d, draws=20000) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_strata_take_the_differences_between_tasks_out_of_the_interval() -> None:
    d, task = np.repeat([0.0, 1.0], 50), np.repeat([0, 1], 50)
    d[0], d[-1] = 1, 0
    low, high = bootstrap(d, task)
    wide = bootstrap(d)
    assert high - low < 0.4 * (wide[1] - wide[0])
    assert low <= d.mean() <= high


def test_equal_differences_give_no_certainty() -> None:
    low, high = bootstrap(np.zeros(33))
    assert high == -low == pytest.approx(1 - 0.05 ** (1 / 33))  # as many others as could have been missed
    assert bootstrap(np.full(33, 0.5))[0] < 0.5
    assert credit_equivalence(np.zeros(33), 0.05) is None
    with pytest.raises(InvalidData):
        bootstrap(np.zeros(1))
