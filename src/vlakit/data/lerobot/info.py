"""meta/info.json of a LeRobot dataset: its version, rate, features and where their files lie.

It says nothing of what an action means: gripper sign, frame, delta or absolute; `names` are the only hint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlakit.errors import InvalidData

INFO = "meta/info.json"
READ = ("v2.1", "v3.0")
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
PLACES = {
    "v3.0": (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
    "v2.1": (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
}
_NUMBERS = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "bool")
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Feature:
    """One entry of `features`; shape of one step, (H, W, C) for a picture; names: what its columns are called."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    depth: bool = False

    @property
    def camera(self) -> bool:
        """Whether it holds pictures in colour, as a video or one by one."""
        return self.dtype in ("video", "image") and not self.depth

    @property
    def number(self) -> bool:
        """Whether it is an array of numbers."""
        return self.dtype in _NUMBERS

    @property
    def usable(self) -> bool:
        """Whether a spec can take it: numbers, text, pictures in colour."""
        return self.number or self.camera or self.dtype == "string"


@dataclass(frozen=True, slots=True)
class Info:
    """What is used of info.json; totals are None where it says none. splits: name -> first and last + 1 episode."""

    folder: Path
    version: str
    fps: float
    features: Mapping[str, Feature]
    splits: Mapping[str, tuple[int, int]]
    data_path: str
    video_path: str
    chunks_size: int = 1000
    total_episodes: int | None = None
    total_frames: int | None = None
    robot_type: str | None = None

    @property
    def cameras(self) -> list[str]:
        """Names of the features that are pictures."""
        return [name for name, feature in self.features.items() if feature.camera]

    def file(self, template: str, **places: Any) -> Path:
        """A path of the dataset; InvalidData for a template with places of another version."""
        try:
            return self.folder / template.format(**places)
        except (KeyError, IndexError, ValueError) as error:
            what = f"the path {template!r} cannot be filled in: {error!r}"
            raise InvalidData(what, where=str(self.folder / INFO), do="fetch info.json again") from None


def read_info(folder: Path) -> Info:
    """Read and check meta/info.json. Raises InvalidData for a version that is not read here and for what is no rate."""
    path = folder / INFO
    try:
        content = json.loads(path.read_bytes())
        version = str(content["codebase_version"])
        _check_version(version, path)
        data_path, video_path = PLACES[version]
        return Info(
            folder=folder,
            version=version,
            fps=_rate(content.get("fps"), path),
            features={name: _feature(name, one) for name, one in content["features"].items()},
            splits={name: _range(text, path) for name, text in (content.get("splits") or {}).items()},
            data_path=content.get("data_path") or data_path,
            video_path=content.get("video_path") or video_path,
            chunks_size=int(content.get("chunks_size") or 1000),
            total_episodes=content.get("total_episodes"),
            total_frames=content.get("total_frames"),
            robot_type=content.get("robot_type"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"this is not the info.json that LeRobot writes ({type(error).__name__}: {error})"
        raise InvalidData(what, where=str(path), do="fetch the file again") from None


def _check_version(version: str, path: Path) -> None:
    if version in READ:
        return
    remedy = "convert it with LeRobot's own script to v2.1 or v3.0"
    if version == "v2.0":
        remedy = "lerobot 0.3 brings convert_dataset_v20_to_v21: run it on the folder, then give it again"
    what = f"a LeRobot dataset of version {version}; read are {' and '.join(READ)}"
    raise InvalidData(what, where=str(path), do=remedy)


def _rate(fps: Any, path: Path) -> float:
    if isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < float("inf"):
        return float(fps)
    raise InvalidData(f"fps is {fps!r}", where=str(path), do="write the rate at which it was recorded")


def _feature(name: str, content: Mapping[str, Any]) -> Feature:
    shape, names = tuple(int(size) for size in content["shape"]), content.get("names")
    names = next(iter(names.values()), []) if isinstance(names, dict) else names  # {"motors": [...]}
    labels = tuple(str(label) for label in names) if isinstance(names, list) else ()
    dtype, info = str(content["dtype"]), content.get("info") or content.get("video_info") or {}
    if dtype in ("video", "image") and shape[0] in _CHANNELS and labels[:1] in (("channels",), ("channel",)):
        shape = (*shape[1:], shape[0])  # some write (C, H, W); what is stored is the same
    depth = bool(info.get("is_depth_map", info.get("video.is_depth_map", False)))
    return Feature(name, dtype, shape, labels, depth)


def _range(text: str, path: Path) -> tuple[int, int]:
    first, _, end = str(text).partition(":")
    if not first.isdecimal() or not end.isdecimal():
        raise InvalidData(f"a split is {text!r}", where=str(path), do='write it as "0:12"')
    return int(first), int(end)
