"""Closed forms of the scores."""

import numpy as np
import pytest

from vlakit.errors import InvalidData
from vlakit.selection.uncertainty import MONTE_CARLO, SINGLE, bald, check_passes, entropy_of, probabilities

RNG = np.random.default_rng(0)


def test_identical_passes_say_nothing_about_the_weights() -> None:
    one = probabilities(RNG.standard_normal((1, 5, 7, 256)))
    assert np.abs(bald(np.repeat(one, 10, axis=0))).max() < 1e-12


def test_two_confident_opposite_halves_are_worth_log_2() -> None:
    passes = np.zeros((10, 1, 1, 4))
    passes[:5, ..., 0] = passes[5:, ..., 1] = 1
    assert bald(passes)[0, 0] == pytest.approx(np.log(2))


@pytest.mark.parametrize("scale", [0.01, 1, 30])
def test_mutual_information_lies_between_0_and_the_log_of_the_passes_or_the_ids(scale: float) -> None:
    for k, c in [(3, 256), (10, 4)]:
        value = bald(probabilities(scale * RNG.standard_normal((k, 40, 2, c))))
        assert value.min() >= -1e-12
        assert value.max() <= np.log(min(k, c)) + 1e-12


def test_a_uniform_answer_has_entropy_of_its_length_times_log_256() -> None:
    assert SINGLE["entropy"](probabilities(np.zeros((1, 7, 256))))[0] == pytest.approx(7 * np.log(256))


def test_a_certain_answer_has_none_though_log_0_is_met() -> None:
    logits = np.full((1, 2, 5), -np.inf)
    logits[..., 3] = 0
    assert entropy_of(probabilities(logits)).tolist() == [[0, 0]]
    assert SINGLE["least_conf"](probabilities(logits)).tolist() == [0]


@pytest.mark.parametrize("name", ["least_conf", "least_conf_mean"])
def test_least_confidence_is_a_share(name: str) -> None:
    value = SINGLE[name](probabilities(20 * RNG.standard_normal((100, 7, 256))))
    assert ((value >= 0) & (value <= 1)).all()


def test_all_that_is_uncertain_is_what_the_weights_and_the_labels_leave() -> None:
    passes = probabilities(RNG.standard_normal((4, 6, 3, 9)))
    rest = entropy_of(passes).mean(axis=0).sum(axis=-1)
    assert MONTE_CARLO["mc_entropy"](passes) == pytest.approx(MONTE_CARLO["bald"](passes) + rest)


def test_identical_passes_are_refused_with_the_remedy() -> None:
    one = np.log(probabilities(RNG.standard_normal((1, 5, 7, 16))))
    with pytest.raises(InvalidData, match="lora"):
        check_passes(np.repeat(one, 10, axis=0))
    with pytest.raises(InvalidData, match="1 dropout passes"):
        check_passes(one)
    moved = np.repeat(one, 10, axis=0)
    moved[3, 2] += RNG.standard_normal((7, 16))
    check_passes(moved)


def test_a_logit_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidData, match="NaN"):
        probabilities(np.full((1, 2), np.nan))
