"""Images as RLDS stores them, decoded as TensorFlow decodes them: JPEG by the fast integer DCT, PNG up to 16 bits."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from vlakit.errors import CorruptRecord, InvalidData

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_PIXELS = 1 << 27  # more is a damaged header
_UNDECODABLE = (
    ValueError,
    OSError,
    SyntaxError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type; 3, a palette, never has 16 bits


def decode_image(data: bytes, dtype: str = "uint8", channels: int = 3) -> np.ndarray:
    """Decode a stored image to (H, W, channels) of `dtype`: uint8, uint16, or float32 with one channel.

    float32 is what TFDS stores as a PNG of four bytes a pixel. 16-bit files lose their low byte for uint8; 8-bit ones
    are stretched to the full range for uint16. Raises InvalidData for a dtype or bytes that are no such image.
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


def _decode(data: bytes, channels: int) -> np.ndarray:
    if data[:2] == b"\xff\xd8" and channels in (1, 3):
        return simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", fastdct=True, fastupsample=False)
    if data[:8] == _PNG and data[24:25] == b"\x10":
        return _set_channels(_decode_png16(data), channels)
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert(_MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _decode_png16(data: bytes) -> np.ndarray:
    """Pixels (H, W, C) uint16. Pillow reads 16-bit grey only and silently drops the low byte of colours."""
    width, height, _, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if colour == 0:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image, np.uint16)[..., None]
    if interlaced or colour not in _PNG_CHANNELS:
        raise ValueError(f"a 16-bit PNG of colour type {colour}, interlaced {interlaced}")
    if not 0 < width * height <= _MOST_PIXELS:
        raise ValueError(f"a PNG of {width} x {height} pixels")
    channels = _PNG_CHANNELS[colour]
    size = 2 * channels * width
    scan = zlib.decompressobj().decompress(b"".join(_png_data(data)), height * (size + 1))
    if len(scan) != height * (size + 1):
        raise ValueError("the PNG ends early")
    rows = _unfilter(scan, height, size, 2 * channels)
    return rows.view(">u2").astype(np.uint16).reshape(height, width, channels)


def _png_data(data: bytes) -> list[bytes]:
    parts: list[bytes] = []
    pos = len(_PNG)
    while pos + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, pos)
        if name == b"IDAT":
            parts.append(data[pos + 8 : pos + 8 + size])
        pos += size + 12  # a length, a name and a checksum around each chunk
    return parts


def _unfilter(scan: bytes, height: int, size: int, step: int) -> np.ndarray:
    """Undo the five row filters of PNG: each byte was stored as its distance from its neighbours' prediction."""
    rows = np.zeros((height, size), np.uint8)
    above = bytes(size)
    for index in range(height):
        start = index * (size + 1)
        row = bytearray(scan[start + 1 : start + 1 + size])
        _unfilter_row(scan[start], row, above, step)
        rows[index] = np.frombuffer(row, np.uint8)
        above = bytes(row)
    return rows


def _unfilter_row(kind: int, row: bytearray, above: bytes, step: int) -> None:
    if kind > 4:
        raise ValueError(f"a PNG row with the filter {kind}")
    for index in range(len(row) if kind else 0):
        left = row[index - step] if index >= step else 0
        corner = above[index - step] if index >= step else 0
        predicted = (0, left, above[index], (left + above[index]) // 2, _paeth(left, above[index], corner))[kind]
        row[index] = (row[index] + predicted) & 0xFF


def _paeth(left: int, above: int, corner: int) -> int:
    slope = left + above - corner
    distances = abs(slope - left), abs(slope - above), abs(slope - corner)
    return (left, above, corner)[distances.index(min(distances))]


def _set_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Add or drop grey copies and alpha, as TensorFlow does; colours to grey is left out, nothing stores that."""
    own = pixels.shape[2]
    if own == channels:
        return pixels
    colours = pixels[..., : own - 1] if own in (2, 4) else pixels
    if colours.shape[2] == 3 and channels in (1, 2):
        raise ValueError(f"a 16-bit colour image cannot become one of {channels} channels")
    if channels >= 3 and colours.shape[2] == 1:
        colours = colours.repeat(3, axis=2)
    if channels in (1, 3):
        return colours
    alpha = pixels[..., -1:] if own in (2, 4) else np.full_like(pixels[..., :1], 0xFFFF)
    return np.concatenate([colours, alpha], axis=2)
