"""The quantile formula, its exceptions, and the way back."""

from dataclasses import replace

import numpy as np
import pytest

from vlakit.errors import InvalidData
from vlakit.processing.action_tokenizer import ActionTokenizer
from vlakit.processing.normalizer import normalize, unnormalize
from vlakit.schema import DatasetStatistics


def test_the_quantiles_become_the_ends(bridge_statistics: DatasetStatistics) -> None:
    ends = normalize(np.stack([bridge_statistics.q01, bridge_statistics.q99]), bridge_statistics)
    np.testing.assert_allclose(ends[:, :6], [[-1] * 6, [1] * 6], atol=1e-6)


def test_the_formula_by_hand(bridge_statistics: DatasetStatistics) -> None:
    action = np.array([0.01, -0.02, 0.0, 0.03, 0.0, 0.1, 1.0])
    x = 2 * (0.01 + 0.028727253) / (0.028309678 + 0.028727253) - 1
    yaw = 2 * (0.1 + 0.207182764) / (0.203825745 + 0.207182764) - 1
    normalized = normalize(action, bridge_statistics)
    assert normalized[[0, 5]].tolist() == pytest.approx([x, yaw], abs=1e-6)
    assert normalized.dtype == np.float32


def test_equal_quantiles_do_not_divide_by_zero(bridge_statistics: DatasetStatistics) -> None:
    flat = replace(bridge_statistics, q01=np.zeros(7), q99=np.zeros(7))
    above = normalize(np.full(7, 2.5e-9), flat)
    assert above[0] == pytest.approx(2 * 2.5e-9 / 1e-8 - 1, abs=1e-6)


def test_what_lies_outside_the_quantiles_is_clipped(bridge_statistics: DatasetStatistics) -> None:
    far = np.stack([bridge_statistics.q01 - 1, bridge_statistics.q99 + 1])
    assert normalize(far, bridge_statistics)[:, :6].tolist() == [[-1] * 6, [1] * 6]


def test_the_gripper_passes_untouched(bridge_statistics: DatasetStatistics) -> None:
    actions = np.zeros((3, 7))
    actions[:, 6] = [0.0, 0.25, 1.75]
    there = normalize(actions, bridge_statistics)
    assert there[:, 6].tolist() == [0.0, 0.25, 1.75]
    assert unnormalize(there, bridge_statistics)[:, 6].tolist() == [0.0, 0.25, 1.75]


def test_a_dimension_that_never_changes_becomes_zero(bridge_statistics: DatasetStatistics) -> None:
    lowest, highest = bridge_statistics.min.copy(), bridge_statistics.max.copy()
    lowest[[2, 6]] = highest[[2, 6]] = 1.0
    constant = replace(bridge_statistics, min=lowest, max=highest)
    normalized = normalize(np.ones(7), constant)
    assert normalized[[2, 6]].tolist() == [0.0, 0.0]
    assert normalized[0] == 1.0


def test_a_closed_gripper_decodes_to_zero_and_an_open_one_almost_to_one(bridge_statistics: DatasetStatistics) -> None:
    actions = np.zeros((2, 7))
    actions[1, 6] = 1.0
    tokens = ActionTokenizer()
    decoded = unnormalize(tokens.decode(tokens.encode(normalize(actions, bridge_statistics))), bridge_statistics)
    assert decoded[0, 6] == 0.0
    assert decoded[1, 6] == pytest.approx(0.99608, abs=5e-6)


def test_round_trip_inside_the_quantiles(bridge_statistics: DatasetStatistics) -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(bridge_statistics.q01, bridge_statistics.q99, (1000, 7))
    back = unnormalize(normalize(actions, bridge_statistics), bridge_statistics)
    np.testing.assert_allclose(back, actions, atol=1e-6)


def test_round_trip_through_tokens_stays_within_half_a_bin(bridge_statistics: DatasetStatistics) -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(bridge_statistics.q01, bridge_statistics.q99, (1000, 7))
    tokens = ActionTokenizer()
    back = unnormalize(tokens.decode(tokens.encode(normalize(actions, bridge_statistics))), bridge_statistics)
    half_bin = 0.5 / 255 * (bridge_statistics.q99 - bridge_statistics.q01)
    half_bin[6] = 1 / 255
    assert (np.abs(back - actions) <= half_bin + 1e-6).all()


@pytest.mark.parametrize("change", [normalize, unnormalize])
def test_an_action_of_another_size_is_refused(change: object, bridge_statistics: DatasetStatistics) -> None:
    assert callable(change)
    with pytest.raises(InvalidData, match="an action of 8 numbers meets statistics of 7"):
        change(np.zeros((2, 8)), bridge_statistics)
