"""Files that are whole or absent: written beside their place, flushed, then renamed; hashes, and folders held alone."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import BinaryIO

from vlakit.errors import ConfigError, DiskFull

ASSETS = Path(__file__).parent / "assets"  # what ships with vlakit
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` so that a reader, or a machine that loses power, sees the old file or the new one."""
    with atomic_writer(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """A stream that becomes `path` when the block ends well, and nothing otherwise; a second writer of the same file
    waits for the first. Raises DiskFull.
    """
    partial = path.with_name(path.name + ".partial")
    with disk_full_as_error(path), _written_alone(partial) as stream:
        try:
            yield stream
            stream.flush()
            flush_to_disk(stream.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        publish(partial, path)


def _written_alone(partial: Path) -> BinaryIO:
    """The file, empty and held until it is closed."""
    while True:
        stream = os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "wb")
        fcntl.flock(stream, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if partial.stat().st_ino == os.fstat(stream.fileno()).st_ino:
                stream.truncate(0)
                return stream
        stream.close()  # the one before has renamed it meanwhile


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` when the block ends well; flushed, and nothing of it otherwise.

    Raises DiskFull, and ConfigError where it cannot be written, is there already, or is just being written.
    """
    _check_absent(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        with locked(partial, who="another command"):
            try:
                _check_absent(folder)  # another one may just have finished it
                for left in partial.iterdir():  # of one that was killed
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                with disk_full_as_error(folder):
                    yield partial
                    for file in partial.rglob("*"):
                        if file.is_file():
                            with file.open("rb") as stream:
                                flush_to_disk(stream.fileno())
                    publish(partial, folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        what = f"cannot be written: {error.strerror}"
        raise ConfigError(what, where=str(folder), do="choose another out=DIR") from error


def _check_absent(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise ConfigError("the target is there already", where=str(folder), do="choose another out=DIR, or remove it")


def content_hash(path: Path) -> str:
    """sha256 (hex) of a file, or of a folder's files with their names, in order of these."""
    if path.is_dir():
        parts = [f"{file.name} {content_hash(file)}" for file in sorted(path.iterdir()) if file.is_file()]
        return sha256("\n".join(parts).encode()).hexdigest()
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


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
    """Turn what means 'no room for `path`' into DiskFull, also behind another error, as torch.save puts it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = out_of_room(error)
        if reason is None or isinstance(error, DiskFull):
            raise
        raise DiskFull(
            f"no room to write: {reason.strerror}",
            where=str(path),
            do="free some space and give the same command again: what was finished is kept",
        ) from error


def out_of_room(error: BaseException | None) -> OSError | None:
    """The OSError along the causes of `error` that says that the disk, the quota or the file size limit is reached."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


class FolderBusy(ConfigError):
    """A folder that another process is writing."""


@contextmanager
def locked(out: Path, wait: bool = False, who: str = "another conversion") -> Iterator[None]:
    """Hold a folder, made where it is missing, alone for as long as this process lives.

    wait: until the process that has it lets it go; else FolderBusy is raised, which says `who` that is.
    """
    with disk_full_as_error(out):
        out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)  # the folder itself: a lock file could be deleted under a waiting process
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise FolderBusy(
                f"{who} is writing this folder", where=str(out), do="wait for it, or give another folder"
            ) from error
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _let_go() -> None:
    """A loader's worker may live some seconds longer than a parent that was killed, whose folders are free then."""
    while _held:
        os.close(_held.pop())


_held: set[int] = set()
os.register_at_fork(after_in_child=_let_go)
