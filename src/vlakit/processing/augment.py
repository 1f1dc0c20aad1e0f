"""The training augmentation of OpenVLA: crop, brightness, contrast, saturation, hue, clipped after every step.

Each sample is augmented by its own number in the stream, so the result depends on no worker and survives a resume.
"""

from dataclasses import dataclass

import numpy as np

from vlakit.processing.images import crop_and_resize, to_uint8
from vlakit.schema import Float32, UInt8


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; the defaults are those of OpenVLA's fine-tuning. Order matters."""

    crop_area: float = 0.9
    brightness: float = 0.2
    contrast: tuple[float, float] = (0.8, 1.2)
    saturation: tuple[float, float] = (0.8, 1.2)
    hue: float = 0.05

    def __call__(self, image: UInt8, *, seed: int, position: int) -> UInt8:
        """Change (S, S, 3) uint8 by the random numbers of (seed, position)."""
        rng = np.random.Generator(np.random.Philox(key=[seed, position]))
        offset = rng.uniform(size=2)
        image = crop_and_resize(image, self.crop_area, (float(offset[0]), float(offset[1])))
        unit = image.astype(np.float32) / np.float32(255)
        unit = brightness(unit, rng.uniform(-self.brightness, self.brightness))
        unit = contrast(unit, rng.uniform(*self.contrast))
        unit = saturation(unit, rng.uniform(*self.saturation))
        return to_uint8(hue(unit, rng.uniform(-self.hue, self.hue)))


def brightness(unit: Float32, delta: float) -> Float32:
    """Add `delta` to (H, W, 3) in [0, 1]."""
    return (unit + np.float32(delta)).clip(0, 1)


def contrast(unit: Float32, factor: float) -> Float32:
    """Stretch each channel of (H, W, 3) about its mean."""
    mean = unit.mean(axis=(0, 1), keepdims=True)
    return ((unit - mean) * np.float32(factor) + mean).clip(0, 1)


def saturation(unit: Float32, factor: float) -> Float32:
    """Multiply the saturation of (H, W, 3) in HSV."""
    hsv = rgb_to_hsv(unit)
    hsv[..., 1] = (hsv[..., 1] * np.float32(factor)).clip(0, 1)
    return hsv_to_rgb(hsv).clip(0, 1)


def hue(unit: Float32, delta: float) -> Float32:
    """Turn the hue of (H, W, 3) by `delta` of a full circle."""
    hsv = rgb_to_hsv(unit)
    hsv[..., 0] = (hsv[..., 0] + np.float32(delta)) % 1
    return hsv_to_rgb(hsv).clip(0, 1)


def rgb_to_hsv(rgb: Float32) -> Float32:
    """(..., 3) RGB to HSV, all in [0, 1]; grey has hue 0."""
    value = rgb.max(axis=-1)
    spread = value - rgb.min(axis=-1)
    safe = np.where(spread > 0, spread, 1)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    sector = np.select(
        [value == red, value == green], [(green - blue) / safe, 2 + (blue - red) / safe], 4 + (red - green) / safe
    )
    angle = np.where(spread > 0, sector / 6 % 1, 0)
    return np.stack([angle, np.where(value > 0, spread / np.where(value > 0, value, 1), 0), value], axis=-1).astype(
        np.float32
    )


def hsv_to_rgb(hsv: Float32) -> Float32:
    """(..., 3) HSV in [0, 1] to RGB."""
    angle, amount, value = np.moveaxis(hsv, -1, 0)
    shifts = np.stack([np.abs(angle * 6 - 3) - 1, 2 - np.abs(angle * 6 - 2), 2 - np.abs(angle * 6 - 4)], axis=-1)
    return (((shifts.clip(0, 1) - 1) * amount[..., None] + 1) * value[..., None]).astype(np.float32)
