"""vlakit's half of bench.py, in a process of its own: one line in, one timed epoch out.

rlds: straight from the records, in their order. shards: the training stream, shuffled, of the same episodes.
Run by bench.py as: python vlakit_side.py FOLDER PASSES PICTURES rlds|shards.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from vlakit.processing.images import lanczos

SIZE, BATCH = 224, 64
FIELDS = ("observation/image_0", "action")


def rlds(folder: str) -> Callable[[], Iterator[np.ndarray]]:
    """All frames of train, batch by batch."""
    from vlakit.data.rlds.images import decode_image
    from vlakit.data.rlds.reader import open_rlds, parse_episode, read_records

    opened = open_rlds(folder)

    def frames() -> Iterator[np.ndarray]:
        for file in opened.splits["train"]:
            for header, payload in read_records(file):
                episode = parse_episode(payload, opened.features, where=str(header), only=FIELDS)
                for encoded in episode.steps[FIELDS[0]]:
                    yield lanczos(decode_image(encoded), SIZE, SIZE)

    def batches() -> Iterator[np.ndarray]:
        found = frames()
        while part := list(islice(found, BATCH)):
            yield np.stack(part)

    return batches


def shards(folder: str) -> Callable[[], Iterator[np.ndarray]]:
    """The same of a shard folder, in the order of training; no worker process."""
    import torch
    from torch.utils.data import DataLoader

    from vlakit.data.shards.reader import ShardFolder
    from vlakit.data.stream.loading import MixtureSampler, SampleDataset
    from vlakit.data.stream.mixture import MixtureOrder, mixture_entry
    from vlakit.processing.images import decode_jpeg
    from vlakit.schema import Sample

    torch.set_num_threads(1)
    opened = ShardFolder.open(Path(folder))
    order = MixtureOrder([mixture_entry(opened)], seed=0, batch_size=BATCH)
    n_frames = opened.index.counts()["train"]["frames"]
    sampler = MixtureSampler(order)

    def pixels(sample: Sample) -> np.ndarray:
        return lanczos(decode_jpeg(sample.images["primary"][-1]), SIZE, SIZE)

    dataset = SampleDataset({opened.dataset: opened}, pixels)
    loader = iter(DataLoader(dataset, batch_sampler=sampler, num_workers=0, collate_fn=np.stack))
    return lambda: islice(loader, -(-n_frames // BATCH))


def resident_mb() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(folder: str, passes: str, pictures: str, kind: str) -> None:
    """First all pictures once, into a file; then answer each line of standard input with one epoch."""
    batches = {"rlds": rlds, "shards": shards}[kind](folder)
    with Path(pictures).open("wb") as file:
        file.writelines(images.tobytes() for images in batches())
    print("ready", flush=True)
    for _ in sys.stdin:
        cpu, wall, n_frames = time.process_time(), time.perf_counter(), 0
        for _ in range(int(passes)):
            n_frames += sum(len(images) for images in batches())
        print(json.dumps([n_frames, time.process_time() - cpu, time.perf_counter() - wall, resident_mb()]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
