"""An evaluation on disk: resumed it equals an uninterrupted one; another's folder is refused, what differs is named."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_suite import FakeSuite, Seeker, states_of

from vlakit.compare.records import read_header
from vlakit.errors import ConfigError, CorruptRecord, InvalidData
from vlakit.evaluation.records import EPISODES, HEADER, EpisodeRecord, opened, read_episodes, summary
from vlakit.evaluation.rollout import Options, rollout

SUITE = FakeSuite()
STATES = states_of(SUITE, 6)
SETTINGS: dict[str, Any] = {"suite": "fake", "seed": 0, "policy": {"sha256": "a" * 64}}


def evaluate(folder: Path, *, stop_after: int | None = None) -> None:
    with opened(folder, SETTINGS) as evaluation:
        done = {record.initial_state for record in evaluation.done}
        for n, record in enumerate(rollout(SUITE, Seeker(), STATES, Options(4), skip=done), 1):
            evaluation.append(record)
            if n == stop_after:
                return


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[EpisodeRecord]:
    folder = tmp_path_factory.mktemp("whole")
    evaluate(folder)
    return read_episodes(folder)


@pytest.mark.parametrize("stops", [[1], [5], [11], [2, 2, 3]], ids=str)
def test_a_killed_evaluation_resumed_equals_an_uninterrupted_one(
    tmp_path: Path, whole: Sequence[EpisodeRecord], stops: list[int]
) -> None:
    for stop in stops:
        evaluate(tmp_path, stop_after=stop)
        with (tmp_path / EPISODES).open("ab") as stream:
            stream.write(b'{"number": 3, "suite": "fa')  # kill -9 in the middle of a line
    evaluate(tmp_path)
    assert read_episodes(tmp_path) == whole
    assert len((tmp_path / EPISODES).read_text().splitlines()) == len(STATES)


def test_a_finished_evaluation_runs_nothing_again(tmp_path: Path) -> None:
    evaluate(tmp_path)
    before = (tmp_path / EPISODES).read_bytes()
    evaluate(tmp_path)
    assert (tmp_path / EPISODES).read_bytes() == before


def test_records_are_on_the_disk_as_episodes_end(tmp_path: Path) -> None:
    with opened(tmp_path, SETTINGS) as evaluation:
        assert read_header(tmp_path)["settings"] == SETTINGS
        for n, record in enumerate(rollout(SUITE, Seeker(), STATES, Options(4)), 1):
            evaluation.append(record)
            assert len(read_episodes(tmp_path)) == n


def test_a_record_comes_back_as_it_was_to_the_last_bit_of_its_actions(whole: Sequence[EpisodeRecord]) -> None:
    again = list(rollout(SUITE, Seeker(), STATES, Options(2)))
    for record in again:
        assert record.trace.tobytes() == whole[record.number].trace.tobytes()
        assert record == whole[record.number]


def test_times_are_no_part_of_equality_and_success_is(whole: Sequence[EpisodeRecord]) -> None:
    assert replace(whole[0], wall_s=9.0, robot_s=9.0) == whole[0]
    assert replace(whole[0], success=not whole[0].success) != whole[0]


def test_another_evaluations_folder_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    evaluate(tmp_path, stop_after=1)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    asked = {**SETTINGS, "seed": 1, "policy": {"sha256": "b" * 64}}
    with pytest.raises(ConfigError, match="seed was 0, is 1") as caught, opened(tmp_path, asked):
        pass
    assert "policy.sha256 was aaaa" in caught.value.what
    assert "suite" not in caught.value.what
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_two_evaluations_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    busy = pytest.raises(ConfigError, match="another evaluation is writing")
    with opened(tmp_path, SETTINGS), busy, opened(tmp_path, SETTINGS):
        pass


def test_episodes_without_a_header_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / EPISODES).write_text("{}\n")
    with pytest.raises(ConfigError, match=HEADER), opened(tmp_path, SETTINGS):
        pass


def test_a_line_that_is_no_record_is_named_by_its_number(tmp_path: Path) -> None:
    evaluate(tmp_path, stop_after=2)
    lines = (tmp_path / EPISODES).read_text().splitlines()
    (tmp_path / EPISODES).write_text("\n".join([lines[0], json.dumps({"number": 1}), lines[1]]) + "\n")
    with pytest.raises(CorruptRecord, match="line 2"):
        read_episodes(tmp_path)


def test_a_header_that_cannot_be_read_is_an_error_and_so_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=HEADER):
        read_header(tmp_path)
    (tmp_path / HEADER).write_text("{")
    with pytest.raises(CorruptRecord, match=HEADER):
        read_header(tmp_path)


def test_notes_are_kept_beside_the_settings(tmp_path: Path) -> None:
    with opened(tmp_path, SETTINGS, {"subject": "x"}) as evaluation:
        evaluation.note(gate={"passed": True})
    with opened(tmp_path, SETTINGS) as evaluation:
        assert evaluation.header == {"settings": SETTINGS, "subject": "x", "gate": {"passed": True}}


def test_the_summary_counts_by_task_and_in_all(whole: Sequence[EpisodeRecord]) -> None:
    records = [replace(r, success=False, credit=0.5, error="x") if r.task == "far" else r for r in whole]
    pooled, (reach, far) = summary(records)
    assert (pooled.episodes, pooled.successes, pooled.success, pooled.credit) == (12, 6, 0.5, 0.75)
    assert (reach.task, reach.success, reach.errors) == ("reach", 1.0, 0)
    assert (far.task, far.success, far.errors) == ("far", 0.0, 6)
    assert pooled.low < 0.5 < pooled.high
    assert pooled.low == pytest.approx(0.2538, abs=1e-4)  # Wilson, 6 of 12
