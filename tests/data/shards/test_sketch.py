"""A sketch's quantiles lie within a thousandth of the range of the exact ones, however the data are cut into parts."""

import numpy as np
import pytest

from vlakit.data.shards import statistics
from vlakit.data.shards.sketch import Sketch, sketch
from vlakit.data.shards.statistics import NAMES, compute_statistics

RNG = np.random.default_rng(5)
COLUMNS = {
    "normal": RNG.normal(0.01, 0.02, 40_000),
    "two values": (RNG.random(9_000) < 0.011).astype(np.float64),
    "far from zero": 1e6 + RNG.random(5_000),
    "an outlier": np.append(RNG.normal(0, 1e-3, 20_000), [50.0]),
    "heavy tails": RNG.standard_cauchy(30_000),
    "steps": np.round(RNG.normal(0, 3, 10_000)),
    "float32": RNG.normal(-3, 1e-4, 8_000).astype(np.float32),
    "constant": np.full(700, -0.3),
    "zero": np.zeros(3),
    "one value": np.array([1e-30]),
    "tiny": RNG.normal(0, 1e-300, 500),
    "two": np.array([-1.0, 1.0]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_quantiles_lie_within_a_thousandth_of_the_range(name: str) -> None:
    column = np.asarray(COLUMNS[name], np.float64)
    one = Sketch.of(column)
    for share in (0.0, 0.01, 0.3, 0.5, 0.99, 1.0):
        assert abs(one.quantile(share) - np.quantile(column, share)) <= 1e-3 * np.ptp(column)
    assert (one.low, one.high, one.n) == (column.min(), column.max(), len(column))
    assert np.allclose([one.mean, one.std], [column.mean(), column.std()], rtol=1e-9, atol=1e-12 * np.abs(column).max())
    assert len(one.counts) <= 4096


@pytest.mark.parametrize("name", COLUMNS)
def test_parts_put_together_in_any_order_are_the_whole(name: str) -> None:
    column = COLUMNS[name]
    whole = Sketch.of(column)
    parts = np.array_split(column, 7)
    for order in (parts, parts[::-1], [np.sort(column)[: len(column) // 2], np.sort(column)[len(column) // 2 :]]):
        one = sketch(order)
        assert (one.n, one.low, one.high, one.exponent, one.first) == (
            whole.n, whole.low, whole.high, whole.exponent, whole.first
        )  # fmt: skip
        assert np.array_equal(one.counts, whole.counts)
        assert np.isclose(one.std, whole.std, rtol=1e-6, atol=1e-12 * np.abs(column).max())


def test_statistics_of_more_transitions_than_fit_are_those_of_a_sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [np.stack([RNG.normal(size=n), RNG.random(n)]) for n in (400, 1, 3000)]
    exact = compute_statistics(blocks, [], 3)
    monkeypatch.setattr(statistics, "EXACT_UP_TO", 3400)
    near = compute_statistics(blocks, [], 3)
    span = exact.max - exact.min
    for name in NAMES:
        assert (np.abs(getattr(near, name) - getattr(exact, name)) <= 1e-3 * span).all()
    assert not np.array_equal(near.q01, exact.q01)
    assert near.num_transitions == exact.num_transitions == 3401
