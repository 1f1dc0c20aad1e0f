from __future__ import annotations

import random

import pytest
from rlds_writer import record

from vlakit.data.rlds.tfrecord import read_record, read_records, record_headers
from vlakit.errors import CorruptRecord, InvalidData, VlakitError

PAYLOADS = [b"first" * 9, b"", b"third" * 100]
DATA = b"".join(map(record, PAYLOADS))
SECOND = len(record(PAYLOADS[0]))


@pytest.fixture
def written(tmp_path):
    def write(data: bytes):
        (tmp_path / "a.tfrecord").write_bytes(data)
        return tmp_path / "a.tfrecord"

    return write


def damaged(position: int) -> bytes:
    return DATA[:position] + bytes([DATA[position] ^ 1]) + DATA[position + 1 :]


def test_records_come_in_file_order_and_an_empty_one_is_one(written):
    path = written(DATA)
    assert [payload for _, payload in read_records(path)] == PAYLOADS
    assert [header.length for header in record_headers(path)] == [45, 0, 500]
    assert list(read_records(written(b""))) == []


@pytest.mark.parametrize("position", [12, 40], ids=["first byte", "a later byte"])
def test_a_flipped_byte_in_the_data_is_found(written, position):
    path = written(damaged(position))
    with pytest.raises(CorruptRecord, match="checksum") as caught:
        list(read_records(path))
    assert caught.value.where == f"{path}, record 0, byte 0"
    header, *_ = record_headers(path)
    with pytest.raises(CorruptRecord, match="checksum"):
        read_record(header)


@pytest.mark.parametrize("read", [read_records, record_headers])
def test_a_flipped_byte_in_the_length_is_found(written, read):
    path = written(damaged(SECOND + 2))
    with pytest.raises(CorruptRecord, match="length of a record fails") as caught:
        list(read(path))
    assert caught.value.where == f"{path}, record 1, byte {SECOND}"


@pytest.mark.parametrize("read", [read_records, record_headers])
def test_a_file_that_ends_anywhere_inside_a_record_is_truncated(written, read):
    whole = {0, SECOND, SECOND + 16, len(DATA)}
    for size in (1, 11, 12, 30, SECOND - 1, SECOND + 15, len(DATA) - 1):
        assert size not in whole
        with pytest.raises(CorruptRecord, match="ends inside"):
            list(read(written(DATA[:size])))


def test_a_record_read_by_its_header_notices_that_the_file_shrank(written):
    header = list(record_headers(written(DATA)))[2]
    written(DATA[:-100])
    with pytest.raises(CorruptRecord, match="ends inside"):
        read_record(header)


def test_a_file_that_is_no_tfrecord_or_not_there_raises(written, tmp_path):
    with pytest.raises(CorruptRecord, match="no TFRecord"):
        list(read_records(written(b"PK\x03\x04 surely a zip file, not records")))
    with pytest.raises(InvalidData, match="cannot be opened"):
        list(read_records(tmp_path / "none"))


def test_no_damage_raises_anything_but_our_errors_or_passes_unseen(written):
    dice = random.Random(5)
    for _ in range(300):
        position = dice.randrange(len(DATA))
        with pytest.raises(VlakitError):
            list(read_records(written(damaged(position))))
