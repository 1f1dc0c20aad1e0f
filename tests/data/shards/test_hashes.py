"""A shard that is not what was written is known before it is trained on, and what an index claims is not believed."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from rlds_cases import episode, write

from vlakit.data.shards.columns import columns_path
from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.shards.verify import verify
from vlakit.data.stream.datamodule import VLADataModule
from vlakit.errors import CorruptRecord, InvalidData
from vlakit.processing.tokens import TokenProcessor


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder, spec = write(tmp_path, [episode(seed) for seed in range(6)])
    convert(folder, tmp_path / "toy_shards" / "toy", spec, max_frames_per_shard=12)
    return tmp_path / "toy_shards" / "toy"


def flip(file: Path, byte: int) -> None:
    """Change one bit, leaving size and times as they were."""
    times, data = file.stat(), bytearray(file.read_bytes())
    data[byte] ^= 4
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def edit_index(shards: Path, **changes: Any) -> None:
    content = json.loads((shards / "shardindex.json").read_text())
    content["shardlist"][0] |= changes
    (shards / "shardindex.json").write_text(json.dumps(content))


@pytest.mark.parametrize("byte", [700, -600])
@pytest.mark.parametrize("number", [0, 2])
def test_a_flipped_byte_is_noticed_before_training_and_when_its_shard_is_read(
    shards: Path, tiny_processor: TokenProcessor, number: int, byte: int
) -> None:
    folder = ShardFolder.open(shards)
    entry = folder.index.shards[number]
    flip(shards / entry.url, byte)
    with pytest.raises(CorruptRecord, match="at least one byte has changed") as caught:
        folder.read_sample(SampleRef("toy", number, 0))
    assert str(shards / entry.url) in caught.value.where
    assert ShardFolder.open(shards).read_sample(SampleRef("toy", 1, 0)).dataset == "toy"
    with pytest.raises(CorruptRecord, match="at least one byte has changed"):
        VLADataModule(tiny_processor, {"toy": 1.0}, str(shards.parent), batch_size=2, seed=0)


def test_columns_beside_a_tar_are_hashed_too_and_those_without_a_hash_still_open(shards: Path) -> None:
    folder = ShardFolder.open(shards)
    columns = columns_path(shards, folder.index.shards[0])
    flip(columns, -30)
    with pytest.raises(CorruptRecord, match="at least one byte has changed") as caught:
        folder.check()
    assert "made again from the tar" in caught.value.do
    for file in (columns, columns.with_suffix(".npy.sha256")):
        file.unlink()
    ShardFolder.open(shards).check()
    ShardFolder.open(shards).read_sample(SampleRef("toy", 0, 0))
    assert columns.is_file()
    columns.with_suffix(".npy.sha256").unlink()  # as today's folders are
    assert ShardFolder.open(shards).read_sample(SampleRef("toy", 0, 0)).key
    assert verify(shards) == []


def test_a_shard_is_hashed_once_an_opening_and_workers_are_told(shards: Path) -> None:
    folder = ShardFolder.open(shards)
    folder.check()
    first = folder.index.shards[0]
    flip(shards / first.url, 700)  # whoever hashes again would notice
    assert pickle.loads(pickle.dumps(folder)).read_sample(SampleRef("toy", 0, 0)).key
    with pytest.raises(CorruptRecord):
        ShardFolder.open(shards).check()


def test_a_shard_that_is_gone_short_long_or_no_file_is_known_at_opening(shards: Path) -> None:
    file = shards / ShardFolder.open(shards).index.shards[1].url
    data = file.read_bytes()
    for content in (data[:-512], data + b"\0", b""):
        file.write_bytes(content)
        with pytest.raises(CorruptRecord, match=f"{len(content)} bytes, the index says {len(data)}"):
            ShardFolder.open(shards)
    file.unlink()
    with pytest.raises(CorruptRecord, match="cannot be opened"):
        ShardFolder.open(shards)
    os.mkfifo(file)
    with pytest.raises(CorruptRecord, match="is no file"):
        ShardFolder.open(shards)


@pytest.mark.parametrize(
    "claim", [{"nsamples": 10**9}, {"episodes": [["a", 10**9]]}, {"nsamples": -1}, {"episodes": [["a", -5], ["b", 9]]}]
)
def test_an_index_that_claims_more_frames_than_its_bytes_hold_is_refused_at_once(
    shards: Path, claim: dict[str, Any]
) -> None:
    edit_index(shards, **claim)
    with pytest.raises(InvalidData, match=r"frames in .* bytes, which cannot be"):
        ShardFolder.open(shards)


def test_a_claim_with_the_bytes_to_go_with_it_is_refused_by_the_file(shards: Path) -> None:
    edit_index(shards, nsamples=10**9, episodes=[["a", 10**9]], filesize=10**13)
    with pytest.raises(CorruptRecord, match="the index says 10000000000000"):
        ShardFolder.open(shards)
    assert any("which cannot be" in problem for problem in verify(shards))
