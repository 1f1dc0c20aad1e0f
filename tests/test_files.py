"""Files and folders that are whole or absent, also where two write the same one at once."""

import threading
from pathlib import Path

import pytest

from vlakit.errors import ConfigError
from vlakit.files import FolderBusy, atomic_writer, new_folder


def test_a_second_writer_of_a_file_waits_and_each_content_is_whole(tmp_path: Path) -> None:
    file, begun = tmp_path / "report.csv", threading.Event()

    def second() -> None:
        begun.set()
        with atomic_writer(file) as stream:
            stream.write(b"second")

    other = threading.Thread(target=second)
    with atomic_writer(file) as stream:
        stream.write(b"the first, which is longer")
        stream.flush()
        other.start()
        begun.wait()
        other.join(0.2)
        assert other.is_alive()
        stream.write(b", to its end")
    assert file.read_bytes() in (b"the first, which is longer, to its end", b"second")
    other.join()
    assert file.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_being_written_is_refused_and_stays_the_first_ones(tmp_path: Path) -> None:
    out = tmp_path / "exported"
    with new_folder(out) as first:
        (first / "weights").write_text("first")
        with pytest.raises(FolderBusy, match="another command is writing this folder"), new_folder(out):
            pass
        assert (first / "weights").read_text() == "first"
    assert (out / "weights").read_text() == "first"
    with pytest.raises(ConfigError, match="there already"), new_folder(out):
        pass
    assert list(tmp_path.iterdir()) == [out]


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "folder") as partial:
        (partial / "file").write_text(str(1 / 0))
    (tmp_path / "kept").write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_writer(tmp_path / "kept") as stream:
        stream.write(bytes(1 // 0))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"kept": "before"}
