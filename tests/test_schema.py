"""A batch moves as one thing."""

import pickle

import torch

from vlakit.schema import Batch


def test_batch_moves_every_tensor_and_keeps_the_rest(tiny_batch: Batch) -> None:
    moved = tiny_batch.to("meta")
    for name in ("pixel_values", "input_ids", "attention_mask", "labels", "actions", "normalized", "chunk_mask"):
        assert getattr(moved, name).device.type == "meta", name
        assert getattr(moved, name).shape == getattr(tiny_batch, name).shape
        assert getattr(tiny_batch, name).device.type == "cpu"
    assert (moved.keys, moved.datasets, moved.position) == (tiny_batch.keys, tiny_batch.datasets, tiny_batch.position)


def test_length_of_a_batch_is_its_rows(tiny_batch: Batch) -> None:
    assert len(tiny_batch) == 3 == len(tiny_batch.pixel_values)


def test_batch_survives_the_trip_from_a_worker(tiny_batch: Batch) -> None:
    copy = pickle.loads(pickle.dumps(tiny_batch))
    assert torch.equal(copy.labels, tiny_batch.labels)
    assert copy.keys == tiny_batch.keys
