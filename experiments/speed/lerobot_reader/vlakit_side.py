"""vlakit's half of bench.py, in a process of its own: one line in, one timed block out.

videos: random frames of the LeRobot dataset itself. shards: the training stream, after `vlakit shards`.
Run by bench.py as: python vlakit_side.py FOLDER BATCHES BATCH_SIZE videos|shards.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

CAMERA = "observation.images.primary"
NUMBERS = ("action", "observation.state", "timestamp")


def scaled(picture: np.ndarray) -> torch.Tensor:
    """(3, H, W) float32 in 0..1, as LeRobot gives it."""
    return torch.from_numpy(picture).permute(2, 0, 1).to(torch.float32).div_(255)


def videos(folder: str, batches: int, batch_size: int) -> Callable[[], None]:
    """Numbers stay in memory, as LeRobot maps its tables; each picture is decoded when it is asked for."""
    from vlakit.data.lerobot.source import LeRobotSource
    from vlakit.data.lerobot.video import pictures_at

    source = LeRobotSource.open(Path(folder))
    headers = [header for split in source.splits for header in source.headers(split)]
    rows = [source.read(header, [*NUMBERS, "task"]) for header in headers]
    frames = [(episode, step) for episode, one in enumerate(rows) for step in range(len(one["task"]))]
    chance, half = random.Random(0), 0.5 / source.info.fps

    def item(episode: int, step: int) -> dict[str, Any]:
        row = {name: values[step] for name, values in rows[episode].items()}
        file, first = headers[episode].episode.videos[CAMERA]
        return {**row, CAMERA: scaled(pictures_at(file, np.array([first + float(row["timestamp"])]), half)[0])}

    def block() -> None:
        for _ in range(batches):
            default_collate([item(*chance.choice(frames)) for _ in range(batch_size)])

    return block


def shards(folder: str, batches: int, batch_size: int) -> Callable[[], None]:
    """The order of training, no worker process."""
    from vlakit.data.shards.reader import ShardFolder
    from vlakit.data.stream.loading import MixtureSampler, SampleDataset
    from vlakit.data.stream.mixture import MixtureOrder, mixture_entry
    from vlakit.processing.images import decode_jpeg
    from vlakit.schema import Sample

    opened = ShardFolder.open(Path(folder))
    sampler = MixtureSampler(MixtureOrder([mixture_entry(opened)], seed=0, batch_size=batch_size))

    def item(sample: Sample) -> dict[str, Any]:
        row = {"action": sample.actions.copy(), "observation.state": sample.proprio, "task": sample.instruction}
        return {**row, CAMERA: scaled(decode_jpeg(sample.images["primary"][-1]))}

    dataset: SampleDataset[Any] = SampleDataset({opened.dataset: opened}, item)
    loader = iter(DataLoader(dataset, batch_sampler=sampler, num_workers=0))

    def block() -> None:
        for _ in islice(loader, batches):
            pass

    return block


def main(folder: str, batches: str, batch_size: str, kind: str) -> None:
    """Answer each line of standard input with the frames read, their CPU seconds and their wall seconds."""
    torch.set_num_threads(1)
    block = {"videos": videos, "shards": shards}[kind](folder, int(batches), int(batch_size))
    print(json.dumps(kind), flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        block()
        spent = time.process_time() - cpu, time.perf_counter() - wall
        print(json.dumps([int(batches) * int(batch_size), *spent]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
