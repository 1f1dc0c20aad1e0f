"""Frames a second through the training stream: shards in a bucket whose every answer is 20 ms late, beside the disk's.

The Bridge sample repeated, at 224 px, as S3 (moto, in a process of its own) and as a folder; one epoch with nothing in
the cache, then a second one. Both sides read the same batches in the same process; the side that begins changes.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import simplejpeg
import torch
from torch.utils.data import DataLoader

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "experiments/speed")]

from buckets import KEYS, proxied  # noqa: E402
from loader.bench import repeated_sample  # noqa: E402

from vlakit.data.shards.cache import CacheOptions  # noqa: E402
from vlakit.data.shards.convert import convert  # noqa: E402
from vlakit.data.shards.reader import ShardFolder  # noqa: E402
from vlakit.data.specs.spec import load_spec  # noqa: E402
from vlakit.data.stream.loading import MixtureSampler, SampleDataset  # noqa: E402
from vlakit.data.stream.mixture import MixtureOrder, mixture_entry  # noqa: E402
from vlakit.schema import Sample  # noqa: E402

NAME, URL = "bridge_orig", "s3://bucket/bridge_orig"
COLUMNS = (
    *("shards", "epoch", "workers", "frames", "MB", "requests"),
    *("first_batch_s", "cpu_s", "seconds", "frames_s", "ratio"),  # cpu_s: of this process, without the server
)

# (side, epoch) -> of each repetition: seconds to the first batch, of the epoch, of them on a core, requests
Found: TypeAlias = dict[tuple[str, int], list[tuple[float, float, float, int]]]


def decode(sample: Sample) -> torch.Tensor:
    """Pixels (224, 224, 3) uint8: the least that any model needs, so that reading weighs most."""
    return torch.from_numpy(simplejpeg.decode_jpeg(sample.images["primary"][-1], fastdct=True))


def serve(folder: Path, latency: float, pipe: Connection) -> None:
    """Put the folder's files into a bucket; send its address, then for each message the requests since the last."""
    import fsspec
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel("ERROR")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    direct = "http://{}:{}".format(*server.get_host_and_port())
    system = fsspec.filesystem("s3", endpoint_url=direct, key="someone", secret="secret")
    system.mkdir("bucket")
    for file in folder.iterdir():
        if file.is_file():
            system.put_file(str(file), f"{URL}/{file.name}")
    with proxied(server.get_host_and_port()) as (proxy, address):
        proxy.latency = latency
        pipe.send(address)
        while pipe.recv() != "end":
            pipe.send(len(proxy.asked))
            proxy.calm()
    server.stop()


@contextmanager
def bucket(folder: Path, latency: float) -> Iterator[Connection]:
    """The other end of `serve`, whose address AWS_ENDPOINT_URL holds from here on."""
    ours, theirs = get_context("spawn").Pipe()
    os.environ.update(KEYS, AWS_EC2_METADATA_DISABLED="true")
    process = get_context("spawn").Process(target=serve, args=(folder, latency, theirs))
    process.start()
    os.environ["AWS_ENDPOINT_URL"] = ours.recv()
    yield ours
    ours.send("end")
    process.join()


def epochs(place: str | Path, cache: Path, workers: int, batch_size: int) -> Iterator[tuple[float, float, float]]:
    """Seconds to the first batch, of the whole epoch, and of them on a core; opening belongs to the first epoch."""
    start, cpu = time.perf_counter(), time.process_time()
    folder = ShardFolder.open(place, remote=CacheOptions(str(cache)))
    sampler = MixtureSampler(MixtureOrder([mixture_entry(folder)], seed=0, batch_size=batch_size))
    dataset: SampleDataset[Any] = SampleDataset({NAME: folder}, decode)
    batches = iter(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))
    n_batches = folder.index.counts()["train"]["frames"] // batch_size
    while True:
        next(batches)
        first = time.perf_counter() - start
        list(islice(batches, n_batches - 1))
        yield first, time.perf_counter() - start, time.process_time() - cpu
        start, cpu = time.perf_counter(), time.process_time()


def measure(local: Path, pipe: Connection, chosen: argparse.Namespace) -> Found:
    """Both sides, as often as asked."""
    found: Found = {}
    for number in range(chosen.repeats):
        for side in ("disk", "bucket")[:: 1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory() as cache:
                place = local if side == "disk" else URL
                timed = epochs(place, Path(cache), chosen.workers, chosen.batch_size)
                for epoch in (1, 2):
                    seconds = next(timed)
                    pipe.send("count")
                    found.setdefault((side, epoch), []).append((*seconds, pipe.recv()))
    return found


def rows(found: Found, n: int, size: int, workers: int) -> list[tuple[Any, ...]]:
    """Lines of the table, of the medians; ratio: frames a second, to those of the disk in the same epoch."""
    medians = {key: [median(values) for values in zip(*one, strict=True)] for key, one in found.items()}
    table = []
    for side, epoch in sorted(found, key=lambda one: (one[1], one[0] == "bucket")):
        first, took, cpu, requests = medians[side, epoch]
        ratio = medians["disk", epoch][1] / took
        timing = (f"{first:.2f}", f"{cpu:.2f}", f"{took:.2f}", f"{n / took:.0f}", f"{ratio:.2f}")
        table.append((side, epoch, workers, n, f"{size / 1e6:.0f}", f"{requests:.0f}", *timing))
    return table


def main() -> None:
    """Measure once, write results.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before each answer")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) / "shards"
        source = repeated_sample(Path(temporary), chosen.copies)
        index = convert(source, local, load_spec(NAME), image_size=224, max_frames_per_shard=1000)
        n_frames = index.counts()["train"]["frames"] // chosen.batch_size * chosen.batch_size
        with bucket(local, chosen.latency) as pipe:
            found = measure(local, pipe, chosen)
    size = sum(shard.filesize for shard in index.shards if shard.split == "train")
    table = rows(found, n_frames, size, chosen.workers)
    with Path(__file__).with_name("results.csv").open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *table])
    for line in [COLUMNS, *table]:
        print(", ".join(map(str, line)))


if __name__ == "__main__":
    main()
