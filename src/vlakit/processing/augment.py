"""The training augmentation of OpenVLA: crop, brightness, contrast, saturation, hue, clipped after every step.

Each sample is augmented by its own number in the stream, so the result depends on no worker and survives a resume.
Every step repeats TensorFlow's float32 operations in their order: equal to the last bit, its quirks included.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from vlakit.processing.images import crop_to_unit, to_uint8
from vlakit.registry import Registry
from vlakit.schema import Float32, UInt8

Sectors: TypeAlias = npt.NDArray[np.int8]

ONE, SIX = np.float32(1), np.float32(6)


class ImageAugmentation(Protocol):
    """A random change of a training image; crop_area: the share that crops leave of it, None without crops."""

    @property
    def crop_area(self) -> float | None:
        """What observations are cropped to at their centre."""
        ...

    def __call__(self, image: UInt8, *, seed: int, position: int) -> UInt8:
        """Change (S, S, 3) uint8 by the random numbers of (seed, position)."""
        ...


AUGMENTATIONS: Registry[ImageAugmentation] = Registry("augmentation")


def augmentation(name: str | bool | None) -> ImageAugmentation | None:
    """The augmentation of a configuration: a registered name, true for OpenVLA's, false or null for none."""
    if not isinstance(name, str):
        return Augmentation() if name else None
    return AUGMENTATIONS.build(name)


@AUGMENTATIONS.register("shift")
@dataclass(frozen=True)
class Shift:
    """Moves the image by up to `pixels` each way, its edges repeated: all that 64 px stand."""

    pixels: int = 2
    crop_area: None = None

    def __call__(self, image: UInt8, *, seed: int, position: int) -> UInt8:
        """Move (S, S, 3) uint8 by whole pixels."""
        rng = np.random.Generator(np.random.Philox(key=[seed, position]))
        down, right = rng.integers(-self.pixels, self.pixels + 1, 2).tolist()
        moved = np.roll(image, (down, right), axis=(0, 1))
        for across, offset in ((moved, down), (moved.swapaxes(0, 1), right)):  # rows, then columns
            if offset > 0:
                across[:offset] = across[offset]
            elif offset < 0:
                across[offset:] = across[offset - 1]
        return moved


@AUGMENTATIONS.register("openvla")
@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; the defaults are those of OpenVLA's fine-tuning. Order matters."""

    crop_area: float = 0.9
    brightness: float = 0.2
    contrast: tuple[float, float] = (0.8, 1.2)
    saturation: tuple[float, float] = (0.8, 1.2)
    hue: float = 0.05

    def __call__(self, image: UInt8, *, seed: int, position: int) -> UInt8:
        """Change (S, S, 3) uint8 by the random numbers of (seed, position); rounded to uint8 once, at the end."""
        rng = np.random.Generator(np.random.Philox(key=[seed, position]))
        offset = rng.uniform(size=2)
        unit = crop_to_unit(image, self.crop_area, (float(offset[0]), float(offset[1])))
        unit = brightness(unit, rng.uniform(-self.brightness, self.brightness))
        unit = contrast(unit, rng.uniform(*self.contrast))
        unit = saturation(unit, rng.uniform(*self.saturation))
        return to_uint8(hue(unit, rng.uniform(-self.hue, self.hue)))


def brightness(unit: Float32, delta: float) -> Float32:
    """Add `delta` to (H, W, 3) in [0, 1]."""
    return _clipped(unit + np.float32(delta))


def contrast(unit: Float32, factor: float) -> Float32:
    """Stretch each channel of (H, W, 3) about its mean."""
    planes = _planes(unit)
    mean = _folded_mean(planes)[:, None, None]
    stretched = planes - mean
    stretched *= np.float32(factor)
    stretched += mean
    return np.moveaxis(_clipped(stretched), 0, -1)


def saturation(unit: Float32, factor: float) -> Float32:
    """Multiply the saturation of (H, W, 3) in HSV."""
    hsv = rgb_to_hsv(unit)
    amount = hsv[..., 1]
    amount *= np.float32(factor)
    np.clip(amount, 0, 1, out=amount)
    return _clipped(hsv_to_rgb(hsv))


def hue(unit: Float32, delta: float) -> Float32:
    """Turn the hue of (H, W, 3) by `delta`, at most one full circle; the largest and smallest channel values stay."""
    red, green, blue = _split(unit)
    low, high = np.minimum(red, green), np.maximum(red, green)
    top, bottom = np.maximum(high, blue), np.minimum(low, blue)
    spread = top - bottom
    sector = _sector((red < green).view(np.int8), (blue < low).view(np.int8), (blue > high).view(np.int8))
    way = (np.maximum(low, np.minimum(high, blue)) - bottom) / (spread + (spread == 0))  # grey: any hue will do
    angle = sector + np.abs((sector & 1) - way)  # odd sectors run backwards
    angle += np.float32(delta) * SIX
    angle += SIX * (angle < 0)
    while angle.max() >= SIX:
        angle -= SIX * (angle >= SIX)
    sector = angle.astype(np.int8)
    angle -= sector
    middle = np.abs((sector & 1) - angle)
    middle *= spread
    middle += bottom
    return _clipped(_place(sector, top, middle, bottom))


def rgb_to_hsv(rgb: Float32) -> Float32:
    """(..., 3) RGB to HSV, all in [0, 1]; grey has hue 0, and a hue just below 0 may round up to 1."""
    red, green, blue = _split(rgb)
    hsv = np.empty((3, *red.shape), np.float32)
    value = np.maximum(red, np.maximum(green, blue), out=hsv[2])
    spread = value - np.minimum(red, np.minimum(green, blue))
    np.divide(spread, value + (value == 0), out=hsv[1])
    is_red = red == value
    is_green = (green == value) & ~is_red
    is_blue = ~(is_red | is_green)
    angle = is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)  # quicker than np.where
    angle *= ONE / (SIX * (spread + (spread == 0)))
    angle += np.float64(2 / 6) * is_green + np.float64(4 / 6) * is_blue  # added in double, as there
    angle += angle < 0
    np.multiply(angle, spread > 0, out=hsv[0])
    return np.moveaxis(hsv, 0, -1)


def hsv_to_rgb(hsv: Float32) -> Float32:
    """(..., 3) HSV in [0, 1] to RGB; a hue of exactly 1 comes out grey, as in `tf.image.adjust_saturation`."""
    turn, amount, value = _split(hsv)
    chroma: Float32 = amount * value
    bottom: Float32 = np.subtract(value, chroma)
    angle = turn * SIX
    sector = angle.astype(np.int8)
    angle -= sector & -2
    angle -= ONE
    np.abs(angle, out=angle)
    np.subtract(ONE, angle, out=angle)
    angle *= chroma
    angle += bottom
    chroma += bottom
    return _place(sector, chroma, angle, bottom)


def _sector(rising: Sectors, below: Sectors, above: Sectors) -> Sectors:
    """Sixth of the colour circle: by red < green, and blue below or above both; ties as TensorFlow breaks them."""
    return 5 - 5 * below - above + rising * (4 * below + 2 * above - 3)


def _place(sector: Sectors, top: Float32, middle: Float32, bottom: Float32) -> Float32:
    """RGB (..., 3) of three planes: which channel is the largest and which the middle one follows from the sector."""
    rgb = np.empty((3, *sector.shape), np.float32)
    for channel, (of_top, of_middle) in enumerate((((0, 5), (1, 4)), ((1, 2), (0, 3)), ((3, 4), (2, 5)))):
        plane = np.multiply(middle, (sector == of_middle[0]) | (sector == of_middle[1]), out=rgb[channel])
        np.maximum(plane, top * ((sector == of_top[0]) | (sector == of_top[1])), out=plane)
        np.maximum(plane, bottom, out=plane)  # products and maxima, exact as none is negative, are quicker than masks
    return np.moveaxis(rgb, 0, -1)


def _folded_mean(planes: Float32) -> Float32:
    """Mean (3,) of (3, H, W) in float32, summed by folding the second half of the pixels onto the first."""
    sums = planes.reshape(3, -1)
    count = sums.shape[1]
    while (rest := sums.shape[1]) > 1:
        folded = sums[:, : rest - rest // 2].copy()
        folded[:, : rest // 2] += sums[:, rest - rest // 2 :]
        sums = folded
    return sums[:, 0] * (ONE / np.float32(count))


def _planes(pixels: Float32) -> Float32:
    """(..., 3) as (3, ...), each plane in one piece; no copy when the steps before left it so."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _split(pixels: Float32) -> tuple[Float32, Float32, Float32]:
    planes = _planes(pixels)
    return planes[0], planes[1], planes[2]


def _clipped(unit: Float32) -> Float32:
    return np.clip(unit, 0, 1, out=unit)
