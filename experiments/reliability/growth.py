"""Open files and memory of a training, an evaluation and a server that work side by side for an hour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import psutil
from chaos import POLICY, SMALL, Work
from trying import TRAINING, Here, Row

EVERY_S, FLAT = 2.0, 0.02
PORT = 18_761
ENDLESS = {
    "training": Work("t", "train", (*SMALL, *TRAINING, "steps=100000000", "scheduler@strategy.scheduler=constant"), ()),
    "evaluation": Work("e", "evaluate", (*POLICY, "episodes=50000", "slots=4", "gate=false", "out={out}"), ()),
    "server": Work("s", "serve", ("ckpt=tiny", "dataset=tabletop_d0", f"port={PORT}", "rows=4"), ()),
    "client": Work(
        "c",
        "evaluate",
        (
            *("suite=tabletop_target", "policy=remote", f"url=ws://127.0.0.1:{PORT}", "episodes=50000", "slots=4"),
            *("gate=false", "out={out}"),
        ),
        (),
    ),
}


def grown(here: Here, minutes: float) -> Iterator[Row]:
    """A row a process: the median of the last quarter of the time against that of the second."""
    processes, seen = {}, {name: list[tuple[int, int]]() for name in ENDLESS}
    for name, work in ENDLESS.items():
        processes[name] = here.begin(work, here.folder / "endless" / name)
        if name == "server":
            time.sleep(30)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        time.sleep(EVERY_S)
        for name, process in processes.items():
            if process.is_alive():
                of = psutil.Process(process.pid)
                seen[name].append((of.num_fds(), of.memory_info().rss))
    for name, process in processes.items():
        row = Row(f"{minutes:g} minutes of training, evaluation and serving side by side: {name}")
        alive = process.is_alive()
        process.kill()
        quarter = len(seen[name]) // 4
        early, late = seen[name][quarter : 2 * quarter], seen[name][3 * quarter :]
        handles, memory = ([median(one[i] for one in part) for part in (early, late)] for i in (0, 1))
        flat = all(part[1] <= part[0] * (1 + FLAT) for part in (handles, memory))
        told = f"files {handles[0]:g} then {handles[1]:g}, memory {memory[0] / 1e6:.0f} then {memory[1] / 1e6:.0f} MB"
        row.add(alive and flat, told if alive else "it ended by itself")
        yield row
