"""Several trainings: what varies with the episode and what with the seed are told apart."""

from math import inf

import numpy as np
import pytest

from vlakit.errors import InvalidData
from vlakit.stats.paired import mcnemar
from vlakit.stats.seeds import SPREADS, Components, compare_seeds, false_alarms


def arms(
    rng: np.random.Generator, *, seed_sd: float, n_seeds: int = 3, n: int = 100, gain: float = 0
) -> list[np.ndarray]:
    """Successes (S, N) of two strategies: shared difficulty of states, own strength of each training."""
    state = rng.normal(0, 0.15, n)
    found = []
    for shift in (gain, 0.0):
        rate = 0.5 + shift + rng.normal(0, seed_sd, (n_seeds, 1)) + state
        found.append((rng.random((n_seeds, n)) < rate).astype(float))
    return found


def rejections(n: int, **options: float) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    found = [compare_seeds(*arms(rng, **options)) for _ in range(n)]  # type: ignore[arg-type]
    return np.mean([f.p <= 0.05 for f in found]), np.mean([f.p_checkpoints <= 0.05 for f in found])


def test_with_equal_strategies_the_seed_test_errs_as_often_as_it_says_and_the_episode_test_too_often() -> None:
    strategies, checkpoints = rejections(400, seed_sd=0.1)
    assert strategies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert checkpoints > 0.3  # it answers another question: are these checkpoints different


def test_components_are_those_that_were_put_in() -> None:
    rng = np.random.default_rng(1)
    found = [compare_seeds(*arms(rng, seed_sd=0.1, n=200)) for _ in range(300)]
    assert np.mean([f.seed_se**2 for f in found]) == pytest.approx(2 * 0.1**2 / 3, rel=0.15)
    none = [compare_seeds(*arms(rng, seed_sd=0.0, n=200)) for _ in range(300)]
    assert np.mean([f.seed_se**2 for f in none]) < 0.0006
    observed = np.std([f.difference for f in found], ddof=1)
    assert np.sqrt(np.mean([f.se**2 for f in found])) == pytest.approx(observed, rel=0.12)


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(2)
    found = [compare_seeds(*arms(rng, seed_sd=0.05, gain=0.1)) for _ in range(400)]
    covered = np.mean([f.interval[0] <= 0.1 <= f.interval[1] for f in found])
    assert covered >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 400)


def test_one_seed_or_one_state_is_refused() -> None:
    for shape in ((1, 20), (3, 1)):
        with pytest.raises(InvalidData, match="two seeds"):
            compare_seeds(np.zeros(shape), np.ones((3, 20)))
    with pytest.raises(InvalidData, match="do not pair"):
        compare_seeds(np.zeros((2, 20)), np.zeros((2, 21)))


def test_outcomes_that_never_vary_are_refused() -> None:
    with pytest.raises(InvalidData, match="no outcome varies"):
        compare_seeds(np.ones((3, 20)), np.zeros((3, 20)))


def bootstrap(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Seeds of each strategy and shared states redrawn, crossed: Owen, Ann. Appl. Stat. 1 (2007) 386 (pigeonhole)."""
    rng, n = np.random.default_rng(0), a.shape[1]
    states = rng.multinomial(n, np.full(n, 1 / n), size=2000) / n  # (draws, N)
    means = []
    for arm in (a, b):
        seeds = rng.multinomial(len(arm), np.full(len(arm), 1 / len(arm)), size=2000) / len(arm)  # (draws, S)
        means.append(((seeds @ arm) * states).sum(axis=1))
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)


def test_the_crossed_bootstrap_agrees_with_many_seeds() -> None:
    a, b = arms(np.random.default_rng(3), seed_sd=0.1, n_seeds=20, n=150)
    found, expected = bootstrap(a, b), compare_seeds(a, b).interval
    assert found == pytest.approx(expected, abs=0.35 * (expected[1] - expected[0]))


def test_equivalence_of_strategies_uses_the_same_error() -> None:
    rng = np.random.default_rng(4)
    close = compare_seeds(*arms(rng, seed_sd=0.0, n=400))
    assert close.equivalence(0.15) < 0.05 < close.equivalence(0.001)


@pytest.mark.parametrize(
    "components", [Components(0.02, 0.004, 0.2), Components(0.0, 0.02, 0.2), Components(0.02, 0.0, 0.2)]
)
def test_as_many_trainings_as_planned_decide_as_often_as_planned(components: Components) -> None:
    """Where effects, trainings and states are drawn anew each time; t quantiles stand for noncentral ones, nearly."""
    effect, n_states, alpha = 0.1, 60, 0.05
    n = int(components.trainings(effect, n_states, alpha=alpha, power=0.8, sides=2))
    rng = np.random.default_rng(3)
    seen = sum(compare_seeds(*draw(rng, components, effect, n, n_states)).p <= alpha for _ in range(400))
    assert 0.76 <= seen / 400 <= 0.9
    assert components.trainings(effect, 10 * n_states, alpha=alpha, power=0.8, sides=2) <= n


def draw(rng: np.random.Generator, components: Components, effect: float, n: int, n_states: int) -> list[np.ndarray]:
    """Two strategies whose difference has these components: half of each variance in either."""
    return [
        gain
        + rng.normal(0, np.sqrt(components.states / 2), n_states)
        + rng.normal(0, np.sqrt(components.seeds / 2), (n, 1))
        + rng.normal(0, np.sqrt(components.residual / 2), (n, n_states))
        for gain in (effect, 0.0)
    ]


def test_what_a_few_states_leave_no_number_of_trainings_mends() -> None:
    components = Components(states=0.2, seeds=0.01, residual=0.1)
    assert components.trainings(0.05, 100, alpha=0.05, power=0.8, sides=2) == inf
    assert components.trainings(0.05, 2000, alpha=0.05, power=0.8, sides=2) < inf


def test_components_are_those_of_the_data() -> None:
    truth, rng = Components(0.5, 0.3, 0.4), np.random.default_rng(1)
    estimates = [compare_seeds(*draw(rng, truth, 0.0, 8, 50)).components for _ in range(200)]
    for name in ("states", "seeds", "residual"):
        assert np.mean([getattr(one, name) for one in estimates]) == pytest.approx(getattr(truth, name), rel=0.1)


def test_a_spread_between_single_trainings_makes_false_alarms_and_more_starts_make_more() -> None:
    assert false_alarms(0.3, 200, 0.0, 0.05) == pytest.approx(0.05)
    small, usual = (false_alarms(0.3, 200, spread, 0.05) for spread in SPREADS)
    assert 0.05 < small < usual < 1
    assert false_alarms(0.3, 500, SPREADS[0], 0.05) > small


def test_false_alarms_are_as_many_as_simulated_trainings_make() -> None:
    rng, n, spread = np.random.default_rng(4), 200, SPREADS[1]
    state = rng.normal(0, 1.5, (1500, n))
    wins = [rng.random(state.shape) < 1 / (1 + np.exp(-state - rng.normal(0, spread, (1500, 1)))) for _ in range(2)]
    only = [(one & ~other).sum(axis=1) for one, other in (wins, wins[::-1])]
    p = np.array([mcnemar(int(a), int(b)) for a, b in zip(*only, strict=True)])
    variance = (only[0] + only[1]) / n - ((only[0] - only[1]) / n) ** 2
    foreseen = np.mean([false_alarms(float(v), n, spread, 0.05) for v in variance])
    assert np.mean(p <= 0.05) == pytest.approx(foreseen, abs=0.04)
