"""Padding stands on the right and carries no loss."""

import torch

from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Sample


def test_rows_are_padded_on_the_right_to_the_longest(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    examples = [tiny_processor.encode(sample) for sample in samples]
    batch = Collate(1472)(examples)
    lengths = [len(example.input_ids) for example in examples]
    assert batch.input_ids.shape == batch.labels.shape == batch.attention_mask.shape == (3, max(lengths))
    for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        assert batch.input_ids[row, :length].tolist() == example.input_ids.tolist()
        assert batch.labels[row, :length].tolist() == example.labels.tolist()
        assert (batch.input_ids[row, length:] == 1472).all()
        assert (batch.labels[row, length:] == -100).all()
    assert batch.attention_mask.sum(dim=1).tolist() == lengths
    assert (batch.attention_mask.diff(dim=1) <= 0).all()


def test_padding_is_masked_also_where_its_id_stands_for_text(
    tiny_processor: TokenProcessor, samples: list[Sample]
) -> None:
    examples = [tiny_processor.encode(sample) for sample in samples]
    batch = Collate(2)(examples)  # EOS as padding, as other tokenizers have it
    assert batch.attention_mask.sum(dim=1).tolist() == [len(example.input_ids) for example in examples]
    assert (batch.labels != -100).sum(dim=1).tolist() == [8, 8, 8]


def test_rows_keep_their_order_and_their_tensors(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    examples = [tiny_processor.encode(sample) for sample in reversed(samples)]
    batch = Collate(1472)(examples)
    assert batch.keys == ["noise_2", "noise_1", "noise_0"]
    assert batch.datasets == ["bridge_orig"] * 3
    assert batch.position == 2
    for row, example in enumerate(examples):
        assert torch.equal(batch.pixel_values[row], example.pixel_values)
        assert batch.actions[row].tolist() == example.actions.tolist()
        assert batch.normalized[row].tolist() == example.normalized.tolist()
        assert batch.chunk_mask[row].tolist() == example.chunk_mask.tolist()
