"""Files that are whole or absent: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlakit.errors import DiskFull

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` so that a reader, or a machine that loses power, sees the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    with disk_full_as_error(path):
        try:
            with partial.open("wb") as stream:
                stream.write(content.encode() if isinstance(content, str) else content)
                flush_to_disk(stream.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        publish(partial, path)


def flush_to_disk(descriptor: int) -> None:
    """Return only once the file's bytes are on the disk."""
    os.fsync(descriptor)


def publish(partial: Path, path: Path) -> None:
    """Rename a flushed file to its final name and make the name itself durable."""
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def disk_full_as_error(path: Path) -> Iterator[None]:
    """Turn an OSError that means 'no room for `path`' into DiskFull; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFull(
            f"no room to write: {error.strerror}",
            where=str(path),
            do="free some space and give the same command again: finished shards are kept and it continues after them",
        ) from error
