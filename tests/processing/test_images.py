"""TensorFlow's image arithmetic, held against TensorFlow's own results."""

import numpy as np
import pytest
import torch
from places import FIXTURES

from vlakit.errors import InvalidData, UnknownName
from vlakit.processing.images import (
    CHANNEL_STATISTICS,
    RESIZES,
    channel_tables,
    check_image,
    crop_and_resize,
    decode_jpeg,
    lanczos,
    resizer,
    to_uint8,
)
from vlakit.schema import UInt8

EXPECTED = np.load(FIXTURES / "image_ops/expected.npz")
PICTURES = pytest.mark.parametrize("i", [0, 1], ids=["bridge", "photograph"])


def assert_as_tensorflow(ours: UInt8, theirs: UInt8) -> None:
    distance = np.abs(ours.astype(int) - theirs.astype(int))
    assert ours.shape == theirs.shape
    assert distance.max() <= 1
    assert (distance == 0).mean() >= 0.999


@PICTURES
def test_jpeg_decodes_bit_for_bit(i: int) -> None:
    assert np.array_equal(decode_jpeg(EXPECTED[f"jpeg_{i}"].tobytes()), EXPECTED[f"decoded_{i}"])


@PICTURES
@pytest.mark.parametrize("size", [64, 224])
def test_lanczos_agrees(i: int, size: int) -> None:
    assert_as_tensorflow(lanczos(EXPECTED[f"decoded_{i}"], size, size), EXPECTED[f"lanczos_{size}_{i}"])


@PICTURES
def test_lanczos_of_the_round_trip_agrees(i: int) -> None:
    assert_as_tensorflow(lanczos(EXPECTED[f"jpeg_round_trip_{i}"], 224, 224), EXPECTED[f"eval_chain_224_{i}"])


@PICTURES
def test_center_crop_agrees(i: int) -> None:
    assert_as_tensorflow(crop_and_resize(EXPECTED[f"eval_chain_224_{i}"], 0.9), EXPECTED[f"center_crop_224_{i}"])


@PICTURES
def test_crop_at_an_offset_agrees(i: int) -> None:
    y, x = EXPECTED[f"crop_offset_{i}"]
    cropped = crop_and_resize(EXPECTED[f"eval_chain_224_{i}"], 0.9, (float(y), float(x)))
    assert_as_tensorflow(cropped, EXPECTED[f"random_crop_224_{i}"])


def test_cropping_all_of_an_image_changes_nothing() -> None:
    image = EXPECTED["decoded_0"]
    assert np.array_equal(crop_and_resize(image, 1.0), image)


def test_uint8_survives_the_trip_through_floats() -> None:
    values = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(values.astype(np.float32) / np.float32(255)), values)
    assert to_uint8(np.array([-0.5, 1.5], np.float32)).tolist() == [0, 255]


@pytest.mark.parametrize("name", RESIZES.names())
@pytest.mark.parametrize("shape", [(1, 1), (480, 640), (7, 300), (64, 64), (224, 223)], ids=str)
def test_any_size_becomes_the_square_asked_for(name: str, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 127, np.uint8)
    square = resizer(name)(image, 64)
    assert square.shape == (64, 64, 3)
    assert square.dtype == np.uint8
    assert (square == 127).all()


def test_letterbox_pads_both_sides_with_grey() -> None:
    wide = resizer("letterbox")(np.zeros((32, 64, 3), np.uint8), 64)
    assert (wide[:16] == 127).all()
    assert (wide[16:48] == 0).all()
    assert (wide[48:] == 127).all()


def test_resize_crop_keeps_the_centre() -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 32:96] = 200
    assert (resizer("resize-crop")(image, 64) == 200).all()


def test_resize_naive_squashes() -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:] = 255
    squashed = resizer("resize-naive")(image, 64)
    assert (squashed[:, :28] == 0).all()
    assert (squashed[:, 36:] == 255).all()


REFUSED = {
    "grey": np.zeros((8, 8), np.uint8),
    "grey with a channel": np.zeros((8, 8, 1), np.uint8),
    "alpha": np.zeros((8, 8, 4), np.uint8),
    "float": np.zeros((8, 8, 3), np.float32),
    "empty": np.zeros((0, 8, 3), np.uint8),
    "batched": np.zeros((1, 8, 8, 3), np.uint8),
    "channels first": np.zeros((3, 8, 8), np.uint8),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_another_kind_of_image_is_refused_and_described(kind: str) -> None:
    image = REFUSED[kind]
    with pytest.raises(InvalidData) as caught:
        check_image(image, where="sample 7")
    assert str(image.shape) in caught.value.what
    assert str(image.dtype) in caught.value.what
    assert caught.value.where == "sample 7"


@pytest.mark.parametrize("data", [b"", b"not a jpeg", EXPECTED["jpeg_0"].tobytes()[:100]], ids=["empty", "text", "cut"])
def test_bytes_that_are_no_jpeg_are_refused_with_their_place(data: bytes) -> None:
    with pytest.raises(InvalidData, match="JPEG does not decode") as caught:
        decode_jpeg(data, where="sample 7")
    assert caught.value.where == "sample 7"


@pytest.mark.parametrize("name", CHANNEL_STATISTICS)
def test_channel_tables_subtract_the_mean_and_divide_by_the_deviation(name: str) -> None:
    mean, std = CHANNEL_STATISTICS[name]
    scale, shift = channel_tables([name])
    np.testing.assert_allclose(100 * scale[0] + shift[0], (100 / 255 - np.array(mean)) / np.array(std), atol=1e-6)


def test_rounded_statistics_are_imagenets_in_bfloat16() -> None:
    exact = torch.tensor(CHANNEL_STATISTICS["imagenet"]).bfloat16().double()
    assert exact.tolist() == [list(row) for row in CHANNEL_STATISTICS["imagenet_hf_rounded"]]


def test_an_unknown_resize_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        resizer("leterbox")
    assert "letterbox" in caught.value.do
