"""Action metrics against numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vlakit.models.openvla.vla import VLAOutput
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch, DatasetStatistics
from vlakit.strategies.metrics import ActionMetrics

ZERO, EOS = 1472 - 128, 2  # the id of the action 0, the middle bin


def statistics(low: float, high: float) -> DatasetStatistics:
    q01, q99 = np.full(7, low), np.full(7, high)
    return DatasetStatistics(q01, q99, q01, q01, q01, q99, np.array([True] * 6 + [False]), 1, 1)


@pytest.fixture
def processor() -> TokenProcessor:
    names = TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words")
    return TokenProcessor(names, {"a": statistics(-1.0, 1.0), "b.v2": statistics(-0.5, 0.5)})


def output_of(predicted: torch.Tensor, targets: torch.Tensor) -> VLAOutput:
    """Predicted and target ids (B, H * 7); each row ends in EOS, as a supervised row does."""
    eos = torch.full((len(targets), 1), EOS)
    flat = torch.cat([predicted, eos + 1], dim=1).flatten()  # EOS predicted wrong: it must not count
    logits = torch.nn.functional.one_hot(flat, 1536).float()
    answers = torch.cat([targets, eos], dim=1).flatten()
    return VLAOutput(torch.tensor(0.5), logits, answers, torch.zeros(0))


def batch_of(batch: Batch, n_rows: int, datasets: list[str], mask: torch.Tensor) -> Batch:
    """All actions zero."""
    zeros = torch.zeros(n_rows, mask.shape[1], 7)
    return replace(batch, actions=zeros, normalized=zeros, chunk_mask=mask, datasets=datasets, keys=["k"] * n_rows)


def ids(*moves: int) -> torch.Tensor:
    """One action id a dimension, so many bins above zero."""
    return ZERO - torch.tensor(moves)


def test_values_of_a_row_by_hand(processor: TokenProcessor, tiny_batch: Batch) -> None:
    batch = batch_of(tiny_batch, 2, ["a", "b.v2"], torch.ones(2, 1, dtype=torch.bool))
    predicted = torch.stack([ids(51, 0, 0, 0, 0, 0, 0), ids(0, -51, 0, 51, 51, 0, 102)])
    values = ActionMetrics(processor).batch_values(output_of(predicted, torch.full((2, 7), ZERO)), batch)
    bin_width = 2 / 255
    move = 51 * bin_width  # 0.4 in normalised units
    expected = {
        "token_accuracy": [6 / 7, 3 / 7],
        "l1": [move / 7, 5 * move / 7],
        "l1_position_m": [move / 3, move / 2 / 3],  # b's span is half of a's
        "l1_rotation_rad": [0, 2 * move / 2 / 3],
        "l1_gripper": [0, 2 * move],  # never rescaled
    }
    assert values.keys() == expected.keys()
    for name, rows in expected.items():
        assert values[name].tolist() == pytest.approx(rows, abs=1e-7), name


def test_padded_steps_of_a_chunk_do_not_count(processor: TokenProcessor, tiny_batch: Batch) -> None:
    batch = batch_of(tiny_batch, 1, ["a"], torch.tensor([[True, False]]))
    predicted = torch.cat([ids(0, 0, 0, 0, 0, 0, 0), ids(*[99] * 7)])[None]
    values = ActionMetrics(processor).batch_values(output_of(predicted, torch.full((1, 14), ZERO)), batch)
    assert values["token_accuracy"].tolist() == [1.0]
    assert values["l1"].tolist() == [0.0]


def test_an_id_of_no_action_is_wrong_but_breaks_nothing(processor: TokenProcessor, tiny_batch: Batch) -> None:
    batch = batch_of(tiny_batch, 1, ["a"], torch.ones(1, 1, dtype=torch.bool))
    predicted = torch.tensor([[0, ZERO, ZERO, ZERO, ZERO, ZERO, 1535]])
    values = ActionMetrics(processor).batch_values(output_of(predicted, torch.full((1, 7), ZERO)), batch)
    assert values["token_accuracy"].tolist() == pytest.approx([5 / 7])
    assert torch.isfinite(values["l1"]).all()


def test_means_are_over_rows_and_per_dataset(processor: TokenProcessor) -> None:
    metrics = ActionMetrics(processor)
    metrics.update({"l1": torch.tensor([1.0, 2.0, 6.0])}, ["a", "a", "b.v2"])
    metrics.update({"l1": torch.tensor([3.0])}, ["b.v2"])
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found == {"l1": 3.0, "l1/a": 1.5, "l1/b.v2": 4.5}


def test_reset_forgets(processor: TokenProcessor) -> None:
    metrics = ActionMetrics(processor)
    metrics.update({"l1": torch.tensor([1.0])}, ["a"])
    metrics.reset()
    metrics.update({"l1": torch.tensor([5.0])}, ["b.v2"])
    assert {name: float(value) for name, value in metrics.compute().items()} == {"l1": 5.0, "l1/b.v2": 5.0}


def test_metrics_add_nothing_to_a_checkpoint(processor: TokenProcessor) -> None:
    metrics = ActionMetrics(processor)
    assert not metrics.state_dict()
    metrics.update({"l1": torch.tensor([1.0])}, ["a"])
    assert not metrics.state_dict()
