"""Images with TensorFlow's arithmetic, without TensorFlow: fast-DCT JPEG, Lanczos3, crops in float32."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import simplejpeg  # pyright: ignore[reportMissingTypeStubs]

from vlakit.errors import InvalidData
from vlakit.registry import Registry
from vlakit.schema import Float32, UInt8

RESIZES: Registry[UInt8] = Registry("image resize")

# Per tower: mean and standard deviation of RGB in [0, 1]. The `hf_rounded` statistics are what the released
# checkpoint's own preprocessor holds: ImageNet's numbers after a trip through bfloat16.
CHANNEL_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet_hf_rounded": ((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def decode_jpeg(data: bytes, *, where: str = "") -> UInt8:
    """(H, W, 3) uint8 RGB of JPEG bytes, bit for bit as `tf.io.decode_jpeg` (fast integer DCT, plain upsampling)."""
    try:
        return simplejpeg.decode_jpeg(data, fastdct=True, fastupsample=False)
    except ValueError as error:
        raise InvalidData(f"a JPEG does not decode: {error}", where=where, do="run vlakit shards verify=DIR") from error


def check_image(image: UInt8, *, where: str = "observation") -> UInt8:
    """The image itself if it is (H, W, 3) uint8; InvalidData says what it is instead."""
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InvalidData(
            f"an image of shape {image.shape} and type {image.dtype}",
            where=where,
            do="pass (height, width, 3) uint8 RGB: convert grey, alpha or float images first",
        )
    return image


@lru_cache(maxsize=32)
def _lanczos_weights(size_in: int, size_out: int) -> Float32:
    """(size_out, size_in) rows of the antialiased Lanczos3 kernel, each summing to one; half-pixel centres."""
    scale = size_in / size_out
    widening = max(scale, 1.0)
    centers = (np.arange(size_out) + 0.5) * scale
    offsets = (np.arange(size_in)[None] + 0.5 - centers[:, None]) / widening
    kernel = np.where(np.abs(offsets) < 3, np.sinc(offsets) * np.sinc(offsets / 3), 0.0)
    return (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)


def lanczos(image: UInt8, height: int, width: int) -> UInt8:
    """Resize (H, W, 3) uint8 as `tf.image.resize(..., 'lanczos3', antialias=True)` does, rounded half to even."""
    if image.shape[:2] == (height, width):
        return image
    rows, columns = _lanczos_weights(image.shape[0], height), _lanczos_weights(image.shape[1], width)
    tall = (rows @ image.reshape(image.shape[0], -1).astype(np.float32)).reshape(height, image.shape[1], 3)
    resized = np.einsum("ow,hwc->hoc", columns, tall, optimize=True)
    return np.rint(resized).clip(0, 255).astype(np.uint8)


@RESIZES.register("resize-naive")
def resize_naive(image: UInt8, size: int) -> UInt8:
    """Squash to (size, size), whatever the aspect."""
    return lanczos(image, size, size)


@RESIZES.register("letterbox")
def letterbox(image: UInt8, size: int) -> UInt8:
    """Pad to a square with grey (127, SigLIP's mean) on both sides, then resize to (size, size)."""
    height, width = image.shape[:2]
    side = max(height, width)
    padded = np.full((side, side, 3), 127, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    padded[top : top + height, left : left + width] = image
    return lanczos(padded, size, size)


@RESIZES.register("resize-crop")
def resize_crop(image: UInt8, size: int) -> UInt8:
    """Resize the shorter side to `size`, then cut the central (size, size)."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    tall, wide = max(size, round(height * scale)), max(size, round(width * scale))
    top, left = (tall - size) // 2, (wide - size) // 2
    return lanczos(image, tall, wide)[top : top + size, left : left + size]


def crop_and_resize(image: UInt8, area: float, offset: tuple[float, float] = (0.5, 0.5)) -> UInt8:
    """Cut a square of `area` of (S, S, 3) at `offset` (y, x in [0, 1]; .5 is the centre), bilinear back to (S, S).

    Corner-aligned sampling and the closing floor(255.5 x), as `tf.image.crop_and_resize` in the peers' chain.
    """
    size = image.shape[0]
    side = np.float32(np.sqrt(area))
    unit = image.astype(np.float32) / np.float32(255)
    rows, columns = (_bilinear_weights(size, (1 - side) * np.float32(start), side) for start in offset)
    cropped = np.einsum("ow,hwc->hoc", columns, np.tensordot(rows, unit, axes=1), optimize=True)
    return to_uint8(cropped)


def _bilinear_weights(size: int, start: np.float32, side: np.float32) -> Float32:
    """(size, size) interpolation rows for positions from start (size - 1) to (start + side) (size - 1)."""
    positions = start * (size - 1) + np.arange(size, dtype=np.float32) * side
    low = np.floor(positions).astype(int).clip(0, size - 1)
    high = (low + 1).clip(0, size - 1)
    fraction = positions - low
    weights = np.zeros((size, size), np.float32)
    np.add.at(weights, (np.arange(size), low), 1 - fraction)
    np.add.at(weights, (np.arange(size), high), fraction)
    return weights


def to_uint8(unit: Float32) -> UInt8:
    """Floats in [0, 1] to uint8 by floor(255.5 x), TensorFlow's saturating conversion."""
    return np.floor(unit.clip(0, 1) * np.float32(255.5)).clip(0, 255).astype(np.uint8)


def channel_tables(towers: Sequence[str]) -> tuple[Float32, Float32]:
    """Scale and shift (k, 3): uint8 * scale + shift is the input of each tower, named as in CHANNEL_STATISTICS."""
    means, stds = (np.array([CHANNEL_STATISTICS[name][i] for name in towers], np.float32) for i in (0, 1))
    return (1 / (255 * stds)).astype(np.float32), (-means / stds).astype(np.float32)


def resizer(name: str) -> Callable[[UInt8, int], UInt8]:
    """The named way to make any image square: (H, W, 3) -> (size, size, 3)."""
    return RESIZES.get(name)
