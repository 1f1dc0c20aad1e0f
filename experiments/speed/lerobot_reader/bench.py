"""Random frames a second on a core: LeRobot's own reader, and vlakit on the same v3.0 dataset and from shards of it.

Run: python experiments/speed/lerobot_reader/bench.py --lerobot-python PATH. The sides take turns in one run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from loader.bench import repeated_sample  # noqa: E402

from vlakit.data.demonstration import demonstrations  # noqa: E402
from vlakit.data.lerobot.meta import WriteOptions  # noqa: E402
from vlakit.data.lerobot.writer import write_dataset  # noqa: E402
from vlakit.data.shards.convert import convert  # noqa: E402
from vlakit.data.specs.spec import load_spec  # noqa: E402

COLUMNS = ("reader", "blocks", "frames", "cpu_s", "wall_s", "frames_per_cpu_s", "faster_than_lerobot")
CONVERSION = ("codec", "frames", "MB_of_videos", "MB_of_shards", "cpu_s", "frames_per_cpu_s", "MB_of_shards_per_cpu_s")
THEIRS = "lerobot"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SPEC = "images: {primary: images/primary}\nlanguage: task\naction: [{take: action}]\nproprio: [state]\nmask: "
Block = tuple[int, float, float]  # frames, CPU seconds, wall seconds


def side(python: str, script: str, *arguments: str) -> Callable[[], Block]:
    """Start a reader in its own process; each call of the result is one block."""
    process = subprocess.Popen(
        [python, str(HERE / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ONE_THREAD},
    )

    def line() -> str:
        found = process.stdout.readline() if process.stdout else ""
        if not found:
            raise SystemExit(f"{script} ended with {process.wait()}")
        return found

    def measure() -> Block:
        print("go", file=process.stdin, flush=True)
        n_frames, cpu, wall = json.loads(line())
        return n_frames, cpu, wall

    print(f"{script}: {json.loads(line())}")
    return measure


def made(folder: Path, copies: int, size: int, codec: str) -> Path:
    """The Bridge sample as a LeRobot v3.0 dataset: `copies` times, pictures of `size` px."""
    source, options = repeated_sample(folder, copies), WriteOptions(fps=5, codec=codec)
    convert(source, folder / "first", load_spec("bridge_orig"), image_size=size)
    write_dataset(demonstrations(folder / "first", None, []), folder / "dataset", options)
    return folder / "dataset"


def size_mb(folder: Path, pattern: str) -> float:
    """All files of that name."""
    return sum(file.stat().st_size for file in folder.rglob(pattern)) / 1e6


def converted(dataset: Path, out: Path, codec: str) -> list[str]:
    """Make shards of it with one process; a line of conversion.csv."""
    mine = out.parent / "mine.yaml"
    mine.write_text(SPEC + str([True] * 7).lower() + "\n", encoding="utf-8")
    start = time.process_time()
    index = convert(dataset, out, load_spec(mine), val_fraction=0.0)
    cpu, n_frames = time.process_time() - start, sum(one["frames"] for one in index.counts().values())
    sizes = size_mb(dataset, "*.mp4"), size_mb(out, "*.tar")
    rates = f"{n_frames / cpu:.0f}", f"{sizes[1] / cpu:.2f}"
    return [codec, str(n_frames), f"{sizes[0]:.2f}", f"{sizes[1]:.2f}", f"{cpu:.2f}", *rates]


def rows(found: dict[str, list[Block]]) -> list[list[str]]:
    """Lines of results.csv: medians over the blocks."""
    rates = {name: median(frames / cpu for frames, cpu, _ in blocks) for name, blocks in found.items()}
    return [
        [
            name,
            str(len(blocks)),
            str(blocks[0][0]),
            *(f"{median(block[n] for block in blocks):.3f}" for n in (1, 2)),
            f"{rates[name]:.0f}",
            f"{rates[name] / rates[THEIRS]:.2f}" if THEIRS in rates else "",
        ]
        for name, blocks in found.items()
    ]


def main() -> None:
    """Measure once; with LeRobot, write results.csv and conversion.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lerobot-python", help='python of an environment with "lerobot[dataset]==0.6.1"')
    parser.add_argument("--codec", default="av1", choices=("av1", "h264"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each reader; one more before them warms up")
    parser.add_argument("--batches", type=int, default=8, help="batches in a block")
    parser.add_argument("--batch-size", type=int, default=32)
    chosen = parser.parse_args()
    block = str(chosen.batches), str(chosen.batch_size)
    with tempfile.TemporaryDirectory() as temporary:
        dataset, out = made(Path(temporary), chosen.copies, chosen.size, chosen.codec), Path(temporary) / "shards"
        conversion = converted(dataset, out, chosen.codec)
        sides = {
            "vlakit, the same videos": side(sys.executable, "vlakit_side.py", str(dataset), *block, "videos"),
            "vlakit, shards": side(sys.executable, "vlakit_side.py", str(out), *block, "shards"),
        }
        if chosen.lerobot_python:
            sides[THEIRS] = side(chosen.lerobot_python, "lerobot_side.py", str(dataset), *block)
        found: dict[str, list[Block]] = {name: [] for name in sides}
        for number in range(chosen.rounds + 1):
            for name in list(sides)[:: 1 if number % 2 else -1]:
                measured = sides[name]()
                if number:
                    found[name].append(measured)
    tables = {"results.csv": [list(COLUMNS), *rows(found)], "conversion.csv": [list(CONVERSION), conversion]}
    for name, table in tables.items():
        print(*(", ".join(line) for line in table), sep="\n")
        if chosen.lerobot_python:
            with (HERE / name).open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(table)


if __name__ == "__main__":
    main()
