"""Seconds of `vlakit compare` and `vlakit table` as a user waits for them, and what a sweep adds to its jobs.

compare: ten evaluations of 2,000 episodes; table: a sweep of table 1, 18 runs of 200 episodes, in an MLflow store of a
thousand. Each is a process of its own, --repeats times, the least is written. The sweep runs train.py -m once;
its overhead is the process less the time inside its jobs. Processor seconds count everything that the process did.
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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

COLUMNS = ("what", "size", "wall_s", "cpu_s", "limit", "load", "command")
ROOT = Path(__file__).parents[3]
VLAKIT = [sys.executable, "-c", "from vlakit.cli.app import main; main()"]
SWEEP = """
import json, os, sys, time
from vlakit.cli import train as module
inner, spent, (out, *words) = module.train, [0.0, 0.0], sys.argv[1:]  # main() rewrites sys.argv
def timed(*args, **options):
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        return inner(*args, **options)
    finally:
        spent[0] += time.perf_counter() - wall
        spent[1] += time.process_time() - cpu
module.train = timed
module.main(["-m", *words])
open(out, "w").write(json.dumps(spent))
"""
STRATEGIES = ("full", "last_layer", "frozen_vision", "sandwich", "lora_r32", "lora_r64")


def seconds(command: Sequence[str]) -> tuple[float, float]:
    """Wall and processor seconds of one process, its children among them."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[2:4]) - sum(before[2:4])


def evaluation(folder: Path, n: int, rate: float, suite: str, seed: int) -> Path:
    """A finished evaluation of random successes, ten tasks taking turns, 100 actions an episode."""
    from vlakit.evaluation.records import EPISODES, HEADER, EpisodeRecord

    folder.mkdir(parents=True)
    versions = {"mujoco": "3.3.0", "renderer": "egl", "vlakit": "0.1"}
    (folder / HEADER).write_text(json.dumps({"settings": {"suite": suite, "states": "1f"}, "summary": {}}))
    with (folder / EPISODES).open("w") as stream:
        for i, won in enumerate(np.random.default_rng(seed).random(n) < rate):
            task, actions = f"task{i % 10}", [[0.1234] * 7] * 100
            record = EpisodeRecord(
                i, suite, task, f"do {task}", f"{i:04d}", i, bool(won), float(won), 100, actions, versions=versions
            )
            stream.write(json.dumps(asdict(record)) + "\n")
    return folder


def thousand_runs(place: Path) -> str:
    """A store as 999 trainings and one sweep leave it: 100 parameters, 20 metrics and 5 tags a run."""
    from mlflow.entities import Metric, Param, RunTag

    from vlakit.tracking.mlflow import EXPERIMENT, PARENT, client, end_run, experiment_id, start_parent

    uri = f"sqlite:///{place / 'mlflow.db'}"
    parent = start_parent(uri, "sweep hparams_search=table1 seed=0,1,2", EXPERIMENT, str(place))
    store, home = client(uri), experiment_id(client(uri), EXPERIMENT)
    metrics = [Metric(f"train/m{i}", 1.0, 1, 1) for i in range(20)]
    for number in range(999):
        said = {"name": STRATEGIES[number % 6], "model.weights": "tiny", "seed": str(number // 6), "steps": "9"}
        params = [Param(k, v) for k, v in ({f"key{i}": "x" for i in range(96)} | said).items()]
        tags = {f"shards.{i}": "x" for i in range(4)} | {"vlakit.output": str(place / str(number))}
        if number < 18:
            evaluation(place / str(number) / "evaluation" / "tabletop_target", 200, 0.5, "tabletop_target", number)
            tags[PARENT] = parent
        run_id = store.create_run(home).info.run_id
        store.log_batch(run_id, metrics, params, [RunTag(k, v) for k, v in tags.items()])
        store.set_terminated(run_id)
    end_run(uri, parent, "FINISHED")
    return uri


def row(what: str, size: str, spent: tuple[float, float], limit: str, command: str) -> dict[str, str]:
    """One line of results.csv."""
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()}"
    return dict(zip(COLUMNS, (what, size, f"{spent[0]:.2f}", f"{spent[1]:.2f}", limit, load, command), strict=True))


def best(command: Sequence[str], repeats: int) -> tuple[float, float]:
    """Least wall and least processor seconds."""
    walls, cpus = zip(*(seconds(command) for _ in range(repeats)), strict=True)
    return min(walls), min(cpus)


def measure_compare(place: Path, repeats: int) -> list[dict[str, str]]:
    """Ten runs of 2,000 episodes."""
    runs = [str(evaluation(place / f"r{i}", 2000, 0.5, "tabletop", i)) for i in range(10)]
    spent = best([*VLAKIT, "compare", f"runs=[{','.join(runs)}]"], repeats)
    return [row("compare", "10 runs x 2,000 episodes", spent, "2 s", "vlakit compare runs=[...]")]


def measure_table(place: Path, repeats: int) -> list[dict[str, str]]:
    """Table 1 from a thousand runs."""
    spent = best([*VLAKIT, "table", "name=table1", f"tracking_uri={thousand_runs(place)}"], repeats)
    return [row("table", "1,000 runs", spent, "5 s", "vlakit table name=table1")]


def measure_sweep(place: Path, words: Sequence[str]) -> list[dict[str, str]]:
    """Jobs, and what the sweep spent around them."""
    said = place / "spent.json"
    own = [*words, f"paths.runs={place / 'runs'}", "trainer.enable_progress_bar=false"]
    total = seconds([sys.executable, "-c", SWEEP, str(said), *own])
    jobs = json.loads(said.read_text())
    around = total[0] - jobs[0], total[1] - jobs[1]
    size, command = (
        f"{100 * around[1] / jobs[1]:.1f} % of the jobs' processor seconds",
        f"train.py -m {' '.join(words)}",
    )
    return [
        row("jobs of a sweep", "inside train()", (jobs[0], jobs[1]), "", command),
        row("sweep around its jobs", size, around, "5 %", command),
    ]


def main() -> None:
    """Measure what is asked, replace those lines of results.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", choices=("compare", "table", "sweep"), nargs="+", default=["compare", "table", "sweep"]
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sweep", nargs="+", default=["experiment=full,lora_r32", "seed=0,1,2"], metavar="WORD")
    asked = parser.parse_args()
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        if "compare" in asked.only:
            rows += measure_compare(place / "compare", asked.repeats)
        if "table" in asked.only:
            (place / "table").mkdir()
            rows += measure_table(place / "table", asked.repeats)
        if "sweep" in asked.only:
            (place / "sweep").mkdir()
            rows += measure_sweep(place / "sweep", asked.sweep)
    file = Path(__file__).with_name("results.csv")
    before = list(csv.DictReader(file.open())) if file.is_file() else []
    new = {line["what"] for line in rows}
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*(line for line in before if line["what"] not in new), *rows])
    for line in rows:
        print(", ".join(line.values()))


if __name__ == "__main__":
    main()
