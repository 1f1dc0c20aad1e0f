"""Table 1 along the axes: from evaluations to the outcomes that are kept, and from these to the table, and back."""

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from evaluations import record
from places import ROOT

from vlakit.cli.suites import suite_settings
from vlakit.errors import InvalidData
from vlakit.evaluation.records import EPISODES
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.evaluation.suites.tabletop.stored import stored_states
from vlakit.evaluation.suites.tabletop.suite import axis_names
from vlakit.stats.seeds import mean_interval

USUAL = 2  # starts a task as trained
FEW = {"visual": 6, "motion": 4, "physical": 4, "semantic": 4, "language": 4}  # starts a task


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("axes", ROOT / "experiments" / "table1_finetuning" / "axes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def axes(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, on a few starts."""
    monkeypatch.setattr(script, "SUITES", {axis: (suite, FEW[axis]) for axis, (suite, _) in script.SUITES.items()})
    return script


def test_it_takes_all_starts_on_file(script: ModuleType) -> None:
    target = load_embodiment("target")
    assert {
        (axis, per_task) for axis, (suite, per_task) in script.SUITES.items() if suite_settings(suite)["axes"] == [axis]
    } == {(axis, len(stored_states(target, axis, f"{axis}/lift"))) for axis in axis_names()}


def write_run(axes: ModuleType, folder: Path, name: str, wins: Callable[[InitialState], bool]) -> Path:
    """A training that was evaluated already."""
    suites = {axis: suite for axis, (suite, _) in axes.SUITES.items()}
    lines: dict[str, list[str]] = {}
    for i, state in enumerate(axes.stored(USUAL)):
        suite = suites.get(state.task.rpartition("/")[0], axes.USUAL)
        one = record(i, state.task, wins(state), suite=suite, initial_state=state.name, seed=state.seed, actions=[])
        lines.setdefault(suite, []).append(json.dumps(vars(one)))
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"name": name}))
    for suite, content in lines.items():
        (folder / "evaluation" / suite).mkdir(parents=True)
        (folder / "evaluation" / suite / EPISODES).write_text("\n".join(content) + "\n")
    return folder


def deaf(state: InitialState) -> bool:
    """Succeeds with one thing of each scene, whatever is said, and never with unseen shapes."""
    return state.content["variant"] not in {"other", "shapes"}


def half(state: InitialState) -> bool:
    return state.seed % 4 < 2


def rows(axes: ModuleType, folder: Path, *runs: Path) -> dict[tuple[str, str], dict[str, str]]:
    axes.save(axes.collect(runs), folder / "axes_outcomes.csv")
    axes.main(str(folder))
    with (folder / "axes.csv").open() as stream:
        return {(row["strategy"], row["variant"]): row for row in csv.DictReader(stream)}


def test_a_row_is_a_strategy_and_variant_and_listening_is_counted_in_pairs(axes: ModuleType, tmp_path: Path) -> None:
    runs = [write_run(axes, tmp_path / str(i), f"full[seed={i}]", wins) for i, wins in enumerate((deaf, half))]
    runs.append(write_run(axes, tmp_path / "lora", "lora_r32[scale=table,seed=7]", deaf))
    table = rows(axes, tmp_path, *runs)
    shown = {variant: int(row["starts"]) for (strategy, variant), row in table.items() if strategy == "lora_r32"}
    assert shown == {
        "as trained": 5 * USUAL,
        **dict.fromkeys(("background", "distractors", "light", "sizes", "phrasing", "colours", "pairs"), 10),
        "positions": 20,
        "shapes": 8,
        "single": 20,
    }
    alone = {
        variant: float(table["lora_r32", variant]["success"]) for variant in ("shapes", "sizes", "single", "pairs")
    }
    assert alone == {"shapes": 0, "sizes": 1, "single": 0.5, "pairs": 0}
    assert (table["lora_r32", "sizes"]["interval"], table["lora_r32", "sizes"]["high"]) == ("starts", "1.000")
    both = table["full", "pairs"]
    assert (both["runs"], both["success"], both["least"], both["most"]) == ("2", "0.250", "0.000", "0.500")
    assert both["interval"] == "trainings x starts"


def test_intervals_are_over_trainings_and_starts(axes: ModuleType, tmp_path: Path) -> None:
    runs = [write_run(axes, tmp_path / str(i), f"full[seed={i}]", wins) for i, wins in enumerate((deaf, half))]
    outcomes = axes.collect(runs)
    values = dict(axes.grouped(outcomes.states, outcomes.successes["full"]))["motion", "positions"]
    assert axes.interval(values) == (*mean_interval(values.astype(float)), "trainings x starts")


def test_the_outcomes_on_file_say_the_same_as_the_evaluations_and_are_small(axes: ModuleType, tmp_path: Path) -> None:
    names = [f"{name}[seed={seed}]" for name in ("full", "sandwich") for seed in (10, 2)]
    collected = axes.collect([write_run(axes, tmp_path / name, name, half) for name in names])
    axes.save(collected, tmp_path / "axes_outcomes.csv")
    loaded = axes.load(tmp_path / "axes_outcomes.csv")
    assert loaded.seeds == collected.seeds == {"full": ["2", "10"], "sandwich": ["2", "10"]}
    assert [state.name for state in loaded.states] == [state.name for state in collected.states]
    assert all((loaded.successes[name] == collected.successes[name]).all() for name in loaded.seeds)
    assert (tmp_path / "axes_outcomes.csv").stat().st_size < 45 * len(loaded.states)


def test_two_trainings_of_a_seed_are_refused(axes: ModuleType, tmp_path: Path) -> None:
    runs = [write_run(axes, tmp_path / str(i), "full[seed=3]", half) for i in (0, 1)]
    with pytest.raises(InvalidData, match="two trainings of full with seed 3"):
        axes.collect(runs)
