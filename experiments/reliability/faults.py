"""Faults that are not kills at random times: full disks, stores and servers that go, clocks, two writers, growth.

    python experiments/reliability/faults.py [--only disk_export,store] [--minutes 60]     # writes faults.csv

A line a fault: how often it was tried, how often it was survived, what was seen. To survive is to end with the unbroken
work's bits or records, or with one readable error from which the same command goes on to them. A disk is a tmpfs of a
few kilobytes, which needs root or `unshare -rm`; a read-only place is made by chattr, which needs root.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.context import ForkProcess
from pathlib import Path

from chaos import ALL, POLICY, Work, finished, prepared, put_row
from growth import grown
from store_faults import store_faults
from trying import LIMIT_S, RECORDED, SHORT, TRAINING, Here, Row, fine, in_words, same

HERE = Path(__file__).parent
IMPORTED = (  # once, for all forks
    *("mlflow", "mlflow.store.tracking.sqlalchemy_store", "vlakit.cli.recording", "vlakit.cli.evaluate"),
    *("vlakit.cli.export", "vlakit.cli.serve", "vlakit.serving.server", "vlakit.serving.remote", "vlakit.policy"),
    *("vlakit.strategies.full", "vlakit.strategies.lora", "vlakit.evaluation.suites.tabletop.suite", "transformers"),
)
ROLLOUTS = Work(  # enough of them that some starts are won and lost, which pairs are made of
    "rollouts", "collect", (*POLICY, "starts=10", "rollouts_per_start=4", "slots=8", "out={out}"), ()
)
EXPORT = Work("export", "export", ("ckpt=tiny", "out={out}"), ("**/*",))
DISKS = {
    "training": Work(
        "training", "train", (*RECORDED, *TRAINING, "steps=10", "paths.data={out}/shards"), ("last.ckpt",)
    ),
    "conversion": ALL["conversion"],
    "evaluation": Work("evaluation", "evaluate", (*POLICY, "episodes=5", "videos=1", "out={out}"), ("episodes.jsonl",)),
    "export": EXPORT,
}
WRITERS = (
    SHORT,
    ALL["conversion"],
    ALL["evaluation"],
    ALL["collection"],
    EXPORT,
    Work("demonstrate", "demonstrate", ("suite=tabletop_target", "episodes=2", "out={out}"), ("**/*.tfrecord*",)),
    Work("score", "score", ("ckpt={alone}", "max_frames=20", "out={out}"), ("*.json",)),
    Work("pairs", "pairs", ("rollouts={rollouts}", "out={out}"), ("**/*",)),
    Work("passport", "passport", ("run={evaluated}", "out={out}"), ("passport.json",)),
    Work("table", "table", ("name=table1", "from={runs_of_table}", "save={out}"), ("*.csv",)),
    Work("data", "data", ("init={sample}", "out={out}/spec.yaml"), ("*.yaml",)),
)


@contextmanager
def disk(at: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at this place."""
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def limits(folder: Path, most: int) -> list[int]:
    """Sizes of a disk that is full in the middle of each file of the folder, in the order of their writing."""
    page, sizes, before = 4096, list[int](), 0
    for file in sorted((one for one in folder.rglob("*") if one.is_file()), key=lambda one: one.stat().st_mtime_ns):
        size = -(-file.stat().st_size // page) * page
        sizes.append(max(page, (before + size // 2) // page * page))
        before += size
    sizes = sorted(set(sizes))
    return sizes if len(sizes) <= most else [sizes[round(i * (len(sizes) - 1) / (most - 1))] for i in range(most)]


def full_disk(name: str, here: Here, most: int) -> Row:
    """The work on a disk that is too small by more and more; then there is room, and the same command goes on."""
    work, row, at = DISKS[name], Row(f"disk full: {name}"), here.folder / "disk"
    place = Here(here.folder, here.more | {"store": str(at / "store")})
    whole = here.folder / f"whole_{name}"
    with disk(at, 2**30):
        finished(place.begin(work, at / "out"), LIMIT_S, place)
        subprocess.run(["cp", "-a", str(at / "out"), str(whole)], check=True)
        sizes = limits(at, most)
    for size in sizes:
        with disk(at, size):
            first = in_words(*place.told(work, at / "out"))
            subprocess.run(["mount", "-o", "remount,size=1g", str(at)], check=True)
            again = in_words(*place.told(work, at / "out")) if first != "done" else first
            good = fine(first) and again == "done" and same(work, at / "out", whole)
            row.add(good, first if good else f"at {size} bytes: {first}, then {again}")
    return row


def killed_in_a_checkpoint(here: Here, tries: int) -> Row:
    """SIGKILL while last.ckpt.partial is there; last.ckpt is whole, or absent, and the run ends with the same bits."""
    row, unbroken = Row("SIGKILL in the middle of writing a checkpoint"), here.folder / "alone"
    for n in range(tries):
        out = here.folder / f"torn_{n}"
        process, partial = here.begin(SHORT, out), out / "last.ckpt.partial"
        while process.is_alive() and not (partial.exists() and partial.stat().st_size > 4096 * n):
            time.sleep(0.0005)
        process.kill()
        process.join()
        torn = partial.exists()
        here.ended(process)
        code, said = here.told(SHORT, out)
        good = code == 0 and same(SHORT, out, unbroken)
        row.add(good, ("half a file beside" if torn else "just behind its end") if good else in_words(code, said))
    return row


def gone_server(here: Here, tries: int) -> Row:
    """A server killed while four connections ask it: the client says so once; with a new server it goes on."""
    row = Row("server killed under load")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Work("server", "serve", ("ckpt=tiny", "dataset=tabletop_d0", f"port={port}", "rows=4"), ())
    asking = ("policy=remote", f"url=ws://127.0.0.1:{port}", "episodes=10", "slots=4", "gate=false")
    client = Work("client", "evaluate", ("suite=tabletop_target", *asking, "out={out}"), ("episodes.jsonl",))
    quiet, whole = Here(here.folder / "server", here.more), here.folder / "asked"
    quiet.folder.mkdir()
    for n in range(tries + 1):
        serving, out = answering(quiet, server, port), here.folder / f"asked_{n}" if n else whole
        process = here.begin(client, out)
        while n and process.is_alive() and not (out / "episodes.jsonl").exists():
            time.sleep(0.01)
        if not n:  # the unbroken one
            finished(process, LIMIT_S, here)
            stop(serving)
            continue
        stop(serving)
        first = in_words(*here.ended(process))
        serving = answering(quiet, server, port)
        again = in_words(*here.told(client, out))
        stop(serving)
        good = fine(first) and again == "done" and same(client, out, whole)
        row.add(good, first if good else f"{first}, then {again}")
    return row


def answering(place: Here, server: Work, port: int) -> ForkProcess:
    """A server that has begun to answer."""
    process = place.begin(server, place.folder)
    while process.is_alive():
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    sys.exit((place.folder / "log.txt").read_text())


def stop(process: ForkProcess) -> None:
    """SIGKILL."""
    process.kill()
    process.join()


def back_in_time(after_s: float = 2.0) -> None:
    """From so many seconds on this process believes that it is an hour earlier."""
    real, real_ns, begun = time.time, time.time_ns, time.time()
    time.time = lambda: real() - (3600 if real() > begun + after_s else 0)
    time.time_ns = lambda: real_ns() - (3600 * 10**9 if real() > begun + after_s else 0)


def clock_set_back(work: Work, here: Here) -> Row:
    """The work while the clock is set back, and a training that goes on among files of the future."""
    row, whole, out = Row(f"clock set back an hour: {work.name}"), here.folder / "now", here.folder / "past"
    whole, out = whole / work.name, out / work.name
    finished(here.begin(work, whole), LIMIT_S, here)
    seen = in_words(*here.told(work, out, back_in_time))
    row.add(seen == "done" and same(work, out, whole), seen)
    if work.verb == "train":
        process = here.begin(work, out / "again")
        while process.is_alive() and not (out / "again" / "last.ckpt").exists():
            time.sleep(0.01)
        stop(process)
        here.ended(process)
        for file in (out / "again").rglob("*"):
            os.utime(file, (time.time() + 3600, time.time() + 3600))
        seen = in_words(*here.told(work, out / "again"))
        row.add(seen == "done" and same(work, out / "again", whole), f"{seen} among files of the future")
    return row


def two_writers(work: Work, here: Here, tries: int) -> Row:
    """Two of one command at the same moment: what is there in the end is whole, and each says how it went."""
    row, whole = Row(f"two writers of one place: {work.name}"), here.folder / "single" / work.name
    whole.parent.mkdir(exist_ok=True)
    finished(here.begin(work, whole), LIMIT_S, here)
    for n in range(tries):
        out, other = here.folder / f"double_{n}" / work.name, Here(here.folder / "other", here.more)
        for place in (out.parent, other.folder):
            place.mkdir(exist_ok=True)
        two = [(place, place.begin(work, out)) for place in (here, other)]
        seen = sorted(in_words(*place.ended(process)) for place, process in two)
        good = "done" in seen and all(map(fine, seen)) and same(work, out, whole)
        row.add(good, " and ".join(seen) + ("" if same(work, out, whole) else ", with other files"))
    return row


def everything(words: argparse.Namespace, here: Here) -> dict[str, Callable[[], Iterator[Row]]]:
    """Name of a group of faults -> its rows."""
    n: int = words.tries
    return {
        "checkpoint": lambda: iter([killed_in_a_checkpoint(here, n)]),
        **{f"disk_{name}": lambda name=name: iter([full_disk(name, here, 2 * n)]) for name in DISKS},
        "store": lambda: store_faults(here),
        "server": lambda: iter([gone_server(here, n)]),
        "clock": lambda: (clock_set_back(work, here) for work in (SHORT, ALL["conversion"], ALL["evaluation"])),
        **{f"writers_{work.name}": lambda work=work: iter([two_writers(work, here, n)]) for work in WRITERS},
        "growth": lambda: grown(here, words.minutes),
    }


def main() -> None:
    """Write the table; exit status 1 where a fault was not survived."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument(
        "--only", default="", help="checkpoint, disk_training, ..., store, server, clock, writers_score, ..., growth"
    )
    asked.add_argument("--tries", type=int, default=3)
    asked.add_argument("--minutes", type=float, default=60, help="of training + evaluation + serving")
    asked.add_argument("--out", type=Path, default=HERE / "faults.csv")
    words = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepared(Path(folder), [ALL["evaluation"]])
        for module in IMPORTED:
            import_module(module)
        here = Here(Path(folder), {"runs_of_table": str(HERE.parent / "table1_finetuning" / "runs")})
        groups = everything(words, here)
        chosen = words.only.split(",") if words.only else list(groups)
        here.more.update(beginning(here, chosen))
        rows: list[Row] = []
        for group in chosen:
            for row in groups[group]():
                rows.append(row)
                print(f"{row.fault}: {row.survived} of {row.tried}  {dict(row.seen)}", flush=True)
                write(words.out, row)
    sys.exit(any(row.survived < row.tried for row in rows))


def beginning(here: Here, chosen: list[str]) -> Iterator[tuple[str, str]]:
    """A training, rollouts, an evaluation, where they are what commands are about: name and folder."""
    needed = {
        "alone": {"checkpoint", "writers_score"},
        "rollouts": {"writers_pairs"},
        "evaluated": {"writers_passport"},
    }
    for name, work in {"alone": SHORT, "rollouts": ROLLOUTS, "evaluated": ALL["evaluation"]}.items():
        if needed[name] & {*chosen}:
            finished(here.begin(work, here.folder / name), LIMIT_S, here)
        yield name, str(here.folder / name)


def write(file: Path, row: Row) -> None:
    """Put this line in the place of the one before of the same fault, else behind the others."""
    seen = "; ".join(f"{what} ({count})" for what, count in row.seen.most_common())
    put_row(file, {"fault": row.fault, "tried": row.tried, "survived": row.survived, "seen": seen})


if __name__ == "__main__":
    main()
