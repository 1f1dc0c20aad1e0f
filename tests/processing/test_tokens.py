"""Padding stands on the right and carries no loss."""

import numpy as np
import pytest
import torch

from vlakit.processing.tokens import TokenProcessor, padded_text
from vlakit.schema import Example, Observation, Sample, TextBatch


def text_of(processor: TokenProcessor, examples: list[Example]) -> TextBatch:
    text = processor.collate(examples).text
    assert text is not None
    return text


def ids_of(example: Example) -> tuple[list[int], list[int]]:
    """Prompt and answer."""
    assert example.prompt is not None
    assert example.answer is not None
    return example.prompt.tolist(), example.answer.tolist()


def test_rows_are_padded_on_the_right_to_the_longest(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    examples = [tiny_processor.encode(sample) for sample in samples]
    text = text_of(tiny_processor, examples)
    pairs = [ids_of(example) for example in examples]
    lengths = [len(prompt) + len(answer) for prompt, answer in pairs]
    assert text.ids.shape == text.labels.shape == text.mask.shape == (3, max(lengths))
    for row, (prompt, answer) in enumerate(pairs):
        length = lengths[row]
        assert text.ids[row, :length].tolist() == [*prompt, *answer]
        assert text.labels[row, :length].tolist() == [-100] * len(prompt) + answer
        assert (text.ids[row, length:] == 1472).all()
        assert (text.labels[row, length:] == -100).all()
    assert text.mask.sum(dim=1).tolist() == lengths
    assert (text.mask.diff(dim=1) <= 0).all()


def test_padding_is_masked_also_where_its_id_stands_for_text(
    tiny_processor: TokenProcessor, samples: list[Sample]
) -> None:
    pairs = [ids_of(tiny_processor.encode(sample)) for sample in samples]
    # EOS as padding, as other tokenizers have it
    text = padded_text([(np.array(prompt), np.array(answer)) for prompt, answer in pairs], 2)
    assert text.mask.sum(dim=1).tolist() == [len(prompt) + len(answer) for prompt, answer in pairs]
    assert (text.labels != -100).sum(dim=1).tolist() == [8, 8, 8]


def test_rows_keep_their_order_and_their_tensors(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    examples = [tiny_processor.encode(sample) for sample in reversed(samples)]
    batch = tiny_processor.collate(examples)
    assert batch.keys == ["noise_2", "noise_1", "noise_0"]
    assert batch.datasets == ["bridge_orig"] * 3
    assert batch.position == 2
    for row, example in enumerate(examples):
        assert torch.equal(batch.pixels["primary"][row], example.pixels["primary"])
        assert batch.actions[row].tolist() == example.actions.tolist()
        assert batch.normalized[row].tolist() == example.normalized.tolist()
        assert batch.chunk_mask[row].tolist() == example.chunk_mask.tolist()


def test_prompts_are_what_an_answer_follows(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    examples = [tiny_processor.encode(sample) for sample in samples]
    prompts = text_of(tiny_processor, examples).prompts()
    assert prompts == [ids_of(example)[0] for example in examples]
    assert len({len(prompt) for prompt in prompts}) > 1


@pytest.mark.parametrize("width", [0, 3, 90])
def test_prompts_of_observations_are_whole_whatever_they_are_padded_to(
    width: int, tiny_processor: TokenProcessor, samples: list[Sample]
) -> None:
    asked = [Observation.of(np.zeros((64, 64, 3), np.uint8), sample.instruction) for sample in samples]
    text = tiny_processor.observe(asked, pad_to=width).text
    assert text is not None
    assert text.prompts() == [tiny_processor.prompt_ids(sample.instruction) for sample in samples]
    longest = tiny_processor.text_width(sample.instruction for sample in samples)
    assert text.ids.shape == (3, max(width, longest))
    assert (text.labels == -100).all()


def test_an_answer_is_spelled_in_the_ids_that_decode_to_it(tiny_processor: TokenProcessor) -> None:
    normalized = np.linspace(-1, 1, 14, dtype=np.float32).reshape(2, 7)
    ids = tiny_processor.spelled(normalized)["ids"]
    assert [type(one) for one in ids] == [int] * 14
    np.testing.assert_allclose(tiny_processor.from_ids(np.array(ids)).reshape(2, 7), normalized, atol=1 / 255 + 1e-6)
