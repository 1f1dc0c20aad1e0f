"""Plans on paper, from measured rates: OpenX as shards, and OpenVLA-7B on 64 H100. About a minute of CPU.

    python experiments/speed/at_scale/plan.py          # writes data.csv and gpus.csv

Nothing here ran on a cluster. data.csv names for each line what it is computed from; gpus.csv is `vlakit plan` by
strategy.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE, SPEED = Path(__file__).parent, Path(__file__).parents[1]
MIXTURE = "oxe_magic_soup_plus_minus"  # its 25 datasets all have a recorded count
GPUS, BATCH = 64, 2048  # the paper's pretraining
TFLOPS, MFU = 989, 0.4  # an H100's bf16 rate by its data sheet; the share of it that a step reaches is assumed
FRAME_BYTES = 20_000  # assumed: one 256 px JPEG with its action
WRITE = 1e9  # bytes a second to the file system, assumed
EPOCHS = 27  # of the paper's pretraining
OPENX = 970_000  # episodes, the paper's whole mixture
DATA = ("what", "value", "unit", "from")
GPU = (
    *("strategy", "gb_a_gpu", "largest_batch_on_80_gb", "samples_a_gpu_s", "step_s", "hours", "loader_cores_a_gpu"),
    *("checkpoint_gb", "checkpoint_s"),
)


def main() -> None:
    """Compute and write both files."""
    shares = answer("data", f"mixture={MIXTURE}")
    episodes, transitions = (
        sum(row[key] for row in shares["datasets"].values()) for key in ("episodes", "transitions")
    )
    frame_s = loader_seconds()
    write("data.csv", DATA, data_plan(episodes, transitions, frame_s))
    steps = round(EPOCHS * shares["epoch"] / BATCH)
    words = ["model=openvla_7b", "strategy=all", "precision=bf16-mixed", "checkpointing=true", f"steps={steps}"]
    words += [f"sharding={GPUS}", f"batch_size={BATCH // GPUS}", f"tflops={TFLOPS}", f"mfu={MFU}"]
    write("gpus.csv", GPU, (gpu_plan(row, frame_s) for row in answer("plan", *words)["rows"]))


def data_plan(episodes: int, transitions: int, frame_s: float) -> Iterable[tuple[object, ...]]:
    """Lines of data.csv."""
    conversion = float(record("conversion_memory", copies="100")["frames_per_second"])
    whole = round(transitions * OPENX / episodes)
    yield "episodes", episodes, "episodes", f"vlakit data mixture={MIXTURE}, each counted once"
    yield "transitions", transitions, "frames", "the same"
    yield "transitions of 970,000 episodes", whole, "frames", "at the same mean length"
    yield "disk", round(whole * FRAME_BYTES / 1e9), "GB", f"{FRAME_BYTES} bytes a frame, assumed"
    yield "conversion rate", round(conversion), "frames/s/core", "conversion_memory/results.csv: the source's own JPEGs"
    yield "conversion", round(whole / conversion / 3600, 1), "core hours", "the lines above"
    yield "loader", round(1 / frame_s), "frames/s/core", "images/results.csv: decoding, 256 to 224 px, augmentation"


def gpu_plan(row: Mapping[str, Any], frame_s: float) -> tuple[object, ...]:
    """A line of gpus.csv from a row of `vlakit plan format=json`."""
    time, disk = row["time"], row["disk_bytes"]["checkpoint"]
    samples = row["batch_size"] / time["seconds_per_step"]
    return (
        row["strategy"],
        f"{row['memory_bytes']['total'] / 1e9:.1f}",
        row["largest_batch"]["80"],
        f"{samples:.1f}",
        f"{time['seconds_per_step']:.2f}",
        f"{time['hours']:.0f}",
        f"{samples * frame_s:.2f}",
        f"{disk / 1e9:.1f}",
        f"{disk / WRITE:.0f}",
    )


def loader_seconds() -> float:
    """CPU seconds that a frame of a 256 px JPEG costs until it is 224 px and augmented."""
    operations = (("decode", "224x224"), ("lanczos", "256x256"), ("augmentation", "224x224"))
    return sum(float(record("images", operation=name, input=size)["vlakit_ms"]) for name, size in operations) / 1000


def record(bench: str, **where: str) -> dict[str, str]:
    """The row of a committed results.csv."""
    with (SPEED / bench / "results.csv").open(encoding="utf-8", newline="") as lines:
        return next(row for row in csv.DictReader(lines) if all(row[key] == value for key, value in where.items()))


def answer(*words: str) -> dict[str, Any]:
    """What a verb prints as JSON."""
    command = [sys.executable, "-m", "vlakit", *words, "format=json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def write(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """One file beside this one."""
    with (HERE / name).open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([columns, *rows])


if __name__ == "__main__":
    main()
