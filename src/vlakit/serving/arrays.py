"""Arrays inside JSON and msgpack in each client's own encoding, both ways.

An array is built from its bytes, a plain dtype and a shape that fits them: what would need pickle, and what would take
more memory than it sent, is refused.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import msgpack
import numpy as np
from PIL import Image, UnidentifiedImageError

from vlakit.serving.questions import MAX_SIDE, Refused

Array: TypeAlias = np.ndarray[Any, Any]
# Numbers, by either of numpy's names; no objects, text, dates or records.
_PLAIN = re.compile(r"[<>=|]?[biuf][1248]|u?int(8|16|32|64)|float(32|64)|bool")
_HEADER = 4096  # bytes of a .npy header at most


def array_from(data: Any, dtype: Any, shape: Any) -> Array:
    """The array of these bytes, read-only. Raises Refused for objects and for a shape that the bytes do not fill."""
    name = dtype.decode("ascii", "replace") if isinstance(dtype, bytes) else dtype
    if not isinstance(name, str) or not _PLAIN.fullmatch(name) or name.lstrip("<>=|") == "f1":
        raise Refused(f"an array of dtype {dtype!r}"[:120], where="array", do="send numbers: u1, f4, f8, i8, ...")
    sides = list(shape) if isinstance(shape, list | tuple) else [-1]
    if not isinstance(data, bytes | bytearray) or len(sides) > 8 or not all(_side(one) for one in sides):
        raise Refused(f"an array of shape {shape!r}"[:120], where="array", do="send bytes and their shape")
    try:
        kind = np.dtype(name)
        if math.prod(sides) * kind.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for the shape {sides} of {name}")
        return np.frombuffer(data, kind).reshape(sides)
    except (TypeError, ValueError) as error:
        raise Refused(f"no array: {error}"[:200], where="array", do="send as many bytes as its shape takes") from error


def _side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


# -- JSON ------------------------------------------------------------------------------------------------------------


def from_json(text: str | bytes) -> Any:
    """JSON with arrays as json-numpy writes them. Raises Refused for what is none."""
    try:
        return json.loads(text, object_hook=_json_array)
    except (ValueError, RecursionError) as error:
        raise Refused(f"no JSON: {error}"[:200], where="body", do="send JSON, arrays as json-numpy does") from error


def to_json(value: Any) -> str:
    """JSON of plain values and arrays, these as json-numpy writes them."""
    return json.dumps(value, default=_as_json)


def _json_array(entry: dict[str, Any]) -> Any:
    if "__numpy__" not in entry:
        return entry
    data = entry["__numpy__"]
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else None
    except (binascii.Error, ValueError) as error:
        raise Refused(f"no base64: {error}", where="array", do="send arrays as json-numpy does") from error
    return array_from(content, entry.get("dtype"), entry.get("shape"))


def _as_json(value: Any) -> Any:
    array = np.asarray(value)
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"__numpy__": data, "dtype": array.dtype.str, "shape": list(array.shape)}


# -- msgpack ---------------------------------------------------------------------------------------------------------


def unpack(data: bytes) -> tuple[Any, str | None]:
    """A msgpack message, and the name of the encoding of its arrays; None where there is none. Raises Refused."""
    met: list[str] = []

    def hook(entry: dict[Any, Any]) -> Any:
        for name, (marks, decode, _) in CODECS.items():
            if marks <= entry.keys():
                met.append(name)
                return decode(entry)
        return entry.get(b"data") if b"__npgeneric__" in entry else entry

    try:
        value = msgpack.unpackb(data, object_hook=hook, raw=False)
    except Refused:
        raise
    except Exception as error:  # msgpack has five families of them; none of them is a message
        raise Refused(f"no msgpack: {error}"[:200], where="message", do="send one msgpack message") from error
    return value, met[-1] if met else None


def outline(data: bytes) -> dict[Any, Any]:
    """A msgpack dict with its arrays as they were sent, for what a refused message still says; {} for anything else."""
    with suppress(Exception):  # see unpack
        value = msgpack.unpackb(data, raw=False)
        return value if isinstance(value, dict) else {}
    return {}


def pack(value: Any, codec: str) -> bytes:
    """A msgpack message with its arrays in the encoding called `codec`."""

    def encode(one: Any) -> Any:
        if isinstance(one, np.ndarray):
            return CODECS[codec][2](np.ascontiguousarray(one))
        raise TypeError(f"{type(one).__name__} in an answer")

    packed = msgpack.packb(value, default=encode)
    return bytes(packed or b"")


def _npy(entry: Mapping[Any, Any]) -> Array:
    """A .npy file's array; np.load itself would make room for any shape that a header claims."""
    content = entry["as_npy"]
    if not isinstance(content, bytes):
        raise Refused("as_npy holds no bytes", where="array", do="send the bytes of a .npy file")
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=_HEADER)
    except Exception as error:  # a header is a Python literal: whatever parsing one raises
        raise Refused(f"no .npy: {error}"[:200], where="array", do="send the bytes of a .npy file") from error
    array = array_from(content[file.tell() :], dtype.str, shape[::-1] if fortran else shape)
    return array.T if fortran else array


def _image(entry: Mapping[Any, Any]) -> Array:
    """A PNG, a JPEG or raw bytes as vla-eval sends pictures."""
    data, form = entry.get("data"), entry.get("format")
    if form == "raw":
        return array_from(data, entry.get("dtype"), entry.get("shape"))
    if form not in ("png", "jpeg") or not isinstance(data, bytes):
        raise Refused(f"a picture of the format {form!r}"[:100], where="picture", do="send png, jpeg or raw")
    try:
        with Image.open(io.BytesIO(data), formats=[form.upper()]) as image:
            if max(image.size) > MAX_SIDE:  # before a pixel of it is unpacked
                raise Refused(f"a picture of {image.size}", where="picture", do=f"at most {MAX_SIDE} pixels a side")
            return np.asarray(image if image.mode in ("RGB", "RGBA", "L") else image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Refused(f"no {form}: {error}"[:200], where="picture", do="send a whole picture") from error


def _bytes_keys(array: Array) -> dict[Any, Any]:
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def _text_keys(array: Array) -> dict[Any, Any]:
    return {"__ndarray__": True, "data": array.tobytes(), "dtype": array.dtype.str, "shape": list(array.shape)}


def _as_npy(array: Array) -> dict[Any, Any]:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def _as_nd(array: Array) -> dict[Any, Any]:
    return {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": array.shape, b"data": array.tobytes()}


def _decode_nd(entry: Mapping[Any, Any]) -> Any:
    if not entry[b"nd"]:  # a numpy scalar
        return array_from(entry.get(b"data"), entry.get(b"type"), []).item()
    return array_from(entry.get(b"data"), entry.get(b"type"), entry.get(b"shape"))


Codec: TypeAlias = tuple[frozenset[Any], Callable[[Mapping[Any, Any]], Any], Callable[[Array], dict[Any, Any]]]
CODECS: dict[str, Codec] = {  # name -> (the keys that tell it, decode, encode)
    "bytes": (
        frozenset({b"__ndarray__"}),
        lambda e: array_from(e.get(b"data"), e.get(b"dtype"), e.get(b"shape")),
        _bytes_keys,
    ),
    "text": (
        frozenset({"__ndarray__"}),
        lambda e: array_from(e.get("data"), e.get("dtype"), e.get("shape")),
        _text_keys,
    ),
    "image": (frozenset({"__image__"}), _image, _text_keys),
    "npy": (frozenset({"__ndarray_class__", "as_npy"}), _npy, _as_npy),
    "msgpack_numpy": (frozenset({b"nd", b"type"}), _decode_nd, _as_nd),
}
