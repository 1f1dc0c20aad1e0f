"""The test starts on file: those that were drawn, each with its own name, and no start lost without one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vlakit.errors import CorruptRecord
from vlakit.evaluation.starts import fingerprint
from vlakit.evaluation.suites.tabletop.axes import PHRASINGS, UNSEEN_COLOURS, pairs_right, variant_of
from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.evaluation.suites.tabletop.scene import Thing
from vlakit.evaluation.suites.tabletop.states import Start, draw_state
from vlakit.evaluation.suites.tabletop.stored import FOLDER, state_file, store_states, stored_states
from vlakit.evaluation.suites.tabletop.suite import TASK_ORDER, TabletopSuite, axis_names

AXES = {"visual": 120, "motion": 40, "physical": 100, "semantic": 80, "language": 80}  # starts a task
SUITES = [*((name, "none", 100) for name in ("d0", "d1", "d2", "d3", "d4", "target")),
          *(("target", axis, n) for axis, n in AXES.items())]  # fmt: skip
FIRST = {  # fingerprints of the first 40 starts a task, as version 0.1.0 had them
    "visual": "5cf7e634cc878509",
    "motion": "070d3a39f360a36a",
    "physical": "93e821d24d6396e4",
    "semantic": "6f8fab5465910227",
    "language": "e70c906aa8b869a7",
}
CHANGED = {"background", "distractors", "light", "positions", "sizes", "shapes", "colours", "phrasing", "one", "other"}
TARGET = load_embodiment("target")
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


@pytest.mark.parametrize("axis", AXES)
def test_starts_are_added_behind_and_the_first_ones_stay(axis: str) -> None:
    first = [s for task in TASK_ORDER for s in stored_states(TARGET, axis, f"{axis}/{task}")[:40]]
    assert fingerprint(first) == FIRST[axis]


def test_every_axis_is_on_file_and_every_variant_has_200_starts() -> None:
    assert set(AXES) == set(axis_names())
    counts = Counter(variant_of(s) for axis in AXES for task in TASK_ORDER
                     for s in stored_states(TARGET, axis, f"{axis}/{task}"))  # fmt: skip
    assert set(counts) - {""} == CHANGED
    assert all(counts[variant] >= 200 for variant in CHANGED)


@pytest.mark.parametrize(
    ("axis", "variant", "holds"),
    [
        ("visual", "background", lambda start, x: start.layout.look.table != TARGET.look.table),
        ("visual", "light", lambda start, x: start.layout.look.light_from != TARGET.look.light_from),
        ("visual", "distractors", lambda start, x: len(start.layout.things) >= 4 + (start.goal.y is not None)),
        ("physical", "sizes", lambda start, x: abs(x.size - 1) >= 0.15),
        ("physical", "shapes", lambda start, x: x.shape in {"brick", "egg", "disc"}),
        ("semantic", "colours", lambda start, x: x.colour in UNSEEN_COLOURS),
    ],
)
def test_a_variant_shows_what_it_is_called(axis: str, variant: str, holds: Callable[[Start, Thing], bool]) -> None:
    states = [s for task in TASK_ORDER for s in stored_states(TARGET, axis, f"{axis}/{task}")]
    starts = [Start.from_dict(s.content) for s in states if variant_of(s) == variant]
    assert all(holds(start, start.layout.things[start.goal.x]) for start in starts)


def test_phrasings_are_in_other_words_and_no_others_are() -> None:
    for axis in AXES:
        for task in TASK_ORDER:
            for state in stored_states(TARGET, axis, f"{axis}/{task}"):
                usual = state.instruction.startswith(tuple(PHRASINGS))
                assert usual != (variant_of(state) == "phrasing"), state.instruction


def test_a_pair_shares_its_scene_and_names_two_things() -> None:
    for task in TASK_ORDER:
        states = stored_states(TARGET, "language", f"language/{task}")
        for one, other in zip(states[::2], states[1::2], strict=True):
            assert one.content["layout"] == other.content["layout"]
            assert one.content["goal"]["x"] != other.content["goal"]["x"]
            assert (one.seed // 2, one.seed % 2, other.seed % 2) == (other.seed // 2, 0, 1)


def test_who_does_not_listen_gets_no_pair_right() -> None:
    deaf = {("lift", seed): seed % 2 == 0 for seed in range(40)}
    assert not any(pairs_right(deaf).values())
    assert all(pairs_right(dict.fromkeys(deaf, True)).values())
    assert len(pairs_right(deaf)) == 20
    assert pairs_right({("lift", 1): True, ("push", 2): True, ("lift", 2): True, ("push", 3): False}) == {
        ("push", 1): False
    }


def test_every_stored_start_has_its_own_name() -> None:
    suites = [TabletopSuite(name, [axis]) for name, axis, _ in SUITES]
    numbers = [n for _, _, n in SUITES]
    names = [s.name for suite, n in zip(suites, numbers, strict=True) for task in suite.tasks
             for s in suite.initial_states(task, n)]  # fmt: skip
    assert len(set(names)) == len(names) == 6 * 500 + 5 * sum(AXES.values())


def test_a_suite_takes_the_stored_starts_and_draws_what_is_missing() -> None:
    suite = TabletopSuite("target", ["visual"])
    states = suite.initial_states("visual/push", 122)
    assert states[:120] == stored_states(suite.embodiment, "visual", "visual/push")
    assert states[120:] == [draw_state(suite.embodiment, "visual", "push", seed, "test") for seed in (120, 121)]
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
