"""The one way from an observation to model inputs, and from ids to an action."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from vlakit.errors import ActionNotFinite, CheckpointMismatch, InvalidData, StatisticsMissing
from vlakit.processing.augment import Augmentation
from vlakit.processing.images import decode_jpeg
from vlakit.processing.normalizer import normalize
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics, Observation, Sample, UInt8


def text_of(processor: TokenProcessor, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels (1, T) of one sample as a batch."""
    text = processor.collate([processor.encode(sample)]).text
    assert text is not None
    return text.ids, text.labels


def observed(processor: TokenProcessor, image: UInt8) -> torch.Tensor:
    """(3 k, S, S) of what a policy sees."""
    return processor.observe([Observation.of(image, "x")]).pixels["primary"][0, -1]


def encoded(processor: TokenProcessor, sample: Sample) -> torch.Tensor:
    """(3 k, S, S) of what training sees."""
    return processor.encode(sample).pixels["primary"][-1]


def decoded(processor: TokenProcessor, ids: np.ndarray) -> np.ndarray:
    """(H, 7) in physical units."""
    return processor.physical(processor.from_ids(ids).reshape(1, -1, 7), ["bridge_orig"])[0]


def test_sequence_is_bos_prompt_space_actions_eos(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    example, text = tiny_processor.encode(samples[0]), tiny_processor.text
    assert example.prompt is not None
    assert example.answer is not None
    prompt = text.encode("In: What action should the robot take to lift the pot?\nOut:")
    answer = tiny_processor.actions.encode(
        normalize(samples[0].actions[0], tiny_processor.statistics_of("bridge_orig"))
    ).tolist()
    assert example.prompt.tolist() == [1, *prompt, text.empty_id]
    assert example.answer.tolist() == [*answer, 2]
    assert text.decode(prompt).endswith("out :")


def test_only_the_actions_and_eos_carry_a_loss(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    (ids,), (labels,) = text_of(tiny_processor, samples[1])
    assert labels[-8:].tolist() == ids[-8:].tolist()
    assert (labels[:-8] == -100).all()
    assert tiny_processor.actions.is_action(labels[-8:].numpy()).tolist() == [True] * 7 + [False]


def test_inference_starts_from_what_training_ends_its_prompt_with(
    tiny_processor: TokenProcessor, samples: list[Sample]
) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    text = tiny_processor.observe([Observation.of(image, sample.instruction) for sample in samples]).text
    assert text is not None
    for prompt, sample in zip(text.prompts(), samples, strict=True):
        (ids,), _ = text_of(tiny_processor, sample)
        assert ids[: len(prompt)].tolist() == prompt
        assert prompt[-1] == tiny_processor.text.empty_id


def test_training_and_inference_see_the_same_pixels(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    image = decode_jpeg(samples[0].images["primary"][-1])
    assert torch.equal(observed(tiny_processor, image), encoded(tiny_processor, samples[0]))


def test_each_tower_gets_its_own_three_channels(tiny_processor: TokenProcessor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels = tiny_processor.pixels(image)
    unit = image.transpose(2, 0, 1) / 255
    imagenet = (unit - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[:, None, None]
    np.testing.assert_allclose(pixels.numpy(), np.concatenate([imagenet, unit * 2 - 1]), atol=1e-5)
    assert pixels.dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 1, 3), (480, 640, 3), (64, 65, 3)], ids=str)
def test_any_image_size_is_accepted(tiny_processor: TokenProcessor, shape: tuple[int, ...]) -> None:
    assert tiny_processor.pixels(np.zeros(shape, np.uint8)).shape == (6, 64, 64)


def test_a_grey_observation_is_refused_with_its_shape(tiny_processor: TokenProcessor) -> None:
    with pytest.raises(InvalidData, match=r"\(64, 64\)"):
        observed(tiny_processor, np.zeros((64, 64), np.uint8))


def test_augmentation_depends_on_the_position_only(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    args = tiny_processor.settings, tiny_processor.statistics
    first, second = (TokenProcessor(*args, Augmentation(), seed=3) for _ in range(2))
    first.encode(samples[1])
    same = replace(samples[0], key="another name", instruction="another")
    assert torch.equal(encoded(first, samples[0]), encoded(second, same))
    moved = replace(samples[0], position=99)
    assert not torch.equal(encoded(first, samples[0]), encoded(first, moved))


def test_observations_and_validation_are_never_augmented(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    training = TokenProcessor(tiny_processor.settings, tiny_processor.statistics, Augmentation())
    plain = encoded(tiny_processor, samples[0])
    image = decode_jpeg(samples[0].images["primary"][-1])
    assert not torch.equal(encoded(training, samples[0]), plain)
    assert torch.equal(encoded(training.for_validation(), samples[0]), plain)
    assert torch.equal(observed(training, image), plain)


def test_decoded_ids_are_actions_in_physical_units(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    answer = tiny_processor.encode(samples[1]).answer
    assert answer is not None
    action = decoded(tiny_processor, answer[:-1])
    assert action.shape == (1, 7)
    np.testing.assert_allclose(action, samples[1].actions, atol=4e-3)
    np.testing.assert_array_equal(tiny_processor.round_trip(samples[1].actions, "bridge_orig"), action)


def test_a_chunk_is_encoded_and_decoded_step_by_step(
    bridge_statistics: DatasetStatistics, samples: list[Sample]
) -> None:
    names = TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words", chunk=3)
    processor = TokenProcessor(names, {"bridge_orig": bridge_statistics})
    actions = np.concatenate([sample.actions for sample in samples])
    example = processor.encode(replace(samples[0], actions=actions, chunk_mask=np.ones(3, bool)))
    assert example.answer is not None
    assert example.answer.shape == (22,)
    np.testing.assert_allclose(decoded(processor, example.answer[:-1]), actions, atol=4e-3)


def test_an_action_with_nan_names_its_sample(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    actions = samples[0].actions.copy()
    actions[0, 3] = np.nan
    with pytest.raises(ActionNotFinite) as caught:
        tiny_processor.encode(replace(samples[0], actions=actions))
    assert "noise_0" in caught.value.where


def test_a_missing_camera_names_those_there_are(tiny_processor: TokenProcessor, samples: list[Sample]) -> None:
    with pytest.raises(InvalidData, match="no camera 'primary'") as caught:
        tiny_processor.encode(replace(samples[0], images={"wrist": samples[0].images["primary"]}))
    assert "wrist" in caught.value.where


def test_the_only_dataset_needs_no_name(tiny_processor: TokenProcessor, bridge_statistics: DatasetStatistics) -> None:
    assert tiny_processor.statistics_of(None) is bridge_statistics
    with pytest.raises(StatisticsMissing) as caught:
        tiny_processor.statistics_of("bridge_org")
    assert "bridge_orig" in caught.value.do
    both = tiny_processor.for_training({"a": bridge_statistics, "b": bridge_statistics}, None)
    with pytest.raises(StatisticsMissing, match="no dataset was named"):
        both.statistics_of(None)


def test_names_survive_json(tiny_processor: TokenProcessor) -> None:
    plain = json.loads(json.dumps(tiny_processor.settings.to_dict()))
    assert TokenSettings.from_dict(plain) == tiny_processor.settings


@pytest.mark.parametrize("change", [{"magic": 1}, {"channel_statistics": None}, {"image_size": ...}])
def test_names_that_do_not_fit_are_a_mismatch(tiny_processor: TokenProcessor, change: dict[str, object]) -> None:
    plain = tiny_processor.settings.to_dict() | change
    kept = {name: value for name, value in plain.items() if value is not ...}
    with pytest.raises(CheckpointMismatch, match="processor cannot be rebuilt"):
        TokenSettings.from_dict(kept)
