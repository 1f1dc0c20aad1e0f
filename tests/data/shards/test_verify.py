"""Every kind of damage is found and named; a sound folder has none."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from places import BRIDGE

from vlakit.data.shards.convert import convert
from vlakit.data.shards.verify import verify
from vlakit.data.specs.spec import load_spec

SHARD = "train-000001.tar"
KEY = "bridge_orig-train-000008-0002"
Members = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    convert(BRIDGE, out, load_spec("bridge_orig"), max_frames_per_shard=60)
    return out


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "shards"))


def rewrite(folder: Path, change: Callable[[Members], Members]) -> list[str]:
    """Change the members of one tar and make the index agree with its bytes; what does verify say?"""
    path = folder / SHARD
    with tarfile.open(path) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in change(members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    index = json.loads((folder / "shardindex.json").read_text())
    entry = next(shard for shard in index["shardlist"] if shard["url"] == SHARD)
    entry.update(filesize=path.stat().st_size, sha256=sha256(path.read_bytes()).hexdigest())
    (folder / "shardindex.json").write_text(json.dumps(index))
    return verify(folder)


def replaced(ending: str, data: bytes) -> Callable[[Members], Members]:
    return lambda members: [(name, data if name == f"{KEY}.{ending}" else old) for name, old in members]


def npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


PROPRIO = {"proprio.EEF_state": np.zeros(6, np.float32), "proprio.gripper_state": np.zeros(1, np.float32)}
BAD_ACTION = npz(action=np.array([0, np.nan, 0, 0, 0, 0, 0], np.float32), **PROPRIO)
SHORT_ACTION = npz(action=np.zeros(6, np.float32), **PROPRIO)


def test_sound_folder_has_no_problem(whole: Path) -> None:
    assert verify(whole) == []


def test_rewriting_alone_is_no_damage(folder: Path) -> None:
    assert rewrite(folder, lambda members: members) == []


@pytest.mark.parametrize(
    ("ending", "data", "says"),
    [
        ("primary.jpg", b"\xff\xd8\xff", "cannot be decoded"),
        ("primary.jpg", b"", "cannot be decoded"),
        ("lowdim.npz", b"PK", "lowdim.npz is not readable"),
        ("lowdim.npz", npz(other=np.zeros(7)), "lowdim.npz is not readable"),
        ("lowdim.npz", BAD_ACTION, "NaN"),
        ("lowdim.npz", SHORT_ACTION, r"shape (6,), not (7,)"),
        ("json", b"{}", "json is not readable"),
        (
            "json",
            b'{"episode": "x", "step": 0, "n_steps": 1, "instruction": "", "dataset": "bridge_orig"}',
            "episode x",
        ),
    ],
)
def test_bad_member_is_named(folder: Path, ending: str, data: bytes, says: str) -> None:
    problems = rewrite(folder, replaced(ending, data))
    assert len(problems) == 1
    assert problems[0].startswith(f"{SHARD}, {KEY}: ")
    assert says in problems[0]


@pytest.mark.parametrize("ending", ["primary.jpg", "lowdim.npz", "json"])
def test_missing_member_is_named(folder: Path, ending: str) -> None:
    problems = rewrite(folder, lambda members: [pair for pair in members if pair[0] != f"{KEY}.{ending}"])
    assert problems == [f"{SHARD}, {KEY}: no {ending}"]


def test_missing_frame_is_named(folder: Path) -> None:
    problems = rewrite(folder, lambda members: [pair for pair in members if not pair[0].startswith(KEY)])
    assert problems == [f"{SHARD}, {KEY}: this frame is missing"]


def test_swapped_frames_are_found(folder: Path) -> None:
    problems = rewrite(folder, lambda members: members[:6] + members[9:12] + members[6:9] + members[12:])
    assert "not in order" in problems[0]


def test_scattered_frame_is_found(folder: Path) -> None:
    problems = rewrite(folder, lambda members: [*members[1:], members[0]])
    assert any("not adjacent" in problem for problem in problems)


def test_unknown_frame_is_found(folder: Path) -> None:
    problems = rewrite(folder, lambda members: [*members, ("other.json", b"{}")])
    assert f"{SHARD}, other: the index knows no such frame" in problems


def test_changed_action_contradicts_the_statistics(folder: Path) -> None:
    problems = rewrite(folder, replaced("lowdim.npz", npz(action=np.full(7, 9, np.float32), **PROPRIO)))
    assert any("statistics.json, action max, dimension 0" in problem for problem in problems)


def test_columns_that_contradict_the_tar_are_found(folder: Path) -> None:
    (path,) = folder.glob("train-000001.*.npy")
    columns = np.load(path)
    columns["action"] += 1
    np.save(path, columns)
    assert verify(folder) == [f"{SHARD}: {path.name} is not what the tar holds: delete it"]
    path.unlink()
    assert verify(folder) == []


def test_flipped_byte_is_found(folder: Path) -> None:
    data = bytearray((folder / SHARD).read_bytes())
    data[-1] ^= 1
    (folder / SHARD).write_bytes(data)
    assert verify(folder) == [f"{SHARD}: its sha256 is not that of the index"]


def test_truncated_tar_is_found(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:100_000])
    problems = verify(folder)
    assert f"{SHARD}: 100000 bytes, the index says" in problems[0]
    assert any("the tar is broken" in problem for problem in problems)
    assert any("this frame is missing" in problem for problem in problems)


def test_missing_and_extra_shards_are_found(folder: Path) -> None:
    (folder / SHARD).rename(folder / "train-000009.tar")
    assert set(verify(folder)) == {f"{SHARD}: missing", "train-000009.tar: the index knows no such shard"}


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_absent_or_garbled_index_is_found(folder: Path, content: str | None) -> None:
    (folder / "shardindex.json").unlink()
    if content is not None:
        (folder / "shardindex.json").write_text(content)
    assert len(verify(folder)) == 1
    assert "shardindex.json" in verify(folder)[0]


@pytest.mark.parametrize(
    ("key", "says"), [("num_transitions", "statistics.json, num_transitions: 7"), ("action", "action q01, dimension 0")]
)
def test_wrong_statistics_are_found(folder: Path, key: str, says: str) -> None:
    content = json.loads((folder / "statistics.json").read_text())
    if key == "action":
        content["bridge_orig"]["action"]["q01"][0] += 1e-6
    else:
        content["bridge_orig"][key] = 7
    (folder / "statistics.json").write_text(json.dumps(content))
    problems = verify(folder)
    assert len(problems) == 1
    assert says in problems[0]


def test_absent_statistics_are_found(folder: Path) -> None:
    (folder / "statistics.json").unlink()
    assert verify(folder) == ["statistics.json: no statistics file"]
