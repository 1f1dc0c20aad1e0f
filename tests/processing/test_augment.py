"""The training augmentation: TensorFlow's colour arithmetic, and randomness that is a function of the sample alone."""

import numpy as np
import pytest
from places import FIXTURES

from vlakit.errors import UnknownName
from vlakit.processing.augment import (
    Augmentation,
    Shift,
    augmentation,
    brightness,
    contrast,
    hsv_to_rgb,
    hue,
    rgb_to_hsv,
    saturation,
)
from vlakit.processing.images import to_uint8
from vlakit.schema import UInt8

EXPECTED = np.load(FIXTURES / "image_ops/expected.npz")
PICTURES = pytest.mark.parametrize("i", [0, 1], ids=["bridge", "photograph"])
IMAGE = EXPECTED["decoded_0"]


def assert_as_tensorflow(ours: UInt8, theirs: UInt8) -> None:
    distance = np.abs(ours.astype(int) - theirs.astype(int))
    assert ours.shape == theirs.shape
    assert distance.max() <= 1
    assert (distance == 0).mean() >= 0.999


@PICTURES
def test_every_colour_change_agrees_with_tensorflow(i: int) -> None:
    unit = EXPECTED[f"eval_chain_224_{i}"].astype(np.float32) / np.float32(255)
    for change, amount in zip((brightness, contrast, saturation, hue), EXPECTED[f"colour_params_{i}"], strict=True):
        unit = change(unit, float(amount))
        assert 0 <= unit.min() <= unit.max() <= 1
        assert_as_tensorflow(to_uint8(unit)[::4, ::4], EXPECTED[f"{change.__name__}_{i}"])
    assert_as_tensorflow(to_uint8(unit), EXPECTED[f"colour_224_{i}"])


def test_hsv_and_back_is_the_identity() -> None:
    unit = IMAGE.astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(hsv_to_rgb(rgb_to_hsv(unit)), unit, atol=1e-6)


def test_black_and_grey_have_no_hue() -> None:
    assert rgb_to_hsv(np.array([[0, 0, 0], [0.5, 0.5, 0.5]], np.float32)).tolist() == [[0, 0, 0], [0, 0, 0.5]]


def test_the_same_sample_is_augmented_the_same_whatever_came_before() -> None:
    first, second = Augmentation(), Augmentation()
    second(IMAGE, seed=1, position=4)
    np.random.default_rng().random(3)
    assert np.array_equal(first(IMAGE, seed=1, position=5), second(IMAGE, seed=1, position=5))


def test_another_position_or_seed_gives_another_picture() -> None:
    augment = Augmentation()
    pictures = [augment(IMAGE, seed=s, position=p).tobytes() for s, p in ((1, 5), (1, 6), (2, 5), (5, 1))]
    assert len(set(pictures)) == 4


def test_the_global_generator_is_left_alone() -> None:
    before = str(np.random.get_state())  # noqa: NPY002  the old generator is what must not move
    Augmentation()(IMAGE, seed=1, position=5)
    assert str(np.random.get_state()) == before  # noqa: NPY002


def test_empty_ranges_change_nothing() -> None:
    still = Augmentation(crop_area=1.0, brightness=0, contrast=(1, 1), saturation=(1, 1), hue=0)
    distance = np.abs(still(IMAGE, seed=0, position=0).astype(int) - IMAGE)
    assert distance.max() <= 1
    assert (distance == 0).mean() > 0.99


def test_size_and_type_are_kept() -> None:
    picture = Augmentation()(IMAGE, seed=0, position=2**40)
    assert picture.shape == IMAGE.shape
    assert picture.dtype == np.uint8


def test_a_shift_moves_whole_pixels_and_repeats_the_edges() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    possible = [padded[top : top + 8, left : left + 9].tobytes() for top in range(5) for left in range(5)]
    found = {possible.index(Shift()(image, seed=1, position=i).tobytes()) for i in range(300)}
    assert found == set(range(25))


def test_a_shift_follows_from_seed_and_position() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(Shift()(image, seed=1, position=5), Shift()(image, seed=1, position=5))


def test_an_augmentation_has_a_name() -> None:
    assert augmentation("shift") == Shift()
    assert augmentation(True) == augmentation("openvla") == Augmentation()
    assert augmentation(False) is augmentation(None) is None
    with pytest.raises(UnknownName, match="shfit"):
        augmentation("shfit")
