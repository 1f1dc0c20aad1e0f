"""The use case below the command line: anybody's policy, a typed request, a typed result."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fake_suite import FakeSuite, Seeker

from vlakit.checked import check
from vlakit.compare.records import read_header
from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.latency import Control
from vlakit.evaluation.records import EPISODES, HEADER, EpisodeRecord, read_episodes
from vlakit.evaluation.run import Request, evaluate

SUITE = FakeSuite()
KEYS = {"subject", "suite", "out", "gate", "tasks", "files", "task", "episodes", "successes", "success", "low", "high"}


def test_anybodys_policy_is_rolled_out_recorded_and_summed_up(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(records: Any, total: int) -> None:
        seen.append((len(records), total))

    evaluated = evaluate(
        Seeker(), SUITE, Request(episodes=6, slots=2), tmp_path, name="seeker", suite_settings={"limit": 25},
        progress=progress,
    )  # fmt: skip
    assert (evaluated.subject, evaluated.suite, evaluated.pooled.success) == ("seeker", "fake", 1.0)
    assert [row.task for row in evaluated.tasks] == ["reach", "far"]
    assert (evaluated.gate, evaluated.verdict, evaluated.failed, evaluated.files) == (None, None, [], [])
    assert seen == [(n, 6) for n in range(7)]
    assert [file.is_file() for file in evaluated.records] == [True, True]
    assert {record.policy for record in read_episodes(tmp_path)} == {"seeker"}
    settings = read_header(tmp_path)["settings"]
    assert (settings["policy"], settings["suite_settings"], settings["slots"]) == (
        {"policy": "seeker"},
        {"limit": 25},
        2,
    )
    assert "stop" not in settings


def test_the_report_is_plain_values_with_the_keys_it_always_had(tmp_path: Path) -> None:
    report = evaluate("expert", SUITE, Request(episodes=4, slots=2), tmp_path).to_dict()
    assert json.loads(json.dumps(report)) == report
    assert set(report) == KEYS | {"credit", "steps", "errors"}


def test_the_same_request_runs_nothing_again_and_another_is_refused(tmp_path: Path) -> None:
    request = Request(episodes=4, slots=2)
    first = evaluate("expert", SUITE, request, tmp_path)
    records: list[EpisodeRecord] = read_episodes(tmp_path)
    assert evaluate("expert", SUITE, request, tmp_path).to_dict() == first.to_dict()
    assert [one.wall_s for one in read_episodes(tmp_path)] == [one.wall_s for one in records]
    with pytest.raises(ConfigError, match=r"policy\.control was expert, is nothing"):
        evaluate("nothing", SUITE, request, tmp_path)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_more_episodes_go_on_from_those_that_are_there(tmp_path: Path, n: int) -> None:
    evaluate("expert", SUITE, Request(episodes=n, slots=2), tmp_path / "grown")
    before = (tmp_path / "grown" / EPISODES).read_bytes()
    grown = evaluate("expert", SUITE, Request(episodes=7, slots=2), tmp_path / "grown")
    whole = evaluate("expert", SUITE, Request(episodes=7, slots=2), tmp_path / "whole")
    assert (tmp_path / "grown" / EPISODES).read_bytes().startswith(before)
    assert read_episodes(tmp_path / "grown") == read_episodes(tmp_path / "whole")
    assert read_header(tmp_path / "grown") == read_header(tmp_path / "whole")
    assert grown.pooled == whole.pooled
    with pytest.raises(ConfigError, match="episodes was 7, is 4"):
        evaluate("expert", SUITE, Request(episodes=4, slots=2), tmp_path / "grown")


def test_more_episodes_of_another_seed_are_refused(tmp_path: Path) -> None:
    evaluate("expert", SUITE, Request(episodes=4), tmp_path)
    before = (tmp_path / HEADER).read_bytes()
    with pytest.raises(ConfigError, match="seed was 0, is 1\n"):
        evaluate("expert", SUITE, Request(episodes=7, seed=1), tmp_path)
    assert (tmp_path / HEADER).read_bytes() == before


def test_a_folder_written_before_the_suites_code_moved_goes_on(tmp_path: Path) -> None:
    """Version 0.1.0 wrote vlakit.evaluation.tabletop.suite.TabletopSuite."""
    moved = {"_target_": "vlakit.evaluation.fake.FakeSuite", "limit": 25}
    evaluate("expert", SUITE, Request(episodes=4), tmp_path, suite_settings=moved)
    header = (tmp_path / HEADER).read_text()
    now = {**moved, "_target_": "vlakit.evaluation.suites.fake.FakeSuite"}
    evaluate("expert", SUITE, Request(episodes=4), tmp_path, suite_settings=now)
    assert (tmp_path / HEADER).read_text() == header
    with pytest.raises(ConfigError, match=r"suite_settings\.limit was 25, is 8"):
        evaluate("expert", SUITE, Request(episodes=4), tmp_path, suite_settings={**now, "limit": 8})


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"episodes": 2.5}, "key 'episodes': expected a whole number"),
        ({"gate": "no"}, "key 'gate': expected true or false"),
        ({"tasks": "reach"}, "key 'tasks': expected a list"),
        ({"slots": 0}, "key 'slots': expected a number of at least 1"),
        ({"confidence": 1.0}, "key 'confidence': expected a number below 1"),
        ({"stop": "now"}, "key 'stop': unknown value 'now'"),
        ({"control": {"latency": 3}}, "key 'control': unknown key 'latency'"),
        ({"control": {"latency_ms": "measured"}}, "the time of 32 answers"),
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_refused(values: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(Request, values, "vlakit evaluate")
    assert what in caught.value.what
    assert caught.value.do


def test_a_control_keeps_its_numbers_as_they_were_given() -> None:
    request = check(Request, {"control": {"latency_ms": 200, "blocking": False, "execute": None}}, "vlakit evaluate")
    assert request.control == Control(200, blocking=False)
    assert json.dumps(asdict(request.control)) == '{"latency_ms": 200, "blocking": false, "execute": null}'


def test_a_control_that_does_not_exist_and_a_task_that_does_not_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="expret"):
        evaluate("expret", SUITE, Request(), tmp_path)
    with pytest.raises(UnknownName, match="reech"):
        evaluate("expert", SUITE, Request(tasks=("reech",)), tmp_path)
