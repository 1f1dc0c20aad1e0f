"""What dataset_info.json declares is what is read: as many files and records, of that name, or a refusal."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from rlds_cases import cut_behind, declare, episode, write

from vlakit.data.rlds.source import RldsSource
from vlakit.errors import CorruptRecord, InvalidData, VlakitError

EPISODES = [episode(seed) for seed in range(8)]


def n_read(folder: Path) -> int:
    return len(list(RldsSource.open(folder).headers("train")))


@pytest.mark.parametrize(
    ("kept", "more", "message"),
    [
        (1, 0, "holds 1 records, and dataset_info.json declares 2"),
        (0, 0, "holds 0 records, and dataset_info.json declares 2"),
        (1, 5, "ends inside a record"),
        (1, 40, "ends inside a record"),
    ],
)
@pytest.mark.parametrize("part", [0, 3])
def test_a_file_that_is_cut_anywhere_is_refused_with_its_name(
    tmp_path: Path, part: int, kept: int, more: int, message: str
) -> None:
    folder, _ = write(tmp_path, EPISODES, files=4)
    assert n_read(folder) == 8
    file = folder / f"toy-train.tfrecord-{part:05}-of-00004"
    cut_behind(file, kept, more)
    with pytest.raises(CorruptRecord, match=message) as caught:
        n_read(folder)
    assert str(file) in caught.value.where


def test_more_records_than_declared_are_refused_as_fewer_are(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, EPISODES, files=2)
    declare(folder, [4, 3])
    with pytest.raises(CorruptRecord, match=r"holds 4 records, and dataset_info\.json declares 3"):
        n_read(folder)


def test_an_empty_file_is_refused_where_nothing_is_declared_and_fine_where_that_is(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, EPISODES, files=2, info=False)
    assert n_read(folder) == 8
    (folder / "toy-train.tfrecord-00001-of-00002").write_bytes(b"")
    with pytest.raises(CorruptRecord, match="holds 0 records"):
        n_read(folder)
    declare(folder, [4, 0])
    assert n_read(folder) == 4


def test_fewer_files_than_declared_or_more_are_refused(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, EPISODES, files=4)
    declare(folder, [2, 2, 2])
    with pytest.raises(InvalidData, match=r"numbered out of 3 and 4, dataset_info\.json declares 3"):
        n_read(folder)
    declare(folder, [])
    with pytest.raises(InvalidData, match="numbered out of 0 and 4"):
        n_read(folder)


@pytest.mark.parametrize(("packer", "name"), [(gzip.compress, "GZIP"), (zlib.compress, "ZLIB")])
def test_compressed_files_are_called_compressed_even_where_others_lack(
    tmp_path: Path, packer: Callable[[bytes], bytes], name: str
) -> None:
    folder, _ = write(tmp_path, EPISODES, files=2, packer=packer)
    with pytest.raises(CorruptRecord, match=rf"the file is compressed \({name}\)"):
        n_read(folder)
    declare(folder, [1, 1])
    with pytest.raises(CorruptRecord, match=rf"the file is compressed \({name}\)"):
        n_read(folder)


def test_only_files_of_the_datasets_own_name_are_read(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, EPISODES, files=2)
    for stray in ("._toy-train.tfrecord-00000-of-00002", "other-train.tfrecord-00000-of-00001", "toy-train.tfrecord"):
        (folder / stray).write_bytes(b"junk")
    assert RldsSource.open(folder).splits == ["train"]
    assert n_read(folder) == 8


def test_a_name_that_no_file_has_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, EPISODES)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "name": "another"}))
    with pytest.raises(InvalidData, match="no tfrecord file of dataset 'another': there are toy-train"):
        n_read(folder)


def test_without_a_dataset_info_the_name_is_the_folders_or_the_only_one(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, EPISODES, info=False, template="my-toy-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
    assert RldsSource.open(folder).splits == ["train"]
    (folder / "b-train.tfrecord-00000-of-00001").write_bytes(b"")
    with pytest.raises(InvalidData, match="files of several datasets: b, my-toy"):
        n_read(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
        "{DATASET}_{SPLIT}.{SHARD_INDEX}.{FILEFORMAT}",
        "part+{SHARD_INDEX}of{NUM_SHARDS}",
    ],
)
def test_files_are_found_under_the_template_that_the_dataset_declares(tmp_path: Path, template: str) -> None:
    folder, _ = write(tmp_path, EPISODES, files=2, template=template)
    (folder / "toy-train.tfrecord-00000-of-00005").write_bytes(b"junk")
    if template.startswith("{DATASET}-"):
        (folder / "toy-train.tfrecord-00000-of-00005").unlink()
    assert n_read(folder) == 8
    next(file for file in folder.iterdir() if "1" in file.name).unlink()
    with pytest.raises(InvalidData, match="lacks 1 of its 2 files"):
        n_read(folder)


def test_a_split_that_is_garbled_in_dataset_info_is_refused(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, EPISODES)
    (folder / "dataset_info.json").write_text('{"name": "toy", "splits": [{"name": "train", "shardLengths": ["x"]}]}')
    with pytest.raises(InvalidData, match="its splits cannot be read"):
        n_read(folder)


def test_a_fifo_among_the_files_is_no_file_and_nothing_waits_for_it(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, EPISODES, files=2)
    file = folder / "toy-train.tfrecord-00001-of-00002"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(VlakitError, match="lacks 1 of its 2 files"):
        n_read(folder)
