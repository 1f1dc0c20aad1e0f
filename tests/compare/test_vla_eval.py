"""vla-eval's records: SQLite and aggregates say the same, what is not whole is said, a hostile file does nothing."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from evaluations import vla_eval, write_json
from places import FIXTURES

from vlakit.compare.gather import gather
from vlakit.compare.pairs import Settings
from vlakit.compare.readers import read, read_all
from vlakit.compare.versus import compare_arms
from vlakit.errors import InvalidData, VlakitError

RECORDS = FIXTURES / "vla_eval_records"
EXPECTED = json.loads((RECORDS / "expected.json").read_text())
AGGREGATE = "LIBEROBenchmark_libero_goal_aggregate.json"
CONTEXT = '{"task_idx": 0, "shard_id": 0}'


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A folder of one recording, its aggregate beside it, to be changed."""
    return copytree(RECORDS / "policy_a", tmp_path / "policy")


def recording(folder: Path) -> Path:
    return next(folder.glob("*.sqlite"))


def change(folder: Path, *statements: str) -> Path:
    """Run SQL on the recording of a folder whose aggregate is taken away."""
    (folder / AGGREGATE).unlink(missing_ok=True)
    with closing(sqlite3.connect(recording(folder))) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return folder


def row(eid: str, *, task: str = "open the top drawer", episode: int = 0, status: str = "fail", **more: str) -> str:
    """SQL of one more row."""
    values = ["s9", eid, "policya0001", task, str(episode), status, '{"success": false}', more.get("context", CONTEXT)]
    names = "sid, eid, eval_id, task_name, episode_id, status, metrics, context"
    return f"INSERT INTO episode_results ({names}) VALUES ({', '.join(map(repr, values))})"


def test_the_paired_counts_of_recordings_are_those_expected() -> None:
    names = sorted(EXPECTED["successes"])
    compared = compare_arms(gather([str(RECORDS / name) for name in names]), Settings())
    found = [
        {"a": p.a, "b": p.b, "n": p.finding.n, "only_a": p.finding.only_a, "only_b": p.finding.only_b}
        for p in compared.pairs
    ]
    assert found == EXPECTED["pairs"]
    assert {name: int(read(RECORDS / name).success.sum()) for name in names} == EXPECTED["successes"]


def test_a_recording_and_the_aggregate_made_of_it_say_the_same() -> None:
    for policy in ("policy_a", "policy_b"):
        one, other = read(RECORDS / policy), read(RECORDS / policy / AGGREGATE)
        outcomes = [sorted(zip(e.starts, e.success.tolist(), strict=True)) for e in (one, other)]
        assert outcomes[0] == outcomes[1]
        assert (one.run, one.versions, one.doubt) == (other.run, other.versions, other.doubt)
        assert (one.run, one.notes, one.unfinished) == (policy, [], "")


def test_of_a_task_and_episode_that_ran_twice_the_last_row_counts(policy: Path) -> None:
    before = read(policy)
    drawer = next(
        i for i, s in enumerate(before.starts) if (s.task, s.unit) == ("open the top drawer", "episode 00000")
    )
    assert before.success[drawer]
    found = read(change(policy, row("again", context='{"task_idx": 1}')))
    assert len(found) == len(before)
    assert int(found.success.sum()) == int(before.success.sum()) - 1


def test_rows_without_a_number_of_the_task_are_all_meant_so_that_two_are_refused(policy: Path) -> None:
    change(policy, *(row(f"old{i}", task="t", context="{}") for i in range(2)))
    with pytest.raises(InvalidData, match="more than once"):
        read(policy)


def test_an_error_is_a_failure_and_is_counted_aloud(policy: Path) -> None:
    before = int(read(policy).success.sum())
    change(policy, "UPDATE episode_results SET status = 'error' WHERE rowid IN (2, 3)")
    found = read(policy)
    assert int(found.success.sum()) == before - 2
    assert found.notes == ["2 episodes of policy ended in an error; vla-eval counts them as failed"]


def test_tasks_of_one_name_are_told_apart_by_their_number(policy: Path) -> None:
    change(policy, "UPDATE episode_results SET task_name = 'put it there'")
    found = read(policy)
    assert {start.unit for start in found.starts if "00003" in start.unit} == {
        "episode 00003 of task 0",
        "episode 00003 of task 1",
    }
    assert len(set(found.starts)) == 50


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE eval_shards SET num_shards = 4", "lacks shard 1, 2, 3 of 4"),
        ("UPDATE eval_shards SET num_shards = 1000000000000", "lacks shard 1, 2, 3, 4, 5, 6, 7, 8, ... of"),
        ("UPDATE eval_shards SET complete = 0", "shard 0 of LIBEROBenchmark_libero_goal did not end"),
        (
            "INSERT INTO work_queue VALUES ('policya0001', 0, 0, 0, 1), ('policya0001', 1, 0, NULL, 0)",
            "1 of 2 episodes",
        ),
    ],
)
def test_a_recording_that_is_not_whole_says_what_is_missing(policy: Path, statement: str, said: str) -> None:
    assert said in read(change(policy, statement)).unfinished


def test_where_shards_share_a_queue_it_is_the_queue_that_says_whether_all_is_done(policy: Path) -> None:
    change(policy, "UPDATE eval_shards SET complete = 0", "INSERT INTO work_queue VALUES ('policya0001', 0, 0, 0, 1)")
    assert read(policy).unfinished == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"partial": True}, "L.json is marked partial"),
        ({"shard": {"id": 1, "total": 3}}, "lacks shard 0, 2 of 3"),
        ({"merge_info": {"num_shards": 2, "shards_missing": [1]}, "partial": True}, "merged without shards [1]"),
    ],
)
def test_an_aggregate_that_is_not_whole_says_so(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    assert said in read(vla_eval(tmp_path / "a" / "L.json", {"open": [True, False]}, seed=7, **more).parent).unfinished


def test_a_shard_is_known_by_its_files_name_too(tmp_path: Path) -> None:
    file = vla_eval(tmp_path / "a" / "L_shard1of2.json", {"open": [True]}, seed=7)
    assert "lacks shard 0 of 2" in read(file.parent).unfinished


def test_a_comparison_with_what_is_not_whole_says_so_whether_it_is_made_or_refused(tmp_path: Path) -> None:
    places = [vla_eval(tmp_path / "a" / "L.json", {"open": [True, False] * 9}, seed=7).parent]
    places += [vla_eval(tmp_path / "b" / "L.json", {"open": [True] * 17}, seed=7, partial=True).parent]
    arms = gather([str(place) for place in places])
    with pytest.raises(InvalidData, match=r"17 shared, 1 and 0 alone.*L\.json is marked partial"):
        compare_arms(arms, Settings())
    notes = compare_arms(arms, Settings(), paired="common").notes
    assert any("b is not whole: L.json is marked partial" in note for note in notes)


def test_an_aggregate_older_than_its_recording_is_noted_and_one_of_another_evaluation_is_refused(policy: Path) -> None:
    report = json.loads((policy / AGGREGATE).read_text())
    write_json(policy / AGGREGATE, {**report, "num_episodes_total": 40})
    assert f"{AGGREGATE} was made of 40 episodes; its recording, which holds 50, was read" in read(policy).notes
    write_json(policy / AGGREGATE, {**report, "eval_id": "other"})
    with pytest.raises(InvalidData, match="another evaluation"):
        read(policy)
    assert len(read(recording(policy))) == 50


def test_recordings_side_by_side_are_evaluations_of_their_own(policy: Path) -> None:
    other = recording(RECORDS / "policy_b")
    (policy / other.name).write_bytes(other.read_bytes())
    assert [(one.run, int(one.success.sum())) for one in read_all(policy)] == [("policya0001", 40), ("policyb0001", 31)]


def test_reading_leaves_no_trace(policy: Path) -> None:
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in policy.iterdir()}
    policy.chmod(0o555)
    try:
        read(policy)
    finally:
        policy.chmod(0o755)
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in policy.iterdir()} == before


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE episode_results RENAME TO r", f"CREATE VIEW episode_results AS {ENDLESS}"],
        ["DROP TABLE eval_shards", f"CREATE VIEW eval_shards AS {ENDLESS}"],
        [
            "DROP TABLE work_queue",
            "CREATE TABLE work_queue (eval_id, done AS (upper(eval_id)), x)",
            "INSERT INTO work_queue VALUES ('policya0001', 1)",
        ],
        ["ALTER TABLE episode_results DROP COLUMN status"],
        ["DELETE FROM eval_metadata"],
        ["DELETE FROM episode_results"],
        ["DROP TABLE eval_metadata"],
        ["UPDATE eval_metadata SET metadata = '" + "[" * 100_000 + "'"],
        ["UPDATE eval_metadata SET metadata = hex(zeroblob(10000000))"],
        ["UPDATE eval_metadata SET eval_id = 'another'"],
        ["UPDATE episode_results SET status = 'won'"],
        ["UPDATE episode_results SET status = NULL WHERE rowid = 3"],
        ["UPDATE episode_results SET episode_id = 'first'"],
        ["UPDATE episode_results SET task_name = x'c3' || task_name"],
        ["UPDATE episode_results SET context = '[1]'"],
        ["""UPDATE episode_results SET context = '{"task_idx": [0]}'"""],
        ["UPDATE eval_shards SET num_shards = 'many'"],
    ],
)
def test_a_hostile_or_damaged_recording_is_refused_in_words(policy: Path, statements: list[str]) -> None:
    change(policy, *statements)
    with pytest.raises(VlakitError):
        read(policy)


@pytest.mark.parametrize("keep", [0, 10, 100, 5000, 20_000])
def test_a_cut_off_recording_is_refused(policy: Path, keep: int) -> None:
    file = recording(policy)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(VlakitError):
        read(file)


def test_no_flipped_byte_of_a_recording_ends_in_anything_but_a_refusal_or_a_reading(policy: Path) -> None:
    file = recording(policy)
    whole = file.read_bytes()
    n_refused = 0
    for place in range(0, len(whole), 1009):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert len(read(file))
        except VlakitError:
            n_refused += 1
    assert n_refused > 5


def test_a_recording_with_an_unended_write_is_not_guessed_at(policy: Path) -> None:
    with closing(sqlite3.connect(recording(policy), isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InvalidData, match="cannot be read"):
            read(policy)
    assert len(read(policy)) == 50
