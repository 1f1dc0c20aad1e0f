"""Rollouts on disk, with the tokens that were executed: text again made of actions would be other tokens.

A folder holds `rollouts.json`, which says how they were drawn, and blocks of episodes, each whole or absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.errors import CorruptRecord, InvalidData
from vlakit.files import atomic_writer, write_atomically
from vlakit.schema import Bool, Float32, Int64, Observation

HEADER, OTHER = "rollouts.json", "episodes.jsonl"  # the other is an evaluation's, without tokens


@dataclass(frozen=True)
class Episode:
    """One rollout from one start. actions (T, A): what was carried out, in physical units.

    asked (D,): the steps at which the policy was asked; ids and log_probs (D, n): what it drew then, and how likely
    that was under it, at temperature 1 among the ids that it may choose. chunk: actions of one answer.
    """

    number: int
    start: str
    rollout: int
    task: str
    instruction: str
    success: bool
    credit: float
    actions: list[list[float]]
    asked: list[int]
    ids: list[list[int]]
    log_probs: list[list[float]]
    chunk: int = 1
    error: str | None = None

    @property
    def steps(self) -> int:
        """T."""
        return len(self.actions)

    @property
    def usable(self) -> bool:
        """Whether it ended by itself after an action at least."""
        return self.error is None and self.steps > 0

    @property
    def tokens(self) -> Int64:
        """(D, n)."""
        return np.array(self.ids, np.int64)

    @property
    def behaviour(self) -> Float32:
        """(D, n) log-probabilities."""
        return np.array(self.log_probs, np.float32)

    @property
    def mask(self) -> Bool:
        """(D, n): the tokens of actions that were carried out; the rest of a chunk cut short does not count."""
        n = len(self.ids[0])
        executed = np.diff([*self.asked, self.steps])
        each = n // self.chunk if n % self.chunk == 0 else n
        return np.arange(n) < each * executed[:, None]

    @classmethod
    def from_line(cls, line: bytes, where: str) -> Episode:
        """One line of a block. Raises InvalidData where it has no tokens, CorruptRecord for what is no record."""
        try:
            content = json.loads(line)
            if not content.get("ids") and content.get("error") is None:
                raise InvalidData(
                    "an episode without the tokens that were executed: those that actions spell now may be others",
                    where=where,
                    do="record them as they are drawn: vlakit collect ckpt=CKPT suite=NAME",
                )
            return cls(**{one.name: content[one.name] for one in fields(cls)})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptRecord(
                f"not an episode: {error}", where=where, do="delete this block: it runs again"
            ) from error


@dataclass(frozen=True)
class Rollouts:
    """A folder of episodes with what it says of them: suite, policy, seed, temperature, statistics, ..."""

    path: Path
    header: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Rollouts:
        """Raises InvalidData where no rollouts are, CorruptRecord."""
        path = Path(folder).expanduser()
        try:
            return cls(path, json.loads((path / HEADER).read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            kept = "an evaluation, whose records hold no tokens" if (path / OTHER).is_file() else f"no {HEADER}"
            do = f"vlakit collect ckpt=CKPT suite=NAME out={path}_rollouts"
            raise InvalidData(f"no rollouts here: {kept}", where=str(path), do=do) from None
        except ValueError as error:
            raise CorruptRecord(f"{HEADER} is no JSON: {error}", where=str(path), do="delete the folder") from None

    def block(self, number: int) -> Path:
        """The file of a block of episodes."""
        return self.path / f"episodes_{number:04d}.jsonl"

    def write(
        self, number: int, episodes: Sequence[Episode], pictures: Mapping[int, Mapping[str, Any]] | None = None
    ) -> None:
        """Store a block; pictures: number of an episode -> arrays of what it saw at its questions. Raises DiskFull."""
        if pictures is not None:
            arrays = {f"{n}/{name}": array for n, kept in pictures.items() for name, array in kept.items()}
            with atomic_writer(self._pictures(number)) as stream:
                np.savez_compressed(stream, **arrays)
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in episodes]
        write_atomically(self.block(number), "".join(f"{line}\n" for line in lines))

    def read(self, number: int) -> list[Episode]:
        """The episodes of a block."""
        file = self.block(number)
        lines = file.read_bytes().splitlines()
        return [Episode.from_line(line, f"{file}, line {row}") for row, line in enumerate(lines, 1)]

    def numbers(self) -> list[int]:
        """Blocks that are there."""
        return sorted(int(file.stem.rpartition("_")[2]) for file in self.path.glob("episodes_[0-9]*.jsonl"))

    def episodes(self) -> list[Episode]:
        """All of them, in order. Raises InvalidData where there is none."""
        found = [episode for number in self.numbers() for episode in self.read(number)]
        if not found:
            raise InvalidData("no episode was collected yet", where=str(self.path), do="give vlakit collect again")
        return found

    def stored(self) -> Iterator[tuple[int, list[Observation]]]:
        """(number of an episode, what was seen at its D questions), where pictures were stored."""
        for block in self.numbers():
            with np.load(self._pictures(block)) as arrays:
                names: dict[int, dict[str, str]] = {}
                for key in arrays.files:
                    number, _, name = key.partition("/")
                    names.setdefault(int(number), {})[name] = key
                said = {episode.number: episode.instruction for episode in self.read(block)}
                for number, keys in sorted(names.items()):
                    kept = {name: arrays[key] for name, key in keys.items()}
                    rows = range(len(next(iter(kept.values()))))
                    yield number, [observation_of(kept, row, said[number], self.header["dataset"]) for row in rows]

    def _pictures(self, number: int) -> Path:
        return self.path / f"pictures_{number:04d}.npz"


def packed(seen: Sequence[Observation]) -> dict[str, Any]:
    """Arrays of D observations: "image.CAMERA" (D, W, H, W', 3), "proprio" (D, W, P), "window_mask" (D, W)."""
    parts = [arrays_of(one) for one in seen]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def arrays_of(one: Observation) -> dict[str, Any]:
    """An observation without its words."""
    arrays: dict[str, Any] = {f"image.{camera}": np.asarray(frames) for camera, frames in one.images.items()}
    optional = {"proprio": one.proprio, "window_mask": one.window_mask}
    return arrays | {name: value for name, value in optional.items() if value is not None}


def observation_of(arrays: Mapping[str, Any], row: int, instruction: str, dataset: str) -> Observation:
    """The opposite, of one row of such arrays."""
    images = {name[6:]: np.asarray(array[row]) for name, array in arrays.items() if name.startswith("image.")}
    proprio, mask = (arrays[name][row] if name in arrays else None for name in ("proprio", "window_mask"))
    return Observation(images, instruction, dataset, proprio, mask)
