"""The test starts on file: those that were drawn, each with its own name, and no start lost without one."""

from dataclasses import replace
from pathlib import Path

import pytest

from vlakit.errors import CorruptRecord
from vlakit.evaluation.starts import fingerprint
from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.evaluation.suites.tabletop.states import draw_state
from vlakit.evaluation.suites.tabletop.stored import FOLDER, state_file, store_states, stored_states
from vlakit.evaluation.suites.tabletop.suite import TASK_ORDER, TabletopSuite, axis_names

SUITES = [*((name, "none", 100) for name in ("d0", "d1", "d2", "d3", "d4", "target")),
          *(("target", axis, 40) for axis in axis_names())]  # fmt: skip
IDS = [f"{name}.{axis}" for name, axis, _ in SUITES]


def called(axis: str, task: str) -> str:
    return task if axis == "none" else f"{axis}/{task}"


@pytest.mark.parametrize(("name", "axis", "n"), SUITES, ids=IDS)
def test_stored_starts_are_the_drawn_ones(name: str, axis: str, n: int) -> None:
    embodiment = load_embodiment(name)
    for task in TASK_ORDER:
        stored = stored_states(embodiment, axis, called(axis, task))
        assert len(stored) == n
        for seed in (0, 1, 2, n - 1):
            drawn = draw_state(embodiment, axis, task, seed, "test")
            assert stored[seed] == drawn
            assert fingerprint([stored[seed]]) == fingerprint([drawn])


def test_every_stored_start_has_its_own_name() -> None:
    suites = [TabletopSuite(name, [axis]) for name, axis, _ in SUITES]
    numbers = [n for _, _, n in SUITES]
    names = [s.name for suite, n in zip(suites, numbers, strict=True) for task in suite.tasks
             for s in suite.initial_states(task, n)]  # fmt: skip
    assert len(set(names)) == len(names) == 6 * 500 + 5 * 200


def test_a_suite_takes_the_stored_starts_and_draws_what_is_missing() -> None:
    suite = TabletopSuite("target", ["visual"])
    states = suite.initial_states("visual/push", 42)
    assert states[:40] == stored_states(suite.embodiment, "visual", "visual/push")
    assert states[40:] == [draw_state(suite.embodiment, "visual", "push", seed, "test") for seed in (40, 41)]
    assert len(suite.initial_states("visual/push", 3)) == 3


def test_other_splits_are_drawn() -> None:
    names = [state.name for state in TabletopSuite("d0", split="select").initial_states("lift", 2)]
    assert names == ["d0/lift/select-0", "d0/lift/select-1"]


def test_an_embodiment_of_ones_own_or_changed_has_no_stored_starts() -> None:
    d0 = load_embodiment("d0")
    assert stored_states(replace(d0, name="mine"), "none", "lift") == []
    assert stored_states(replace(d0, step_m=0.01), "none", "lift") == []


def test_the_same_starts_give_the_same_bytes(tmp_path: Path) -> None:
    d0 = load_embodiment("d0")
    states = [state for task in TASK_ORDER for state in stored_states(d0, "none", task)]
    first = store_states(d0, "none", states, tmp_path).read_bytes()
    assert store_states(d0, "none", states, tmp_path).read_bytes() == first
    assert stored_states(d0, "none", "lift", tmp_path) == stored_states(d0, "none", "lift")


def test_files_stay_small() -> None:
    sizes = [file.stat().st_size for file in FOLDER.glob("*.json.gz")]
    assert len(sizes) == len(SUITES)
    assert max(sizes) < 250_000
    assert sum(sizes) < 1_500_000


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = state_file("d0", "none", tmp_path)
    path.write_bytes(state_file("d0", "none").read_bytes()[:5000])
    with pytest.raises(CorruptRecord, match=r"d0\.none\.json\.gz"):
        stored_states(load_embodiment("d0"), "none", "lift", tmp_path)
