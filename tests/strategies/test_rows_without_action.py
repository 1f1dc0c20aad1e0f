"""Questions about pictures have no action: they are no trouble to the metrics of actions, and count in none."""

from dataclasses import replace

import torch

from vlakit.models.network import Output
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch
from vlakit.strategies.metrics import ActionMetrics


def output_of(batch: Batch) -> Output:
    """All actions foreseen as zero."""
    return Output(torch.tensor(0.5), torch.full((len(batch),), 0.5), torch.zeros_like(batch.normalized))


def test_a_row_of_no_known_dataset_has_no_marks_and_changes_no_other(
    tiny_processor: TokenProcessor, tiny_batch: Batch
) -> None:
    metrics = ActionMetrics(tiny_processor)
    before = metrics.batch_values(output_of(tiny_batch), tiny_batch)
    mask = tiny_batch.chunk_mask.clone()
    mask[1] = False
    mixed = replace(tiny_batch, datasets=["bridge_orig", "questions", "bridge_orig"], chunk_mask=mask)
    for name, rows in metrics.batch_values(output_of(mixed), mixed).items():
        assert torch.equal(rows[[0, 2]], before[name][[0, 2]])
        assert rows[1].isnan()


def test_a_batch_of_questions_alone_has_no_marks(tiny_processor: TokenProcessor, tiny_batch: Batch) -> None:
    nothing = torch.zeros(len(tiny_batch), 1, 0)
    questions = replace(
        tiny_batch,
        datasets=["questions"] * 3,
        actions=nothing,
        normalized=nothing,
        chunk_mask=torch.zeros_like(tiny_batch.chunk_mask),
    )
    assert ActionMetrics(TokenProcessor(tiny_processor.settings)).batch_values(output_of(questions), questions) == {}
