"""Frames a second through the training stream: random reads from shards, JPEG decoding in the workers, batches out.

The Bridge sample repeated 40 times at 64 px. --encode package.module:function measures another encoding of a Sample.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader

from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import ShardFolder
from vlakit.data.specs.spec import load_spec
from vlakit.data.stream.loading import MixtureSampler, SampleDataset
from vlakit.data.stream.mixture import MixtureOrder, mixture_entry
from vlakit.schema import Sample

GOAL = 2000
COLUMNS = ("encode", "workers", "batch_size", "cores", "frames", "seconds", "frames_per_second")
SAMPLE = Path(__file__).parents[3] / "src/vlakit/assets/bridge_dataset/1.0.0"


def decode_and_scale(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (3, 64, 64) float32 in [-1, 1] and actions (H, A): the least that any model needs."""
    image = simplejpeg.decode_jpeg(sample.images["primary"][-1], fastdct=True)
    pixels = torch.from_numpy(image).permute(2, 0, 1).to(torch.float32).div_(127.5).sub_(1.0)
    return pixels, torch.from_numpy(np.ascontiguousarray(sample.actions))


def repeated_sample(folder: Path, copies: int) -> Path:
    """RLDS folder that holds the sample's train file `copies` times."""
    source = folder / "bridge_repeated/1.0.0"
    source.mkdir(parents=True)
    (source / "features.json").write_bytes((SAMPLE / "features.json").read_bytes())
    (train,) = SAMPLE.glob("*-train.tfrecord-*")
    for number in range(copies):
        (source / f"bridge-train.tfrecord-{number:05d}-of-{copies:05d}").symlink_to(train)
    return source


def load_encode(name: str) -> Callable[[Sample], Any]:
    """Function of `package.module:function`; the built-in one for 'decode'."""
    if name == "decode":
        return decode_and_scale
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def measure(folders: dict[str, ShardFolder], encode: Callable[[Sample], Any], chosen: argparse.Namespace) -> float:
    """Seconds for chosen.batches batches, worker start and first batches not counted."""
    entries = [mixture_entry(folder) for folder in folders.values()]
    sampler = MixtureSampler(MixtureOrder(entries, seed=0, batch_size=chosen.batch_size))
    dataset: SampleDataset[Any] = SampleDataset(folders, encode)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=chosen.workers)
    batches = iter(loader)
    list(islice(batches, 10))
    start = time.perf_counter()
    for number, _ in enumerate(islice(batches, chosen.batches)):
        sampler.state_after(number)
    return time.perf_counter() - start


def main() -> None:
    """Measure once, append a row to results.csv, fail below the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encode", default="decode")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--copies", type=int, default=40)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "shards"
        convert(repeated_sample(Path(temporary), chosen.copies), out, load_spec("bridge_orig"), image_size=64)
        seconds = measure({"bridge_orig": ShardFolder.open(out)}, load_encode(chosen.encode), chosen)
    frames = chosen.batch_size * chosen.batches
    row = (
        chosen.encode,
        chosen.workers,
        chosen.batch_size,
        os.cpu_count(),
        frames,
        f"{seconds:.2f}",
        f"{frames / seconds:.0f}",
    )
    results = Path(__file__).with_name("results.csv")
    with results.open("a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([row] if stream.tell() else [COLUMNS, row])
    print(dict(zip(COLUMNS, row, strict=True)), f"goal {GOAL}")
    raise SystemExit(frames / seconds < GOAL)


if __name__ == "__main__":
    main()
