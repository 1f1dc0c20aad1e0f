"""What features.json of a TFDS folder declares, flattened: one leaf per stored value, as TFDS names it in a record.

A Sequence adds no key of its own: it makes its leaves longer, and from the second level on ragged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlakit.data.rlds.example import BYTES, FLOAT, INT64
from vlakit.errors import InvalidData

Shape = tuple[int | None, ...]
Kind = Literal["number", "string", "image", "encoded"]

_INTEGERS = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
_FLOATS = {"float16", "bfloat16", "float32", "float64"}
_STRINGS = {"string", "str", "object", "bytes"}
_ONLY_ENCODED = {"complex64", "complex128"}
_NESTED = ("featuresDict", "sequence", "video", "translation")
STEPS = "steps"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of features.json: its key in a record, the declared dtype and shape of one item, its sequence levels.

    levels: length of each Sequence around it, outermost first (the steps are one of them), None where it varies.
    """

    key: str
    kind: Kind
    dtype: str  # as declared; "string" for text
    shape: Shape = ()
    levels: tuple[int | None, ...] = ()
    encoding: str = "none"  # none, bytes or zlib
    optional: bool = False

    @property
    def numpy_dtype(self) -> np.dtype:
        """The dtype values arrive in: the declared one, but float32 for bfloat16, which NumPy lacks (no loss)."""
        return np.dtype("float32" if self.dtype == "bfloat16" else self.dtype)

    @property
    def stored_kind(self) -> int:
        """Which list of the record holds it: tf.train.Example knows only bytes, float32 and int64."""
        if self.kind != "number":
            return BYTES
        return FLOAT if self.dtype in _FLOATS else INT64

    @property
    def ragged(self) -> bool:
        """True where a record spreads it over `ragged_flat_values` and `ragged_row_lengths_<i>`."""
        return len(self.levels) > 1

    @property
    def dynamic(self) -> bool:
        """True where a record spreads it over `value` and `shape`: an encoded tensor with two unknown sizes or more."""
        return self.kind == "encoded" and self.shape.count(None) > 1

    @property
    def open_ended(self) -> bool:
        """True where the values alone do not say how many items they are: a size of one is unknown, or 0."""
        return len(self.levels) == 1 and self.kind in ("number", "string") and not all(self.shape)


@dataclass(frozen=True, slots=True)
class Features:
    """All leaves of one dataset: `steps` by their path below steps, `metadata` (once an episode) by their full path."""

    steps: dict[str, Leaf]
    metadata: dict[str, Leaf]


def read_features(path: Path) -> Features:
    """Read a features.json; raises InvalidData when it is none, declares no steps or a feature unknown here."""
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        message = f"features.json cannot be read: {error}"
        raise InvalidData(message, where=str(path), do="fetch the file again") from None
    return parse_features(tree, where=str(path))


def parse_features(tree: Any, *, where: str = "") -> Features:
    """Flatten the contents of a features.json."""
    try:
        leaves = list(_leaves("", tree, ()))
    except InvalidData as error:
        raise InvalidData(error.what, where=where, do=error.do) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        message = f"this is not the features.json that TFDS writes ({type(error).__name__}: {error})"
        raise InvalidData(message, where=where, do="rewrite it with tfds, builder.info.features.save_config") from None
    prefix = f"{STEPS}/"
    steps = {leaf.key.removeprefix(prefix): leaf for leaf in leaves if leaf.key.startswith(prefix) and leaf.levels}
    if not steps:
        raise InvalidData("no steps are declared: a TFDS dataset, but no RLDS one", where=where)
    return Features(steps, {leaf.key: leaf for leaf in leaves if leaf.key.removeprefix(prefix) not in steps})


def _leaves(key: str, node: dict[str, Any], levels: tuple[int | None, ...]) -> Iterator[Leaf]:
    kind = next((kind for kind in (*_NESTED, *_SIMPLE) if kind in node), "")
    content = node.get(kind, {})
    if kind in _SIMPLE:
        yield _SIMPLE[kind](key, content, levels)
    elif kind == "featuresDict":
        for name, child in content.get("features", {}).items():
            yield from _leaves(f"{key}/{name}" if key else name, child, levels)
    elif kind == "sequence":
        yield from _leaves(key, content["feature"], (*levels, _size(content.get("length", -1))))
    elif kind == "video":
        n_frames, *frame = _shape(content, (None, None, None, 3))
        yield Leaf(key, "image", content.get("dtype", "uint8"), tuple(frame), (*levels, n_frames))
    elif kind == "translation" and not content.get("variableLanguagesPerExample"):
        yield from (Leaf(f"{key}/{language}", "string", "string", (), levels) for language in content["languages"])
    else:
        name = str(node.get("pythonClassName", node.get("type", "unknown"))).rsplit(".", 1)[-1]
        remedy = "drop the feature from the dataset and its features.json, or teach data.rlds.features to read it"
        raise InvalidData(f"feature {key!r} is of the kind {name}, which is not read here", do=remedy)


def _tensor(key: str, content: dict[str, Any], levels: tuple[int | None, ...]) -> Leaf:
    dtype, encoding = content["dtype"], content.get("encoding", "none").lower() or "none"
    shape, optional = _shape(content, ()), bool(content.get("optional", False))
    if encoding not in ("none", "bytes", "zlib"):
        raise InvalidData(f"feature {key!r} has the encoding {encoding!r}", do="known: none, bytes, zlib")
    if dtype in _STRINGS:
        return Leaf(key, "string", "string", shape, levels, optional=optional)
    encoded = encoding != "none"
    if dtype not in _INTEGERS | _FLOATS | (_ONLY_ENCODED if encoded else set()):
        known = ", ".join(sorted(_INTEGERS | _FLOATS | {"string"}))
        raise InvalidData(f"feature {key!r} has the dtype {dtype!r}", do=f"known: {known}")
    return Leaf(key, "encoded" if encoded else "number", dtype, shape, levels, encoding, optional)


def _image(key: str, content: dict[str, Any], levels: tuple[int | None, ...]) -> Leaf:
    return Leaf(key, "image", content.get("dtype", "uint8"), _shape(content, (None, None, 3)), levels)


def _audio(key: str, content: dict[str, Any], levels: tuple[int | None, ...]) -> Leaf:
    if content.get("lazyDecode"):
        raise InvalidData(f"feature {key!r} is encoded audio", do="drop it from the dataset and its features.json")
    return _tensor(key, {"dtype": "int64", **content}, levels)


_SIMPLE: dict[str, Callable[[str, dict[str, Any], tuple[int | None, ...]], Leaf]] = {
    "tensor": _tensor,
    "image": _image,
    "audio": _audio,
    "text": lambda key, _, levels: Leaf(key, "string", "string", (), levels),
    "classLabel": lambda key, _, levels: Leaf(key, "number", "int64", (), levels),
    "boundingBox": lambda key, _, levels: Leaf(key, "number", "float32", (4,), levels),
}


def _shape(content: dict[str, Any], default: Sequence[int | None]) -> Shape:
    dimensions = content.get("shape", {}).get("dimensions")
    if dimensions is None:
        return tuple(default)
    return tuple(_size(size) for size in dimensions)


def _size(size: str | int) -> int | None:
    return None if int(size) < 0 else int(size)
