"""LeRobot's half of bench.py, run by the interpreter of another environment: one line in, one timed block out.

Batches of random frames through LeRobotDataset and torch's default collate, no worker process.
Run by bench.py as: python lerobot_side.py DATASET BATCHES BATCH_SIZE.
"""

import json
import os
import random
import sys
import time
from importlib import import_module
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

torch: Any = import_module("torch")  # of the other environment, as the package is
dataset_module: Any = import_module("lerobot.datasets.lerobot_dataset")
collate: Any = import_module("torch.utils.data").default_collate


def main(folder: str, batches: str, batch_size: str) -> None:
    """Answer each line of standard input with the frames read, their CPU seconds and their wall seconds."""
    torch.set_num_threads(1)
    dataset = dataset_module.LeRobotDataset("local/dataset", root=folder)  # its own choice of a decoder
    chance, n_frames = random.Random(0), int(batches) * int(batch_size)
    print(json.dumps(f"{len(dataset)} frames, decoded by {dataset._video_backend}"), flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(int(batches)):
            collate([dataset[chance.randrange(len(dataset))] for _ in range(int(batch_size))])
        print(json.dumps([n_frames, time.process_time() - cpu, time.perf_counter() - wall]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
