"""Stopped as soon as it is decided, an evaluation errs no more often than it says, and stops in one place only."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluations import record
from fake_suite import FakeSuite, Seeker

from vlakit.compare.records import read_header
from vlakit.errors import ConfigError, InvalidData
from vlakit.evaluation.records import EPISODES, HEADER, EpisodeRecord, read_episodes
from vlakit.evaluation.run import Request, evaluate
from vlakit.evaluation.stopping import PairedStop, Verdict
from vlakit.schema import Float32, Observation
from vlakit.stats.sequential import SequentialTest

SUITE, BUDGET = FakeSuite(limit=8), 24


def decided(against: Path, **changes: object) -> Request:
    options = {"episodes": BUDGET, "slots": 4, "stop": "decided", "against": against, **changes}
    return Request(**options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished evaluation of doing nothing, which never succeeds."""
    out = tmp_path_factory.mktemp("idle")
    evaluate("nothing", SUITE, Request(episodes=BUDGET, slots=4), out)
    return out


def as_ended(successes: list[bool], rng: np.random.Generator, slots: int = 8) -> Iterator[EpisodeRecord]:
    """Records as `slots` beside each other end: a success takes 3 steps, a failure 9."""
    ends, free = [], np.zeros(slots)
    for number, success in enumerate(successes):
        slot = number % slots
        free[slot] += 3 if success else 9
        ends.append((free[slot] + 0.01 * rng.random(), number))
    for _, number in sorted(ends):
        yield record(number, "lift", float(successes[number]))


def stopped(ended: Iterator[EpisodeRecord], others: list[bool]) -> Verdict:
    stop = PairedStop(others, 0.95)
    for one in ended:
        if stop.add(one):
            break
    return stop.verdict


def in_order_of_ends(ended: Iterator[EpisodeRecord], others: list[bool]) -> str:
    """What a test would say that takes pairs as they come."""
    test = SequentialTest(len(others))
    for one in ended:
        if test.add(float(one.success), float(others[one.number])) != "go on":
            break
    return test.decision


def test_equal_policies_are_told_apart_in_at_most_5_percent_of_evaluations_though_successes_end_first() -> None:
    rng, n, budget = np.random.default_rng(0), 40, 40
    wrong, wrong_as_they_end = 0, 0
    for _ in range(n):
        chance = rng.uniform(0.3, 0.7, budget)  # of each start, shared by both
        ours, others = ((rng.random(budget) < chance).tolist() for _ in range(2))
        wrong += stopped(as_ended(ours, rng, slots=40), others).verdict != "cannot tell"
        wrong_as_they_end += in_order_of_ends(as_ended(ours, rng, slots=40), others) != "cannot tell"
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)
    assert wrong / n <= limit
    assert wrong_as_they_end / n > limit  # what the order of the evaluation is for


def test_what_ends_first_decides_nothing() -> None:
    rng = np.random.default_rng(1)
    ours, others = (rng.random(50) < 0.9).tolist(), (rng.random(50) < 0.3).tolist()
    in_order = stopped((record(i, "lift", float(success)) for i, success in enumerate(ours)), others)
    assert in_order.verdict == "better"
    assert in_order.pairs < 50
    for slots in (1, 4, 32):
        assert stopped(as_ended(ours, rng, slots), others) == in_order


def test_an_evaluation_stops_when_it_is_decided_and_says_so(idle: Path, tmp_path: Path) -> None:
    evaluated = evaluate("expert", SUITE, decided(idle), tmp_path)
    assert evaluated.verdict is not None
    assert (evaluated.verdict.verdict, evaluated.verdict.budget) == ("better", BUDGET)
    assert evaluated.verdict.pairs == evaluated.pooled.episodes < BUDGET
    assert evaluated.verdict.p <= 0.05
    assert [one.number for one in read_episodes(tmp_path)] == list(range(evaluated.verdict.pairs))
    header = read_header(tmp_path)
    assert header["settings"]["stop"]["budget"] == BUDGET
    assert header["stopped"] == {**evaluated.to_dict()["stopped"], "against": str(idle)}
    assert evaluate("nothing", SUITE, decided(idle), tmp_path / "other").to_dict()["stopped"] == {
        "verdict": "cannot tell", "pairs": BUDGET, "budget": BUDGET, "p": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("kept", [0, 1, 5, 100])
def test_resumed_after_a_kill_it_stops_where_it_would_have(idle: Path, tmp_path: Path, kept: int) -> None:
    whole = evaluate("expert", SUITE, decided(idle), tmp_path / "whole")
    cut = Path(shutil.copytree(tmp_path / "whole", tmp_path / "cut"))
    lines = (cut / EPISODES).read_bytes().splitlines(keepends=True)
    (cut / EPISODES).write_bytes(b"".join(lines[:kept]) + b'{"number": 3, "suite": "fa')
    again = evaluate("expert", SUITE, decided(idle), cut)
    assert again.to_dict() == {**whole.to_dict(), "out": str(cut)}
    assert read_episodes(cut) == read_episodes(tmp_path / "whole")


def test_killed_between_the_decision_and_the_last_write_it_drops_what_ended_beside_it(
    idle: Path, tmp_path: Path
) -> None:
    whole = evaluate("expert", SUITE, decided(idle), tmp_path / "stopped")
    evaluate("expert", SUITE, Request(episodes=BUDGET, slots=4), tmp_path / "full")
    beside = (tmp_path / "full" / EPISODES).read_bytes().splitlines(keepends=True)
    (tmp_path / "stopped" / EPISODES).write_bytes(b"".join(beside[: whole.pooled.episodes + 3]))
    assert evaluate("expert", SUITE, decided(idle), tmp_path / "stopped").to_dict() == whole.to_dict()
    assert len(read_episodes(tmp_path / "stopped")) == whole.pooled.episodes


def test_budget_rule_and_rival_are_fixed_with_the_first_episode(idle: Path, tmp_path: Path) -> None:
    evaluate("expert", SUITE, decided(idle), tmp_path / "out")
    for other in (decided(idle, episodes=BUDGET - 2), decided(idle, confidence=0.9), Request(episodes=BUDGET, slots=4)):
        with pytest.raises(ConfigError, match=r"another evaluation: .*stop"):
            evaluate("expert", SUITE, other, tmp_path / "out")
    moved = Path(shutil.copytree(idle, tmp_path / "moved"))
    evaluate("expert", SUITE, decided(moved), tmp_path / "out")  # where it lies is no matter


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"suite": "other"}, "its suite is other"),
        ({"versions": {"renderer": "osmesa", "mujoco": "none"}}, "renderer osmesa, here dots"),
        ({"states": "0" * 16}, "other initial states"),
        ({"episodes": 40}, "did not end: 24 of 40"),
    ],
    ids=str,
)
def test_an_evaluation_that_does_not_pair_is_refused(
    change: dict[str, object], why: str, idle: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(idle, tmp_path / "other"))
    header = json.loads((other / HEADER).read_text())
    (other / HEADER).write_text(json.dumps({**header, "settings": {**header["settings"], **change}}))
    with pytest.raises(InvalidData, match=why) as caught:
        evaluate("expert", SUITE, decided(other), tmp_path / "out")
    assert "against=DIR" in caught.value.do
    assert not (tmp_path / "out").exists()


def test_a_budget_beyond_the_others_episodes_is_refused(idle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no episode from 6 of 30 initial states"):
        evaluate("expert", SUITE, decided(idle, episodes=30), tmp_path / "out")


def test_stop_and_against_belong_together(idle: Path) -> None:
    for half in ({"against": None}, {"stop": None}):
        with pytest.raises(ConfigError, match="give both or neither"):
            replace(decided(idle), **half)  # type: ignore[arg-type]


def test_a_policy_that_raises_counts_as_failed(idle: Path, tmp_path: Path) -> None:
    class Broken(Seeker):
        def chunk(self, observation: Observation) -> Float32:
            raise RuntimeError("the adapter is gone")

    evaluated = evaluate(Broken(), SUITE, decided(idle), tmp_path, name="broken")
    assert evaluated.verdict is not None
    assert evaluated.verdict.verdict == "cannot tell"
    assert len(evaluated.failed) == BUDGET
