"""How often tests err and intervals cover: 10,000 simulated comparisons a row -> results.csv, calibration.png.

Success on a shared initial state has a logistic-normal difficulty (SD 1.5), so outcomes go together as real ones do.
Rates differ from comparison to comparison: at one rate alone, counts are too coarse for any test to err exactly 5 %.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.special import expit

from vlakit.errors import InvalidData
from vlakit.stats.intervals import clopper_pearson, newcombe, unpaired_equivalence, unpaired_p, welch, wilson
from vlakit.stats.multiple import holm
from vlakit.stats.paired import PairCounts, bootstrap, equivalence, mcnemar, newcombe_paired, non_inferiority, sign_flip
from vlakit.stats.seeds import SPREADS, compare_seeds, false_alarms
from vlakit.stats.sequential import stopping_times

HERE, ALPHA, SD, MARGIN = Path(__file__).parent, 0.05, 1.5, 0.1
EDGES = {"floor (.04)": -4.0, "ceiling (.96)": 4.0}  # success: mean log odds
RNG = np.random.default_rng(20250101)


@dataclass(frozen=True)
class Row:
    """A share that was found among n comparisons, and what it should be: `rule` is "=" or "<=" (">=" for coverage).

    "~": within 0.05 of what a formula foresees.
    """

    kind: str
    method: str
    case: str
    nominal: float
    rule: str
    found: float
    n: int

    @property
    def error(self) -> float:
        """Monte-Carlo standard error at the nominal value."""
        return float(np.sqrt(self.nominal * (1 - self.nominal) / self.n))

    @property
    def fits(self) -> bool:
        """Within three Monte-Carlo errors on the sides that the rule forbids."""
        z = (self.found - self.nominal) / self.error
        close = abs(self.found - self.nominal) <= 0.05
        return {"=": abs(z) <= 3, "<=": z <= 3, ">=": z >= -3, "~": close}[self.rule]


def pairs_of(
    n_runs: int, n: int, half: float = 0.0, level: float | None = None, seed_sd: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Credits (n_runs, n) of two equal policies on shared states; a share `half` of failures earns half a credit.

    level: mean log odds, else -1.5 to 1.5; seed_sd: by which the trainings of equal strategies differ, in log odds.
    """
    state = RNG.normal(0, SD, (n_runs, n)) + (RNG.uniform(-1.5, 1.5, (n_runs, 1)) if level is None else level)
    made = []
    for _ in range(2):
        chance = expit(state + RNG.normal(0, seed_sd, (n_runs, 1)) if seed_sd else state)
        success = RNG.random((n_runs, n)) < chance
        made.append(np.where(success, 1.0, 0.5 * (RNG.random((n_runs, n)) < half)))
    return made[0], made[1]


def each(counts: np.ndarray, function: Callable[..., object]) -> np.ndarray:
    """`function(*row)` of every row of counts, called once for equal rows."""
    rows, where = np.unique(counts, axis=0, return_inverse=True)
    return np.array([function(*(int(x) for x in row)) for row in rows])[where.ravel()]


def outcome_counts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n_runs, 4): both, only a, only b, neither."""
    one, other = a == 1, b == 1
    return np.stack([(one & other), (one & ~other), (~one & other), (~one & ~other)], -1).sum(axis=1)


def difference_counts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n_runs, 5): differences -1, -0.5, 0, 0.5, 1."""
    return np.stack([(a - b == value) for value in (-1, -0.5, 0, 0.5, 1)], -1).sum(axis=1)


def spread(*counts: int) -> np.ndarray:
    """The differences that were counted."""
    return np.repeat([-1, -0.5, 0, 0.5, 1], counts)


def type_1(n_runs: int) -> Iterator[Row]:
    """Tests of equality when the policies are equal."""
    for n, equals in ((33, "<="), (100, "="), (500, "=")):
        a, b = pairs_of(n_runs, n)
        counts = outcome_counts(a, b)
        for name, mid, rule in (("McNemar mid-p", True, equals), ("McNemar exact", False, "<=")):
            p = each(counts[:, 1:3], lambda x, y, mid=mid: mcnemar(x, y, mid=mid))
            yield Row("type I", name, f"{n} pairs", ALPHA, rule, float((p <= ALPHA).mean()), n_runs)
    for n in (100, 500):
        rate = RNG.uniform(0.1, 0.9, n_runs)
        p = each(RNG.binomial(n, rate, (2, n_runs)).T, lambda x, y, n=n: unpaired_p(x, n, y, n))
        yield Row("type I", "unpaired, N - 1", f"{n} each", ALPHA, "=", float((p <= ALPHA).mean()), n_runs)
    a, b = pairs_of(n_runs, 100, half=0.4)
    p = each(difference_counts(a, b), lambda *c: sign_flip(spread(*c)))
    yield Row("type I", "sign flips, half credits", "100 pairs", ALPHA, "=", float((p <= ALPHA).mean()), n_runs)
    shares = RNG.dirichlet([2, 1, 2], n_runs)
    draws = [np.stack([RNG.choice([0, 0.5, 1], p=share, size=100) for share in shares]) for _ in range(2)]
    p = np.array([welch(x, y, 0.95, MARGIN).p for x, y in zip(*draws, strict=True)])
    yield Row("type I", "Welch's t, half credits", "100 each", ALPHA, "=", float((p <= ALPHA).mean()), n_runs)
    for half in (0.0, 0.4):
        stopped = [(stopping_times(np.subtract(*pairs_of(n_runs // 10, 200, half)), 200) > 0).mean() for _ in range(10)]
        case = f"budget 200, looked at 200 times, {100 * half:g} % half credits"
        yield Row("type I", "sequential (betting)", case, ALPHA, "<=", float(np.mean(stopped)), n_runs)


def family_wise(n_runs: int) -> Iterator[Row]:
    """Any false alarm among the 15 pairs of six equal policies."""
    state = RNG.normal(0, SD, (n_runs, 1, 100))
    wins = RNG.random((n_runs, 6, 100)) < expit(state + 0.5)
    p = np.stack(
        [each(outcome_counts(wins[:, i], wins[:, j])[:, 1:3], mcnemar) for i, j in combinations(range(6), 2)], -1
    )
    found = np.array([min(holm(list(row))) for row in p])
    yield Row(
        "type I", "Holm over 15 pairs", "any of six equal policies", ALPHA, "<=", float((found <= ALPHA).mean()), n_runs
    )


def at_the_margin(n_runs: int) -> Iterator[Row]:
    """Tests of equivalence when the true difference is the margin."""
    both = (1 - 0.3 - MARGIN) / 2
    for n in (200, 500):
        counts = RNG.multinomial(n, [both, 0.15 + MARGIN, 0.15, both], size=n_runs)
        p = each(counts, lambda *c: equivalence(PairCounts(*c), MARGIN))
        yield Row(
            "type I", "equivalence (TOST)", f"{n} pairs at the margin", ALPHA, "<=", float((p <= ALPHA).mean()), n_runs
        )
        p = each(counts[:, [0, 2, 1, 3]], lambda *c: non_inferiority(PairCounts(*c), MARGIN))
        yield Row(
            "type I", "non-inferiority", f"{n} pairs at the margin", ALPHA, "=", float((p <= ALPHA).mean()), n_runs
        )
        k = np.stack([RNG.binomial(n, 0.7, n_runs), RNG.binomial(n, 0.6, n_runs)], -1)
        p = each(k, lambda x, y, n=n: unpaired_equivalence(x, n, y, n, MARGIN))
        yield Row(
            "type I", "unpaired equivalence", f"{n} each at the margin", ALPHA, "<=", float((p <= ALPHA).mean()), n_runs
        )


def seeds(n_runs: int) -> Iterator[Row]:
    """Three trainings of each strategy whose strengths differ by chance, and none that do."""
    for sd in (0.0, 0.5):
        case, p, covered, alone = f"3 + 3 trainings, 100 states, seed SD {sd:g}", [], [], []
        for _ in range(n_runs):
            state = RNG.normal(0, SD, 100)
            arms = [(RNG.random((3, 100)) < expit(state + RNG.normal(0, sd, (3, 1)))).astype(float) for _ in range(2)]
            found = compare_seeds(*arms)
            p.append(found.p)
            alone.append(found.p_checkpoints)
            covered.append(found.interval[0] <= 0 <= found.interval[1])
        yield Row("type I", "t over seeds and states", case, ALPHA, "<=", float(np.mean(np.array(p) <= ALPHA)), n_runs)
        yield Row("coverage", "t over seeds and states", case, 0.95, ">=", float(np.mean(covered)), n_runs)
        if sd:  # what goes wrong when seeds are ignored; no rule applies
            share = float(np.mean(np.array(alone) <= ALPHA))
            yield Row("ignoring seeds", "sign flips over states alone", case, ALPHA, "<=", share, n_runs)


def coverage(n_runs: int) -> Iterator[Row]:
    """Intervals when the truth is known."""
    for n in (33, 200):
        rate = RNG.uniform(0.1, 0.9, n_runs)
        k = RNG.binomial(n, rate)[:, None]
        for name, interval, rule in (("Wilson", wilson, "="), ("Clopper-Pearson", clopper_pearson, ">=")):
            limits = each(k, lambda x, n=n, of=interval: of(x, n))
            yield Row("coverage", name, f"{n} episodes", 0.95, rule, inside(limits, rate), n_runs)
    for n, rule in ((33, ">="), (100, "="), (500, "=")):
        p = RNG.dirichlet([4, 2, 1, 3], n_runs)
        limits = each(RNG.multinomial(n, p), lambda *c: newcombe_paired(PairCounts(*c)))
        yield Row("coverage", "Newcombe, paired", f"{n} pairs", 0.95, rule, inside(limits, p[:, 1] - p[:, 2]), n_runs)
    rates = RNG.uniform(0.1, 0.9, (n_runs, 2))
    limits = each(RNG.binomial(200, rates), lambda x, y: newcombe(x, 200, y, 200))
    yield Row(
        "coverage", "Newcombe, unpaired", "200 each", 0.95, "=", inside(limits, rates[:, 0] - rates[:, 1]), n_runs
    )
    for n in (33, 200):
        shares = RNG.dirichlet([1, 1, 4, 2, 2], n_runs)
        limits = each(RNG.multinomial(n, shares), lambda *c: bootstrap(spread(*c), draws=1000))
        truth = shares @ np.array([-1, -0.5, 0, 0.5, 1])
        yield Row("coverage", "paired bootstrap", f"{n} pairs, half credits", 0.95, "=", inside(limits, truth), n_runs)


def several(n_runs: int) -> Iterator[Row]:
    """Two and five trainings, spread alike, unlike or not at all; three at the floor and at the ceiling."""
    cases = [(k, (sd, sd), "", 0.0) for k in (2, 5) for sd in (0.0, 0.5)]
    cases += [(k, (0.25, 1.0), "", 0.0) for k in (2, 3, 5)]
    cases += [(3, (0.5, 0.5), f", {edge}", level) for edge, level in EDGES.items()]
    for k, sd, where, level in cases:
        found = [_crossed(k, sd, level) for _ in range(n_runs)]
        spread = f"seed SD {sd[0]:g}" + (f" against {sd[1]:g}" if sd[0] != sd[1] else "")
        case, (wrong, covered) = f"{k} + {k} trainings, 100 states, {spread}{where}", np.mean(found, axis=0)
        yield Row("type I", "t over seeds and states", case, ALPHA, "<=", float(wrong), n_runs)
        yield Row("coverage", "t over seeds and states", case, 0.95, ">=", float(covered), n_runs)


def _crossed(k: int, sd: tuple[float, float], level: float) -> tuple[bool, bool]:
    """Whether equal strategies of k trainings each are called different, and whether the interval holds 0."""
    state = RNG.normal(level, SD, 100)
    arms = [(RNG.random((k, 100)) < expit(state + RNG.normal(0, one, (k, 1)))).astype(float) for one in sd]
    try:
        found = compare_seeds(*arms)
    except InvalidData:  # no outcome varies: it cannot be told
        return False, True
    return found.p <= ALPHA, found.interval[0] <= 0 <= found.interval[1]


def single(n_runs: int) -> Iterator[Row]:
    """One training of each: what a p of the episodes does when trainings differ, and what `false_alarms` foresees."""
    for n in (200, 500):
        for sd in SPREADS:
            counts = outcome_counts(*pairs_of(n_runs, n, seed_sd=sd))
            share = float((each(counts[:, 1:3], mcnemar) <= ALPHA).mean())
            discordant = (counts[:, 1] + counts[:, 2]) / n
            variance = discordant - ((counts[:, 1] - counts[:, 2]) / n) ** 2
            foreseen = float(np.mean([false_alarms(v, n, sd, ALPHA) for v in variance]))
            case = f"1 + 1 trainings, {n} pairs, seed SD {sd:g}"
            yield Row("ignoring seeds", "McNemar mid-p", case, ALPHA, "<=", share, n_runs)
            yield Row("one training", "McNemar mid-p, as foreseen", case, round(foreseen, 4), "~", share, n_runs)


def edges(n_runs: int) -> Iterator[Row]:
    """Tests of one training each, once at the end and looked at after every pair, where nearly all fail or succeed."""
    for edge, level in EDGES.items():
        counts, case = outcome_counts(*pairs_of(n_runs, 200, level=level)), f"200 pairs, {edge}"
        share = float((each(counts[:, 1:3], mcnemar) <= ALPHA).mean())
        yield Row("type I", "McNemar mid-p", case, ALPHA, "<=", share, n_runs)
        limits = each(counts, lambda *c: newcombe_paired(PairCounts(*c)))
        yield Row("coverage", "Newcombe, paired", case, 0.95, ">=", inside(limits, np.zeros(n_runs)), n_runs)
        yield _sequential("type I", edge, n_runs, level=level)
    yield _sequential("ignoring seeds", "seed SD 0.5", n_runs, seed_sd=0.5)


def _sequential(kind: str, which: str, n_runs: int, **options: float) -> Row:
    runs = (np.subtract(*pairs_of(n_runs // 10, 200, **options)) for _ in range(10))
    share = float(np.mean([(stopping_times(differences, 200) > 0).mean() for differences in runs]))
    return Row(kind, "sequential (betting)", f"budget 200, looked at 200 times, {which}", ALPHA, "<=", share, n_runs)


def inside(limits: np.ndarray, truth: np.ndarray) -> float:
    """Share of intervals (n, 2) that hold the truth."""
    return float(((limits[:, 0] <= truth) & (truth <= limits[:, 1])).mean())


def draw(rows: list[Row], file: Path) -> None:
    """One point a row, its Monte-Carlo error, and the nominal value."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    kinds = ("type I", "coverage")
    parts = [[row for row in rows if row.kind == kind] for kind in kinds]
    figure, axes = plt.subplots(2, 1, figsize=(8, 13), height_ratios=[len(part) + 2 for part in parts])
    for kind, part, axis in zip(kinds, parts, axes, strict=True):
        for y, row in enumerate(reversed(part)):
            colour = "tab:blue" if row.rule == "=" else "tab:grey"
            axis.errorbar(row.found, y, xerr=3 * row.error, fmt="o", color=colour if row.fits else "tab:red", ms=4)
        axis.axvline(part[0].nominal, color="black", lw=0.8)
        axis.set_yticks(range(len(part)), [f"{row.method}: {row.case}" for row in reversed(part)], fontsize=7)
        axis.set_title(f"{kind}: blue meets the line, grey keeps to its side, red does not", fontsize=8, loc="right")
        axis.set_xlabel("bars: three Monte-Carlo errors", fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110, bbox_inches="tight")


def main() -> None:
    """Simulate, write, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=10_000, help="comparisons a row")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    parts = (type_1, family_wise, at_the_margin, seeds, coverage, several, single, edges)
    rows = [row for part in parts for row in part(options.n)]
    with (options.out / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["kind", "method", "case", "nominal", "rule", "found", "mc_error", "n", "fits"])
        for row in rows:
            fits = row.fits if row.kind != "ignoring seeds" else "a warning"
            numbers = [row.nominal, row.rule, f"{row.found:.4f}", f"{row.error:.4f}", row.n, fits]
            writer.writerow([row.kind, row.method, row.case, *numbers])
            print(f"{row.kind:<15}{row.method:<30}{row.case:<60}{row.rule:>3} {row.nominal:<6}{row.found:.4f}  {fits}")
    draw(rows, options.out / "calibration.png")


if __name__ == "__main__":
    main()
