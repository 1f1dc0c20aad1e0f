"""Compare what vlakit reads of a LeRobot dataset with what LeRobot read: check_lerobot.py DATASET EXPECTED_DIR

EXPECTED_DIR holds expected.npz and expected.json. Rows and instructions must be equal, pictures to .02 of an 8 x 8
average and of their mean, each from its file and second, and the blocks drawn in each picture must say its episode and
frame. Prints what differs and `N of M frames agree`; exits with 1 unless all frames agree and nothing else differs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.lerobot.info import COUNTERS
from vlakit.data.lerobot.source import LeRobotHeader, LeRobotSource
from vlakit.data.rlds.images import decode_image
from vlakit.errors import VlakitError

TOLERANCE = 0.02
SECONDS = 1e-4
BLOCK, FRAME_BITS, EPISODE_BITS = 8, 5, 3
Rows = dict[str, Any]


def blocks(picture: np.ndarray) -> tuple[int, int]:
    """Episode and frame, as the white and black blocks along the lower left edge say them, lowest bit first."""
    places = range(0, (FRAME_BITS + EPISODE_BITS) * BLOCK, BLOCK)
    bits = [int(picture[-BLOCK:, left : left + BLOCK].mean() > 127) for left in places]
    values = [sum(bit << n for n, bit in enumerate(part)) for part in (bits[FRAME_BITS:], bits[:FRAME_BITS])]
    return values[0], values[1]


def small(picture: np.ndarray) -> np.ndarray:
    """(8, 8, 3) averages in 0..1."""
    rows = [part.mean(axis=0) for part in np.array_split(picture / 255, 8, axis=0)]
    return np.stack([np.stack([part.mean(axis=0) for part in np.array_split(row, 8, axis=0)]) for row in rows])


def same(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal in shape and in every value, NaN like NaN; the package gives float64 as float32."""
    if mine.dtype.kind == "U":
        return bool(np.array_equal(mine, theirs))
    return mine.shape == theirs.shape and mine.astype(theirs.dtype).tobytes() == theirs.tobytes()


class Reading:
    """All frames as vlakit reads them, and the package's."""

    def __init__(self, dataset: Path, expected: Path) -> None:
        self.source = LeRobotSource.open(dataset)
        self.said = json.loads((expected / "expected.json").read_text())
        self.expected = dict(np.load(expected / "expected.npz"))
        self.cameras: list[str] = list(self.said["cameras"])
        columns = [name.removeprefix("row/") for name in self.expected if name.startswith("row/")]
        self.headers = [header for split in self.source.splits for header in self.source.headers(split)]
        episodes = [self.source.read(header, [*columns, *self.cameras, "task"]) for header in self.headers]
        self.rows: Rows = {name: np.concatenate([one[name] for one in episodes]) for name in columns}
        self.tasks = [text for one in episodes for text in one["task"]]
        self.pictures = {
            camera: [_decoded(picture) for one in episodes for picture in one[camera]] for camera in self.cameras
        }
        self.bounds = np.cumsum([0, *(header.episode.length for header in self.headers)])

    def frame(self, row: int) -> Iterator[str]:
        """What of one frame differs."""
        for name, values in self.rows.items():
            theirs = self.expected[f"row/{name}"]
            if row >= len(theirs) or not same(values[row : row + 1], theirs[row : row + 1]):
                yield f"{name} is {values[row].tolist()}"
        if self.tasks[row] != self.said["task_of_frame"][row]:
            yield f"the task is {self.tasks[row]!r}"
        for camera in self.cameras:
            yield from self.picture(row, camera)

    def picture(self, row: int, camera: str) -> Iterator[str]:
        """What of one picture differs."""
        picture = self.pictures[camera][row]
        episode = int(np.searchsorted(self.bounds, row, "right")) - 1
        place = episode % 2**EPISODE_BITS, (row - int(self.bounds[episode])) % 2**FRAME_BITS
        if blocks(picture) != place:
            yield f"{camera}: its blocks say episode and frame {blocks(picture)}, not {place}"
        pairs = {"8 x 8 average": ("small", small(picture)), "mean": ("mean", picture.mean(axis=(0, 1)) / 255)}
        for what, (kind, mine) in pairs.items():
            apart = np.abs(mine - self.expected[f"image/{camera}/{kind}"][row]).max()
            if not apart <= TOLERANCE:
                yield f"{camera}: its {what} is {apart:.3f} off"
        whole = self.expected.get(f"frame/{row}/{camera}")
        if whole is not None and not np.abs(picture.astype(float) - whole).mean() <= TOLERANCE * 255:
            yield f"{camera}: the whole picture differs"
        yield from self.place(row, camera, self.headers[episode])

    def place(self, row: int, camera: str, header: LeRobotHeader) -> Iterator[str]:
        """The file and second of a picture; of v2.1, LeRobot's reading was of a converted copy with other files."""
        video = header.episode.videos.get(camera)
        if video is None or self.source.info.version != "v3.0":
            return
        file, time = self.said["videos"][row][camera]
        mine = video[1] + float(self.rows["timestamp"][row])
        if str(video[0].relative_to(self.source.path)) != file or abs(mine - time) > SECONDS:
            yield f"{camera}: taken from {video[0].name} at {mine:.4f} s, not {file} at {time:.4f} s"

    def others(self) -> dict[str, bool]:
        """Name -> whether it is the same: lengths, tasks, features, windows, reads of some episodes, statistics."""
        lengths = [header.episode.length for header in self.headers]
        shapes = {camera: list(self.source.info.features[camera].shape) for camera in self.source.info.cameras}
        totals = {"frames": sum(lengths), "episodes": len(lengths), "fps": self.source.info.fps}
        found = {
            "lengths": lengths == self.said["lengths"],
            "tasks": {text: number for number, text in self.source.tasks.items()} == self.said["tasks"],
            "tasks of episodes": [set(header.episode.tasks) for header in self.headers]
            == [set(texts) for texts in self.said["episode_tasks"]],
            "cameras": shapes == {name: _channels_last(shape) for name, shape in self.said["cameras"].items()},
            "robot_type": self.source.info.robot_type == self.said["robot_type"],
            **{what: value == self.said[what] for what, value in totals.items()},
            "episodes asked for": self.selected(),
        }
        windows = (name for name in self.expected if name.startswith("window/") and not name.endswith("_is_pad"))
        found |= {name: self.window(name) for name in windows}
        # Where the package merges or cuts datasets, the statistics of its counters stay those of the parts.
        judged = (name for name in self.said["stats"] if name not in COUNTERS)
        return found | {f"statistics of {name}": self.statistics(name) for name in judged}

    def selected(self) -> bool:
        """Some episodes asked for in any order come in the order of the table."""
        asked = self.said["selected_last_and_first"]
        wanted = [header for header in self.headers if header.episode.index in asked["order_asked"]]
        rows = [self.source.read(header, ["index"])["index"] for header in wanted]
        return np.concatenate(rows).tolist() == asked["index"]

    def window(self, name: str) -> bool:
        """A window is clamped to its episode, and says where it was."""
        _, row, feature = name.split("/", 2)
        episode = int(np.searchsorted(self.bounds, int(row), "right")) - 1
        wanted = int(row) + np.array(self.said["windows"][feature])
        first, last = self.bounds[episode], self.bounds[episode + 1] - 1
        padded = (wanted < first) | (wanted > last)
        frames = np.clip(wanted, first, last)
        if not np.array_equal(padded, self.expected[f"{name}_is_pad"]):
            return False
        if feature in self.pictures:
            means = [self.pictures[feature][frame].mean(axis=(0, 1)) / 255 for frame in frames]
            return bool(np.abs(np.stack(means) - self.expected[name]).max() <= TOLERANCE)
        return same(self.rows[feature][frames], self.expected[name])

    def statistics(self, name: str) -> bool:
        """Exact ones from the rows; those of a camera are of a sample of its pictures, and only their shape is sure."""
        theirs = {what: np.array(value) for what, value in self.said["stats"][name].items()}
        if name in self.pictures:
            return theirs["mean"].shape == (3, 1, 1) and float(theirs["max"].max()) <= 1
        if name not in self.rows:
            return name in self.source.info.features
        values, n_columns = self.rows[name].astype(np.float64), theirs["mean"].size
        if values.size % n_columns:
            return False
        values = values.reshape(-1, n_columns)  # of a feature with several axes the package keeps the last
        exact: dict[str, Callable[[np.ndarray], Any]] = {
            "min": lambda v: v.min(0),
            "max": lambda v: v.max(0),
            "mean": lambda v: v.mean(0),
            "std": lambda v: v.std(0),
            "count": lambda _: [len(self.tasks)],
        }
        return all(
            np.allclose(np.ravel(theirs[what]), np.ravel(made(values)), rtol=1e-4, atol=1e-5, equal_nan=True)
            for what, made in exact.items()
        )


def _channels_last(shape: list[int]) -> list[int]:
    """The package lets a dataset declare (3, H, W), and stores the same pictures."""
    return [*shape[1:], shape[0]] if shape[0] == 3 != shape[-1] else shape


def _decoded(picture: Any) -> np.ndarray:
    return decode_image(picture) if isinstance(picture, bytes) else picture


def check(dataset: Path, expected: Path) -> bool:
    """Print what differs and how many frames agree; whether all is the same."""
    try:
        reading = Reading(dataset, expected)
    except VlakitError as error:
        print(error)
        said = json.loads((expected / "expected.json").read_text())
        print(f"0 of {said['frames']} frames agree")
        return False
    n_agree, count = 0, reading.said["frames"]
    for row in range(len(reading.tasks)):
        wrong = list(reading.frame(row)) if row < count else ["there is no such frame"]
        n_agree += not wrong
        for what in wrong:
            print(f"frame {row}: {what}")
    others = reading.others()
    for what, good in others.items():
        if not good:
            print(f"{what} differs")
    print(f"{sum(others.values())} of {len(others)} other facts agree (totals, tasks, windows, statistics)")
    print(f"{n_agree} of {count} frames agree")
    return n_agree == count == len(reading.tasks) and all(others.values())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(0 if check(Path(sys.argv[1]), Path(sys.argv[2])) else 1)
