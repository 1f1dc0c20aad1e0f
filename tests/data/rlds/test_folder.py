from __future__ import annotations

import json

import pytest
from rlds_writer import dataset, tensor, write_folder

from vlakit.data.rlds.reader import open_rlds
from vlakit.errors import InvalidData, UnknownName

TREE = dataset({"action": tensor("float32", 7)})


def part(number: int, total: int, split: str = "train") -> str:
    return f"demo-{split}.tfrecord-{number:05}-of-{total:05}"


def test_a_folder_that_is_not_there_raises(tmp_path):
    with pytest.raises(UnknownName, match="no such folder"):
        open_rlds(tmp_path / "none")


def test_a_folder_that_is_no_rlds_says_so(tmp_path):
    with pytest.raises(InvalidData, match=r"no features\.json"):
        open_rlds(tmp_path)
    write_folder(tmp_path / "flat", {"featuresDict": {"features": {"x": tensor("int64")}}}, {part(0, 1): []})
    with pytest.raises(InvalidData, match="no RLDS one"):
        open_rlds(tmp_path / "flat")
    with pytest.raises(InvalidData, match="no tfrecord file"):
        open_rlds(write_folder(tmp_path / "bare", TREE, {}))


def test_a_missing_file_of_a_split_is_named(tmp_path):
    folder = write_folder(tmp_path / "a", TREE, {part(0, 3): [], part(2, 3): []})
    with pytest.raises(InvalidData, match="lacks 1 of its 3 files") as caught:
        open_rlds(folder)
    assert "train.tfrecord-00001-of-00003" in caught.value.do


def test_a_split_that_dataset_info_declares_must_be_there(tmp_path):
    folder = write_folder(tmp_path / "a", TREE, {part(0, 1): []})
    splits = [{"name": "train", "shardLengths": ["4"]}, {"name": "val", "shardLengths": ["2", "2"]}]
    (folder / "dataset_info.json").write_text(json.dumps({"name": "demo", "splits": splits}))
    with pytest.raises(InvalidData, match="'val' lacks 2 of its 2 files"):
        open_rlds(folder)
    splits[1]["shardLengths"] = []
    (folder / "dataset_info.json").write_text(json.dumps({"name": "demo", "splits": splits}))
    assert open_rlds(folder).splits["val"] == []


def test_files_of_two_downloads_are_refused(tmp_path):
    folder = write_folder(tmp_path / "a", TREE, {part(0, 1): [], part(0, 2): [], part(1, 2): []})
    with pytest.raises(InvalidData, match="out of 1 and 2"):
        open_rlds(folder)


def test_one_version_below_is_found_and_two_are_asked_about(tmp_path):
    write_folder(tmp_path / "demo" / "0.1.0", TREE, {part(0, 1): []})
    opened = open_rlds(str(tmp_path / "demo"))
    assert (opened.path.name, opened.name, list(opened.splits)) == ("0.1.0", "demo", ["train"])
    write_folder(tmp_path / "demo" / "0.2.0", TREE, {part(0, 1): []})
    with pytest.raises(InvalidData, match="several versions") as caught:
        open_rlds(tmp_path / "demo")
    assert "0.1.0, 0.2.0" in caught.value.do
