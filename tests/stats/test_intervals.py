"""One rate and two unpaired ones: against SciPy, statsmodels, published figures and all outcomes there are."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from vlakit.errors import InvalidData
from vlakit.stats import intervals
from vlakit.stats.intervals import clopper_pearson, newcombe, unpaired_equivalence, unpaired_p, wilson

COUNTS = [(0, 1), (1, 1), (0, 10), (9, 10), (97, 100), (250, 500), (2000, 2000)]


@pytest.mark.parametrize(("k", "n"), COUNTS)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_and_clopper_pearson_are_those_of_scipy(k: int, n: int, confidence: float) -> None:
    test = binomtest(k, n)
    assert wilson(k, n, confidence) == pytest.approx(tuple(test.proportion_ci(confidence, "wilson")), abs=1e-12)
    assert clopper_pearson(k, n, confidence) == pytest.approx(tuple(test.proportion_ci(confidence, "exact")), abs=1e-9)
    assert wilson(k, n, confidence) == pytest.approx(proportion_confint(k, n, 1 - confidence, "wilson"), abs=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),  # peers.md 5.4
    [(97, 100, 91.5, 99.0), (388, 400, 94.8, 98.3), (485, 500, 95.1, 98.2), (1530, 2000, 74.6, 78.3)],
)
def test_wilson_gives_the_figures_the_docs_print(k: int, n: int, low: float, high: float) -> None:
    assert [round(100 * limit, 1) for limit in wilson(k, n)] == [low, high]


@pytest.mark.parametrize("n", [5, 33, 100])
def test_clopper_pearson_never_covers_less_than_it_says_and_wilson_does_on_average(n: int) -> None:
    k = np.arange(n + 1)
    exact, score = (np.array([of(int(i), n) for i in k]) for of in (clopper_pearson, wilson))
    rates = np.linspace(0.01, 0.99, 199)
    weight = binom.pmf(k[:, None], n, rates)  # (n + 1, 199)

    def coverage(limits: np.ndarray) -> np.ndarray:
        return (weight * ((limits[:, :1] <= rates) & (rates <= limits[:, 1:]))).sum(axis=0)

    assert coverage(exact).min() >= 0.95 - 1e-9
    assert coverage(score).mean() == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(
    ("a", "b"), [((7, 34), (1, 34)), ((56, 70), (48, 80)), ((0, 10), (0, 20)), ((10, 10), (0, 10))]
)
def test_newcombes_unpaired_interval_is_that_of_statsmodels(a: tuple[int, int], b: tuple[int, int]) -> None:
    expected = confint_proportions_2indep(*a, *b, method="newcomb", compare="diff")
    assert newcombe(*a, *b) == pytest.approx(expected, abs=1e-9)


def test_newcombes_unpaired_interval_repeats_the_published_example() -> None:
    # Newcombe 1998, Stat. Med. 17:873, Table II: 56/70 - 48/80, method 10: 0.0524 to 0.3339
    assert newcombe(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_the_unpaired_score_uses_the_likeliest_rates_with_that_difference() -> None:
    for k in ((20, 33, 22, 30), (0, 10, 3, 12), (3, 7, 40, 41)):
        for difference in (-0.1, 0.03, 0.1):
            a, b = intervals._constrained(*k, difference)
            grid = np.linspace(max(0, difference) + 1e-9, min(1, 1 + difference) - 1e-9, 20001)
            fit = binom.logpmf(k[0], k[1], grid) + binom.logpmf(k[2], k[3], grid - difference)
            assert a == pytest.approx(grid[fit.argmax()], abs=1e-4)
            assert a - b == pytest.approx(difference)


def test_equal_unpaired_rates_have_p_one_even_when_nothing_varies() -> None:
    assert unpaired_p(10, 10, 20, 20) == unpaired_p(0, 5, 0, 5) == unpaired_p(4, 8, 2, 4) == 1
    assert unpaired_p(10, 10, 0, 10) < 1e-4


def test_equivalence_needs_more_than_equal_counts() -> None:
    assert unpaired_equivalence(7, 10, 7, 10, 0.05) > 0.3
    assert unpaired_equivalence(1400, 2000, 1400, 2000, 0.05) < 0.001
    assert unpaired_equivalence(1400, 2000, 1200, 2000, 0.05) > 0.99


@pytest.mark.parametrize("of", [wilson, clopper_pearson])
def test_what_is_no_rate_is_refused(of: object) -> None:
    assert callable(of)
    for k, n in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(InvalidData):
            of(k, n)
    with pytest.raises(InvalidData, match="confidence"):
        of(1, 2, 95)
    with pytest.raises(InvalidData, match="two episodes"):
        intervals.standard_error([1.0])
