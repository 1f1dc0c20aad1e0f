"""Does choosing demonstrations beat chance, with and without outliers? Eight acquisitions on the tabletop.

python experiments/selection/study.py pools DIR            (demonstrations and their features)
python experiments/selection/study.py run DIR              (goes on where it was)
python experiments/selection/study.py report DIR           (results.csv, map.json and a page for each pool)

A learner is a readout over the frozen shipped model's features (vlakit.selection.readout); `small` behind DIR runs two
rounds of everything, which takes minutes and says nothing.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlakit.data.rlds.source import RldsSource
from vlakit.data.specs.spec import load_spec
from vlakit.evaluation.run import Request, evaluate
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.policy import TrainedPolicy
from vlakit.selection.acquisitions import ACQUISITIONS, Acquisition
from vlakit.selection.curves import leads, mean_points, n_to_reach, points
from vlakit.selection.maps import DatasetMap, auroc, rank_of
from vlakit.selection.outliers import PoolPlan, write_pool
from vlakit.selection.page import write_page
from vlakit.selection.pool import Pool
from vlakit.selection.readout import Frames, Readout, ReadoutPolicy, ReadoutSettings, extended, frames_of
from vlakit.selection.rounds import Plan, Round, read_rounds, run

SHARES = (0.0, 0.25, 0.4)
ROBOT, UNITS = "target", "tabletop_d0"  # a robot that the model has not seen, in the units of one that it has
COLUMNS = ("share", "dropped", "acquisition", "labelled", "mean", "lead", "low", "high", "outliers_bought", "to_reach")
REACHED = 0.9  # of random's last value: how many demonstrations does it take?


@dataclass(frozen=True)
class Study:
    """How large it is: demonstrations in a pool and held out, rounds, seeds, episodes of each evaluation."""

    n: int = 400
    held_out: int = 100
    first: int = 40
    batch: int = 40
    rounds: int = 6
    seeds: int = 8
    episodes: int = 50
    steps: int = 400
    epochs: int = 15

    def cells(self) -> Iterator[tuple[float, bool, str, int]]:
        """(share, are outliers dropped by the map, acquisition, seed)."""
        for share in SHARES:
            for dropped in (False, True) if share else (False,):
                for seed in range(self.seeds):
                    for name in ACQUISITIONS:
                        yield share, dropped, name, seed


SMALL = Study(n=24, held_out=6, first=6, batch=4, rounds=2, seeds=2, episodes=2, steps=20, epochs=3)


@dataclass
class Judged(Readout):
    """A readout that is judged in closed loop too."""

    base: TrainedPolicy | None = None
    folder: Path = Path()
    episodes: int = 0

    def fit(self, number: int, ids: list[int]) -> dict[str, float]:
        metrics = super().fit(number, ids)
        if self.base is None or not self.episodes:
            return metrics
        suite = TabletopSuite(ROBOT, dataset=UNITS, split="select")
        request = Request(episodes=self.episodes, slots=min(32, self.episodes))
        policy = ReadoutPolicy(self.base, self)
        done = evaluate(policy, suite, request, self.folder / f"evaluation_{number}", name=f"round {number}")
        return {**metrics, "eval/success": done.pooled.success}


def pools(root: Path, study: Study) -> None:
    """Pools of each share, the held-out one, and what the frozen model makes of every frame."""
    suite, policy = TabletopSuite(ROBOT), TrainedPolicy.from_checkpoint("tiny")
    plans = {f"pool_{share:g}": PoolPlan(study.n, share) for share in SHARES}
    plans["held_out"] = PoolPlan(study.held_out, 0.0, seed=1)
    for name, plan in plans.items():
        if not (root / name / "1.0.0").exists():
            write_pool(suite, plan, root / name)
        frames = frames_of(opened(root / name), policy, UNITS)
        np.savez(root / f"{name}.npz", tokens=frames.tokens, owner=frames.owner, **frames.features)
        print(f"{name}: {len(frames)} demonstrations, {len(frames.owner)} frames")


def opened(folder: Path) -> Pool:
    """A pool on disk."""
    return Pool(RldsSource.open(folder), load_spec(f"tabletop_{ROBOT}"))


def frames(root: Path, name: str) -> Frames:
    """What `pools` kept of one."""
    arrays = dict(np.load(root / f"{name}.npz"))
    return Frames({kind: arrays[kind] for kind in ("fused", "vision", "language")}, arrays["tokens"], arrays["owner"])


def mapped(root: Path, study: Study, share: float) -> DatasetMap:
    """The map of the whole pool, with all labels: a diagnosis."""
    file = root / f"map_{share:g}.csv"
    if not file.is_file():
        known = frames(root, f"pool_{share:g}")
        Readout(known, known).mapped(range(len(known)), study.epochs).save(file)
    return DatasetMap.load(file)


def place(root: Path, share: float, dropped: bool, name: str, seed: int) -> Path:
    """The folder of a cell."""
    return root / "runs" / f"{share:g}_{'dropped' if dropped else 'whole'}" / name / f"{seed}"


def rounds(root: Path, study: Study) -> None:
    """Every cell of the study, those on file first."""
    base, held_out = TrainedPolicy.from_checkpoint("tiny"), frames(root, "held_out")
    pool = {share: frames(root, f"pool_{share:g}") for share in SHARES}
    for share, dropped, name, seed in study.cells():
        out = place(root, share, dropped, name, seed)
        out.mkdir(parents=True, exist_ok=True)
        gone = mapped(root, study, share).dropped(share).tolist() if dropped else []
        plan = Plan(Acquisition(name), study.first, study.batch, study.rounds, seed)
        room = len(pool[share]) - len(gone)
        plan = replace(plan, rounds=min(plan.rounds, 1 + (room - plan.first) // plan.batch))
        settings = ReadoutSettings(steps=study.steps, seed=seed)
        learner = Judged(pool[share], held_out, settings, base=base, folder=out, episodes=study.episodes)
        outliers = PoolPlan(study.n, share).flagged().keys()
        done = run(plan, len(pool[share]), learner, out, identity={"share": share}, left_out=gone, outliers=outliers)
        print(f"{out.relative_to(root)}: {done[-1].metrics}, outliers {done[-1].outlier_share}", flush=True)


def report(root: Path, study: Study) -> None:
    """Numbers of the claims, and a page for each pool."""
    with (root / "results.csv").open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for share, dropped in dict.fromkeys((share, dropped) for share, dropped, _, _ in study.cells()):
            runs = {name: found(root, study, share, dropped, name) for name in ACQUISITIONS}
            for row in claims(runs):
                table.writerow([share, dropped, *row])
            reasons = {int(one): why for one, why in PoolPlan(study.n, share).flagged().items()}
            write_page(
                root / f"selection_{share:g}{'_dropped' if dropped else ''}.html",
                runs,
                mapped(root, study, share),
                reasons,
                opened(root / f"pool_{share:g}"),
            )
    (root / "map.json").write_text(json.dumps(map_found(root, study), indent=1) + "\n")


def found(root: Path, study: Study, share: float, dropped: bool, name: str) -> list[list[Round]]:
    """The rounds of every seed."""
    return [read_rounds(place(root, share, dropped, name, seed)) for seed in range(study.seeds)]


def claims(runs: dict[str, list[list[Round]]]) -> Iterator[list[object]]:
    """A line an acquisition and a number of demonstrations: mean over seeds, lead over random with its band."""
    metric = "eval/success" if "eval/success" in runs["random"][0][0].metrics else "eval/token_accuracy"
    level = REACHED * mean_points(runs["random"], metric)[-1][1]
    for name, several in runs.items():
        reached = [n_to_reach(points(one, metric), level) for one in several]
        typical = "never" if None in reached else f"{float(np.median([n for n in reached if n is not None])):.0f}"
        means = dict(mean_points(several, metric))
        for lead in leads(runs, name, metric):
            bought = [one.outlier_share for run_ in several for one in run_ if len(one.labelled) == lead.n]
            band = [f"{value:.4f}" for value in (means[lead.n], lead.mean, lead.low, lead.high)]
            yield [name, lead.n, *band, f"{float(np.mean([one or 0 for one in bought])):.4f}", typical]


def map_found(root: Path, study: Study) -> dict[str, dict[str, float]]:
    """AUROC of low ranks for outliers: of the map with all labels, and of one with a half, extended by a classifier."""
    result: dict[str, dict[str, float]] = {}
    for share in SHARES[1:]:
        known, pool = mapped(root, study, share), frames(root, f"pool_{share:g}")
        flags = np.isin(np.arange(len(pool)), list(PoolPlan(study.n, share).flagged()))
        result[f"{share:g}"] = {by: auroc(-rank_of(known, by), flags) for by in ("variability", "conf_x_var")}
        half = np.random.default_rng(0).permutation(len(pool))[: len(pool) // 2]
        part = Readout(pool, pool).mapped([int(one) for one in half], study.epochs)
        guessed = extended(part, rank_of(part, "variability"), pool.features["fused"][pool.first])
        rest = np.setdiff1d(np.arange(len(pool)), half)
        result[f"{share:g}"]["usable: low variability guessed of the other half"] = auroc(-guessed[rest], flags[rest])
    return result


if __name__ == "__main__":
    steps = {"pools": pools, "run": rounds, "report": report}
    if len(sys.argv) < 3 or sys.argv[1] not in steps:
        raise SystemExit(__doc__)
    steps[sys.argv[1]](Path(sys.argv[2]), SMALL if sys.argv[3:] == ["small"] else Study())
