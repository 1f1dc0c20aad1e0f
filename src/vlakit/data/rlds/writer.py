"""RLDS folders written as TFDS writes them, without TensorFlow: FOLDER/VERSION appears whole, or not at all.

Records hold each step field as one list over all steps, features sorted by name: same episodes, same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from vlakit.data.rlds.example import FLOAT
from vlakit.data.rlds.example_writer import bytes_list, example, float_list, int64_list
from vlakit.data.rlds.features import STEPS, Features, Leaf, parse_features
from vlakit.data.rlds.spec import MAGIC, Spec, features_tree, infer_spec
from vlakit.data.rlds.tfrecord import frame_record
from vlakit.errors import ConfigError, FeatureMissing, InvalidData
from vlakit.files import disk_full_as_error, flush_to_disk, locked, publish
from vlakit.trees import flat

_NAME = re.compile(r"[A-Za-z]\w*")  # a '-' would end the dataset's name in TFDS file names
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_FRAMING = 16  # bytes around each payload, which TFDS does not count in numBytes


class RldsWriter:
    """Context manager that collects episodes; leaving it publishes FOLDER/VERSION, an error leaves nothing.

    features: a nested spec of `Feature`s under "steps" and "episode_metadata", the contents of a features.json, or
    None: what the first episode holds. shard_bytes: a file is closed before it would exceed this.
    Raises ConfigError when FOLDER/VERSION is there already or being written, DiskFull.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        version: str = "1.0.0",
        features: Spec | Mapping[str, Any] | None = None,
        shard_bytes: int = 1 << 28,
    ) -> None:
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version) or shard_bytes < 1:
            message = f"name {name!r}, version {version!r}, shard_bytes {shard_bytes} cannot be used"
            raise ConfigError(message, where=str(folder), do="name: letters, digits, _; version: such as 1.0.0")
        self.folder, self.name, self.version, self.shard_bytes = Path(folder), name, version, shard_bytes
        self.path = self.folder / version
        self._partial = self.folder / f".{version}.partial"
        self._tree: dict[str, Any] = {}
        self._features = Features({}, {})
        self._splits: dict[str, _SplitFiles] = {}
        self._stack = ExitStack()
        if features is not None:
            self._declare(features)

    def __enter__(self) -> RldsWriter:
        if self.path.exists():
            raise ConfigError("this version is there already", where=str(self.path), do="delete it or raise version")
        self._made_folder = not self.folder.exists()
        self._stack.enter_context(locked(self.folder))
        with disk_full_as_error(self.path):
            shutil.rmtree(self._partial, ignore_errors=True)  # what a killed process left
            self._partial.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._stack:
            try:
                if error is None:
                    with disk_full_as_error(self.path):
                        self._publish()
            finally:
                for files in self._splits.values():
                    files.abandon()
                shutil.rmtree(self._partial, ignore_errors=True)
                if self._made_folder:
                    with suppress(OSError):  # not empty: published
                        self.folder.rmdir()

    def write(self, episode: Mapping[str, Any], split: str = "train") -> None:
        """Append one episode: "steps", a list of nested dicts, and "episode_metadata", one nested dict.

        Values are arrays, numbers, bools, str or bytes (images: encoded). Raises FeatureMissing when one lacks a
        feature, InvalidData when it has another shape, dtype or encoding, or a feature that is not declared.
        """
        if not self._tree:
            self._declare(infer_spec(episode))
        payload = encode_episode(episode, self._features)
        if split not in self._splits:
            self._splits[split] = _SplitFiles(self._partial, f"{self.name}-{split}.tfrecord", self.shard_bytes)
        with disk_full_as_error(self.path):
            self._splits[split].add(payload)

    def _declare(self, features: Spec | Mapping[str, Any]) -> None:
        self._tree = dict(features) if "featuresDict" in features else features_tree(features)
        self._features = parse_features(self._tree, where=f"features of {self.name}")
        for leaf in (*self._features.steps.values(), *self._features.metadata.values()):
            in_steps = leaf.key.startswith(f"{STEPS}/")
            if leaf.kind == "encoded" or len(leaf.levels) != in_steps or (None in leaf.shape and leaf.kind != "image"):
                raise InvalidData(f"feature {leaf.key!r} is of a kind that is not written here", do="drop it")

    def _publish(self) -> None:
        if not self._splits:
            raise InvalidData("no episode was written", where=str(self.path))
        splits = [files.finish(split) for split, files in sorted(self._splits.items())]
        info = {
            "fileFormat": "tfrecord",
            "moduleName": __name__,
            "name": self.name,
            "releaseNotes": {},
            "splits": splits,
            "version": self.version,
        }
        for name, content in (("features.json", self._tree), ("dataset_info.json", info)):
            with (self._partial / name).open("w") as stream:
                json.dump(content, stream, indent=2, sort_keys=True)
                stream.flush()
                flush_to_disk(stream.fileno())
        publish(self._partial, self.path)


class _SplitFiles:
    """The tfrecord files of one split; how many they are is known at the end, and so are their names."""

    def __init__(self, folder: Path, stem: str, limit: int) -> None:
        self.folder, self.stem, self.limit = folder, stem, limit
        self.lengths: list[int] = []
        self.n_bytes = 0
        self._stream: BinaryIO | None = None

    def add(self, payload: bytes) -> None:
        if self._stream is None or self._stream.tell() + len(payload) + _FRAMING > self.limit:
            self._close()
            self._stream = self._path(len(self.lengths)).open("wb")
            self.lengths.append(0)
        self._stream.write(frame_record(payload))
        self.lengths[-1] += 1
        self.n_bytes += len(payload)

    def finish(self, split: str) -> dict[str, Any]:
        self._close()
        total = len(self.lengths)
        for part in range(total):
            self._path(part).rename(self.folder / f"{self.stem}-{part:05}-of-{total:05}")
        return {
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "name": split,
            "numBytes": str(self.n_bytes),
            "shardLengths": [str(length) for length in self.lengths],
        }

    def abandon(self) -> None:
        if self._stream is not None:
            with suppress(OSError):  # the bytes that found no room are wanted no more
                self._stream.close()

    def _path(self, part: int) -> Path:
        return self.folder / f"{self.stem}.{part:05}"

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.flush()
            flush_to_disk(self._stream.fileno())
            self._stream.close()
            self._stream = None


def encode_episode(episode: Mapping[str, Any], features: Features) -> bytes:
    """One episode as a tf.train.Example; raises as `RldsWriter.write` does."""
    steps = [flat(step, "/") for step in episode[STEPS]]
    metadata = flat({key: value for key, value in episode.items() if key != STEPS}, "/")
    for number, step in enumerate(steps):
        _check_keys(step, features.steps, f"step {number}")
    _check_keys(metadata, features.metadata, "the episode")
    columns = {leaf.key: _encode(leaf, [step[path] for step in steps]) for path, leaf in features.steps.items()}
    columns |= {leaf.key: _encode(leaf, [metadata[path]]) for path, leaf in features.metadata.items()}
    return example(dict(sorted(columns.items())))


def _check_keys(values: Mapping[str, Any], declared: Mapping[str, Leaf], where: str) -> None:
    if values.keys() == declared.keys():
        return
    missing = sorted(declared.keys() - values.keys())
    if missing:
        raise FeatureMissing(f"no {', '.join(missing)}", where=where, do="give every declared feature a value")
    extra = ", ".join(sorted(values.keys() - declared.keys()))
    raise InvalidData(f"{extra}: not among the features", where=where, do="declare it in features=..., or drop it")


def _encode(leaf: Leaf, values: Sequence[Any]) -> bytes:
    if leaf.kind == "image":
        return bytes_list(_image(leaf, value) for value in values)
    if leaf.kind == "string":
        return bytes_list(_text(leaf, value) for value in values)
    array = _numbers(leaf, values)
    return float_list(array) if leaf.stored_kind == FLOAT else int64_list(array)


def _image(leaf: Leaf, value: Any) -> bytes:
    if not isinstance(value, bytes) or not value.startswith(tuple(MAGIC.values())):
        raise InvalidData("this is no encoded image", where=leaf.key, do="encode it as PNG or JPEG first")
    return value


def _text(leaf: Leaf, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        raise InvalidData(f"text is wanted, this is a {type(value).__name__}", where=leaf.key)
    return value


def _numbers(leaf: Leaf, values: Sequence[Any]) -> np.ndarray:
    shape, dtype = tuple(size or 0 for size in leaf.shape), leaf.numpy_dtype
    if not values:
        return np.empty((0, *shape), dtype)
    try:
        given = np.array(values)
    except ValueError:
        raise _unfit(leaf, "its shape varies from step to step") from None
    if given.shape[1:] != shape or not _castable(given.dtype, dtype):
        raise _unfit(leaf, f"it is {given.dtype} of shape {given.shape[1:]}")
    array = given.astype(dtype, copy=False)
    if given.dtype.kind in "iu" and not np.array_equal(array, given):
        raise _unfit(leaf, f"it reaches {max(abs(int(given.min())), int(given.max()))}")
    return array


def _castable(given: np.dtype, declared: np.dtype) -> bool:
    return np.can_cast(given, declared, "same_kind") or (given.kind in "iu" and declared.kind in "iu")


def _unfit(leaf: Leaf, reason: str) -> InvalidData:
    declared = f"{leaf.dtype} of shape {tuple(size or 0 for size in leaf.shape)} is declared"
    return InvalidData(f"{declared}, and {reason}", where=leaf.key, do="give every step the declared shape and dtype")
