from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vlakit.data.rlds.images import decode_image
from vlakit.errors import CorruptRecord, InvalidData, VlakitError

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def png16(pixels: np.ndarray, kind: int) -> bytes:
    """A 16-bit PNG whose rows all use the filter `kind`: 0 none, 1 left, 2 above, 3 mean, 4 Paeth."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").tobytes()
    size, step = width * channels * 2, channels * 2
    raw = np.frombuffer(rows, np.uint8).reshape(height, size).astype(int)
    left = np.pad(raw, ((0, 0), (step, 0)))[:, :size]
    above = np.pad(raw, ((1, 0), (0, 0)))[:height]
    corner = np.pad(raw, ((1, 0), (step, 0)))[:height, :size]
    distances = np.abs(np.stack([above - corner, left - corner, left + above - 2 * corner]))
    paeth = np.choose(distances.argmin(0), [left, above, corner])
    predicted = [0 * raw, left, above, (left + above) // 2, paeth][kind]
    stored = ((raw - predicted) & 0xFF).astype(np.uint8)
    scan = b"".join(bytes([kind]) + row.tobytes() for row in stored)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(scan)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def test_jpeg_is_decoded_by_the_fast_dct():
    data = simplejpeg.encode_jpeg(PIXELS)
    assert (decode_image(data) == simplejpeg.decode_jpeg(data, fastdct=True)).all()
    assert decode_image(data, channels=1).shape == (9, 7, 1)


def test_png_comes_back_exactly():
    assert (decode_image(png(PIXELS)) == PIXELS).all()


def test_grey_and_alpha_follow_the_channels_that_are_asked_for():
    grey = decode_image(png(PIXELS[..., 0]))
    assert (grey == PIXELS[..., :1]).all()
    assert grey.shape == (9, 7, 3)
    assert decode_image(png(PIXELS[..., 0]), channels=1).shape == (9, 7, 1)
    assert (decode_image(png(PIXELS), channels=4)[..., 3] == 255).all()
    assert (decode_image(png(np.dstack([PIXELS, PIXELS[..., 0]]))) == PIXELS).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", range(5))
def test_16_bit_grey_keeps_both_bytes(kind, channels):
    pixels = np.random.default_rng(kind).integers(0, 1 << 16, (6, 5, 1), np.uint16)
    decoded = decode_image(png16(pixels, kind), "uint16", channels)
    assert (decoded.shape, (decoded == pixels).all()) == ((6, 5, channels), True)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_and_alpha_are_refused_rather_than_halved(channels):
    with pytest.raises(InvalidData, match="16 bits a channel"):
        decode_image(png16(np.zeros((6, 5, channels), np.uint16), 0), "uint16", 3)


def test_depth_of_8_and_16_bits_converts_as_tensorflow_does():
    deep = np.full((2, 2, 1), 0xABCD, np.uint16)
    assert (decode_image(png16(deep, 0)) == 0xAB).all()
    assert (decode_image(png(PIXELS), "uint16") == PIXELS.astype(np.uint16) * 257).all()


def test_four_bytes_a_pixel_are_one_float():
    depth = np.array([[0.1, np.nan], [-np.inf, 1e-30]], np.float32)
    decoded = decode_image(png(depth.view(np.uint8).reshape(2, 2, 4)), "float32", 1)
    assert decoded.tobytes() == depth.tobytes()
    assert decoded.shape == (2, 2, 1)


def test_what_is_no_image_raises():
    with pytest.raises(CorruptRecord, match="cannot be decoded"):
        decode_image(b"no image")
    with pytest.raises(InvalidData, match="int64"):
        decode_image(png(PIXELS), "int64")


@pytest.mark.parametrize("kind", ["jpeg", "png", "png16"])
def test_damaged_images_raise_nothing_but_our_errors(kind):
    whole = {
        "jpeg": simplejpeg.encode_jpeg(PIXELS),
        "png": png(PIXELS),
        "png16": png16(PIXELS[..., :1].astype("u2"), 4),
    }[kind]
    dice = random.Random(2)
    for turn in range(200):
        data = bytearray(whole[: dice.randrange(len(whole))] if turn % 2 else whole)
        if data:
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            decode_image(bytes(data), dice.choice(["uint8", "uint16", "float32"]), dice.choice([1, 3, 4]))
        except VlakitError:
            continue
