"""A conversion can be interrupted, killed, repeated or run out of disk, and nothing of it shows in the result."""

import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from places import BRIDGE

from vlakit.data.shards.convert import convert
from vlakit.data.shards.index import ShardIndex, load_index
from vlakit.data.specs.spec import load_spec
from vlakit.errors import ConfigError, CorruptRecord, DiskFull, VlakitError

SPEC = load_spec("bridge_orig")


def run(out: Path, **changes: object) -> ShardIndex:
    options = {"max_frames_per_shard": 60, **changes}
    return convert(BRIDGE, out, SPEC, **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.tar")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


def test_finished_folder_is_left_alone(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = identities(whole), contents(whole)
    with caplog.at_level("INFO"):
        assert run(whole) == load_index(whole)
    assert "nothing to do" in caplog.text
    assert (identities(whole), contents(whole)) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"val_fraction": 0.4}, "options.val_fraction"), ({"image_size": 64}, "options.image_size")],
)
def test_other_options_on_a_finished_folder_name_what_differs(
    whole: Path, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=f"finished.*{named}"):
        run(whole, **changes)


def test_other_spec_on_a_finished_folder_is_refused(whole: Path) -> None:
    with pytest.raises(ConfigError, match="spec was"):
        convert(BRIDGE, whole, replace(SPEC, drop_first_steps=2), max_frames_per_shard=60)


def test_second_conversion_of_a_folder_is_refused(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigError, match="another conversion"):
            run(tmp_path)
    finally:
        os.close(descriptor)


def test_tars_of_unknown_origin_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "train-000000.tar").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="no conversion of ours"):
        run(tmp_path)
    assert (tmp_path / "train-000000.tar").read_bytes() == b"mine"


def stop_after(n_episodes: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == n_episodes:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("n_episodes", [1, 8, 20, 24, 25])
def test_interrupted_conversion_ends_as_an_uninterrupted_one(whole: Path, tmp_path: Path, n_episodes: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop_after(n_episodes))
    before = identities(tmp_path)
    assert not list(tmp_path.glob(".conversion/*.tar.partial"))
    run(tmp_path)
    assert before.items() <= identities(tmp_path).items()
    assert contents(tmp_path) == contents(whole)


def test_unfinished_folder_refuses_other_options(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop_after(10))
    with pytest.raises(ConfigError, match=r"unfinished.*options.max_frames_per_shard was 60, is 61"):
        run(tmp_path, max_frames_per_shard=61)


KILLED = """
import os, signal, sys
from pathlib import Path
from vlakit.data.shards.convert import convert
from vlakit.data.specs.spec import load_spec
def progress(done, total):
    if done == 17:
        os.kill(os.getpid(), signal.SIGKILL)
convert(Path(sys.argv[1]), Path(sys.argv[2]), load_spec("bridge_orig"), max_frames_per_shard=60, progress=progress)
"""


def test_killed_conversion_keeps_its_finished_shards(whole: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, BRIDGE, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    before = identities(tmp_path)
    assert len(before) == 2
    assert list(tmp_path.glob(".conversion/*.tar.partial"))
    run(tmp_path)
    assert before.items() <= identities(tmp_path).items()
    assert contents(tmp_path) == contents(whole)


KILLED_WITH_WORKERS = """
import os, signal, sys
from pathlib import Path
from vlakit.data.shards.convert import convert
from vlakit.data.specs.spec import load_spec
def progress(done, total):
    os.kill(os.getpid(), signal.SIGKILL)
spec = load_spec("bridge_orig")
convert(Path(sys.argv[1]), Path(sys.argv[2]), spec, max_frames_per_shard=60, workers=2, progress=progress)
"""


def test_workers_of_a_killed_conversion_let_the_folder_go(whole: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_WITH_WORKERS, BRIDGE, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    before = identities(tmp_path)
    assert set(before) == {"train-000000.tar"}
    run(tmp_path)
    assert before.items() <= identities(tmp_path).items()
    assert contents(tmp_path) == contents(whole)


def test_journal_of_an_older_vlakit_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop_after(10))
    plan = json.loads((tmp_path / ".conversion/plan.json").read_text())
    del plan["journal"]
    (tmp_path / ".conversion/plan.json").write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match=r"unfinished.*journal was absent, is 2"):
        run(tmp_path)


def test_what_ended_before_its_first_shard_is_begun_anew_with_what_its_error_advised(
    whole: Path, tmp_path: Path
) -> None:
    misspelt = replace(SPEC, language=replace(SPEC.language, take="observation/instructoin"))
    with pytest.raises(VlakitError) as caught:
        convert(BRIDGE, tmp_path, misspelt, max_frames_per_shard=60)
    assert not isinstance(caught.value, ConfigError)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, val_fraction=0.4, progress=stop_after(1))
    assert not list(tmp_path.glob("*.tar"))
    run(tmp_path)
    assert contents(tmp_path) == contents(whole)
    assert not (tmp_path / ".conversion").exists()


def test_rename_that_was_cut_off_is_completed(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop_after(10))
    (tmp_path / "train-000000.tar").rename(tmp_path / ".conversion/train-000000.tar.partial")
    run(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_finished_shard_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop_after(10))
    (tmp_path / "train-000000.tar").unlink()
    with pytest.raises(CorruptRecord, match=r"train-000000\.tar"):
        run(tmp_path)


@pytest.fixture
def small_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_full_disk_keeps_no_partial_shard(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=r"train-000000\.tar\.partial(.|\n)*what was finished is kept"):
        run(tmp_path)
    assert not list(tmp_path.glob("**/*.partial"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_conversion_goes_on_after_a_full_disk(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(descriptor: int) -> None:
        if (tmp_path / "train-000001.tar").exists():
            raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("vlakit.data.shards.writer.flush_to_disk", full)
        with pytest.raises(DiskFull):
            run(tmp_path)
    before = identities(tmp_path)
    assert set(before) == {"train-000000.tar", "train-000001.tar"}
    assert not list(tmp_path.glob("**/*.partial"))
    run(tmp_path)
    assert before.items() <= identities(tmp_path).items()
    assert contents(tmp_path) == contents(whole)


def test_shard_filed_but_not_yet_renamed_survives_an_error(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(partial: Path, path: Path) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr("vlakit.data.shards.journal.publish", fail)
        with pytest.raises(PermissionError):
            run(tmp_path)
    assert (tmp_path / ".conversion/train-000000.tar.partial").is_file()
    run(tmp_path)
    assert contents(tmp_path) == contents(whole)
