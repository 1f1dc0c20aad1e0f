"""Write small RLDS folders by hand, so that tests can make records that no TFDS would write."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlakit.data.rlds.example_writer import example as example
from vlakit.data.rlds.example_writer import field as field
from vlakit.data.rlds.example_writer import varint as varint
from vlakit.data.rlds.tfrecord import frame_record as record


def floats(*values: float) -> bytes:
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def integers(*values: int) -> bytes:
    return field(3, field(1, b"".join(map(varint, values))))


def strings(*values: bytes) -> bytes:
    return field(1, b"".join(field(1, value) for value in values))


def tensor(dtype: str, *shape: int, encoding: str = "none") -> dict[str, Any]:
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    return {"tensor": {"dtype": dtype, "encoding": encoding, "shape": dimensions}}


def sequence(feature: dict[str, Any], length: int = -1) -> dict[str, Any]:
    return {"sequence": {"feature": feature, "length": str(length)}}


def dataset(steps: dict[str, Any], metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    tree = {"steps": sequence({"featuresDict": {"features": steps}}), **(metadata or {})}
    return {"featuresDict": {"features": tree}}


def write_folder(path: Path, features: dict[str, Any], files: Mapping[str, Sequence[bytes]]) -> Path:
    """`files`: name -> payloads; no dataset_info.json is written."""
    path.mkdir(parents=True)
    (path / "features.json").write_text(json.dumps(features))
    for name, payloads in files.items():
        (path / name).write_bytes(b"".join(map(record, payloads)))
    return path
