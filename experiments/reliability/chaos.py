"""SIGKILL at random times in six kinds of work, the same command again until it ends: the same bits or records?

    python experiments/reliability/chaos.py [--kills 20] [--only training,conversion] [--seed 0]     # writes chaos.csv

Each kind is done once unbroken. Then it is begun, killed after a random share of the time which that took, begun again
by the same words, and so on; when it ends it is compared, and begun anew in another folder until there were kills
enough. A kill has been survived when its work then ended with status 0 and the unbroken one's results. Work runs in
forks of this process, alternately killed alone and together with its own children.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SMALL = (
    "experiment=lora_r32",
    "strategy.rank=4",
    "strategy.dropout=0.1",
    "batch_size=2",
    "trainer.limit_val_batches=1",
)
SMALL += ("trainer.enable_progress_bar=false", "logger=none", "paths.data={data}")
POLICY = ("ckpt=tiny", "suite=tabletop_target", "suite.dataset=tabletop_d0")
TIMES = ("wall_s", "robot_s", "seconds", "time/", "memory/", "per_s")  # of records: what differs from run to run


@dataclass(frozen=True)
class Work:
    """A command, and the files of its folder that must come out the same."""

    name: str
    verb: str
    words: tuple[str, ...]
    results: tuple[str, ...]


ALL = {
    work.name: work
    for work in (
        Work(
            "training",
            "train",
            (*SMALL, "num_workers=1", "steps=60", "validate_every=5", "ckpt_path=auto", "hydra.run.dir={out}"),
            ("last.ckpt",),
        ),
        Work(
            "conversion",
            "shards",
            ("dataset=bridge_orig", "source={sample}", "out={out}", "max_frames_per_shard=40", "workers=2"),
            ("**/*",),
        ),
        Work(
            "evaluation",
            "evaluate",
            (*POLICY, "episodes=20", "slots=2", "workers=2", "out={out}"),
            ("episodes.jsonl",),
        ),
        Work(
            "sweep",
            "train",
            ("-m", "seed=0,1", *SMALL, "steps=20", "validate_every=5", "hydra.sweep.dir={out}"),
            ("*/last.ckpt",),
        ),
        Work(
            "collection",
            "collect",
            (*POLICY, "starts=4", "rollouts_per_start=2", "slots=2", "out={out}"),
            ("episodes_*.jsonl",),
        ),
        Work(
            "selection",
            "select",
            (
                *("pool={pool}", "dataset=tabletop_target", "acquisition=bald", "first=3", "batch=2", "rounds=2"),
                *("passes=2", "out={out}", "train.steps=6", "train.validate_every=3"),
                *(f"train.{word}" for word in SMALL if not word.startswith("paths.")),
            ),
            ("rounds.jsonl", "round_*/last.ckpt"),
        ),
    )
}


@dataclass
class Outcome:
    """A line of the table. rounds: how often the work was done from its beginning to its end."""

    work: str
    kills: int
    survived: int
    rounds: int
    unbroken_s: float
    seed: int
    differed: str


@dataclass(frozen=True)
class Place:
    """Where it happens: `folder` holds what is made, the log of all commands among it."""

    folder: Path

    @property
    def names(self) -> dict[str, str]:
        from vlakit.data.source import SAMPLE

        return {"data": str(self.folder / "data"), "sample": str(SAMPLE), "pool": str(self.folder / "pool")}

    def begin(self, work: Work, out: Path, before: Callable[[], object] = int) -> ForkProcess:
        """The work in a process of its own; before: called in it first."""
        words = [word.format(out=out, **self.names) for word in work.words]
        process = get_context("fork").Process(target=self._run, args=(work.verb, words, before))
        process.start()
        return process

    def _run(self, verb: str, words: list[str], before: Callable[[], object]) -> None:
        from vlakit.cli.app import run_verb
        from vlakit.cli.errors import readable_errors

        os.setsid()
        log = os.open(self.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        before()
        with readable_errors():
            run_verb(verb, words)


def main() -> None:
    """Write the table; exit status 1 where a kill was not survived."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--kills", type=int, default=20)
    asked.add_argument("--only", default=",".join(ALL))
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--out", type=Path, default=HERE / "chaos.csv")
    words = asked.parse_args()
    chosen = [ALL[name] for name in words.only.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        place = prepared(Path(folder), chosen)
        for work in chosen:
            outcome = ordeal(work, words.kills, words.seed, place)
            print(f"{work.name}: {outcome.survived} of {outcome.kills} survived {outcome.differed}", flush=True)
            write(words.out, outcome)
            if outcome.differed:
                print((place.folder / "log.txt").read_text()[-3000:], file=sys.stderr)
    with words.out.open(encoding="utf-8", newline="") as lines:
        sys.exit(any(row["kills"] != row["survived"] for row in csv.DictReader(lines) if row["work"] in words.only))


def prepared(folder: Path, chosen: list[Work]) -> Place:
    """The folder with the demonstrations that a selection chooses from; what draws is tried once, for all forks."""
    import lightning  # noqa: F401  forks need not import it again

    from vlakit.cli import train  # noqa: F401
    from vlakit.evaluation.renderer import choose_backend

    os.environ |= {"VLAKIT_RUNS": str(folder / "runs"), "VLAKIT_DATA": str(folder / "data"), "HYDRA_FULL_ERROR": "1"}
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/runs/mlflow.db"
    place = Place(folder)
    if {work.name for work in chosen} - {"training", "conversion", "sweep"}:
        choose_backend()
    if any(work.name == "selection" for work in chosen):
        pool = Work("pool", "demonstrate", ("suite=tabletop_target", "episodes=2", "out={pool}"), ())
        finished(place.begin(pool, folder / "pool"), 600, place)
    return place


def ordeal(work: Work, kills: int, seed: int, place: Place) -> Outcome:
    """The work unbroken, then with so many kills."""
    draw, home = random.Random(f"{work.name} {seed}"), place.folder / work.name
    began = time.monotonic()
    finished(place.begin(work, home / "unbroken"), 3600, place)
    takes = time.monotonic() - began
    expected = dict(prints(home / "unbroken", work))
    outcome = Outcome(work.name, 0, 0, 0, round(takes, 1), seed, "")
    while outcome.kills < kills:
        out = home / f"broken_{outcome.rounds}"
        n, code = broken(work, out, kills - outcome.kills, takes, (draw, place))
        found = dict(prints(out, work))
        other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        outcome.kills, outcome.rounds = outcome.kills + n, outcome.rounds + 1
        outcome.survived += 0 if code or other else n
        outcome.differed = outcome.differed or (f"status {code}" if code else " ".join(other[:3]))
    return outcome


def broken(work: Work, out: Path, most: int, takes: float, by: tuple[random.Random, Place]) -> tuple[int, int | None]:
    """(kills, status) of one time from beginning to end with at most so many kills."""
    draw, place = by
    n = 0
    while True:
        process = place.begin(work, out)
        process.join(draw.uniform(0, takes) if n < most else 10 * takes + 120)
        if not process.is_alive():
            return n, process.exitcode
        kill(process, alone=n % 2 == 0)
        if n == most:
            return n, None  # it hung
        n += 1


def kill(process: ForkProcess, *, alone: bool) -> None:
    """Alone, or with all that it started, once it leads a group of its own."""
    pid = process.pid or 0
    leads = os.getpgid(pid) == pid
    os.kill(pid, signal.SIGKILL) if alone or not leads else os.killpg(pid, signal.SIGKILL)
    process.join()


def finished(process: ForkProcess, seconds: float, place: Place) -> None:
    """Wait; what fails without a kill ends the whole."""
    process.join(seconds)
    if process.exitcode != 0:
        sys.exit(f"it fails without any kill:\n{(place.folder / 'log.txt').read_text()[-3000:]}")


def prints(folder: Path, work: Work) -> Iterator[tuple[str, str]]:
    """Name and hash of each result: bytes, the records of .jsonl without times, the state of a training's .ckpt."""
    for file in sorted({file for pattern in work.results for file in folder.glob(pattern) if file.is_file()}):
        content = (
            _state(file) if file.suffix == ".ckpt" else _records(file) if file.suffix == ".jsonl" else file.read_bytes()
        )
        yield str(file.relative_to(folder)), hashlib.sha256(content).hexdigest()


def _records(file: Path) -> bytes:
    lines = [json.dumps(_timeless(json.loads(line)), sort_keys=True) for line in file.read_text().splitlines()]
    return "\n".join(sorted(lines)).encode()


def _timeless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _timeless(value) for key, value in tree.items() if not any(word in key for word in TIMES)}
    return [_timeless(value) for value in tree] if isinstance(tree, list) else tree


def _state(file: Path) -> bytes:
    import torch
    from torch.utils._pytree import tree_flatten_with_path

    content = torch.load(file, weights_only=True)
    parts = [
        content[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "random_states", "global_step")
    ]
    leaves = tree_flatten_with_path(parts)[0]
    told = ((path, leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf) for path, leaf in leaves)
    return b"".join(f"{path} {value!r}\n".encode() for path, value in told)


def write(file: Path, outcome: Outcome) -> None:
    """Put this line in the place of the one before of the same work, in the order of ALL."""
    put_row(file, asdict(outcome), list(ALL))


def put_row(file: Path, row: dict[str, Any], order: Sequence[str] = ()) -> None:
    """Put a row in the place of the one with the same first cell, else behind the others; `order`: of first cells."""
    key, rows = next(iter(row)), dict[str, dict[str, Any]]()
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as lines:
            rows = {one[key]: one for one in csv.DictReader(lines)}
    rows[row[key]] = row
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in (order or rows) if name in rows)


if __name__ == "__main__":
    main()
