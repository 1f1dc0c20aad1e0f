"""Small RLDS folders as people have them, sound ones and such as went wrong: OUT/toy/1.0.0 beside OUT/toy.yaml."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rlds_writer import dataset, example, floats, integers, record, strings, tensor

from vlakit.data.specs.spec import DatasetSpec, load_spec

SPEC = "images: {primary: image}\nlanguage: language_instruction\naction: [{take: action}]\n"
IMAGE: dict[str, Any] = {"image": {"dtype": "uint8", "shape": {"dimensions": ["32", "32", "3"]}}}
STEPS: dict[str, Any] = {"action": tensor("float32", 7), "language_instruction": {"text": {}}}
Fields = dict[str, bytes]


def observed(**features: Any) -> dict[str, Any]:
    """The steps of a features.json with these features below observation."""
    return {**STEPS, "observation": {"featuresDict": {"features": {"image": IMAGE, **features}}}}


def picture(kind: str = "JPEG", mode: str = "RGB", side: int = 32, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, len(mode)), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(stream, kind)
    return stream.getvalue()


def actions(n: int = 6, seed: int = 0) -> np.ndarray:
    """(n, 7) as of a robot: small motions, a gripper that opens and closes."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.02, (n, 7)).astype(np.float32)
    values[:, 6] = rng.integers(0, 2, n)
    return values


def episode(
    seed: int = 0, n: int = 6, text: bytes = b"lift the cube", act: np.ndarray | None = None, **more: bytes
) -> Fields:
    """The features of one record; more: others, by their name below steps/observation."""
    act = actions(n, seed) if act is None else act
    fields = {
        "steps/action": floats(*act.ravel().tolist()),
        "steps/language_instruction": strings(*[text] * len(act)),
        "steps/observation/image": strings(*[picture(seed=seed * 100 + step) for step in range(len(act))]),
    }
    return fields | {f"steps/observation/{name}": value for name, value in more.items()}


def raw(pixels: np.ndarray) -> bytes:
    """Pixels as a tensor of numbers, which TFDS stores as a list of integers."""
    return integers(*pixels.ravel().tolist())


def write(
    out: Path,
    episodes: Sequence[Fields],
    files: int = 1,
    features: dict[str, Any] | None = None,
    template: str = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    packer: Callable[[bytes], bytes] = bytes,
    spec: str = SPEC,
    info: bool = True,
) -> tuple[Path, DatasetSpec]:
    """The folder, with what dataset_info.json declares of it, and the spec that reads it."""
    folder = out / "toy" / "1.0.0"
    folder.mkdir(parents=True)
    (out / "toy.yaml").write_text(spec)
    (folder / "features.json").write_text(json.dumps(features or dataset(observed())))
    parts = [episodes[number::files] for number in range(files)]
    for number, part in enumerate(parts):
        of = {"SHARD_X_OF_Y": f"{number:05}-of-{files:05}", "SHARD_INDEX": f"{number:05}", "NUM_SHARDS": f"{files:05}"}
        name = template.format(DATASET="toy", SPLIT="train", FILEFORMAT="tfrecord", **of)
        (folder / name).write_bytes(packer(b"".join(record(example(dict(sorted(one.items())))) for one in part)))
    if info:
        declare(folder, [len(part) for part in parts], template)
    return folder, load_spec(out / "toy.yaml")


def declare(
    folder: Path, lengths: Sequence[int], template: str = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
) -> None:
    """A dataset_info.json that says so many records a file."""
    split = {"name": "train", "shardLengths": [str(length) for length in lengths], "filepathTemplate": template}
    content = {"fileFormat": "tfrecord", "name": "toy", "version": "1.0.0", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(content))


def cut_behind(file: Path, n_records: int, more: int = 0) -> None:
    """Leave so many records of a file, and `more` bytes of the next."""
    data, position = file.read_bytes(), 0
    for _ in range(n_records):
        position += 16 + int.from_bytes(data[position : position + 8], "little")
    file.write_bytes(data[: position + more])
