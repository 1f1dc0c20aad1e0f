"""The image chains of evaluation, the ways to a square, and the corners of TensorFlow's colour arithmetic."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from vlakit.errors import ConfigError
from vlakit.processing.augment import Augmentation, brightness, contrast, hsv_to_rgb, hue, rgb_to_hsv, saturation
from vlakit.processing.images import (
    crop_and_resize,
    crop_to_unit,
    decode_jpeg,
    encode_jpeg,
    jpeg_round_trip,
    lanczos,
    letterbox_fill,
    resizer,
    to_uint8,
    to_unit,
)
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import UInt8

NAMES = TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words")


def picture(height: int, width: int) -> UInt8:
    return default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def observed(names: TokenSettings, image: UInt8) -> np.ndarray:
    return TokenProcessor(names).observed_pixels(image).numpy()


def seen(names: TokenSettings, square: UInt8) -> np.ndarray:
    return TokenProcessor(names).pixels(square).numpy()


def test_jpeg_and_crop_come_before_and_after_the_resize() -> None:
    image = picture(48, 80)
    by_hand = crop_and_resize(lanczos(decode_jpeg(encode_jpeg(image)), 64, 64), 0.9)
    assert np.array_equal(observed(replace(NAMES, jpeg=True, center_crop=0.9), image), seen(NAMES, by_hand))


@pytest.mark.parametrize("change", [{"jpeg": True}, {"center_crop": 0.9}], ids=str)
def test_each_evaluation_step_changes_observations_and_nothing_else(change: dict[str, float]) -> None:
    image = picture(64, 64)
    names = replace(NAMES, **change)
    assert not np.array_equal(observed(names, image), observed(NAMES, image))
    assert np.array_equal(seen(names, image), seen(NAMES, image))


def test_without_evaluation_steps_an_observation_is_a_training_image() -> None:
    image = picture(50, 70)
    assert np.array_equal(observed(NAMES, image), seen(NAMES, image))


@pytest.mark.parametrize("area", [0.0, -0.5, 1.5])
def test_a_crop_of_no_possible_area_is_refused(area: float) -> None:
    with pytest.raises(ConfigError) as caught:
        TokenSettings.from_dict({**NAMES.to_dict(), "center_crop": area})
    assert caught.value.where == "processor.center_crop"


def test_names_written_before_the_evaluation_steps_still_load() -> None:
    plain = NAMES.to_dict()
    del plain["jpeg"], plain["center_crop"]
    assert TokenSettings.from_dict(plain) == NAMES


def test_encoding_is_lossy_and_settles_near_the_image() -> None:
    image = lanczos(picture(8, 8), 64, 48)
    once = jpeg_round_trip(image)
    assert once.shape == image.shape
    assert 0 < np.abs(once.astype(int) - image).mean() < 8
    assert len(encode_jpeg(image, quality=50)) < len(encode_jpeg(image))


def test_each_tower_pads_with_its_own_mean() -> None:
    names = replace(NAMES, resize="letterbox")
    border = observed(names, picture(32, 64))[:, 0, 0]
    statistics = TokenProcessor(names)
    colours = np.array([(123, 116, 103), (127, 127, 127)])
    np.testing.assert_allclose(border, (colours * statistics.scale + statistics.shift).ravel(), atol=1e-6)
    assert [letterbox_fill(tower) for tower in names.channel_statistics] == [tuple(row) for row in colours.tolist()]


def test_an_odd_border_is_padded_alike_on_both_sides_as_prismatic_does() -> None:
    image = picture(7, 10)
    padded = np.full((9, 10, 3), 127, np.uint8)
    padded[1:8] = image
    assert np.array_equal(resizer("letterbox")(image, 18), resizer("resize-crop")(padded, 18))


def test_the_crop_after_a_resize_rounds_half_to_even_as_torchvision_does() -> None:
    columns = np.arange(11, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    assert resizer("resize-crop")(columns, 8)[0, :, 0].tolist() == list(range(2, 10))  # (11 - 8) / 2 is 1.5, so 2


@pytest.mark.parametrize("shape", [(64, 80), (97, 131), (300, 40), (5, 9)], ids=str)
def test_lanczos_is_the_dense_product_of_normalised_sincs(shape: tuple[int, int]) -> None:
    def weights(size: int) -> np.ndarray:
        scale = size / 64
        offsets = (np.arange(size) + 0.5 - (np.arange(64)[:, None] + 0.5) * scale) / max(scale, 1)
        kernel = np.where(np.abs(offsets) < 3, np.sinc(offsets) * np.sinc(offsets / 3), 0)
        return kernel / kernel.sum(1, keepdims=True)

    image = picture(*shape)
    dense = np.einsum("oh,pw,hwc->opc", weights(shape[0]), weights(shape[1]), image.astype(float), optimize=True)
    np.testing.assert_allclose(lanczos(image, 64, 64), dense.clip(0, 255), atol=0.501)


def test_a_resize_does_not_remember_the_one_before() -> None:
    small, large = picture(30, 40), picture(200, 100)
    fresh = lanczos(small, 64, 64)
    lanczos(large, 64, 64)
    assert np.array_equal(lanczos(small, 64, 64), fresh)


def test_turned_and_strided_images_resize_like_their_copies() -> None:
    turned = picture(60, 90)[::-1, ::-1]
    assert np.array_equal(lanczos(turned, 64, 64), lanczos(turned.copy(), 64, 64))


def test_a_crop_touches_both_edges_at_its_extreme_offsets() -> None:
    image = picture(64, 64)
    assert np.array_equal(crop_and_resize(image, 0.25, (0, 0))[0, 0], image[0, 0])
    assert np.array_equal(crop_and_resize(image, 0.25, (1, 1))[-1, -1], image[-1, -1])


def test_a_crop_keeps_any_aspect() -> None:
    assert crop_and_resize(picture(30, 50), 0.9).shape == (30, 50, 3)


def test_augmentation_rounds_once() -> None:
    image = picture(64, 64)
    rng = np.random.Generator(np.random.Philox(key=[3, 4]))
    unit = crop_to_unit(image, 0.9, tuple(rng.uniform(size=2)))
    ranges = ((-0.2, 0.2), (0.8, 1.2), (0.8, 1.2), (-0.05, 0.05))
    for change, span in zip((brightness, contrast, saturation, hue), ranges, strict=True):
        unit = change(unit, rng.uniform(*span))
    assert np.array_equal(Augmentation()(image, seed=3, position=4), to_uint8(unit))


def test_grey_stays_grey_whatever_the_saturation_and_hue() -> None:
    grey = to_unit(np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2))
    for factor in (0, 0.5, 3):
        np.testing.assert_array_equal(saturation(grey, factor), grey)
    for delta in (-1, -0.3, 0.05, 1):
        np.testing.assert_array_equal(hue(grey, delta), grey)


def test_a_full_turn_of_the_hue_changes_nothing() -> None:
    unit = to_unit(picture(32, 32))
    for delta in (-1, 0, 1):
        np.testing.assert_allclose(hue(unit, delta), unit, atol=2e-6)


def test_a_third_of_a_turn_exchanges_the_channels() -> None:
    unit = to_unit(picture(32, 32))
    np.testing.assert_allclose(hue(unit, 1 / 3), np.roll(unit, 1, axis=-1), atol=2e-6)


def test_no_saturation_leaves_the_largest_channel() -> None:
    unit = to_unit(picture(32, 32))
    np.testing.assert_array_equal(saturation(unit, 0), unit.max(-1, keepdims=True).repeat(3, -1))


def test_a_hue_that_rounds_up_to_one_loses_its_colour() -> None:
    almost_red = np.array([[[0.9, 0.1, np.nextafter(np.float32(0.1), np.float32(1))]]], np.float32)
    hsv = rgb_to_hsv(almost_red)
    assert hsv[0, 0, 0] == 1
    np.testing.assert_allclose(hsv_to_rgb(hsv), 0.1, atol=1e-6)


def test_contrast_of_zero_is_the_mean_of_each_channel() -> None:
    unit = to_unit(picture(37, 53))
    np.testing.assert_allclose(contrast(unit, 0), np.broadcast_to(unit.mean((0, 1)), unit.shape), atol=1e-6)


def test_colour_changes_leave_their_input_alone() -> None:
    unit = to_unit(picture(16, 16))
    before = unit.copy()
    for change in (brightness, contrast, saturation, hue):
        change(unit, 0.7)
    np.testing.assert_array_equal(unit, before)
