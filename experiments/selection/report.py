"""What the study in DIR has found: records, curves, verdicts, a picture beside this file; a page for each pool in DIR.

python experiments/selection/report.py DIR [small]
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from study import ROBOT, SHARES, SMALL, UNITS, Study, frames, judged_in, mapped, opened, place

from vlakit.evaluation.records import read_episodes
from vlakit.evaluation.run import Request
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.selection.acquisitions import ACQUISITIONS
from vlakit.selection.curves import leads, mean_points, n_to_reach, points
from vlakit.selection.maps import RANKS, auroc, rank_of
from vlakit.selection.outliers import PoolPlan
from vlakit.selection.page import write_page
from vlakit.selection.readout import Readout, extended
from vlakit.selection.rounds import Round, read_rounds
from vlakit.stats.multiple import holm
from vlakit.stats.seeds import compare_seeds

OUTCOME = ("share", "dropped", "acquisition", "round", "success")
ROUND = ("share", "dropped", "acquisition", "seed", "round", "labelled", "token_accuracy", "outliers")
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


def report(root: Path, study: Study) -> None:
    """Every outcome, curves with their leads, verdicts on the claims beside this file; a page for each pool in DIR."""
    found = {cell: runs_of(root, study, *cell) for cell in pools_of(study)}
    won = outcomes(root, study)
    write(HERE / "rounds.csv", ROUND, (line for cell, runs in found.items() for line in measured(cell, runs)))
    write(HERE / "outcomes.csv", OUTCOME, (outcome(cell, several) for cell, several in won.items()))
    write(HERE / "results.csv", CURVE, ([*cell, *row] for cell, runs in found.items() for row in curves(runs)))
    write(HERE / "verdicts.csv", VERDICT, verdicts(study, won))
    write(HERE / "map.csv", ("share", "rank", "outliers", "auroc"), map_found(root, study))
    draw(found, HERE / "curves.svg")
    for (share, dropped), runs in found.items():
        reasons = PoolPlan(study.n, share).flagged()
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


def measured(cell: tuple[float, bool], runs: dict[str, list[list[Round]]]) -> Iterator[list[object]]:
    """A line a round of every run, from which curves and leads follow."""
    for name, several in runs.items():
        for seed, rounds in enumerate(several):
            for one in rounds:
                accuracy, bought = one.metrics["eval/token_accuracy"], one.outlier_share or 0.0
                yield [*cell, name, seed, one.number, len(one.labelled), f"{accuracy:.5f}", f"{bought:.4f}"]


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
                mine = name != "random" and lead.n > len(several[0][0].labelled)  # else it is random's own round
                band = [f"{value:.4f}" if mine else "" for value in (lead.mean, lead.low, lead.high)]
                share = f"{np.mean([one or 0 for one in bought]):.4f}"
                yield [metric, name, lead.n, f"{means[lead.n]:.4f}", *band, share, typical]


def draw(found: Mapping[tuple[float, bool], dict[str, list[list[Round]]]], file: Path) -> None:
    """A panel a pool: token accuracy on held-out frames, its lead over random from the same first demonstrations."""
    figure, axes = plt.subplots(1, len(found), figsize=(3.2 * len(found), 3), sharey=True, layout="constrained")
    for axis, ((share, dropped), runs) in zip(axes, found.items(), strict=True):
        for number, name in enumerate(name for name in runs if name != "random"):
            line = leads(runs, name, "eval/token_accuracy")[1:]
            middle = np.array([100 * one.mean for one in line])
            band = [middle - [100 * one.low for one in line], [100 * one.high for one in line] - middle]
            axis.errorbar([one.n + number - 3 for one in line], middle, band, marker="o", ms=3, lw=1, label=name)
        axis.axhline(0, color="black", lw=0.8)
        axis.set_title(f"{share:.0%} outliers" + (", map's lowest dropped" if dropped else ""), fontsize=9)
        axis.set_xlabel("demonstrations")
    axes[0].set_ylabel("points of token accuracy\nover random", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


Cell = tuple[float, bool, str, int]  # share, dropped, acquisition, round


def outcomes(root: Path, study: Study) -> dict[Cell, np.ndarray]:
    """(seeds, episodes) successes of every acquisition and round that was judged, starts in the same order."""
    states = Request(episodes=study.episodes).states(TabletopSuite(ROBOT, dataset=UNITS, split="select"))
    order = {state.name: i for i, state in enumerate(states)}

    def successes(share: float, dropped: bool, name: str, seed: int, number: int) -> np.ndarray:
        cell, first = (place(root, share, dropped, one, seed) for one in (name, "first"))
        records = read_episodes(judged_in(cell, first, number))
        return np.array([float(one.success) for one in sorted(records, key=lambda one: order[one.initial_state])])

    return {
        (share, dropped, name, number): np.stack(
            [successes(share, dropped, name, seed, number) for seed in range(study.seeds)]
        )
        for share, dropped in pools_of(study)
        for name in ACQUISITIONS
        for number in study.judged
    }


def outcome(cell: Cell, won: np.ndarray) -> list[object]:
    """A line of outcomes.csv: a word a seed, a letter a start."""
    return [*cell, " ".join("".join("1" if one else "0" for one in seed) for seed in won)]


def verdicts(study: Study, won: Mapping[Cell, np.ndarray]) -> Iterator[list[object]]:
    """Each claim by successes crossed over seeds and starts; Holm over all; equality by two one-sided tests.

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
            pool = "without the lowest of its map" if dropped else "whole"
            random = won[share, dropped, "random", number]
            yield "the seven against random", share, pool, number, mean(share, dropped, number), random
            for name in chosen:
                yield f"{name} against random", share, pool, number, won[share, dropped, name, number], random
        for share in SHARES[1:]:
            a, b = mean(share, True, number), mean(share, False, number)
            yield "the seven, dropped against whole", share, "both", number, a, b
            a, b = won[share, True, "random", number], won[share, False, "random", number]
            yield "random, dropped against whole", share, "both", number, a, b


def map_found(root: Path, study: Study) -> Iterator[list[object]]:
    """AUROC of low ranks of a map for outliers: all, and each reason's; "usable": where nobody has read a label.

    That is one half of the pool, whose ranks are guessed from features and a map of the other half.
    """
    for share in SHARES[1:]:
        known, pool = mapped(root, study, share), frames(root, f"pool_{share:g}")
        flagged = PoolPlan(study.n, share).flagged()
        why = np.array([flagged.get(one, "") for one in range(len(pool))])
        half = np.random.default_rng(0).permutation(len(pool))[: len(pool) // 2]
        part = Readout(pool, pool).mapped([int(one) for one in half], study.epochs)
        rest = np.setdiff1d(np.arange(len(pool)), half)
        for by in RANKS:
            ranks = rank_of(known, by)
            guessed = extended(part, rank_of(part, by), pool.features["fused"][pool.first])
            found = {"all": auroc(-ranks, why != "")}
            for reason in sorted(set(flagged.values())):
                told = (why == reason) | (why == "")
                found[reason] = auroc(-ranks[told], why[told] != "")
            found["usable"] = auroc(-guessed[rest], why[rest] != "")
            yield from ([share, by, which, f"{value:.4f}"] for which, value in found.items())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    report(Path(sys.argv[1]), SMALL if sys.argv[2:] == ["small"] else Study())
