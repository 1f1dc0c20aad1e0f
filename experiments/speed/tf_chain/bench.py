"""Frames a second on a core and resident memory: TensorFlow's chain of the peers beside vlakit, the same pixels out.

Run: python experiments/speed/tf_chain/bench.py --tfds-python PATH. The sides take turns, an epoch each, in one run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from statistics import median

import numpy as np

from vlakit.data.shards.convert import convert
from vlakit.data.specs.spec import load_spec

HERE = Path(__file__).parent
SAMPLE = Path(str(files("vlakit"))) / "assets" / "bridge_dataset" / "1.0.0"
COLUMNS = (
    "side",
    "epochs",
    "frames",
    "cpu_s",
    "frames_per_cpu_s",
    "faster_than_theirs",
    "resident_mb",
    "of_theirs",
    "growth_percent",
)
RECORDS, STREAM, THEIRS = "vlakit, RLDS", "vlakit, shards", "tensorflow"
SIZE = 224
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Epoch = tuple[int, float, float, float]  # frames, CPU seconds, wall seconds, resident MB after it


class Side:
    """A process that reads one epoch whenever it is asked."""

    def __init__(self, python: str, script: str, folder: Path, pictures: Path, *arguments: str) -> None:
        names = str(folder), arguments[0], str(pictures), *arguments[1:]
        command, environment = [python, str(HERE / script), *names], {**os.environ, **ONE_THREAD}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._line()
        self.pictures = np.fromfile(pictures, np.uint8).reshape(-1, SIZE, SIZE, 3)
        self.epochs: list[Epoch] = []

    def _line(self) -> str:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit(f"{self.process.args} ended with {self.process.wait()}")
        return line

    def measure(self) -> None:
        """One epoch more."""
        print("go", file=self.process.stdin, flush=True)
        self.epochs.append(tuple(json.loads(self._line())))

    def close(self) -> None:
        """End the process."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def rows(sides: dict[str, Side]) -> list[list[str]]:
    """Lines of the table: medians over the epochs, memory after the last, growth of it since the first."""
    rates = {name: median(frames / cpu for frames, cpu, *_ in side.epochs) for name, side in sides.items()}
    held = {name: side.epochs[-1][-1] for name, side in sides.items()}
    return [
        [
            name,
            str(len(side.epochs)),
            str(side.epochs[0][0]),
            f"{median(epoch[1] for epoch in side.epochs):.2f}",
            f"{rates[name]:.0f}",
            f"{rates[name] / rates[THEIRS]:.2f}" if THEIRS in rates else "",
            f"{held[name]:.0f}",
            f"{held[name] / held[THEIRS]:.2f}" if THEIRS in held else "",
            f"{100 * (held[name] / side.epochs[0][-1] - 1):.1f}",
        ]
        for name, side in sides.items()
    ]


def same_pictures(whole: np.ndarray, theirs: np.ndarray | None, shuffled: np.ndarray) -> None:
    """End where TensorFlow's pictures are more than a grey level off, or the shards hold one that the records lack."""
    known = {picture.tobytes() for picture in whole}
    if any(picture.tobytes() not in known for picture in shuffled):
        raise SystemExit("the shards hold a picture that the records do not")
    if theirs is not None:
        apart = np.abs(theirs.astype(np.int16) - whole)
        print(f"{np.count_nonzero(apart)} of {apart.size} values differ from TensorFlow's, by {apart.max()} at most")
        if apart.max() > 1:
            raise SystemExit("these are not the same pixels")


def main() -> None:
    """Measure once; with TensorFlow, write results.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tfds-python", help="python of an environment with tensorflow-cpu and tensorflow-datasets")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--passes", type=int, default=8, help="readings of the sample's train split in one epoch")
    parser.add_argument("--shuffle", type=int, default=1000, help="frames in TensorFlow's shuffle buffer")
    chosen = parser.parse_args()
    passes = str(chosen.passes)
    with tempfile.TemporaryDirectory() as folder:
        shards, seen = Path(folder) / "shards", Path(folder) / "pictures"
        convert(SAMPLE, shards, load_spec("bridge_orig"))
        sides = {
            RECORDS: Side(sys.executable, "vlakit_side.py", SAMPLE, seen, passes, "rlds"),
            STREAM: Side(sys.executable, "vlakit_side.py", shards, seen, passes, "shards"),
        }
        if chosen.tfds_python:
            sides[THEIRS] = Side(chosen.tfds_python, "tf_side.py", SAMPLE, seen, passes, str(chosen.shuffle))
        theirs = sides[THEIRS].pictures if THEIRS in sides else None
        same_pictures(sides[RECORDS].pictures, theirs, sides[STREAM].pictures)
        for number in range(chosen.epochs):
            for name in list(sides)[:: 1 if number % 2 else -1]:
                sides[name].measure()
        for side in sides.values():
            side.close()
    table = rows(sides)
    for line in [COLUMNS, *table]:
        print(", ".join(line))
    if chosen.tfds_python:
        with (HERE / "results.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table])


if __name__ == "__main__":
    main()
