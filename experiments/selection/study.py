"""Does choosing demonstrations beat chance, with and without outliers? Eight acquisitions on the tabletop.

python experiments/selection/study.py pools DIR            (demonstrations and their features)
python experiments/selection/study.py run DIR              (goes on where it was)
python experiments/selection/study.py report DIR           (outcomes, results, verdicts, map.json; pages in DIR)

A learner is a readout over the frozen shipped model's features (vlakit.selection.readout); `small` behind DIR runs two
rounds of everything, which takes minutes and says nothing.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from vlakit.data.rlds.source import RldsSource
from vlakit.data.specs.spec import load_spec
from vlakit.evaluation.records import read_episodes
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
from vlakit.stats.multiple import holm
from vlakit.stats.seeds import compare_seeds

SHARES = (0.0, 0.25, 0.4)
# A robot that the frozen model has seen: of another its features tell a readout too little to succeed (5 % of starts).
ROBOT, UNITS = "d0", "tabletop_d0"
OUTCOME = ("share", "dropped", "acquisition", "round", "success")
CURVE = (
    "share",
    "dropped",
    "metric",
    "acquisition",
    "labelled",
    "mean",
    "lead",
    "low",
    "high",
    "outliers_bought",
    "to_reach",
)
VERDICT = ("claim", "share", "pool", "labelled", "a", "b", "difference", "low", "high", "p", "p_holm", "says")
HERE = Path(__file__).parent
SAME = 0.05  # of success: an interval inside of it shows equality
REACHED = 0.9  # of random's last value: how many demonstrations does it take?


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


def report(root: Path, study: Study) -> None:
    """Every outcome, curves with their leads, verdicts on the claims beside this file; a page for each pool in DIR."""
    found = {cell: runs_of(root, study, *cell) for cell in pools_of(study)}
    won = outcomes(root, study)
    write(HERE / "outcomes.csv", OUTCOME, (outcome(cell, several) for cell, several in won.items()))
    write(HERE / "results.csv", CURVE, ([*cell, *row] for cell, runs in found.items() for row in curves(runs)))
    write(HERE / "verdicts.csv", VERDICT, verdicts(study, won))
    (HERE / "map.json").write_text(json.dumps(map_found(root, study), indent=1) + "\n")
    draw(found, HERE / "curves.svg")
    for (share, dropped), runs in found.items():
        reasons = {int(one): why for one, why in PoolPlan(study.n, share).flagged().items()}
        page = root / f"selection_{share:g}{'_dropped' if dropped else ''}.html"
        write_page(page, runs, mapped(root, study, share), reasons, opened(root / f"pool_{share:g}"))


def write(file: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table."""
    with file.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def pools_of(study: Study) -> list[tuple[float, bool]]:
    """(share, dropped) of the study."""
    return list(dict.fromkeys((share, dropped) for share, dropped, _, _ in study.cells()))


def runs_of(root: Path, study: Study, share: float, dropped: bool) -> dict[str, list[list[Round]]]:
    """acquisition -> the rounds of every seed."""
    return {
        name: [read_rounds(place(root, share, dropped, name, seed)) for seed in range(study.seeds)]
        for name in ACQUISITIONS
    }


def curves(runs: dict[str, list[list[Round]]]) -> Iterator[list[object]]:
    """A line a metric, acquisition and number of demonstrations: mean over seeds, lead over random with its band."""
    for metric in ("eval/token_accuracy", "eval/success"):
        judged = {name: [[one for one in run if metric in one.metrics] for run in runs[name]] for name in runs}
        level = REACHED * mean_points(judged["random"], metric)[-1][1]
        for name, several in judged.items():
            reached = [n_to_reach(points(one, metric), level) for one in several]
            typical = "never" if None in reached else f"{float(np.median([n for n in reached if n is not None])):.0f}"
            means = dict(mean_points(several, metric))
            for lead in leads(judged, name, metric):
                bought = [one.outlier_share for run in several for one in run if len(one.labelled) == lead.n]
                band = [f"{value:.4f}" for value in (means[lead.n], lead.mean, lead.low, lead.high)]
                yield [metric, name, lead.n, *band, f"{float(np.mean([one or 0 for one in bought])):.4f}", typical]


def draw(found: Mapping[tuple[float, bool], dict[str, list[list[Round]]]], file: Path) -> None:
    """A panel a pool: token accuracy on held-out frames, its lead over random from the same first demonstrations."""
    figure, axes = plt.subplots(1, len(found), figsize=(3.2 * len(found), 3), sharey=True, layout="constrained")
    for axis, ((share, dropped), runs) in zip(axes, found.items(), strict=True):
        for place, name in enumerate(name for name in runs if name != "random"):
            line = leads(runs, name, "eval/token_accuracy")[1:]
            middle = np.array([100 * one.mean for one in line])
            band = [middle - [100 * one.low for one in line], [100 * one.high for one in line] - middle]
            axis.errorbar([one.n + place - 3 for one in line], middle, band, marker="o", ms=3, lw=1, label=name)
        axis.axhline(0, color="black", lw=0.8)
        axis.set_title(f"{share:.0%} outliers" + (", map's lowest dropped" if dropped else ""), fontsize=9)
        axis.set_xlabel("demonstrations")
    axes[0].set_ylabel("points of token accuracy over random")
    axes[-1].legend(fontsize=6)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


Cell = tuple[float, bool, str, int]  # share, dropped, acquisition, round


def outcomes(root: Path, study: Study) -> dict[Cell, np.ndarray]:
    """(seeds, episodes) credits of every acquisition and round that was judged, starts in the same order."""
    states = Request(episodes=study.episodes).states(TabletopSuite(ROBOT, dataset=UNITS, split="select"))
    order = {state.name: i for i, state in enumerate(states)}

    def credits_(share: float, dropped: bool, name: str, seed: int, number: int) -> np.ndarray:
        cell, first = (place(root, share, dropped, one, seed) for one in (name, "first"))
        records = read_episodes(judged_in(cell, first, number))
        return np.array([one.credit for one in sorted(records, key=lambda one: order[one.initial_state])])

    return {
        (share, dropped, name, number): np.stack(
            [credits_(share, dropped, name, seed, number) for seed in range(study.seeds)]
        )
        for share, dropped in pools_of(study)
        for name in ACQUISITIONS
        for number in study.judged
    }


def outcome(cell: Cell, won: np.ndarray) -> list[object]:
    """A line of outcomes.csv: a word a seed, a letter a start."""
    return [*cell, " ".join("".join("1" if one else "0" for one in seed) for seed in won)]


def verdicts(study: Study, won: Mapping[Cell, np.ndarray]) -> Iterator[list[object]]:
    """Each claim by credits crossed over seeds and starts; Holm over all; equality by two one-sided tests.

    Left out: where every episode of both ended the same.
    """
    asked = [one for one in claims(study, won) if np.ptp(one[-2]) or np.ptp(one[-1])]
    found = [compare_seeds(a, b) for *_, a, b in asked]
    for (says, share, pool, number, a, b), one, p in zip(asked, found, holm([one.p for one in found]), strict=True):
        unshown = "the same within 5 points" if one.equivalence(SAME) < 0.05 else "cannot be told"
        verdict = unshown if p >= 0.05 else "better" if one.difference > 0 else "worse"
        values = (a.mean(), b.mean(), one.difference, *one.interval)
        n = study.first + study.batch * number
        yield [says, share, pool, n, *(f"{value:.4f}" for value in values), f"{one.p:.3g}", f"{p:.3g}", verdict]


def claims(
    study: Study, won: Mapping[Cell, np.ndarray]
) -> Iterator[tuple[str, float, str, int, np.ndarray, np.ndarray]]:
    """What against what: written before the study was run.

    The first round is every acquisition's, so no claim is about it.
    """
    chosen = [name for name in ACQUISITIONS if name != "random"]

    def mean(share: float, dropped: bool, number: int) -> np.ndarray:
        return np.mean([won[share, dropped, name, number] for name in chosen], axis=0)

    for number in study.judged[1:]:
        for share, dropped in pools_of(study):
            pool, random = (
                "without the lowest of its map" if dropped else "whole",
                won[share, dropped, "random", number],
            )
            yield "the seven against random", share, pool, number, mean(share, dropped, number), random
            for name in chosen:
                yield f"{name} against random", share, pool, number, won[share, dropped, name, number], random
        for share in SHARES[1:]:
            a, b = mean(share, True, number), mean(share, False, number)
            yield "the seven, dropped against whole", share, "both", number, a, b
            a, b = won[share, True, "random", number], won[share, False, "random", number]
            yield "random, dropped against whole", share, "both", number, a, b


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
