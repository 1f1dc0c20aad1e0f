"""Several cameras, a window of history and proprioception, alike in training and in use."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from toy_network import ToyNetwork

from vlakit.errors import InvalidData
from vlakit.models.network import build_network
from vlakit.policy import TrainedPolicy
from vlakit.processing.augment import Augmentation
from vlakit.processing.images import decode_jpeg
from vlakit.processing.processor import Processor
from vlakit.processing.settings import ProcessorSettings
from vlakit.schema import DatasetStatistics, Observation, Sample

CAMERAS, WINDOW, CHUNK = ("primary", "wrist"), 2, 3
PROPRIO = {name: np.array(row, float) for name, row in {
    "q01": [-1, 0, 5], "q99": [1, 4, 5], "min": [-2, 0, 5], "max": [2, 8, 5],
}.items()}  # fmt: skip
SETTINGS = ProcessorSettings(
    image_size=16, channel_statistics=("half",), cameras=CAMERAS, window=WINDOW, proprio=3, chunk=CHUNK
)


@pytest.fixture
def statistics(bridge_statistics: DatasetStatistics) -> dict[str, DatasetStatistics]:
    return {"robot": replace(bridge_statistics, proprio=PROPRIO)}


@pytest.fixture
def processor(statistics: dict[str, DatasetStatistics]) -> Processor:
    return Processor(SETTINGS, statistics)


def sample(n: int, bridge: DatasetStatistics) -> Sample:
    """A moment of noise; the second one is the first of its episode and the last but one."""
    rng = np.random.default_rng(n)
    images = {
        camera: [simplejpeg.encode_jpeg(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(WINDOW)]
        for camera in (*CAMERAS, "unseen")
    }
    return Sample(
        key=f"noise_{n}",
        dataset="robot",
        instruction="lift",
        images=images,
        actions=rng.uniform(bridge.q01, bridge.q99, (CHUNK, 7)).astype(np.float32),
        window_mask=np.array([n == 0, True]),
        chunk_mask=np.array([True, n == 0, n == 0]),
        proprio=np.array([[-1.0, 2.0, 5.0], [9.0, 4.0, 5.0]], np.float32),
        position=n,
    )


@pytest.fixture
def moments(bridge_statistics: DatasetStatistics) -> list[Sample]:
    return [sample(n, bridge_statistics) for n in range(2)]


def observed(moment: Sample) -> Observation:
    """The same moment as a policy sees it."""
    images = {camera: np.stack([decode_jpeg(one) for one in window]) for camera, window in moment.images.items()}
    return Observation(images, moment.instruction, moment.dataset, moment.proprio, moment.window_mask)


def test_a_batch_has_every_camera_and_frame_in_order(processor: Processor, moments: list[Sample]) -> None:
    batch = processor.collate([processor.encode(moment) for moment in moments])
    assert {camera: tuple(pixels.shape) for camera, pixels in batch.pixels.items()} == {
        "primary": (2, WINDOW, 3, 16, 16),
        "wrist": (2, WINDOW, 3, 16, 16),
    }
    for row, moment in enumerate(moments):
        for camera in CAMERAS:
            for i, encoded in enumerate(moment.images[camera]):
                assert torch.equal(batch.pixels[camera][row, i], processor.pixels(decode_jpeg(encoded)))
    assert batch.window_mask.tolist() == [[True, True], [False, True]]
    assert batch.chunk_mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.action_shape == (CHUNK, 7)
    assert batch.text is None


def test_proprio_is_normalised_clipped_and_zero_where_it_never_changes(
    processor: Processor, moments: list[Sample]
) -> None:
    batch = processor.collate([processor.encode(moment) for moment in moments])
    assert batch.proprio is not None
    expected = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).expand(2, WINDOW, 3)
    torch.testing.assert_close(batch.proprio, expected, atol=1e-6, rtol=0)


def test_a_policy_sees_what_it_was_trained_on(processor: Processor, moments: list[Sample]) -> None:
    batch = processor.collate([processor.encode(moment) for moment in moments])
    inputs = processor.observe([observed(moment) for moment in moments])
    assert list(inputs.pixels) == list(batch.pixels) == list(CAMERAS)
    assert all(torch.equal(inputs.pixels[camera], batch.pixels[camera]) for camera in CAMERAS)
    assert inputs.proprio is not None
    assert batch.proprio is not None
    assert torch.equal(inputs.proprio, batch.proprio)
    assert torch.equal(inputs.window_mask, batch.window_mask)
    assert (inputs.action_shape, inputs.datasets) == (batch.action_shape, batch.datasets)


def test_validation_prepares_every_frame_as_it_will_be_seen(
    statistics: dict[str, DatasetStatistics], moments: list[Sample]
) -> None:
    training = Processor(replace(SETTINGS, jpeg=True, center_crop=0.9), statistics, Augmentation())
    example = training.for_validation().encode(moments[0])
    inputs = training.observe([observed(moments[0])])
    for camera in CAMERAS:
        assert torch.equal(example.pixels[camera], inputs.pixels[camera][0])
        frame = decode_jpeg(moments[0].images[camera][-1])
        assert torch.equal(inputs.pixels[camera][0, -1], training.observed_pixels(frame))
        assert not torch.equal(example.pixels[camera], training.encode(moments[0]).pixels[camera])


def test_frames_of_a_window_are_augmented_alike(
    statistics: dict[str, DatasetStatistics], moments: list[Sample]
) -> None:
    still = {camera: [window[0]] * WINDOW for camera, window in moments[1].images.items()}
    pixels = Processor(SETTINGS, statistics, Augmentation()).encode(replace(moments[1], images=still)).pixels["wrist"]
    assert torch.equal(pixels[0], pixels[1])


def test_an_observation_without_a_mask_is_real_throughout(processor: Processor, moments: list[Sample]) -> None:
    inputs = processor.observe([replace(observed(moments[1]), window_mask=None)])
    assert inputs.window_mask.tolist() == [[True, True]]


def test_a_missing_camera_is_named_with_those_there_are(processor: Processor, moments: list[Sample]) -> None:
    front = {"primary": moments[0].images["primary"]}
    with pytest.raises(InvalidData, match="no camera 'wrist'") as caught:
        processor.encode(replace(moments[0], images=front))
    assert "primary" in caught.value.where
    assert "shards" in caught.value.do
    seen = observed(moments[0])
    with pytest.raises(InvalidData, match="no camera 'wrist'") as caught:
        processor.observe([replace(seen, images={"primary": seen.images["primary"]})])
    assert "observation has primary" in caught.value.where


@pytest.mark.parametrize("frames", [1, 3])
def test_a_window_of_another_length_is_refused(frames: int, processor: Processor, moments: list[Sample]) -> None:
    seen = observed(moments[0])
    images = {camera: np.repeat(window[:1], frames, axis=0) for camera, window in seen.images.items()}
    with pytest.raises(InvalidData, match=f"shows {frames} frames, the policy takes 2"):
        processor.observe([replace(seen, images=images)])


@pytest.mark.parametrize("size", [None, 2, 4])
def test_proprio_of_another_size_is_refused(size: int | None, processor: Processor, moments: list[Sample]) -> None:
    values = None if size is None else np.zeros((WINDOW, size), np.float32)
    with pytest.raises(InvalidData, match=f"proprio of {size or 0} numbers, the policy takes 3") as caught:
        processor.encode(replace(moments[0], proprio=values))
    assert "noise_0" in caught.value.where
    with pytest.raises(InvalidData, match=f"proprio of {size or 0} numbers, the policy takes 3") as caught:
        processor.observe([replace(observed(moments[0]), proprio=values)])
    assert "Observation.proprio so wide" in caught.value.do


def test_proprio_and_mask_cover_the_whole_window(processor: Processor, moments: list[Sample]) -> None:
    seen = observed(moments[0])
    assert seen.proprio is not None
    as_lists: Any = seen.proprio.tolist()
    known, listed = (processor.observe([replace(seen, proprio=one)]).proprio for one in (seen.proprio, as_lists))
    assert known is not None
    assert listed is not None
    assert torch.equal(known, listed)
    for values in (seen.proprio[:1], seen.proprio[0]):
        with pytest.raises(InvalidData, match=r"the policy takes \(2, 3\)"):
            processor.observe([replace(seen, proprio=values)])
    with pytest.raises(InvalidData, match=r"a window_mask \(1,\), the policy takes \(2,\)"):
        processor.observe([replace(seen, window_mask=np.ones(1, bool))])


def test_proprio_that_the_statistics_do_not_know_is_refused(
    bridge_statistics: DatasetStatistics, moments: list[Sample]
) -> None:
    with pytest.raises(InvalidData, match="proprio of 3 numbers meets statistics of 0"):
        Processor(SETTINGS, {"robot": bridge_statistics}).encode(moments[0])


def test_a_policy_that_takes_no_proprio_gets_none(
    statistics: dict[str, DatasetStatistics], moments: list[Sample]
) -> None:
    blind = Processor(replace(SETTINGS, proprio=0), statistics)
    assert blind.collate([blind.encode(moments[0])]).proprio is None
    assert blind.observe([observed(moments[0])]).proprio is None


def test_a_network_of_two_cameras_and_proprio_trains_and_acts(processor: Processor, moments: list[Sample]) -> None:
    network = build_network({"kind": "toy_network:ToyNetwork"}, processor)
    assert isinstance(network, ToyNetwork)
    batch = processor.collate([processor.encode(moment) for moment in moments])
    output = network(batch)
    output.loss.backward()
    assert output.row_losses.isfinite().all()
    assert network.regressor.weight.grad is not None
    assert network.regressor.weight.grad.abs().max() > 0
    actions = TrainedPolicy(network, processor).act([observed(moment) for moment in moments])
    assert actions.shape == (2, CHUNK, 7)
