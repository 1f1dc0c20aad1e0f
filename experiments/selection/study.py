"""Does choosing demonstrations beat chance, with and without outliers? Eight acquisitions on the tabletop.

python experiments/selection/study.py pools DIR            (demonstrations and their features)
python experiments/selection/study.py run DIR              (goes on where it was)

A learner is a readout over the frozen shipped model's features (vlakit.selection.readout); `small` behind DIR runs two
rounds of everything, which takes minutes and says nothing.
"""

from __future__ import annotations

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
from vlakit.selection.maps import DatasetMap
from vlakit.selection.outliers import PoolPlan, write_pool
from vlakit.selection.pool import Pool
from vlakit.selection.readout import Frames, Readout, ReadoutPolicy, ReadoutSettings, frames_of
from vlakit.selection.rounds import Plan, run

SHARES = (0.0, 0.25, 0.4)
# A robot that the frozen model has seen: of another its features tell a readout too little to succeed.
ROBOT, UNITS = "d0", "tabletop_d0"


@dataclass(frozen=True)
class Study:
    """How large it is: demonstrations in a pool and held out, rounds, seeds, episodes of each evaluation."""

    n: int = 300
    held_out: int = 100
    first: int = 30
    batch: int = 30
    rounds: int = 4
    seeds: int = 8
    judged: tuple[int, ...] = (0, 3)  # rounds whose readout acts: all learn, but acting takes most of the time
    episodes: int = 50
    steps: int = 200
    epochs: int = 15

    def cells(self) -> Iterator[tuple[float, bool, str, int]]:
        """(share, are outliers dropped by the map, acquisition, seed)."""
        for share in SHARES:
            for dropped in (False, True) if share else (False,):
                for seed in range(self.seeds):
                    for name in ACQUISITIONS:
                        yield share, dropped, name, seed


SMALL = Study(n=24, held_out=6, first=6, batch=4, rounds=2, seeds=2, judged=(0, 1), episodes=3, steps=20, epochs=3)


@dataclass
class Judged(Readout):
    """A readout that acts in some rounds too, always on the same starts.

    shared: where the first round is judged, in which all acquisitions of a seed have the same demonstrations.
    """

    base: TrainedPolicy | None = None
    folder: Path = Path()
    shared: Path = Path()
    study: Study = SMALL

    def fit(self, number: int, ids: list[int]) -> dict[str, float]:
        metrics = super().fit(number, ids)
        if self.base is None or number not in self.study.judged:
            return metrics
        suite = TabletopSuite(ROBOT, dataset=UNITS, split="select")
        request = Request(episodes=self.study.episodes, slots=self.study.episodes)
        policy = ReadoutPolicy(self.base, self)
        done = evaluate(policy, suite, request, judged_in(self.folder, self.shared, number), name=f"round {number}")
        return {**metrics, "eval/success": done.pooled.success}


def judged_in(folder: Path, shared: Path, number: int) -> Path:
    """The folder of a round's episodes."""
    return (folder if number else shared) / f"evaluation_{number}"


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
    """The folder of a cell; "first" as a name: of what all acquisitions of a seed share."""
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
        settings = ReadoutSettings(steps=study.steps, learning_rate=3e-3, seed=seed)
        first = place(root, share, dropped, "first", seed)
        learner = Judged(pool[share], held_out, settings, base=base, folder=out, shared=first, study=study)
        outliers = PoolPlan(study.n, share).flagged().keys()
        done = run(plan, len(pool[share]), learner, out, identity={"share": share}, left_out=gone, outliers=outliers)
        print(f"{out.relative_to(root)}: {done[-1].metrics}, outliers {done[-1].outlier_share}", flush=True)


if __name__ == "__main__":
    steps = {"pools": pools, "run": rounds}
    if len(sys.argv) < 3 or sys.argv[1] not in steps:
        raise SystemExit(__doc__)
    steps[sys.argv[1]](Path(sys.argv[2]), SMALL if sys.argv[3:] == ["small"] else Study())
