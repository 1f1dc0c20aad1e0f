"""TFRecord framing: length, its masked CRC32C, payload, its masked CRC32C; every checksum is checked.

No index is stored: the only way to record N leads over the N lengths before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from vlakit.errors import CorruptRecord, InvalidData

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_COMPRESSED = {b"\x1f\x8b": "GZIP", b"\x78\x01": "ZLIB", b"\x78\x5e": "ZLIB", b"\x78\x9c": "ZLIB", b"\x78\xda": "ZLIB"}


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """Where one record lies: `offset` bytes into `file` its framing starts, 12 bytes later its payload of `length`."""

    file: Path
    index: int
    offset: int
    length: int
    crc: int  # masked CRC32C of the payload, as stored

    @property
    def key(self) -> int:
        """Length and checksum as one number below 2**64: eight bytes an episode, however many there are."""
        return (self.length << 32 | self.crc) & 0xFFFFFFFFFFFFFFFF

    @property
    def metadata(self) -> dict[str, str | int]:
        """File and number of the record, as the shards name it."""
        return {"source_file": self.file.name, "source_record": self.index}

    def __str__(self) -> str:
        return f"{self.file}, record {self.index}, byte {self.offset}"


def masked_crc(data: bytes) -> int:
    """CRC32C of `data` as TFRecord stores it: rotated and shifted, since a CRC of data with its own CRC degenerates.

    >>> hex(masked_crc(b"123456789"))
    '0xc78ab0e5'
    """
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_record(payload: bytes) -> bytes:
    """One record as it lies in a file: the payload and 16 bytes around it."""
    length = struct.pack("<Q", len(payload))
    head, foot = _FOOTER.pack(masked_crc(length)), _FOOTER.pack(masked_crc(payload))
    return b"".join((length, head, payload, foot))


def record_headers(path: Path) -> Iterator[RecordHeader]:
    """Yield the header of each record, reading 16 bytes a record and seeking over its payload (not checked).

    Raises CorruptRecord when the file is cut off or a length fails its checksum.
    """
    with _opened(path) as file:
        size = path.stat().st_size
        index = offset = 0
        while offset < size:
            file.seek(offset)
            length = _read_length(file, path, index, offset, size)
            file.seek(length, 1)
            (crc,) = _FOOTER.unpack(file.read(_FOOTER.size))
            yield RecordHeader(path, index, offset, length, crc)
            index, offset = index + 1, file.tell()


def read_records(path: Path) -> Iterator[tuple[RecordHeader, bytes]]:
    """Yield each record's header and payload in file order, holding one record at a time.

    Raises CorruptRecord when the file is cut off or a checksum fails.
    """
    with _opened(path) as file:
        size = path.stat().st_size
        index = offset = 0
        while offset < size:
            length = _read_length(file, path, index, offset, size)
            payload = file.read(length)
            (crc,) = _FOOTER.unpack(file.read(_FOOTER.size))
            header = RecordHeader(path, index, offset, length, crc)
            _check(payload, header)
            yield header, payload
            index, offset = index + 1, offset + _HEADER.size + length + _FOOTER.size


def read_record(header: RecordHeader) -> bytes:
    """Payload of one record, found without reading those before it; raises CorruptRecord as `read_records` does."""
    with _opened(header.file) as file:
        file.seek(header.offset + _HEADER.size)
        payload = file.read(header.length)
    _check(payload, header)
    return payload


def _opened(path: Path) -> BinaryIO:
    try:
        if not path.is_file() and path.exists():
            raise InvalidData("this is no file", where=str(path), do="fetch it again")
        return path.open("rb")
    except OSError as error:
        raise InvalidData(f"the file cannot be opened: {error.strerror}", where=str(path)) from None


def _read_length(file: BinaryIO, path: Path, index: int, offset: int, size: int) -> int:
    head = file.read(_HEADER.size)
    length, crc = _HEADER.unpack(head.ljust(_HEADER.size, b"\0"))
    sound = len(head) == _HEADER.size and masked_crc(head[:8]) == crc
    if not sound and index == 0 and head[:2] in _COMPRESSED:
        raise CorruptRecord(
            f"the file is compressed ({_COMPRESSED[head[:2]]}), which RLDS files are not",
            where=str(path),
            do="decompress every file under its own name (gunzip for GZIP), then convert again",
        )
    if len(head) < _HEADER.size:
        raise _cut_off(f"{path}, record {index}, byte {offset}")
    if not sound:
        raise CorruptRecord(
            "the length of a record fails its checksum: the file is damaged, or no TFRecord",
            where=f"{path}, record {index}, byte {offset}",
            do="fetch the file again; what lies behind this byte cannot be found without it",
        )
    if offset + _HEADER.size + length + _FOOTER.size > size:
        raise _cut_off(f"{path}, record {index}, byte {offset}")
    return length


def _check(payload: bytes, header: RecordHeader) -> None:
    if len(payload) < header.length:
        raise _cut_off(str(header))
    if masked_crc(payload) != header.crc:
        raise CorruptRecord("a record fails its checksum", where=str(header), do="fetch the file again")


def _cut_off(where: str) -> CorruptRecord:
    return CorruptRecord("the file ends inside a record", where=where, do="finish the download, or fetch it again")
