"""Table 1 along the axes of generalisation, by what changed in a start, and its test of listening, scored in pairs.

python experiments/table1_finetuning/axes.py FOLDER SWEEP...   (a few minutes a run, two at a time; what is there stays)
python experiments/table1_finetuning/axes.py FOLDER            (the table alone, from the outcomes in FOLDER)

FOLDER, experiments/table1_finetuning, gets two files. axes_outcomes.csv: a row a start, a column a strategy with one
digit a training (1: success), whose seeds the header lists. axes.csv: a row a strategy and variant: success, its 95 %
interval over other trainings and starts (crossed; over starts alone for one training, or where no outcome varies), and
the least and the most of one training. A pair is right where both starts of its scene are; "single" are all its starts.
"""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlakit.errors import InvalidData
from vlakit.evaluation.records import read_episodes
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.axes import pairs_right, variant_of
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.stats.intervals import wilson
from vlakit.stats.seeds import mean_interval

ROBOT, USUAL = "target", "tabletop_target"
SUITES = {  # axis -> suite, and starts a task on file
    "visual": ("tabletop_visual", 120),
    "motion": ("tabletop_motion", 40),
    "physical": ("tabletop_physical", 100),
    "semantic": ("tabletop_semantic", 80),
    "language": ("tabletop_listening", 80),
}
COLUMNS = ("strategy", "axis", "variant", "runs", "starts", "success", "low", "high", "interval", "least", "most")
Digits = NDArray[np.bool_]  # (S, N): trainings by starts


class Key(NamedTuple):
    """Where a start stands in the table."""

    axis: str
    variant: str


class Outcomes(NamedTuple):
    """All starts in order, their successes by strategy, and the seeds of each strategy's trainings."""

    states: list[InitialState]
    successes: dict[str, Digits]
    seeds: dict[str, list[str]]


def evaluate(run: Path) -> None:
    """Every axis from all starts on file; the record of the training in MLflow stays what it is."""
    for suite, per_task in SUITES.values():
        words = ["evaluate", f"ckpt={run}", f"suite={suite}", f"episodes={5 * per_task}", "gate=false", "device=cpu"]
        program = [sys.executable, "-c", "from vlakit.cli.app import main; main()", *words, "tracking_uri=null"]
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def stored(usual: int) -> list[InitialState]:
    """`usual` starts a task as trained, and all of the axes."""
    plans = [("none", usual), *((axis, per_task) for axis, (_, per_task) in SUITES.items())]
    suites = [(TabletopSuite(ROBOT, [axis]), n) for axis, n in plans]
    return [state for suite, n in suites for task in suite.tasks for state in suite.initial_states(task, n)]


def collect(runs: Sequence[Path]) -> Outcomes:
    """What the runs' evaluations hold. Raises InvalidData for two runs of a strategy and seed."""
    trainings: dict[str, dict[str, dict[str, bool]]] = {}
    usual = []
    for run in runs:
        name = json.loads((run / "job.json").read_text(encoding="utf-8"))["name"]
        strategy, seed = name.partition("[")[0], re.search(r"\bseed=(\d+)", name)
        number = seed[1] if seed else "0"
        if number in trainings.setdefault(strategy, {}):
            raise InvalidData(f"two trainings of {strategy} with seed {number}", where=str(run), do="leave one out")
        names = USUAL, *(suite for suite, _ in SUITES.values())
        suites = [read_episodes(run / "evaluation" / suite) for suite in names]
        usual.append(len(suites[0]) // 5)
        trainings[strategy][number] = {record.initial_state: record.success for records in suites for record in records}
    states = stored(min(usual))
    seeds = {strategy: sorted(found, key=int) for strategy, found in trainings.items()}
    successes = {
        strategy: np.array([[found[number][state.name] for state in states] for number in seeds[strategy]], bool)
        for strategy, found in trainings.items()
    }
    return Outcomes(states, successes, seeds)


def save(outcomes: Outcomes, file: Path) -> None:
    """axes_outcomes.csv."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        out = csv.writer(stream, lineterminator="\n")
        out.writerow(("initial_state", *(f"{name} seeds {' '.join(seeds)}" for name, seeds in outcomes.seeds.items())))
        for i, state in enumerate(outcomes.states):
            digits = ("".join(str(int(x)) for x in values[:, i]) for values in outcomes.successes.values())
            out.writerow((state.name, *digits))


def load(file: Path) -> Outcomes:
    """The opposite of save."""
    with file.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    names = [title.partition(" seeds ") for title in header[1:]]
    states = stored(sum(row[0].startswith(f"{ROBOT}/lift/") for row in rows))
    if [state.name for state in states] != [row[0] for row in rows]:
        raise InvalidData("other starts than those on file", where=str(file), do="evaluate the sweeps again")
    successes = {
        name: np.array([[c == "1" for c in row[i]] for row in rows]).T for i, (name, *_) in enumerate(names, 1)
    }
    return Outcomes(states, successes, {name: seeds.split() for name, _, seeds in names})


def grouped(states: Sequence[InitialState], successes: Digits) -> Iterator[tuple[Key, Digits]]:
    """Successes (S, n) of each variant, in the order of the axes; starts in which nothing changed are left out."""
    columns: dict[Key, list[int]] = {}
    for i, state in enumerate(states):
        axis = state.task.rpartition("/")[0] or "none"
        variant = "as trained" if axis == "none" else "single" if axis == "language" else variant_of(state)
        if variant:
            columns.setdefault(Key(axis, variant), []).append(i)
    for key, chosen in columns.items():
        if key.axis == "language":
            starts = [(states[i].task, states[i].seed) for i in chosen]
            pairs = [pairs_right(dict(zip(starts, row, strict=True))) for row in successes[:, chosen]]
            yield Key(key.axis, "pairs"), np.array([list(right.values()) for right in pairs], bool)
        yield key, successes[:, chosen]


def interval(values: Digits) -> tuple[float, float, str]:
    """95 % interval of the mean of (S, N), and what it is over."""
    try:
        if len(values) > 1:
            return *mean_interval(values.astype(float)), "trainings x starts"
    except InvalidData:  # no outcome varies
        pass
    n = values.shape[1]
    return *wilson(round(float(values.mean()) * n), n), "starts"


def table(outcomes: Outcomes) -> Iterator[Mapping[str, object]]:
    """The rows of axes.csv."""
    for name, successes in outcomes.successes.items():
        for key, values in grouped(outcomes.states, successes):
            low, high, over = interval(values)
            shares = values.mean(axis=1)
            numbers = {"success": values.mean(), "low": low, "high": high, "least": shares.min(), "most": shares.max()}
            counts = {"runs": len(values), "starts": values.shape[1], "interval": over}
            yield {"strategy": name, **key._asdict(), **counts, **{k: f"{float(v):.3f}" for k, v in numbers.items()}}


def main(folder: str, *sweeps: str) -> None:
    """Evaluate what is missing and write both files; without sweeps the table alone."""
    place = Path(folder)
    runs = sorted(job.parent for sweep in sweeps for job in Path(sweep).glob("*/job.json"))
    if runs:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(evaluate, runs))
        save(collect(runs), place / "axes_outcomes.csv")
    with (place / "axes.csv").open("w", encoding="utf-8", newline="") as stream:
        out = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(table(load(place / "axes_outcomes.csv")))


if __name__ == "__main__":
    main(*sys.argv[1:])
