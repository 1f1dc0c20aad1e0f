"""LeRobot datasets written by LeRobot itself are read as it reads them; what it would take and misread is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import says
from parity.check_lerobot import check

from vlakit.data.demonstration import demonstrations
from vlakit.data.lerobot.meta import WriteOptions
from vlakit.data.lerobot.writer import write_dataset
from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.source import open_source
from vlakit.data.specs.spec import load_spec
from vlakit.errors import ActionNotFinite, ConfigError, CorruptRecord, InvalidData, VlakitError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "lerobot"
PAIRS = sorted(folder.name for folder in (FIXTURES / "expected").iterdir())
SPEC = "images: {primary: images/exterior}\nlanguage: task\naction: [{take: action}]\nproprio: [state]\n"
SPEC += f"mask: {[True] * 7}\n".lower()
Change = Callable[[Path], object]


def copied(tmp_path: Path, name: str = "v3_video") -> Path:
    return Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def spec(tmp_path: Path, text: str = SPEC) -> Any:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return load_spec(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", PAIRS)
def test_every_frame_is_read_as_lerobot_reads_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(FIXTURES / name, FIXTURES / "expected" / name), capsys.readouterr().out
    frames = json.loads((FIXTURES / "expected" / name / "expected.json").read_text())["frames"]
    assert f"{frames} of {frames} frames agree" in capsys.readouterr().out


def test_the_checker_sees_a_shifted_video_and_a_changed_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(tmp_path)
    file = folder / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    name = "videos/observation.images.exterior/from_timestamp"
    column = table.column_names.index(name)
    shifted = [max(value - 0.1, 0.0) for value in table[name].to_pylist()]
    pq.write_table(table.set_column(column, name, pa.array(shifted)), file)
    assert not check(folder, FIXTURES / "expected/v3_video")
    out = capsys.readouterr().out
    assert "10 of 49 frames agree" in out  # those of the first episode, whose start cannot be earlier
    assert "its blocks say episode and frame (0, 9), not (1, 0)" in out


@pytest.mark.parametrize(
    ("name", "agrees"), [("action", False), ("observation.environment_state", False), ("index", True)]
)
def test_the_checker_judges_statistics_but_those_of_counters(name: str, agrees: bool, tmp_path: Path) -> None:
    """The package leaves the counters' statistics as they were when it merges datasets; their rows are compared."""
    shutil.copytree(FIXTURES / "expected/v3_axes", tmp_path, dirs_exist_ok=True)
    said = json.loads((tmp_path / "expected.json").read_text())
    said["stats"][name]["mean"][-1] += 1
    (tmp_path / "expected.json").write_text(json.dumps(said))
    assert check(FIXTURES / "v3_axes", tmp_path) is agrees


@pytest.mark.parametrize("name", ["v3_video", "v21_video"])
def test_it_becomes_shards_with_the_same_actions_and_words(name: str, tmp_path: Path) -> None:
    source = open_source(FIXTURES / name)
    index = convert(FIXTURES / name, tmp_path / "shards", spec(tmp_path), val_fraction=0.0)
    expected = np.load(FIXTURES / "expected" / name / "expected.npz")
    said = json.loads((FIXTURES / "expected" / name / "expected.json").read_text())
    assert [n for shard in index.shards for _, n in shard.episodes] == said["lengths"]
    folder = ShardFolder.open(tmp_path / "shards")
    samples = [folder.read_sample(SampleRef("mine", 0, frame)) for frame in range(said["frames"])]
    assert np.array_equal(np.concatenate([one.actions for one in samples]), expected["row/action"])
    assert np.array_equal(
        np.concatenate([one.proprio for one in samples if one.proprio is not None]), expected["row/observation.state"]
    )
    assert [one.instruction for one in samples] == said["task_of_frame"]
    assert source.survey().cameras["images/exterior"] == (96, 128)


def test_equal_episodes_have_equal_keys_and_others_have_not() -> None:
    keys = [[header.key for header in open_source(FIXTURES / "v3_video").headers("train")] for _ in range(2)]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 5


def test_splits_are_those_of_info(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    change_info(folder, splits={"train": "0:3", "val": "3:5"})
    source = open_source(folder)
    assert {split: [h.metadata["source_record"] for h in source.headers(split)] for split in source.splits} == {
        "train": [0, 1, 2],
        "val": [3, 4],
    }


def change_info(folder: Path, **content: Any) -> None:
    file = folder / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | content))


def change_feature(folder: Path, name: str, **content: Any) -> None:
    features = json.loads((folder / "meta/info.json").read_text())["features"]
    change_info(folder, features=features | {name: features.get(name, {}) | content})


def change_column(folder: Path, place: str, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Rewrite one column of a parquet file."""
    table = pq.read_table(folder / place)
    values = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), name, values), folder / place)


def cut(place: str, share: float) -> Change:
    def change(folder: Path) -> None:
        data = (folder / place).read_bytes()
        (folder / place).write_bytes(data[: int(len(data) * share)])

    return change


def flip(place: str) -> Change:
    def change(folder: Path) -> None:
        data = bytearray((folder / place).read_bytes())
        for byte in range(len(data) // 3, len(data) // 3 + 400):
            data[byte] ^= 0xFF
        (folder / place).write_bytes(data)

    return change


EPISODES, TASKS = "meta/episodes/chunk-000/file-000.parquet", "meta/tasks.parquet"
DATA = "data/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.exterior/chunk-000/file-000.mp4"
SHORT = {"dtype": "float32", "shape": [6], "names": None}
BAD: dict[str, tuple[Change, type[VlakitError], list[str]]] = {
    "v2.0": (lambda f: change_info(f, codebase_version="v2.0"), InvalidData, ["version v2.0", "v20_to_v21"]),
    "v1.6": (lambda f: change_info(f, codebase_version="v1.6"), InvalidData, ["version v1.6", "v2.1 and v3.0"]),
    "no rate": (lambda f: change_info(f, fps=None), InvalidData, ["fps is None", "info.json"]),
    "another rate": (lambda f: change_info(f, fps=20), InvalidData, ["fps is 20", "frame 1 of episode", "0.1000 s"]),
    "a total": (lambda f: change_info(f, total_frames=99), InvalidData, ["99 frames", "49"]),
    "no info": (lambda f: (f / "meta/info.json").write_text("{"), InvalidData, ["info.json", "JSONDecodeError"]),
    "unfinished data": (cut(DATA, 0.6), InvalidData, ["no footer", "finalize", "file-000.parquet"]),
    "no episodes": (lambda f: (f / EPISODES).unlink(), InvalidData, ["unfinished v3.0", "finalize"]),
    "corrupt data": (flip(DATA), CorruptRecord, ["file-000.parquet", "cannot be read"]),
    "no video": (lambda f: (f / VIDEO).unlink(), InvalidData, ["1 of 3 files", "file-000.mp4", "exterior"]),
    "half a video": (cut(VIDEO, 0.5), CorruptRecord, ["file-000.mp4"]),
    "no table": (lambda f: (f / DATA).unlink(), InvalidData, ["file-000.parquet", "missing"]),
    "no column": (
        lambda f: change_feature(f, "observation.effort", **SHORT),
        InvalidData,
        ["'observation.effort'", "no column"],
    ),
    "another width": (
        lambda f: change_feature(f, "observation.state", shape=[6]),
        CorruptRecord,
        ["(6,)", "80 numbers"],
    ),
    "another size": (
        lambda f: change_feature(f, "observation.images.exterior", shape=[64, 64, 3]),
        InvalidData,
        ["(96, 128, 3)", "(64, 64, 3)", "file-000.mp4"],
    ),
    "twice": (
        lambda f: change_column(f, EPISODES, "episode_index", lambda v: [0, 0, *v[2:]]),
        InvalidData,
        ["episode 0 is listed twice"],
    ),
    "a length": (
        lambda f: change_column(f, EPISODES, "length", lambda v: [v[0] + 1, v[1] - 1, *v[2:]]),
        InvalidData,
        ["episode 0 has 11 frames", "10"],
    ),
    "no task": (
        lambda f: change_column(f, TASKS, "task_index", lambda v: [0, 1, 7]),
        InvalidData,
        ["task 2 has no text"],
    ),
    "an empty task": (lambda f: change_column(f, TASKS, "task", lambda v: [None, *v[1:]]), InvalidData, ["without"]),
    "NaN": (
        lambda f: change_column(f, DATA, "action", lambda v: [*v[:3], [float("nan")] * 7, *v[4:]]),
        ActionNotFinite,
        ["step 3", "nan", "episode 0"],
    ),
    "NaN of the state": (
        lambda f: change_column(f, DATA, "observation.state", lambda v: [*v[:3], [float("nan")] * 8, *v[4:]]),
        InvalidData,
        ["proprio 'state' of step 3", "episode 0"],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_said_before_training(what: str, tmp_path: Path) -> None:
    change, kind, parts = BAD[what]
    folder = copied(tmp_path)
    change(folder)
    with pytest.raises(kind) as caught:
        convert(folder, tmp_path / "shards", spec(tmp_path))
    says(str(caught.value), *parts)
    assert not (tmp_path / "shards" / "shardindex.json").exists()


def test_tasks_are_found_by_number_where_lerobot_takes_the_row(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    table = pq.read_table(folder / TASKS)
    pq.write_table(table.take(pa.array([2, 0, 1])).replace_schema_metadata(None), folder / TASKS)
    texts = [open_source(folder).read(h, ["task"])["task"][0] for h in open_source(folder).headers("train")]
    assert texts == [
        text for (text,) in json.loads((FIXTURES / "expected/v3_video/expected.json").read_text())["episode_tasks"]
    ]


def test_of_two_cameras_one_must_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(FIXTURES / "v3_video", tmp_path / "out", spec(tmp_path, SPEC.replace("primary: images/exterior", "")))
    says(str(caught.value), "the dataset has 2: images/exterior, images/gripper", "images: {primary: images/exterior}")


def test_names_of_lerobot_itself_may_stand_in_a_spec(tmp_path: Path) -> None:
    header = next(iter(open_source(FIXTURES / "v3_video").headers("train")))
    pairs = {"observation/state": "observation.state", "observation/observation.state": "state"}
    for one, other in pairs.items():
        found = open_source(FIXTURES / "v3_video").read(header, [one, other])
        assert np.array_equal(found[one], found[other])


def test_a_broken_episode_is_left_out_and_written_down_where_that_was_asked(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    BAD["NaN"][0](folder)
    index = convert(folder, tmp_path / "out", spec(tmp_path), val_fraction=0.0, on_error="skip", max_errors=0.2)
    assert sum(len(shard.episodes) for shard in index.shards) == 4
    assert dict(index.skipped) == {"cannot be used": 1}
    says(next(note for note in index.notes if "left out" in note), "episode 0", "step 3", "nan")
    with pytest.raises(ActionNotFinite) as caught:
        convert(folder, tmp_path / "other", spec(tmp_path), val_fraction=0.0, on_error="skip")
    says(str(caught.value), "1 of 5 train episodes", "max_errors is 0.001", "step 3")


def test_an_unreadable_picture_is_left_out_with_its_episode(tmp_path: Path) -> None:
    folder = copied(tmp_path, "v21_video")
    file = folder / "videos/chunk-000/observation.images.exterior/episode_000001.mp4"
    file.write_bytes(file.read_bytes()[:3000])
    index = convert(folder, tmp_path / "out", spec(tmp_path), val_fraction=0.0, on_error="skip", max_errors=0.5)
    assert [n for shard in index.shards for _, n in shard.episodes] == [10, 12]
    says(next(note for note in index.notes if "left out" in note), "episode_000001.mp4")


def test_pictures_stored_as_pictures_make_the_round_trip_unchanged(bridge_shards: Path, tmp_path: Path) -> None:
    one = ShardFolder.open(bridge_shards)
    options = WriteOptions(fps=5, codec="jpeg")
    write_dataset(demonstrations(bridge_shards, None, ["primary"]), tmp_path / "lerobot", options)
    text = "images: {primary: images/primary}\nlanguage: task\naction: [action]\n"
    convert(tmp_path / "lerobot", tmp_path / "again", spec(tmp_path, text), val_fraction=0.0)
    again = ShardFolder.open(tmp_path / "again")
    places = [(row, step) for split in one.splits for row in one.episodes(split) for step in range(row.n_frames)]
    for number, (row, step) in enumerate(places):
        first = one.read_sample(SampleRef(one.dataset, row.shard, row.first_frame + step))
        second = again.read_sample(SampleRef(again.dataset, 0, number))
        assert first.images["primary"] == second.images["primary"]
        assert np.array_equal(first.actions, second.actions)
        assert first.instruction == second.instruction
