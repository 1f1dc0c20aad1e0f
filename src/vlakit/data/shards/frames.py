"""One frame as it lies in a shard: `<key>.<camera>.jpg`, `<key>.lowdim.npz` and `<key>.json`.

A key holds no dot, since WebDataset ends it at the first one.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vlakit.data.rlds.images import decode_image
from vlakit.errors import ActionNotFinite, CorruptRecord, FeatureMissing, InvalidData
from vlakit.processing.images import encode_jpeg
from vlakit.schema import Float32, Trajectory

LOWDIM, META = "lowdim.npz", "json"
BLOCK = 512  # of a tar
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field
_STORED = 8  # where the compression method lies in that header


def episode_id(dataset: str, split: str, number: int) -> str:
    """Name of an episode inside a shard folder.

    >>> episode_id("bridge_orig", "train", 12)
    'bridge_orig-train-000012'
    """
    return f"{dataset.replace('.', '_').replace('/', '_')}-{split}-{number:06d}"


def frame_key(episode: str, step: int) -> str:
    """Key of one frame of an episode."""
    return f"{episode}-{step:04d}"


def image_member(camera: str) -> str:
    """Ending of a camera's image."""
    return f"{camera}.jpg"


def episode_members(
    trajectory: Trajectory, episode: str, cameras: tuple[str, ...], image_size: int | None, where: str
) -> list[tuple[str, bytes]]:
    """All tar members of one episode as (name, bytes), frame after frame.

    JPEG bytes that fit stay untouched; other images are decoded, resized to (image_size, image_size) where asked, and
    written as JPEG. Raises FeatureMissing for a camera that is not there, ActionNotFinite, InvalidData.
    """
    for camera in cameras:
        if len(trajectory.images.get(camera, ())) != len(trajectory):
            has = ", ".join(sorted(trajectory.images)) or "none"
            raise FeatureMissing(f"no image of camera {camera!r} for every step (cameras: {has})", where=where)
    if not np.isfinite(trajectory.action).all():
        step = int(np.argwhere(~np.isfinite(trajectory.action).all(axis=1))[0, 0])
        raise ActionNotFinite(f"action of step {step} holds NaN or infinity", where=where, do="mend the source")
    members: list[tuple[str, bytes]] = []
    sizes: dict[str, tuple[int, int]] = {}
    for step in range(len(trajectory)):
        key = frame_key(episode, step)
        for camera in cameras:
            place = f"{where}, step {step}, camera {camera}"
            data = fit_image(trajectory.images[camera][step], image_size, place)
            width, height = size = _jpeg_size(data, place)
            if size != sizes.setdefault(camera, size):
                first = " x ".join(map(str, sizes[camera]))
                what = f"the image is {width} x {height} where the first of the episode is {first}"
                raise InvalidData(what, where=place, do="leave this episode out, or give image_size=SIDE")
            members.append((f"{key}.{image_member(camera)}", data))
        members.append((f"{key}.{LOWDIM}", _lowdim(trajectory, step)))
        members.append((f"{key}.{META}", _meta(trajectory, episode, step)))
    return members


def fit_image(data: bytes, image_size: int | None, where: str = "") -> bytes:
    """JPEG of the asked square size; the same bytes when `data` already is one (any size when image_size is None)."""
    if data[:2] == b"\xff\xd8" and _fits(data, image_size, where):
        return data
    try:
        image = Image.fromarray(decode_image(data))
    except (CorruptRecord, InvalidData) as error:
        raise type(error)(error.what, where=where, do=error.do) from error
    if image_size is not None and image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.LANCZOS)
    return encode_jpeg(np.asarray(image))


def planned_bytes(trajectory: Trajectory, split: str, cameras: Sequence[str]) -> int:
    """Bytes that an episode will take in a tar if its images stay as they are; recoded ones count as stored."""
    if not len(trajectory):
        return 0
    episode = episode_id(trajectory.dataset, split, 0)
    sizes = [len(_lowdim(trajectory, 0))] * len(trajectory)
    sizes += [len(_meta(trajectory, episode, step)) for step in range(len(trajectory))]
    sizes += [len(image) for camera in cameras for image in trajectory.images.get(camera, ())]
    return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)  # a header each, contents padded to blocks


def parse_lowdim(data: bytes) -> dict[str, Float32]:
    """Arrays of a `.lowdim.npz`; np.load, twenty times as slow, is called only for archives of another make.

    Raises ValueError, OSError, EOFError or zipfile.BadZipFile when it is none.
    """
    try:
        return dict(_stored_arrays(data))
    except (ValueError, struct.error, IndexError, KeyError, SyntaxError, TypeError):
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


def parse_instruction(data: bytes) -> str:
    """The instruction in a `.json`; raises ValueError, KeyError or TypeError when it is none."""
    return str(json.loads(data)["instruction"])


LOWDIM_ERRORS = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile)


def _fits(data: bytes, image_size: int | None, where: str) -> bool:
    size = _jpeg_size(data, where)
    return image_size is None or size == (image_size, image_size)


def _jpeg_size(data: bytes, where: str) -> tuple[int, int]:
    """(width, height) by the header alone; InvalidData for a JPEG that is not in colour."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            size, mode = image.size, image.mode
    except (OSError, SyntaxError, ValueError) as error:
        remedy = "fetch the file again, or leave this episode out"
        raise CorruptRecord(f"a JPEG of {len(data)} bytes has no readable header", where=where, do=remedy) from error
    if mode != "RGB":
        raise InvalidData(f"a JPEG of mode {mode}, not RGB", where=where, do="leave this episode out, or recode it")
    return size


def _lowdim(trajectory: Trajectory, step: int) -> bytes:
    stream = io.BytesIO()
    arrays = {f"proprio.{name}": values[step] for name, values in trajectory.proprio.items()}
    np.savez(stream, allow_pickle=False, action=trajectory.action[step], **arrays)
    return stream.getvalue()


def _meta(trajectory: Trajectory, episode: str, step: int) -> bytes:
    source = trajectory.metadata
    content: dict[str, Any] = {
        "dataset": trajectory.dataset,
        "instruction": trajectory.instructions[step],
        "episode": episode,
        "step": step,
        "n_steps": len(trajectory),
        **{name: source[name] for name in ("source_file", "source_record") if name in source},
    }
    return json.dumps(content, ensure_ascii=False).encode()


_DTYPES = {"'<f4'": np.dtype("<f4"), "'<f8'": np.dtype("<f8")}


def _stored_arrays(data: bytes) -> Iterator[tuple[str, Float32]]:
    """Walk the local headers of an uncompressed zip of one-dimensional .npy files, as np.savez lays them out."""
    offset = 0
    while data[offset : offset + 4] == b"PK\x03\x04":
        _, name_size, extra_size = _LOCAL_HEADER.unpack_from(data, offset)
        if data[offset + _STORED : offset + _STORED + 2] != b"\0\0":
            raise ValueError("compressed")
        start = offset + _LOCAL_HEADER.size + name_size + extra_size
        name = data[offset + _LOCAL_HEADER.size : offset + _LOCAL_HEADER.size + name_size].decode()
        if data[start : start + 8] != b"\x93NUMPY\x01\0":
            raise ValueError("another npy version")
        body = start + 10 + int.from_bytes(data[start + 8 : start + 10], "little")
        header = data[start + 10 : body].decode("latin-1")
        dtype = _DTYPES[header.split("'descr': ")[1].split(",")[0]]
        shape = header.split("'shape': (")[1].split(")")[0]
        count = int(shape.rstrip(","))
        yield name.removesuffix(".npy"), np.frombuffer(data, dtype, count, body)
        offset = body + count * dtype.itemsize
    if offset == 0 or data[offset : offset + 4] != b"PK\x01\x02":
        raise ValueError("no central directory behind the arrays")
