"""Compare vlakit with the outputs of the "Mind Your Outliers" code: python tests/parity/check_active_learning.py DIR

DIR holds expected.npz. Token scores and joined scores within 1e-5, map statistics within 1e-6; selections exact: sets,
core-sets in order and by their distances (by these alone where features repeat, for the original then takes any copy).
Of scores that are equal, such as those of copies, the original takes any: there the scores are compared.
Prints `array deviation ok|FAIL`; exits with 1 where one fails, or where nothing computes an array.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vlakit.selection.acquisitions import Acquisition, Outlook, highest
from vlakit.selection.coreset import Amortised, Picks, k_center, squared_distances
from vlakit.selection.maps import DatasetMap
from vlakit.selection.uncertainty import MONTE_CARLO, SINGLE, bald, entropy_of, max_prob, mc_entropy, probabilities

TOLERANCE, MAP_TOLERANCE = 1e-5, 1e-6
TIED = 1e-6  # scores that float32, in which the original computes, does not tell apart
GIVEN = {"logits", "mc_logits", "ids", "labelled", "n_new", "map/logits", "map/gold"}
SCORED = {"least-conf": "least_conf", "entropy": "entropy", "mc-entropy": "mc_entropy", "mc-bald": "bald"}
Result = tuple[str, float, float]  # array, deviation, tolerance
Arrays = dict[str, np.ndarray]


def is_given(name: str) -> bool:
    return name in GIVEN or name.startswith(("feature/", "amortised/"))


def distances_before(features: np.ndarray, taken: Sequence[int], picks: Sequence[int]) -> np.ndarray:
    """Squared distance of each pick to everything taken before it: (n,)."""
    points, known = np.asarray(features, np.float64), list(taken)
    found = []
    for pick in picks:
        found.append(squared_distances(points[[pick]], points[known])[0])
        known.append(pick)
    return np.array(found)


def deviation(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind not in "fc":
        return float((actual != expected).mean()) if expected.size else 0.0
    return float(np.abs(actual.astype(np.float64) - expected).max(initial=0))


def scores(given: Arrays) -> Iterator[Result]:
    p, passes = probabilities(given["logits"]), probabilities(given["mc_logits"])
    computed = {"max_prob": max_prob(p), "entropy": entropy_of(p), "mc_entropy": mc_entropy(passes)}
    computed = {f"token/{name}": value for name, value in computed.items()} | {"token/bald": bald(passes)}
    computed |= {f"score/{name}": score(p) for name, score in SINGLE.items()}
    computed |= {f"score/{name}": score(passes) for name, score in MONTE_CARLO.items()}
    for name, value in computed.items():
        if name in given:
            yield name, deviation(value, given[name]), TOLERANCE


def unequal(chosen: list[int], theirs: list[int], values: np.ndarray, taken: list[int]) -> float:
    """Share of the picks that the other set does not have, but for ties; infinite where one is no set of free items."""
    free = (len({*picks, *taken}) == len(picks) + len(taken) for picks in (chosen, theirs))
    if len(chosen) != len(theirs) or not all(free):
        return float("inf")
    ours, others = (np.sort(values[sorted(a - b)]) for a, b in ((set(chosen), set(theirs)), (set(theirs), set(chosen))))
    return float((np.abs(ours - others) > TIED).sum()) / max(len(theirs), 1)


def by_score(given: Arrays, places: dict[int, int], taken: list[int]) -> Iterator[Result]:
    """Position 0 alone, as the original scores one softmax."""
    outlook = Outlook(given["logits"][:, :1], given["mc_logits"][:, :, :1])
    for strategy, name in SCORED.items():
        expected = given.get(f"select/{strategy}")
        if expected is not None:
            values = Acquisition(name).scores(outlook)
            chosen = highest(values, taken, len(expected), np.random.default_rng(0))
            yield f"select/{strategy}", unequal(chosen, [places[int(one)] for one in expected], values, taken), 0.0


def at_random(given: Arrays, taken: list[int]) -> Iterator[Result]:
    """One draw of either side: no id twice, none labelled, as many as asked for."""
    name, pool, labelled = "select/baseline", given["ids"], set(given["labelled"].tolist())
    if name not in given:
        return
    picks = Acquisition("random").choose(Outlook(), taken, len(pool), int(given["n_new"]), np.random.default_rng(0))
    for chosen in (given[name], pool[picks.positions]):
        one = set(chosen.tolist())
        sound = len(one) == len(chosen) == int(given["n_new"]) and not one & labelled and one <= set(pool.tolist())
        yield name, 0.0 if sound else float("inf"), 0.0


def core_sets(given: Arrays, taken: list[int]) -> Iterator[Result]:
    places = {int(one): place for place, one in enumerate(given["ids"])}
    for name in sorted(given):
        match = re.fullmatch(r"select/coreset-([^-#]+)(-amortised)?", name)
        if match is None:
            continue
        features, expected = given[f"feature/{match[1]}"], given[name]
        short = Amortised(int(given["amortised/pca"]), int(given["amortised/updates"])) if match[2] else None
        picks: Picks = k_center(features, taken, len(expected), amortised=short)
        distances = distances_before(features, taken, picks.positions)
        theirs = distances_before(features, taken, [places[int(one)] for one in expected])
        if len(np.unique(features, axis=0)) == len(features):
            yield name, deviation(given["ids"][picks.positions], expected), 0.0
        else:
            yield name, deviation(distances, theirs), TOLERANCE
        if f"{name}#sq_distance" in given:
            yield f"{name}#sq_distance", deviation(distances, given[f"{name}#sq_distance"]), TOLERANCE


def gold_terms(logits: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., C) logits and (...) labels -> probability of the label, and 1 where no other id is likelier.

    An exact tie counts as right, as in the original.
    """
    p = probabilities(logits)
    p_gold = np.take_along_axis(p, np.asarray(gold)[..., None], axis=-1)[..., 0]
    own = np.take_along_axis(logits, np.asarray(gold)[..., None], axis=-1)[..., 0]
    return p_gold, (own == logits.max(axis=-1)).astype(np.float64)


def dataset_map(given: Arrays) -> Iterator[Result]:
    if "map/logits" not in given:
        return
    logits = given["map/logits"]
    p_gold, hits = gold_terms(logits, np.broadcast_to(given["map/gold"], logits.shape[:2]))
    known = DatasetMap.of(given["ids"], p_gold, hits)
    computed = {"p_gold": p_gold, "confidence": known.confidence, "variability": known.variability}
    computed |= {"correctness": known.correctness, "bucket": np.array(known.buckets)}
    computed |= {"ids_by_correctness": known.ranked("correctness")}
    for name, value in computed.items():
        if f"map/{name}" in given:
            yield f"map/{name}", deviation(value, given[f"map/{name}"]), MAP_TOLERANCE


def check(folder: Path) -> tuple[list[str], bool]:
    """One line an array, and whether all are within tolerance; an array that nothing computes is a failure."""
    given: Arrays = dict(np.load(folder / "expected.npz"))
    places = {int(one): place for place, one in enumerate(given["ids"])}
    taken = [places[int(one)] for one in given["labelled"]]
    results = [*scores(given), *by_score(given, places, taken), *at_random(given, taken), *core_sets(given, taken)]
    results += dataset_map(given)
    lines = [f"{name} {error:.2e} {'ok' if error <= most else 'FAIL'}" for name, error, most in results]
    done = {name for name, _, _ in results}
    rest = sorted(name for name in given if name not in done and not is_given(name))
    passed = all(error <= most for _, error, most in results)
    return [*lines, *(f"{name} nan FAIL" for name in rest)], passed and not rest


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    printed, agreed = check(Path(sys.argv[1]))
    print("\n".join(printed))
    sys.exit(0 if agreed else 1)
