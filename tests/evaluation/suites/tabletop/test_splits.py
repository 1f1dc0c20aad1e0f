"""Which starts a suite offers: each split other scenes, whose names say so, and no rate of them goes without that."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vlakit.cli.evaluate import text
from vlakit.cli.suites import suite_settings
from vlakit.compare.gather import gather
from vlakit.compare.pairs import Settings
from vlakit.compare.records import HEADER, read_header
from vlakit.compare.versus import compare_arms
from vlakit.errors import ConfigError, InvalidData, UnknownName
from vlakit.evaluation.building import build_suite
from vlakit.evaluation.records import read_episodes
from vlakit.evaluation.run import Evaluated, Request, evaluate
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.evaluation.tracked import record_success

KINDS: dict[str, Mapping[str, Any]] = {
    "test": {},
    "select": {"split": "select"},
    "train": {"split": "train"},
    "fresh1": {"split": "fresh", "starts_seed": 1},
    "fresh2": {"split": "fresh", "starts_seed": 2},
}


def scenes(states: list[InitialState]) -> set[str]:
    return {json.dumps(state.content["layout"], sort_keys=True) for state in states}


def test_splits_and_seeds_of_fresh_starts_share_no_scene() -> None:
    drawn = {kind: TabletopSuite("target", **values).initial_states("lift", 60) for kind, values in KINDS.items()}
    drawn["demonstrations"] = TabletopSuite("target").training_states("lift", 60, seed=1)
    every = [scenes(states) for states in drawn.values()]
    assert len(set[str]().union(*every)) == sum(map(len, every)) == 60 * len(drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_starts_say_their_split(kind: str) -> None:
    suite = TabletopSuite("target", ["none", "motion"], **KINDS[kind])
    assert [state.name for state in suite.initial_states("lift", 2)] == [f"target/lift/{kind}-{i}" for i in (0, 1)]
    assert suite.initial_states("motion/lift", 1)[0].name == f"target/motion/lift/{kind}-0"


def test_the_same_seed_draws_the_same_starts() -> None:
    one, other = (TabletopSuite("d0", split="fresh", starts_seed=7).initial_states("push", 3) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("words", "error", "remedy"),
    [
        (["suite.split=tset"], UnknownName, "test"),
        (["suite.split=frehs"], UnknownName, "fresh"),
        (["suite.split=fresh"], ConfigError, "suite.split=fresh suite.starts_seed=1"),
        (["suite.starts_seed=1"], ConfigError, "suite.split=fresh"),
        (["suite.split=select", "suite.starts_seed=0"], ConfigError, "suite.split=fresh"),
        (["suite.split=fresh", "suite.starts_seed=-1"], ConfigError, "whole number"),
        (["suite.split=fresh", "suite.starts_seed=1.5"], ConfigError, "whole number"),
        (["suite.split=fresh", "suite.starts_seed=true"], ConfigError, "whole number"),
    ],
    ids=str,
)
def test_a_split_that_is_none_or_a_seed_without_a_use_is_refused(
    words: list[str], error: type[Exception], remedy: str
) -> None:
    with pytest.raises(error) as caught:
        build_suite(suite_settings("tabletop_d0", words))
    assert remedy in str(caught.value)


def test_starts_of_demonstrations_are_evaluated_only_where_that_is_meant() -> None:
    suite = TabletopSuite("d0", split="train")
    with pytest.raises(ConfigError, match="strict=false"):
        Request(episodes=5).states(suite)
    assert len(Request(episodes=5, strict=False).states(suite)) == 5


def nothing(out: Path, *words: str) -> Evaluated:
    settings, asked = suite_settings("tabletop_target", words), Request(("knock_over",), episodes=2, slots=2)
    return evaluate("nothing", build_suite(settings), asked, out, suite_settings=settings)


@pytest.mark.sim
def test_the_record_says_which_starts_and_comparisons_know(tmp_path: Path) -> None:
    usual, fresh = nothing(tmp_path / "a"), nothing(tmp_path / "b", "suite.split=fresh", "suite.starts_seed=7")
    assert (usual.starts, fresh.to_dict()["starts"]) == ("test", "fresh7")
    settings = read_header(fresh.out)["settings"]
    assert settings["starts"] == "fresh7"
    assert (settings["suite_settings"]["split"], settings["suite_settings"]["starts_seed"]) == ("fresh", 7)
    assert "starts" not in read_header(usual.out)["settings"]
    assert [record.initial_state for record in read_episodes(fresh.out)] == [
        "target/knock_over/fresh7-0",
        "target/knock_over/fresh7-1",
    ]
    arms = gather({"a": str(usual.out), "b": str(fresh.out)})
    with pytest.raises(InvalidData, match="other initial states: none is shared"):
        compare_arms(arms, Settings())
    assert any("from fresh7 starts" in note for note in compare_arms(arms, Settings(), paired="false").notes)


@pytest.mark.slow
@pytest.mark.sim
def test_a_run_keeps_its_usual_numbers_beside_those_of_other_starts(tmp_path: Path) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = mlflow.MlflowClient(uri).create_run(mlflow.MlflowClient(uri).create_experiment("x", f"{tmp_path}/artifacts"))
    facts = {"mlflow_run_id": run.info.run_id}
    record_success(nothing(tmp_path / "a"), facts, uri)
    record_success(nothing(tmp_path / "b", "suite.split=fresh", "suite.starts_seed=7"), facts, uri)
    metrics = mlflow.MlflowClient(uri).get_run(run.info.run_id).data.metrics
    assert set(metrics) == {
        "eval/success",
        "eval/success/knock_over",
        "eval/success/tabletop_target",
        "eval/success/tabletop_target_fresh7",
    }


@pytest.mark.sim
def test_a_folder_from_before_there_was_a_seed_of_starts_goes_on(tmp_path: Path) -> None:
    written = nothing(tmp_path).out / HEADER
    header = json.loads(written.read_text())
    del header["settings"]["suite_settings"]["starts_seed"]
    written.write_text(json.dumps(header))
    nothing(tmp_path)
    with pytest.raises(ConfigError, match="split was test, is fresh"):
        nothing(tmp_path, "suite.split=fresh", "suite.starts_seed=1")


@pytest.mark.sim
def test_an_evaluation_of_listening_counts_pairs_and_no_other_does(tmp_path: Path) -> None:
    settings = suite_settings("tabletop_listening")
    suite, asked = build_suite(settings), Request(("language/knock_over",), episodes=5, slots=5)
    expert = evaluate("expert", suite, asked, tmp_path / "expert", suite_settings=settings)
    outcomes = [record.success for record in read_episodes(expert.out)]
    pairs = [outcomes[0] and outcomes[1], outcomes[2] and outcomes[3]]
    row = expert.to_dict()["pairs"]
    assert (row["task"], row["episodes"], row["successes"]) == ("pairs both right", 2, sum(pairs))
    assert sum(pairs) > 0
    assert text(expert).splitlines()[-2].split()[:4] == ["pairs", "both", "right", "2"]
    deaf = evaluate("nothing", suite, asked, tmp_path / "nothing", suite_settings=settings)
    assert deaf.to_dict()["pairs"]["successes"] == 0
    assert "pairs" not in nothing(tmp_path / "usual").to_dict()
