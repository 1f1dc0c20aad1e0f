"""Images with TensorFlow's arithmetic, without TensorFlow: fast-DCT JPEG, Lanczos3, crops in float32."""

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from threading import local
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import simplejpeg  # pyright: ignore[reportMissingTypeStubs]
from PIL import Image

from vlakit.errors import InvalidData
from vlakit.registry import Registry
from vlakit.schema import Float32, Int64, UInt8

RGB: TypeAlias = tuple[int, int, int]
GREY: RGB = (127, 127, 127)  # what the mean of SigLIP pads with
TIE, TIES_AT_ONCE = 2e-4, 4096  # values this near to x.5 are summed again in TensorFlow's order
BLOCK = 8  # outputs of a resize per matrix product: measured in experiments/speed/images

RESIZES: Registry[UInt8] = Registry("image resize")

# Per tower: mean and standard deviation of RGB in [0, 1]. The `hf_rounded` statistics are what the released
# checkpoint's own preprocessor holds: ImageNet's numbers after a trip through bfloat16.
CHANNEL_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet_hf_rounded": ((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # Diffusion Policy's: to [-1, 1] first, and then by ImageNet's numbers, which are meant for [0, 1].
    "imagenet_twice": ((0.7425, 0.728, 0.703), (0.1145, 0.112, 0.1125)),
}


def decode_jpeg(data: bytes, *, where: str = "") -> UInt8:
    """(H, W, 3) uint8 RGB of JPEG bytes, bit for bit as `tf.io.decode_jpeg` (fast integer DCT, plain upsampling)."""
    try:
        return simplejpeg.decode_jpeg(data, fastdct=True, fastupsample=False)
    except ValueError as error:
        do = "of shards: vlakit shards verify=DIR; of questions: copy the picture again"
        raise InvalidData(f"a JPEG does not decode: {error}", where=where, do=do) from error


def check_image(image: UInt8, *, where: str = "observation") -> UInt8:
    """The image itself if it is (H, W, 3) uint8; InvalidData says what it is instead."""
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InvalidData(
            f"an image of shape {image.shape} and type {image.dtype}",
            where=where,
            do="pass (height, width, 3) uint8 RGB: convert grey, alpha or float images first",
        )
    return image


def encode_jpeg(image: UInt8, quality: int = 95) -> bytes:
    """JPEG bytes of (H, W, 3) uint8 RGB that decode to the same pixels as those of `tf.image.encode_jpeg`."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=2)  # 2 = 4:2:0
    return buffer.getvalue()


def jpeg_round_trip(image: UInt8) -> UInt8:
    """What is left of (H, W, 3) uint8 after encoding and decoding, which the peers do before they evaluate."""
    return decode_jpeg(encode_jpeg(image))


@lru_cache(maxsize=64)
def _lanczos_taps(size_in: int, size_out: int) -> tuple[Int64, Float32]:
    """First input (size_out,) and weights (size_out, taps) of every output; half-pixel centres, each row sums to one.

    Steps and roundings are those of ScaleAndTranslate; sines in double, since NumPy's float32 sine is off by an ulp.
    """
    half, radius, pi = np.float32(0.5), np.float32(3), np.float32(np.pi)
    step = np.float32(1 / float(np.float32(size_out) / np.float32(size_in)))
    widening = max(step, np.float32(1))
    centers = (np.arange(size_out, dtype=np.float32) + half) * step
    first, last = (
        edge(centers + sign * radius * widening - half).astype(np.int64).clip(0, size_in - 1)
        for edge, sign in ((np.ceil, -1), (np.floor, 1))
    )
    places: Int64 = first[:, None] + np.arange(int((last - first).max()) + 1)
    distance = np.abs((places.astype(np.float32) + half - centers[:, None]) * (np.float32(1) / widening))
    near = np.maximum(distance, np.float32(1e-3))
    sines = (np.sin(angle.astype(np.float64)).astype(np.float32) for angle in (pi * near, pi * near / radius))
    weights = radius * next(sines) * next(sines) / (pi * pi * near * near)
    weights = np.where(distance <= np.float32(1e-3), np.float32(1), weights)
    weights = np.where((distance > radius) | (places > last[:, None]), np.float32(0), weights)
    total = np.cumsum(weights, axis=1, dtype=np.float32)[:, -1:]
    return first, weights * (np.float32(1) / total)


@lru_cache(maxsize=64)
def _lanczos_blocks(size_in: int, size_out: int, channels: int) -> list[tuple[slice, slice, Float32]]:
    """The weights as dense blocks on the diagonal: (outputs, inputs, matrix) for BLOCK outputs at a time.

    With `channels`, every weight is repeated for interleaved channels, so that no axis needs to move.
    """
    first, weights = _lanczos_taps(size_in, size_out)
    taps = weights.shape[1]
    blocks: list[tuple[slice, slice, Float32]] = []
    for start in range(0, size_out, BLOCK):
        stop = min(start + BLOCK, size_out)
        low, high = int(first[start]), min(size_in, int(first[stop - 1]) + taps)
        matrix = np.zeros((stop - start, high - low), np.float32)
        for row in range(start, stop):
            place = int(first[row]) - low
            matrix[row - start, place : place + taps] = weights[row, : high - low - place]
        matrix = np.kron(matrix, np.eye(channels, dtype=np.float32))
        blocks.append((slice(start * channels, stop * channels), slice(low * channels, high * channels), matrix))
    return blocks


class _Scratch(local):
    """Arrays that each thread keeps: fresh megabytes at every call cost more in page faults than the resize itself."""

    def __init__(self) -> None:
        self.kept: dict[str, Float32] = {}

    def floats(self, name: str, height: int, width: int) -> Float32:
        """(height, width) float32 of any content, valid until the same name is asked for again."""
        if name not in self.kept or self.kept[name].size < height * width:
            self.kept[name] = np.empty(height * width, np.float32)
        return self.kept[name][: height * width].reshape(height, width)


_SCRATCH = _Scratch()


def lanczos(image: UInt8, height: int, width: int) -> UInt8:
    """Resize (H, W, 3) uint8 as `tf.image.resize(..., 'lanczos3', antialias=True)` does, rounded half to even."""
    if image.shape[:2] == (height, width):
        return image
    flat = _SCRATCH.floats("flat", len(image), image.shape[1] * 3)
    tall = _SCRATCH.floats("tall", height, image.shape[1] * 3)
    resized = _SCRATCH.floats("resized", height, width * 3)
    flat[:] = image.reshape(flat.shape)
    for outputs, inputs, matrix in _lanczos_blocks(image.shape[0], height, 1):
        np.matmul(matrix, flat[inputs], out=tall[outputs])
    for outputs, inputs, matrix in _lanczos_blocks(image.shape[1], width, 3):
        np.matmul(tall[:, inputs], matrix.T, out=resized[:, outputs])
    rounded = _SCRATCH.floats("rounded", height, width * 3)
    np.rint(resized, out=rounded)
    resized -= rounded
    np.abs(resized, out=resized)
    ties = np.flatnonzero(resized > 0.5 - TIE)
    for start in range(0, len(ties), TIES_AT_ONCE):
        some = ties[start : start + TIES_AT_ONCE]
        rounded.ravel()[some] = np.rint(_lanczos_in_order(image, height, width, some))
    np.clip(rounded, 0, 255, out=rounded)
    return rounded.astype(np.uint8).reshape(height, width, 3)


def _lanczos_in_order(image: UInt8, height: int, width: int, places: Int64) -> Float32:
    """Resized values at flat `places`, summed tap after tap as TensorFlow does: a tie hangs on the last bit."""
    (first_row, row_weights), (first_column, column_weights) = (
        _lanczos_taps(size_in, size_out) for size_in, size_out in zip(image.shape[:2], (height, width), strict=True)
    )
    y, x, channel = places // (width * 3), places // 3 % width, places % 3
    rows = np.minimum(first_row[y][:, None] + np.arange(int(row_weights.shape[1])), len(image) - 1)
    columns = np.minimum(first_column[x][:, None] + np.arange(int(column_weights.shape[1])), image.shape[1] - 1)
    patches = image[rows[:, :, None], columns[:, None], channel[:, None, None]]
    across = np.cumsum(patches * row_weights[y][:, :, None], axis=1, dtype=np.float32)[:, -1]
    return np.cumsum(across * column_weights[x], axis=1, dtype=np.float32)[:, -1]


@RESIZES.register("resize-naive")
def resize_naive(image: UInt8, size: int, fill: RGB = GREY) -> UInt8:
    """Squash to (size, size), whatever the aspect."""
    return lanczos(image, size, size)


@RESIZES.register("letterbox")
def letterbox(image: UInt8, size: int, fill: RGB = GREY) -> UInt8:
    """Pad the shorter side on both ends with `fill`, then resize-crop to (size, size).

    As in Prismatic: an odd difference is padded by one pixel less than a square needs.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.full((height + 2 * top, width + 2 * left, 3), fill, np.uint8)
    padded[top : top + height, left : left + width] = image
    return resize_crop(padded, size)


@RESIZES.register("resize-crop")
def resize_crop(image: UInt8, size: int, fill: RGB = GREY) -> UInt8:
    """Resize the shorter side to `size`, then cut the central (size, size); torchvision's roundings."""
    height, width = image.shape[:2]
    short = min(height, width)
    tall, wide = int(size * height / short), int(size * width / short)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    return lanczos(image, tall, wide)[top : top + size, left : left + size]


def crop_to_unit(image: UInt8, area: float, offset: tuple[float, float] = (0.5, 0.5)) -> Float32:
    """Cut `area` of (H, W, 3) uint8 at `offset` (y, x in [0, 1]; .5 is the centre), bilinear back to (H, W) in [0, 1].

    Corner-aligned sampling; a position that rounding carries past the last pixel is black, as in
    `tf.image.crop_and_resize`.
    """
    (top, bottom, down, no_row), (left, right, along, no_column) = (
        _bilinear_taps(size, area, start) for size, start in zip(image.shape[:2], offset, strict=True)
    )
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    wide = _between(to_unit(planes.take(left, axis=2)), to_unit(planes.take(right, axis=2)), along)
    cut = _between(wide.take(top, axis=1), wide.take(bottom, axis=1), down[:, None])
    cut[:, no_row] = 0
    cut[:, :, no_column] = 0
    return np.moveaxis(cut, 0, -1)


def crop_and_resize(image: UInt8, area: float, offset: tuple[float, float] = (0.5, 0.5)) -> UInt8:
    """crop_to_unit, closed by to_uint8: the centre crop of the peers' evaluation."""
    return to_uint8(crop_to_unit(image, area, offset))


def _bilinear_taps(size: int, area: float, offset: float) -> tuple[Int64, Int64, Float32, npt.NDArray[np.bool_]]:
    """For each of `size` outputs: the pixel below, the one above, the way between them and whether it is outside."""
    side = np.sqrt(area)
    start, stop = np.float32(offset * (1 - side)), np.float32(offset * (1 - side) + side)
    span = np.float32(size - 1)
    step = (stop - start) * span / max(span, np.float32(1))
    positions = start * span + np.arange(size, dtype=np.float32) * step
    low, high = (edge(positions).astype(np.int64).clip(0, size - 1) for edge in (np.floor, np.ceil))
    return low, high, positions - np.floor(positions), (positions < 0) | (positions > span)


def _between(low: Float32, high: Float32, way: Float32) -> Float32:
    """low + (high - low) way, with that rounding; `high` is overwritten."""
    high -= low
    high *= way
    high += low
    return high


def to_unit(image: UInt8) -> Float32:
    """uint8 to floats in [0, 1] by a product with float32(1 / 255), as TensorFlow converts."""
    return image * np.float32(1 / 255)


def to_uint8(unit: Float32) -> UInt8:
    """Floats in [0, 1] to uint8 by floor(255.5 x), TensorFlow's saturating conversion."""
    scaled = unit.clip(0, 1)
    scaled *= np.float32(255.5)
    return np.ascontiguousarray(scaled.astype(np.uint8))


def channel_tables(towers: Sequence[str]) -> tuple[Float32, Float32]:
    """Scale and shift (k, 3): uint8 * scale + shift is the input of each tower, named as in CHANNEL_STATISTICS."""
    means, stds = (np.array([CHANNEL_STATISTICS[name][i] for name in towers], np.float32) for i in (0, 1))
    return (1 / (255 * stds)).astype(np.float32), (-means / stds).astype(np.float32)


def letterbox_fill(tower: str) -> RGB:
    """The colour a tower's own letterbox pads with: int(255 mean), by its name in CHANNEL_STATISTICS."""
    red, green, blue = (int(255 * mean) for mean in CHANNEL_STATISTICS[tower][0])
    return red, green, blue


class Resize(Protocol):
    """A way to make any image square: (H, W, 3) -> (size, size, 3)."""

    def __call__(self, image: UInt8, size: int, fill: RGB = GREY, /) -> UInt8:
        """`fill` colours what the image does not cover."""
        ...


def resizer(name: str) -> Resize:
    """The named way to make any image square."""
    return RESIZES.get(name)
