"""The rule that joins a language model's likelihoods with values."""

from __future__ import annotations

import numpy as np
import pytest

from vlakit.errors import ConfigError, InvalidData, UnknownName
from vlakit.planning.choosing import Chooser, Choosing, Likelihoods

LOG_P = np.log([0.5, 0.3, 0.15, 0.05])
VALUES = np.array([0.1, 0.5, 0.9, 0.2])


class Said:
    """Says the same always, or at each step."""

    def __init__(self, *log_p: np.ndarray) -> None:
        self.log_p = log_p

    def score(self, prompt: str, options: object) -> Likelihoods:
        return Likelihoods(self.log_p[min(len(prompt), len(self.log_p) - 1)], np.ones(4, int))


def chooser(*log_p: np.ndarray, **how: object) -> Chooser:
    said = Said(*(log_p or (LOG_P,)))
    return Chooser(said, ["a", "b", "c", "done"], 3, lambda _, past: "x" * len(past), Choosing(**how))  # pyright: ignore


@pytest.mark.parametrize(
    ("how", "winner"),
    [
        ({"combine": "product"}, 1),  # .05 .15 .135 .01
        ({"combine": "log_linear", "alpha": 2.0}, 2),  # .005 .075 .1215 .002
        ({"combine": "lm_only"}, 0),
        ({"combine": "v_only"}, 2),
    ],
)
def test_a_hand_table(how: dict[str, object], winner: int) -> None:
    assert chooser(**how).choose("", [], VALUES).option == winner


@pytest.mark.parametrize(("said", "option"), [(0.9, 3), (0.01, 2)])
def test_done_is_worth_a_constant_or_what_the_affordances_say(said: float, option: int) -> None:
    log_p, values = np.log([0.01, 0.01, 0.48, 0.5]), np.array([0.0, 0.0, 0.3, said])
    assert chooser(log_p, done="learned").choose("", [], values).option == option
    assert chooser(log_p, c_done=0.2).choose("", [], values).option == 2
    assert chooser(log_p, c_done=0.5).choose("", [], values).option == 3


def test_an_open_loop_learns_of_no_end() -> None:
    with pytest.raises(ConfigError, match="nothing has come about"):
        Choosing(done="learned", mode="open_loop")
    with pytest.raises(UnknownName, match="no done called"):
        Choosing(done="learnt")  # pyright: ignore[reportArgumentType]


def test_values_that_are_all_1_leave_the_language_model_alone() -> None:
    alone = Choosing(combine="lm_only").joined(LOG_P, np.ones(4))
    assert np.allclose(Choosing(combine="product").joined(LOG_P, np.ones(4)), alone)


def test_a_uniform_language_model_leaves_the_values_alone() -> None:
    flat = np.full(4, -2.0)
    alone = Choosing(combine="v_only").joined(LOG_P, VALUES)
    assert np.allclose(Choosing(combine="product").joined(flat, VALUES), alone)


def test_log_linear_at_1_is_the_product_and_the_best_is_1() -> None:
    product = Choosing(combine="product").joined(LOG_P, VALUES)
    assert np.allclose(Choosing(combine="log_linear", alpha=1.0).joined(LOG_P, VALUES), product)
    assert np.allclose(product, np.exp(LOG_P) * VALUES / (np.exp(LOG_P) * VALUES).max())


def test_likelihoods_that_would_underflow_still_rank() -> None:
    assert Choosing().joined(LOG_P - 5000, VALUES).argmax() == 1


def test_done_ends_a_plan_and_so_does_the_most_skills() -> None:
    sure = np.log([1e-6, 1e-6, 1e-6, 1.0])
    options = chooser(LOG_P, LOG_P, sure).open_loop("", VALUES)
    assert [choice.option for choice in options] == [1, 1, 3]
    assert [choice.option for choice in chooser(most=4).open_loop("", VALUES)] == [1, 1, 1, 1]


def test_the_value_of_done_is_set() -> None:
    assert chooser(c_done=0.7).choose("", [], VALUES).values[3] == 0.7


def test_a_floor_gives_what_has_value_0_a_chance_and_no_floor_none() -> None:
    nearly, values = np.log([0.999, 1e-9, 1e-9, 1e-9]), np.array([0.0, 0.5, 0.5, 0.5])
    assert Choosing(floor=1e-4).joined(nearly, values).argmax() == 0
    assert Choosing(floor=0.0).joined(nearly, values)[0] == 0


def test_values_that_are_all_0_or_no_probabilities_are_refused() -> None:
    for values in (np.zeros(4), np.full(4, np.nan), np.array([0.1, 2, 0, 0]), np.ones(3)):
        with pytest.raises(InvalidData):
            Choosing().joined(LOG_P, values)
    assert Choosing(combine="lm_only").joined(LOG_P, np.zeros(4)).argmax() == 0


def test_no_option_is_refused() -> None:
    with pytest.raises(InvalidData, match="no option"):
        Choosing().normalized(Said(LOG_P), "", [])


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean product"):
        Choosing(combine="produkt")  # pyright: ignore
    with pytest.raises(ConfigError):
        Choosing(most=0)
