"""Images as RLDS stores them, decoded as TensorFlow does: JPEG by the fast integer DCT, grey PNG up to 16 bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from vlakit.errors import CorruptRecord, InvalidData

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY = b"\0"  # colour type of a PNG
_UNDECODABLE = (ValueError, OSError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError)
_GREYSCALE, _COLOUR = 2, 3  # dimensions of raw pixels
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def decode_image(data: bytes, dtype: str = "uint8", channels: int = 3) -> np.ndarray:
    """Decode a stored image to (H, W, channels) of `dtype`: uint8, uint16, or float32 with one channel.

    float32 is what TFDS stores as a PNG of four bytes a pixel. 16-bit grey loses its low byte for uint8; 8 bits are
    stretched to the full range for uint16. Raises InvalidData for another dtype and for 16-bit colour, CorruptRecord.
    """
    if dtype not in ("uint8", "uint16", "float32"):
        raise InvalidData(f"images of dtype {dtype!r} do not exist", do="known: uint8, uint16, float32")
    if dtype == "float32":
        return np.ascontiguousarray(decode_image(data, "uint8", 4)).view(np.float32)
    try:
        pixels = _decode(data, channels)
    except _UNDECODABLE as error:
        reason = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
        message = f"an image of {len(data)} bytes cannot be decoded: {reason}"
        raise CorruptRecord(message, do="fetch the file again, or leave this episode out") from None
    if pixels.dtype == dtype:
        return pixels
    if dtype == "uint8":
        return (pixels >> 8).astype(np.uint8)
    return pixels.astype(np.uint16) * np.uint16(257)


def encode_png(pixels: Any) -> bytes:
    """PNG of raw pixels (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8; raises InvalidData for anything else."""
    array = np.asarray(pixels)
    if array.ndim == _COLOUR and array.shape[-1] == 1:
        array = array[..., 0]
    sound = array.ndim == _GREYSCALE or (array.ndim == _COLOUR and array.shape[-1] in (3, 4))
    if array.dtype != np.uint8 or not sound or 0 in array.shape:
        what = f"an image of raw values of shape {array.shape} and type {array.dtype}"
        raise InvalidData(what, do="store (height, width, 3) uint8, or an encoded JPEG or PNG")
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _decode(data: bytes, channels: int) -> np.ndarray:
    if data[:2] == b"\xff\xd8" and channels in (1, 3):
        return simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", fastdct=True, fastupsample=False)
    if data[:8] == _PNG and data[24:25] == b"\x10":
        return _decode_png16(data, channels)
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert(_MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _decode_png16(data: bytes, channels: int) -> np.ndarray:
    """Grey pixels (H, W, channels) uint16, repeated where three channels are wanted."""
    if data[25:26] != _GREY or channels not in (1, 3):  # Pillow would drop the low byte of colours without a word
        what = f"a PNG of 16 bits a channel is not grey, or is wanted with {channels} channels"
        raise InvalidData(what, do="store depth as one grey channel, colours with 8 bits")
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image, np.uint16)[..., None].repeat(channels, axis=2)
