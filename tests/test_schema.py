"""A batch moves as one thing."""

import pickle

import numpy as np
import torch
from torch import Tensor

from vlakit.schema import Batch, Observation


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """Every tensor of a tiny batch, by name."""
    assert batch.text is not None
    text = {"text.ids": batch.text.ids, "text.mask": batch.text.mask, "text.labels": batch.text.labels}
    common = {name: getattr(batch, name) for name in ("window_mask", "actions", "normalized", "chunk_mask")}
    return {**batch.pixels, **text, **common}


def test_batch_moves_every_tensor_and_keeps_the_rest(tiny_batch: Batch) -> None:
    moved = tiny_batch.to("meta")
    before, after = tensors_of(tiny_batch), tensors_of(moved)
    assert len(before) == len(after) == 8
    for name, tensor in before.items():
        assert after[name].device.type == "meta", name
        assert after[name].shape == tensor.shape
        assert tensor.device.type == "cpu"
    assert (moved.keys, moved.datasets, moved.position) == (tiny_batch.keys, tiny_batch.datasets, tiny_batch.position)


def test_length_of_a_batch_is_its_rows(tiny_batch: Batch) -> None:
    assert len(tiny_batch) == 3 == len(tiny_batch.pixels["primary"])


def test_batch_survives_the_trip_from_a_worker(tiny_batch: Batch) -> None:
    copy = pickle.loads(pickle.dumps(tiny_batch))
    assert all(torch.equal(tensor, tensors_of(tiny_batch)[name]) for name, tensor in tensors_of(copy).items())
    assert copy.keys == tiny_batch.keys


def test_an_optional_part_that_is_there_moves_too(tiny_batch: Batch) -> None:
    tiny_batch.proprio, tiny_batch.features = torch.zeros(3, 1, 8), torch.zeros(3, 16, 192)
    moved = tiny_batch.to("meta")
    assert moved.proprio is not None
    assert moved.features is not None
    assert (moved.proprio.device.type, moved.features.device.type) == ("meta", "meta")


def test_one_picture_is_an_observation_without_a_past() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    observation = Observation.of(image, "lift the pot", camera="wrist")
    assert {camera: frames.shape for camera, frames in observation.images.items()} == {"wrist": (1, 2, 2, 3)}
    assert np.array_equal(observation.image, image)


def test_the_image_of_an_observation_is_the_latest_of_its_first_camera() -> None:
    first, second = (np.random.default_rng(seed).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8) for seed in (0, 1))
    assert np.array_equal(Observation({"primary": first, "wrist": second}, "x").image, first[2])
