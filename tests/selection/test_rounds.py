"""Rounds: what is labelled when, going on after a kill, and that nobody reads what was not bought."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlakit.errors import ConfigError, CorruptRecord
from vlakit.selection.acquisitions import ACQUISITIONS, Acquisition, Need, Outlook
from vlakit.selection.rounds import ROUNDS, Plan, Round, first_ids, read_rounds, run

N = 30
ACTIONS = np.random.default_rng(1).standard_normal((N, 3))
SEEN = np.random.default_rng(2).standard_normal((N, 4))


class Sealed:
    """Labels that raise unless their demonstration was acquired."""

    def __init__(self, bought: Collection[int]) -> None:
        self.bought = set(bought)

    def __getitem__(self, one: int) -> np.ndarray:
        if one not in self.bought:
            raise AssertionError(f"the label of {one} was read")
        return ACTIONS[one]


class Ridge:
    """A learner with real passes: one ridge regression a bootstrap of what is labelled, over 5 possible answers."""

    def __init__(self, stop_in: int | None = None) -> None:
        self.stop_in, self.fitted = stop_in, list[int]()

    def fit(self, number: int, ids: Sequence[int]) -> dict[str, float]:
        if number == self.stop_in:
            raise KeyboardInterrupt
        self.fitted.append(number)
        labels = Sealed(ids)
        self.weights = []
        for seed in range(4):
            drawn = np.random.default_rng([number, seed]).choice(list(ids), len(ids))
            x, y = SEEN[drawn], np.stack([labels[int(one)] for one in drawn])
            self.weights.append(np.linalg.solve(x.T @ x + np.eye(4), x.T @ y))
        return {"error": float(((SEEN[list(ids)] @ self.weights[0]) ** 2).mean())}

    def outlook(self, number: int, need: Need) -> Outlook:
        answers = np.stack([SEEN @ weights for weights in self.weights])  # (K, N, 3)
        logits = -((answers[..., None] - np.linspace(-1, 1, 5)) ** 2)
        return Outlook(logits[0], logits, {"vision": SEEN, "language": SEEN[:, :1].round(), "fused": answers[0]})


def plan_of(name: str, **numbers: int) -> Plan:
    return Plan(Acquisition(name), **{"first": 4, "batch": 3, "rounds": 4, **numbers})


def rounds(plan: Plan, out: Path, learner: Ridge | None = None, **more: Any) -> list[Round]:
    return run(plan, N, learner or Ridge(), out, identity={"pool": "thirty"}, **more)


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_labels_of_what_was_not_acquired_are_never_read_and_no_id_comes_twice(name: str, tmp_path: Path) -> None:
    done = rounds(plan_of(name), tmp_path)
    assert [len(one.labelled) for one in done] == [4, 7, 10, 13]
    assert all(len(set(one.labelled)) == len(one.labelled) for one in done)
    for before, after in pairwise(done):
        assert after.labelled == [*before.labelled, *before.acquired]
    assert done[-1].acquired == []
    assert read_rounds(tmp_path) == done


@pytest.mark.parametrize("name", ["random", "bald", "coreset_language"])
def test_a_run_that_was_stopped_goes_on_to_the_same_ids_and_fits_no_round_twice(name: str, tmp_path: Path) -> None:
    whole = rounds(plan_of(name), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        rounds(plan_of(name), tmp_path / "cut", Ridge(stop_in=2))
    rest = Ridge()
    assert rounds(plan_of(name), tmp_path / "cut", rest) == whole
    assert rest.fitted == [2, 3]
    again = Ridge()
    assert rounds(plan_of(name), tmp_path / "cut", again) == whole
    assert again.fitted == []


def test_the_same_seed_gives_the_same_ids_and_all_acquisitions_begin_alike(tmp_path: Path) -> None:
    runs = [rounds(plan_of(name), tmp_path / name) for name in ("random", "entropy", "coreset_vision")]
    assert len({tuple(one[0].labelled) for one in runs}) == 1
    assert rounds(plan_of("entropy"), tmp_path / "again") == runs[1]
    assert first_ids(plan_of("random", seed=1), N) != runs[0][0].labelled


def test_more_rounds_may_be_asked_for_later(tmp_path: Path) -> None:
    whole = rounds(plan_of("entropy", rounds=4), tmp_path / "whole")
    rounds(plan_of("entropy", rounds=2), tmp_path / "grown")
    assert rounds(plan_of("entropy", rounds=4), tmp_path / "grown") == whole


def test_what_is_left_out_is_neither_bought_nor_a_centre(tmp_path: Path) -> None:
    gone = [int(one) for one in np.random.default_rng(0).permutation(N)[:12]]
    for name in ("random", "coreset_vision", "least_conf"):
        done = rounds(plan_of(name), tmp_path / name, left_out=gone)
        assert not set(done[-1].labelled) & set(gone)
    with pytest.raises(ConfigError, match="22 demonstrations are asked for, 18"):
        rounds(plan_of("random", rounds=7), tmp_path / "more", left_out=gone)
    assert not (tmp_path / "more").exists()


def test_outliers_are_counted_and_do_not_decide(tmp_path: Path) -> None:
    known = rounds(plan_of("bald"), tmp_path / "known", outliers=range(15))
    blind = rounds(plan_of("bald"), tmp_path / "blind")
    assert [one.outlier_share for one in blind] == [None] * 4
    shares = [sum(i < 15 for i in one.labelled) / len(one.labelled) for one in known]
    assert [one.outlier_share for one in known] == shares
    assert [replace(one, outlier_share=None) for one in known] == blind


def test_another_run_in_the_folder_is_refused_and_a_broken_record_named(tmp_path: Path) -> None:
    rounds(plan_of("random"), tmp_path)
    with pytest.raises(ConfigError, match="another acquisition, seed"):
        rounds(plan_of("bald", seed=3), tmp_path)
    with pytest.raises(ConfigError, match="rounds"):
        rounds(plan_of("random", rounds=2), tmp_path)
    (tmp_path / ROUNDS).write_text(json.dumps({"number": 1}) + "\n")
    with pytest.raises(CorruptRecord, match="labelled"):
        read_rounds(tmp_path)


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch=0"):
        plan_of("random", batch=0)
