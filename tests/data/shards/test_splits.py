"""Which episode goes where."""

from pathlib import Path

import pytest
from places import BRIDGE

from vlakit.data.rlds.reader import RecordHeader, RldsFolder, open_rlds, read_record
from vlakit.data.rlds.source import RldsSource
from vlakit.data.rlds.tfrecord import masked_crc
from vlakit.data.shards.splits import plan_splits
from vlakit.errors import InvalidData


def write_records(path: Path, payloads: list[bytes]) -> Path:
    with path.open("wb") as stream:
        for payload in payloads:
            length = len(payload).to_bytes(8, "little")
            for part in (length, payload):
                stream.write(part + masked_crc(part).to_bytes(4, "little"))
    return path


def folder(tmp_path: Path, **splits: list[bytes]) -> RldsSource:
    files = {name: [write_records(tmp_path / f"toy-{name}", payloads)] for name, payloads in splits.items()}
    return RldsSource(RldsFolder(tmp_path, "toy", files, open_rlds(BRIDGE).features))


def payloads(source: RldsSource, split: str, fraction: float = 0.1) -> list[bytes]:
    headers = plan_splits(source, fraction).headers(source, split)
    return [read_record(header) for header in headers]  # type: ignore[arg-type]


def episodes(n: int) -> list[bytes]:
    return [b"episode %d" % number for number in range(n)]


def test_bridge_val_repeats_train_so_one_episode_is_held_out() -> None:
    source = RldsSource.open(BRIDGE)
    plan = plan_splits(source, 0.05)
    assert [len(payloads(source, split, 0.05)) for split in ("train", "val")] == [24, 1]
    assert "all 25 episodes of val are also in train" in plan.rule


def test_no_episode_is_in_both_splits() -> None:
    source = RldsSource.open(BRIDGE)
    train, val = (set(payloads(source, split, 0.3)) for split in ("train", "val"))
    assert not train & val
    assert len(train | val) == 25


def test_held_out_episodes_do_not_depend_on_the_order(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    forward, backward = (folder(tmp_path / name, train=episodes(40)[::step]) for name, step in (("a", 1), ("b", -1)))
    assert len(payloads(forward, "val")) == 4
    assert set(payloads(forward, "val")) == set(payloads(backward, "val"))


def test_two_episodes_are_enough_for_a_val_split(tmp_path: Path) -> None:
    source = folder(tmp_path, train=episodes(2))
    assert (len(payloads(source, "train", 0.01)), len(payloads(source, "val", 0.01))) == (1, 1)


@pytest.mark.parametrize(("n", "fraction"), [(1, 0.5), (5, 0.0)])
def test_nothing_is_held_out_of_one_episode_or_at_fraction_zero(tmp_path: Path, n: int, fraction: float) -> None:
    source = folder(tmp_path, train=episodes(n))
    assert len(payloads(source, "train", fraction)) == n
    assert payloads(source, "val", fraction) == []


def test_copies_inside_train_are_kept_on_one_side(tmp_path: Path) -> None:
    source = folder(tmp_path, train=episodes(10) * 3)
    train, val = payloads(source, "train"), payloads(source, "val")
    assert (len(train), len(val)) == (27, 3)
    assert not set(train) & set(val)


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_shipped_val_loses_only_what_train_holds(tmp_path: Path, name: str) -> None:
    source = folder(tmp_path, train=episodes(4), **{name: [b"new", b"episode 2"]})
    assert payloads(source, "val") == [b"new"]
    assert payloads(source, "train") == episodes(4)


def test_equal_headers_with_other_bytes_are_not_the_same_episode(tmp_path: Path) -> None:
    polynomial = f"{0x11EDC6F41:033b}"[::-1]  # CRC32C itself: a message that differs by it has the same checksum
    difference = int(polynomial, 2).to_bytes(5, "little")
    twin = bytes(a ^ b for a, b in zip(b"12345", difference, strict=True))
    assert masked_crc(twin) == masked_crc(b"12345")
    source = folder(tmp_path, train=[b"12345", b"two"], val=[twin, b"two"])
    assert payloads(source, "val") == [twin]


def test_packed_header_tells_lengths_and_checksums_apart() -> None:
    headers = [RecordHeader(Path("f"), 0, 0, length, crc) for length, crc in ((1, 2), (2, 1), (1, 1))]
    assert len({header.key for header in headers}) == 3


def test_source_without_train_is_invalid_data(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="splits: val"):
        plan_splits(folder(tmp_path, val=episodes(2)), 0.1)
