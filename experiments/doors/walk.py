"""docs/data.md walked as a new user would: a raw folder, a first spec, decisions, shards, a training, a success rate.

The same demonstrations of the tabletop come as RLDS, as LeRobot (AV1) and as robomimic's HDF5, whose gripper is 1 =
closed, -1 = open. Before anything is trained, the rows of their shards are compared with those of the RLDS.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import yaml
from scipy.stats import t

from vlakit.data.demonstration import Demonstration, demonstrations
from vlakit.data.specs.spec import load_spec
from vlakit.processing.images import decode_jpeg

ROOT = Path(__file__).parents[2]
SUITE = "tabletop_target"
DECIDED: dict[str, dict[str, Any]] = {  # what the draft cannot know, as a person who knows the robot writes it
    "lerobot": {"frame": "base", "gripper": "commanded, 1 = open"},
    "hdf5": {"frame": "base", "gripper": "commanded, 1 = open", "control_hz": 5},
}
COLUMNS = ("route", "seed", "episodes", "success", "low", "high", "table_low", "table_high", "one_low", "one_high")
ROWS = ("shards", "rows_equal", "pictures_dB", "block_error")
BLOCK_ERROR = 0.05  # of a picture's 8 x 8 average, in [0, 1]; AV1 as LeRobot sets it (crf 30) takes .035 at 64 px


class Walk:
    """One folder in which the commands of docs/data.md are given, all with the same seed."""

    def __init__(self, out: Path, seed: int, episodes: int) -> None:
        self.out, self.seed, self.episodes = out.absolute(), seed, episodes
        self.out.mkdir(parents=True, exist_ok=True)

    def vlakit(self, *words: str) -> str:
        """What one command prints; where it fails, so does the walk."""
        print("$ vlakit", *words, flush=True)
        places = {"VLAKIT_DATA": str(self.out / "data"), "VLAKIT_RUNS": str(self.out / "runs")}
        command = [sys.executable, "-m", "vlakit", *words]
        own = {**os.environ, **places}
        done = subprocess.run(command, check=False, cwd=self.out, env=own, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + f"exit {done.returncode}")
        return done.stdout

    def reference(self) -> None:
        """Demonstrations, and the shards that they become without any other format."""
        self.vlakit("demonstrate", f"suite={SUITE}", f"episodes={self.episodes}", f"seed={self.seed}", "out=rlds")
        self.vlakit("shards", f"dataset={SUITE}", "source=rlds", f"out=data/{SUITE}")

    def raw(self, route: str) -> Path:
        """The folder that somebody brings."""
        folder = self.out / "raw" / route
        if folder.exists():
            return folder
        if route == "lerobot":
            self.vlakit("export", "layout=lerobot", "source=rlds", f"dataset={SUITE}", f"out={folder}")
        else:
            folder.mkdir(parents=True)
            write_hdf5(demonstrations(self.out / "rlds", load_spec(SUITE), []), folder / "demo.hdf5")
        return folder

    def shards(self, route: str) -> str:
        """Steps 1 to 3 of docs/data.md; returns the name of the dataset."""
        name, raw = f"tabletop_{route}", self.raw(route)
        spec = self.out / f"{name}.yaml"
        if not spec.exists():
            print(self.vlakit("data", "init", str(raw), f"out={spec}"))
            decide(spec, DECIDED[route])
        self.vlakit("shards", f"dataset={spec.name}", f"source={raw}", f"out=data/{name}")
        self.vlakit("shards", f"verify=data/{name}")
        self.vlakit("data", "show", f"data/{name}", f"out={name}.html")
        return name

    def success(self, name: str) -> dict[str, Any]:
        """Steps 4 and 5; the report of the evaluation. The rates, pictures and split are those of Table 1's runs."""
        source = f"source={self.out / 'raw' / name.removeprefix('tabletop_')}"
        own = (f"dataset={name}.yaml", source, "data.augment=shift", "data.val_fraction=0.05", "evaluate.suite=null")
        run = self.out / "runs" / name
        if not (run / "last.ckpt").exists():
            self.vlakit("train", "experiment=full", "scale=table", f"seed={self.seed}", *own, f"hydra.run.dir={run}")
        words = (f"ckpt={run}", f"suite={SUITE}", f"suite.dataset={name}", "episodes=500", "format=json")
        return json.loads(self.vlakit("evaluate", *words))


def decide(spec: Path, said: dict[str, Any]) -> None:
    """Correct a draft as a person does, and take its words off the list."""
    draft = yaml.safe_load(spec.read_text())
    print(f"decided in {spec.name}: {', '.join(draft['undecided'])}; drafted\n{yaml.safe_dump(draft)}")
    spec.write_text(yaml.safe_dump({**draft, **said, "undecided": []}, sort_keys=False))


def write_hdf5(episodes: Iterator[Demonstration], file: Path) -> None:
    """Demonstrations as robomimic has them: raw pictures, a group each, the gripper's command from -1 to 1 = closed."""
    import h5py

    with h5py.File(file, "w") as root:
        data = root.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "tabletop", "type": 1, "env_kwargs": {}})
        for number, episode in enumerate(episodes):
            group = data.create_group(f"demo_{number}")
            group.attrs["num_samples"] = len(episode)
            group.attrs["language_instruction"] = episode.instructions[0]
            action = episode.action.copy()
            action[:, -1] = 1 - 2 * action[:, -1]
            group["actions"] = action
            group["obs/state"] = episode.state
            group["obs/agentview_image"] = np.stack([decode_jpeg(data) for data in episode.images["primary"]])
        data.attrs["total"] = sum(group.attrs["num_samples"] for group in data.values())


def compare(reference: Path, shards: Path) -> tuple[str, int, str, str]:
    """A line of rows.csv: name, rows that are equal, how far pictures are off. SystemExit where a row differs."""
    waiting: dict[tuple[bytes, ...], list[Demonstration]] = defaultdict(list)
    for episode in demonstrations(reference, None, []):
        waiting[_row(episode)].append(episode)
    n_frames, worst, square = 0, 0.0, 0.0
    for episode in demonstrations(shards, None, []):
        same = waiting[_row(episode)]
        if not same:
            raise SystemExit(f"{episode.where}: actions, proprio or instruction of no episode of {reference}")
        for mine, theirs in zip(episode.images["primary"], same.pop().images["primary"], strict=True):
            block, noise = _off(decode_jpeg(mine), decode_jpeg(theirs), episode.where)
            n_frames, worst, square = n_frames + 1, max(worst, block), square + noise
    left = sum(map(len, waiting.values()))
    if left or worst > BLOCK_ERROR:
        raise SystemExit(f"{shards}: {left} episodes are missing; a picture is off by {worst:.4f} of {BLOCK_ERROR}")
    noise = f"{10 * np.log10(n_frames / square):.1f}" if square else "equal"
    return shards.name, n_frames, noise, f"{worst:.3f}"


def _off(mine: np.ndarray, theirs: np.ndarray, where: str) -> tuple[float, float]:
    """The largest difference of their 8 x 8 averages, and the mean square of that of their pixels, both of [0, 1]."""
    if mine.shape != theirs.shape:
        raise SystemExit(f"{where}: pictures of another size, {mine.shape} beside {theirs.shape}")
    off = (mine.astype(float) - theirs) / 255
    height, width = off.shape[0] // 8, off.shape[1] // 8
    blocks = off[: height * 8, : width * 8].reshape(8, height, 8, width, 3).mean(axis=(1, 3, 4))
    return float(abs(blocks).max()), float((off**2).mean())


def _row(episode: Demonstration) -> tuple[bytes, ...]:
    return episode.action.tobytes(), episode.state.tobytes(), "\n".join(episode.instructions).encode()


def table_intervals() -> tuple[float, float, float, float]:
    """Full fine-tuning in Table 1's miniature: 95 % intervals of its mean, and of the success of one more training."""
    outcomes: dict[str, list[int]] = defaultdict(list)
    with (ROOT / "experiments/table1_finetuning/runs/full.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            outcomes[row["seed"]].append(int(row["success"]))
    rates = [mean(one) for one in outcomes.values()]
    centre, spread, n = mean(rates), stdev(rates) * float(t.ppf(0.975, len(rates) - 1)), len(rates)
    mine, more = spread * n**-0.5, spread * (1 + 1 / n) ** 0.5
    return centre - mine, centre + mine, centre - more, centre + more


def write(file: Path, lines: Sequence[Sequence[Any]]) -> None:
    """A table, into a file and on the screen."""
    with file.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(lines)
    for line in lines:
        print(*line, sep=", ")


def main() -> None:
    """Walk, write the tables, fail where a success rate lies where no further training of Table 1 would."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--routes", nargs="+", default=["lerobot", "hdf5"], choices=list(DECIDED))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=48, help="demonstrations of each of the five tasks")
    parser.add_argument("--tables", type=Path, default=Path(__file__).parent, help="where rows.csv and results.csv go")
    parser.add_argument("--until", default="success", choices=["shards", "success"])
    chosen = parser.parse_args()
    walk = Walk(chosen.out, chosen.seed, chosen.episodes)
    walk.reference()
    names = [walk.shards(route) for route in chosen.routes]
    data = walk.out / "data"
    write(chosen.tables / "rows.csv", [ROWS, *(compare(data / SUITE, data / name) for name in names)])
    if chosen.until == "shards":
        return
    intervals, rows = table_intervals(), []
    for name in names:
        report = walk.success(name)
        numbers = (report["success"], report["low"], report["high"], *intervals)
        rows.append((name, chosen.seed, report["episodes"], *(f"{number:.3f}" for number in numbers)))
    write(chosen.tables / "results.csv", [COLUMNS, *rows])
    raise SystemExit(any(not intervals[2] <= float(row[3]) <= intervals[3] for row in rows))


if __name__ == "__main__":
    main()
