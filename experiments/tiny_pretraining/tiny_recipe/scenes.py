"""Rendered scenes with the places of their objects: what the small towers and their language model are taught with.

A folder holds images.npy (n, S, S, 3) uint8; objects.npy (n, K, 4) float32, rows of colour id (-1: no object), shape
id, u (right) and v (down) in [0, 1]; gripper.npy (n, 3) float32, u, v and 1 = open; names.json with the names of ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlakit.errors import ConfigError, InvalidData
from vlakit.processing.processor import Processor
from vlakit.schema import Batch, Float32, Int64, UInt8

VERSION = 1
FILES = ("images.npy", "objects.npy", "gripper.npy", "names.json")


@dataclass(frozen=True)
class SceneFolder:
    """One finished folder of scenes; arrays are mapped from disk."""

    path: Path
    images: UInt8  # (n, S, S, 3)
    objects: Float32  # (n, K, 4)
    gripper: Float32  # (n, 3)
    colours: tuple[str, ...]
    shapes: tuple[str, ...]

    @classmethod
    def open(cls, path: str | Path) -> SceneFolder:
        """Map the arrays and check that they belong together. Raises InvalidData."""
        folder = Path(path).expanduser()
        absent = [name for name in FILES if not (folder / name).is_file()]
        if absent:
            raise InvalidData(
                f"no folder of scenes: {', '.join(absent)} missing",
                where=str(folder),
                do="render them first (experiments/tiny_pretraining), or pass data.root=DIR",
            )
        try:
            images, objects, gripper = (np.load(folder / name, mmap_mode="r") for name in FILES[:3])
            names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
            scenes = cls(folder, images, objects, gripper, tuple(names["colours"]), tuple(names["shapes"]))
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise InvalidData(
                f"the scenes cannot be read: {error}", where=str(folder), do="render them again"
            ) from error
        problem = scenes.problem(names.get("version"))
        if problem:
            raise InvalidData(problem, where=str(folder), do="render them again with this version of vlakit")
        return scenes

    def problem(self, version: object) -> str | None:
        """What keeps the arrays from being scenes; None for nothing."""
        n = len(self.images)
        kinds = (self.images.dtype, self.objects.dtype, self.gripper.dtype)
        shapes = (self.images.shape[2:], self.objects.shape[2:], self.gripper.shape)
        if version != VERSION:
            return f"the layout is version {version}, known is {VERSION}"
        if kinds != (np.uint8, np.float32, np.float32):
            return f"images, objects and gripper are {', '.join(map(str, kinds))}, not uint8, float32, float32"
        if shapes != ((self.images.shape[1], 3), (4,), (n, 3)) or len(self.objects) != n or n == 0:
            sizes = [list(a.shape) for a in (self.images, self.objects, self.gripper)]
            return f"images, objects and gripper of shapes {sizes} are not (n, S, S, 3), (n, K, 4), (n, 3)"
        colour, shape = self.objects[..., 0], self.objects[..., 1][self.objects[..., 0] >= 0]
        if colour.max() >= len(self.colours) or (shape.size and not 0 <= shape.min() <= shape.max() < len(self.shapes)):
            return f"an object's colour or shape has no name among {len(self.colours)} and {len(self.shapes)}"
        return None

    @property
    def image_size(self) -> int:
        """S."""
        return self.images.shape[1]

    def hash(self) -> str:
        """sha256 (hex) over the bytes of all files."""
        digest = sha256()
        for name in FILES:
            with (self.path / name).open("rb") as stream:
                digest.update(file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.images)


@dataclass(slots=True, kw_only=True)
class SceneBatch(Batch):
    """Pictures without an action, and what is to be seen in them: objects (B, K, 4); gripper (B, 3).

    An object or gripper out of view has colour -1, or u = -1.
    """

    objects: Tensor
    gripper: Tensor


def scenes_of(batch: Batch) -> SceneBatch:
    """The batch as one of scenes. Raises ConfigError where it is none."""
    if not isinstance(batch, SceneBatch):
        raise ConfigError("the batch holds no scenes", where="data", do="add data=tabletop_scenes")
    return batch


@dataclass(frozen=True)
class SceneAugmentation:
    """Shifts by up to `shift` px, edges repeated, labels along with them; brightness and contrast by these shares."""

    shift: int = 2
    brightness: float = 0.15
    contrast: float = 0.15

    def __call__(self, batch: SceneArrays, rng: np.random.Generator) -> SceneArrays:
        """Change a whole batch; images become float32 in [0, 255]."""
        n, size, edge = len(batch.images), batch.images.shape[1], self.shift
        offset = rng.integers(-edge, edge + 1, (n, 2))  # x, y
        padded = np.pad(batch.images, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="edge")
        moved = np.empty(batch.images.shape, np.float32)
        for image, source, (right, down) in zip(moved, padded, offset.tolist(), strict=True):
            image[:] = source[edge - down : edge - down + size, edge - right : edge - right + size]
        factor = rng.uniform(1 - self.contrast, 1 + self.contrast, (n, 1, 1, 1)).astype(np.float32)
        delta = 255 * rng.uniform(-self.brightness, self.brightness, (n, 1, 1, 1)).astype(np.float32)
        delta += (1 - factor) * moved.mean(axis=(1, 2, 3), keepdims=True)  # contrast about the mean grey
        moved *= factor
        moved += delta
        np.clip(moved, 0, 255, out=moved)
        objects, gripper = batch.objects.copy(), batch.gripper.copy()
        objects[..., 2:] += (offset / size)[:, None].astype(np.float32)
        gripper[:, :2] += (offset / size).astype(np.float32)
        return SceneArrays(batch.rows, moved, objects, gripper)


@dataclass(frozen=True)
class SceneArrays:
    """Rows of a SceneFolder in memory."""

    rows: Int64
    images: UInt8 | Float32
    objects: Float32
    gripper: Float32

    @classmethod
    def read(cls, scenes: SceneFolder, rows: Int64) -> SceneArrays:
        """Copies of these rows."""
        return cls(rows, scenes.images[rows], scenes.objects[rows], scenes.gripper[rows])


def to_batch(
    arrays: SceneArrays, processor: Processor, position: int = 0, features: Tensor | None = None
) -> SceneBatch:
    """Tensors as the network sees them, `features` (B, N, D_v) in place of pictures; what is out of view is marked so.

    position: number of the first scene in the stream.
    """
    objects, gripper = torch.from_numpy(arrays.objects), torch.from_numpy(arrays.gripper)
    seen = (objects[..., 2:] >= 0).all(-1) & (objects[..., 2:] < 1).all(-1)
    objects[..., 0] = torch.where(seen, objects[..., 0], -1.0)
    visible = (gripper[:, :2] >= 0).all(-1) & (gripper[:, :2] < 1).all(-1)
    gripper[:, :2] = torch.where(visible[:, None], gripper[:, :2], -1.0)
    n, shape = len(objects), (processor.settings.chunk, 0)  # scenes have no action, not even of a known size
    frames = (
        {} if features is not None else {processor.settings.cameras[0]: processor.normalized(arrays.images[:, None])}
    )
    return SceneBatch(
        pixels={camera: pixels[:, None] for camera, pixels in frames.items()},  # (B, 1, 3 k, S, S)
        features=features,
        window_mask=torch.ones(n, 1, dtype=torch.bool),
        action_shape=shape,
        actions=torch.zeros(n, *shape),
        normalized=torch.zeros(n, *shape),
        chunk_mask=torch.zeros(n, shape[0], dtype=torch.bool),
        datasets=["scenes"] * n,
        keys=[f"scene {row}" for row in arrays.rows.tolist()],
        rows=arrays.rows.tolist(),
        position=position,
        objects=objects,
        gripper=gripper,
    )
