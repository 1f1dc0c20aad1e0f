"""Action metrics against numbers worked out by hand."""

import os
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from vlakit.models.network import Output
from vlakit.models.openvla.heads import Answers, TokenHead
from vlakit.processing.action_tokenizer import ActionTokenizer
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


def output_of(predicted: torch.Tensor, targets: torch.Tensor, batch: Batch) -> Output:
    """What a network makes of predicted and target ids (B, H * 7); each row ends in EOS, as a supervised row does."""
    eos = torch.full((len(targets), 1), EOS)
    flat = torch.cat([predicted, eos + 1], dim=1).flatten()  # EOS predicted wrong: it must not count
    logits = torch.nn.functional.one_hot(flat, 1536).float()
    answers = torch.cat([targets, eos], dim=1).flatten()
    rows = torch.arange(len(targets)).repeat_interleave(targets.shape[1] + 1)
    return TokenHead(ActionTokenizer(padding_id=1472)).output(Answers(torch.tensor(0.5), logits, answers, rows), batch)


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
    values = ActionMetrics(processor).batch_values(output_of(predicted, torch.full((2, 7), ZERO), batch), batch)
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
    values = ActionMetrics(processor).batch_values(output_of(predicted, torch.full((1, 14), ZERO), batch), batch)
    assert values["token_accuracy"].tolist() == [1.0]
    assert values["l1"].tolist() == [0.0]


def test_an_id_of_no_action_is_wrong_but_breaks_nothing(processor: TokenProcessor, tiny_batch: Batch) -> None:
    batch = batch_of(tiny_batch, 1, ["a"], torch.ones(1, 1, dtype=torch.bool))
    predicted = torch.tensor([[0, ZERO, ZERO, ZERO, ZERO, ZERO, 1535]])
    values = ActionMetrics(processor).batch_values(output_of(predicted, torch.full((1, 7), ZERO), batch), batch)
    assert values["token_accuracy"].tolist() == pytest.approx([5 / 7])
    assert torch.isfinite(values["l1"]).all()


def question(batch: Batch) -> Batch:
    """Three rows, whose middle one asks about a picture: it has an answer of words and no action."""
    return batch_of(batch, 3, ["a", "b.v2", "b.v2"], torch.tensor([[True], [False], [True]]))


def output_with_a_question(batch: Batch) -> Output:
    """The first row is right, the last has one dimension 51 bins off; the middle row's answer is two words."""
    acting = torch.stack([ids(0, 0, 0, 0, 0, 0, 0), ids(51, 0, 0, 0, 0, 0, 0)])
    predicted = torch.cat([acting[0], torch.tensor([700, 700]), acting[1]])
    targets = torch.cat([torch.full((7,), ZERO), torch.tensor([700, 701]), torch.full((7,), ZERO)])
    rows = torch.tensor([0] * 7 + [1] * 2 + [2] * 7)
    logits = torch.nn.functional.one_hot(predicted, 1536).float()
    return TokenHead(ActionTokenizer(padding_id=1472)).output(Answers(torch.tensor(0.5), logits, targets, rows), batch)


def test_a_row_without_an_action_has_no_marks(processor: TokenProcessor, tiny_batch: Batch) -> None:
    batch = question(tiny_batch)
    output = output_with_a_question(batch)
    values = ActionMetrics(processor).batch_values(output, batch)
    assert set(values) == {"token_accuracy", "l1", "l1_position_m", "l1_rotation_rad", "l1_gripper"}
    for name, rows in values.items():
        assert rows.isnan().tolist() == [False, True, False], name
    assert values["token_accuracy"][[0, 2]].tolist() == pytest.approx([1, 6 / 7])
    assert values["l1"][[0, 2]].tolist() == pytest.approx([0, 51 * 2 / 255 / 7], abs=1e-7)
    assert output.row_losses.isfinite().all()  # its words do have a loss


def test_means_skip_rows_without_an_action(processor: TokenProcessor, tiny_batch: Batch) -> None:
    batch, metrics = question(tiny_batch), ActionMetrics(processor)
    output = output_with_a_question(batch)
    metrics.update({"loss": output.row_losses, **metrics.batch_values(output, batch)}, batch.datasets)
    means = {name: float(value) for name, value in metrics.compute().items()}
    assert means["token_accuracy"] == pytest.approx(13 / 14)
    assert (means["token_accuracy/a"], means["token_accuracy/b.v2"]) == pytest.approx((1, 6 / 7))
    assert means["loss/b.v2"] == pytest.approx(float(output.row_losses[1:].mean()))


def test_a_dataset_whose_rows_all_lack_actions_has_no_mean(processor: TokenProcessor) -> None:
    metrics = ActionMetrics(processor)
    metrics.update({"l1": torch.tensor([float("nan"), 1.0])}, ["a", "b.v2"])
    assert {name: float(value) for name, value in metrics.compute().items()} == {"l1": 1.0, "l1/b.v2": 1.0}


def test_a_batch_of_questions_alone_predicts_no_action(processor: TokenProcessor, tiny_batch: Batch) -> None:
    batch = batch_of(tiny_batch, 2, ["a", "a"], torch.zeros(2, 1, dtype=torch.bool))
    words = torch.full((2, 7), 700)
    values = ActionMetrics(processor).batch_values(output_of(words, words, batch), batch)
    assert all(rows.isnan().all() for rows in values.values())


def test_a_network_that_predicts_nothing_has_its_own_scores_alone(processor: TokenProcessor, tiny_batch: Batch) -> None:
    output = Output(torch.tensor(0.5), torch.ones(3), scores={"agreement": torch.ones(3)})
    assert list(ActionMetrics(processor).batch_values(output, tiny_batch)) == ["agreement"]


def test_actions_of_another_size_are_measured_as_a_whole(tiny_batch: Batch) -> None:
    two = DatasetStatistics(*[np.full(2, low) for low in (-1.0, 3.0, 0.0, 1.0, -1.0, 3.0)], np.array([True] * 2), 1, 1)
    names = TokenSettings(image_size=64, channel_statistics=("half",), tokenizer="words")
    zeros = torch.zeros(1, 1, 2)
    batch = replace(
        tiny_batch, actions=zeros + 1, normalized=zeros, chunk_mask=torch.ones(1, 1, dtype=torch.bool), datasets=["a"]
    )
    output = Output(torch.tensor(0.5), torch.ones(1), predicted=zeros + 0.5)
    values = ActionMetrics(TokenProcessor(names, {"a": two})).batch_values(output, batch)
    assert {name: float(rows) for name, rows in values.items()} == {"l1": 0.5, "l1_physical": 1.0}


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


def seen_by(rank: int, processor: TokenProcessor, file: Path) -> None:
    """Rows of two processes: the first meets b.v2 before a, the second a alone, and questions that the first lacks."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    metrics = ActionMetrics(processor)
    for name, dataset, row in ROWS[rank]:
        metrics.update({name: torch.tensor([row])}, [dataset])
    torch.save(metrics.compute(), file.with_suffix(f".{rank}"))


ROWS = (
    (("l1", "b.v2", 0.4), ("l1", "a", 0.1), ("l1", "b.v2", 0.2)),
    (("l1", "a", 0.3), ("l1", "a", 0.8), ("answer_accuracy", "asked", 1.0)),
)


def test_processes_that_saw_other_datasets_in_another_order_agree_on_every_mean(
    processor: TokenProcessor, tmp_path: Path
) -> None:
    context = get_context("fork")
    two = [context.Process(target=seen_by, args=(rank, processor, tmp_path / "meeting")) for rank in range(2)]
    for process in two:
        process.start()
    for process in two:
        process.join(60)
    assert [process.exitcode for process in two] == [0, 0]
    first, second = (torch.load(tmp_path / f"meeting.{rank}") for rank in range(2))
    assert first == second
    assert {name: round(value.item(), 5) for name, value in first.items()} == {
        "answer_accuracy/asked": 1.0,
        "l1": 0.36,
        "l1/a": 0.4,
        "l1/b.v2": 0.3,
    }
