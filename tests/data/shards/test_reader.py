"""Random access gives what is in the shards; windows and chunks end at the episode."""

import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from places import BRIDGE

from vlakit.data.shards.convert import convert
from vlakit.data.shards.frames import parse_lowdim
from vlakit.data.shards.reader import SampleRef, ShardFolder, folder_of
from vlakit.data.specs.spec import load_spec
from vlakit.errors import CorruptRecord, InvalidData, NotAShardFolder, StatisticsMissing, UnknownName


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    options = {"max_frames_per_shard": 60, "cameras": ("primary", "secondary")}
    convert(BRIDGE, out, load_spec("bridge_orig"), **options)  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def folder(whole: Path) -> ShardFolder:
    return ShardFolder.open(whole)


def ref(frame: int, shard: int = 1, position: int = 0) -> SampleRef:
    return SampleRef("bridge_orig", shard, frame, position)


def test_every_sample_is_what_the_tar_holds(whole: Path, folder: ShardFolder) -> None:
    with tarfile.open(whole / "train-000001.tar") as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    for frame in range(56):
        sample = folder.read_sample(ref(frame, position=frame))
        assert sample.images["primary"] == [members[f"{sample.key}.primary.jpg"]]
        assert sample.images["secondary"] == [members[f"{sample.key}.secondary.jpg"]]
        lowdim = parse_lowdim(members[f"{sample.key}.lowdim.npz"])
        assert np.array_equal(sample.actions, lowdim["action"][None])
        state, gripper = lowdim["proprio.EEF_state"], lowdim["proprio.gripper_state"]
        assert sample.proprio is not None
        assert np.array_equal(sample.proprio, np.concatenate([state, [0], gripper])[None])  # the spec's null: zeros
        assert sample.position == frame


def test_window_repeats_the_first_frame_of_the_episode(folder: ShardFolder) -> None:
    sample = folder.read_sample(ref(9), window=4)  # the second frame of the second episode, which begins at 8
    assert sample.window_mask.tolist() == [False, False, True, True]
    first, second = (folder.read_sample(ref(frame)).images["primary"][0] for frame in (8, 9))
    assert sample.images["primary"] == [first, first, first, second]
    assert sample.proprio is not None
    assert sample.proprio.shape == (4, 8)
    assert np.array_equal(sample.proprio[0], sample.proprio[2])


def test_chunk_past_the_end_stands_still_and_keeps_the_gripper(folder: ShardFolder) -> None:
    row = folder.episodes("train")[8]
    actions = folder.read_sample(ref(row.first_frame, row.shard), chunk=row.n_frames).actions
    sample = folder.read_sample(ref(row.first_frame + row.n_frames - 2, row.shard), chunk=4)
    assert sample.chunk_mask.tolist() == [True, True, False, False]
    assert np.array_equal(sample.actions[:2], actions[-2:])
    assert not sample.actions[2:, :6].any()
    assert (sample.actions[2:, 6] == actions[-1, 6]).all()
    assert sample.actions.dtype == np.float32


def test_reading_a_sample_leaves_the_next_one_unchanged(folder: ShardFolder) -> None:
    folder.read_sample(ref(3), chunk=2).actions[:] = 99
    assert folder.read_sample(ref(3)).actions.max() < 2


def test_previous_action_is_absent_only_at_the_start(folder: ShardFolder) -> None:
    assert folder.read_sample(ref(8)).previous_action is None
    before = folder.read_sample(ref(9)).previous_action
    assert before is not None
    assert np.array_equal(before, folder.read_sample(ref(8)).actions[0])


def test_episodes_cover_a_split(folder: ShardFolder) -> None:
    rows = folder.episodes("train")
    assert sum(row.n_frames for row in rows) == sum(n_frames for _, n_frames in folder.shards("train")) == 192
    assert folder.splits == ["train", "val"]
    assert all(folder.read_sample(ref(row.first_frame, row.shard)).instruction for row in rows)


def test_hash_tells_shards_apart(folder: ShardFolder, tmp_path: Path) -> None:
    convert(BRIDGE, tmp_path, load_spec("bridge_orig"), max_frames_per_shard=60)
    assert ShardFolder.open(tmp_path).content_hash != folder.content_hash


def test_open_shards_are_bounded(whole: Path) -> None:
    small = ShardFolder.open(whole, open_shards=2)
    for shard in (0, 1, 2, 3, 0):
        assert small.read_sample(ref(0, shard)).key.endswith("0000")
    assert len(small._tables) == 2


def test_pickled_folder_opens_its_own_files(folder: ShardFolder) -> None:
    folder.read_sample(ref(0))
    copy = pickle.loads(pickle.dumps(folder))
    assert not copy._tables
    assert copy.read_sample(ref(5)).key == folder.read_sample(ref(5)).key


@pytest.mark.parametrize(("frame", "shard"), [(56, 1), (-1, 1), (0, 9)])
def test_place_that_does_not_exist_is_invalid_data(folder: ShardFolder, frame: int, shard: int) -> None:
    with pytest.raises(InvalidData):
        folder.read_sample(ref(frame, shard))


def test_folder_without_index_is_no_shard_folder(tmp_path: Path) -> None:
    with pytest.raises(NotAShardFolder, match="convert a dataset"):
        ShardFolder.open(tmp_path)
    (tmp_path / ".conversion").mkdir()
    with pytest.raises(NotAShardFolder, match=r"unfinished conversion(.|\n)*same command again"):
        ShardFolder.open(tmp_path)


def test_statistics_must_be_there(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / "shardindex.json", tmp_path)
    with pytest.raises(StatisticsMissing):
        ShardFolder.open(tmp_path)


@pytest.mark.parametrize("size", [100, 5_000, 100_000])
def test_truncated_shard_is_corrupt(whole: Path, tmp_path: Path, size: int) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    (copy / "train-000001.tar").write_bytes((whole / "train-000001.tar").read_bytes()[:size])
    with pytest.raises(CorruptRecord, match=r"train-000001\.tar"):
        ShardFolder.open(copy).read_sample(ref(0))


def test_unknown_dataset_gets_the_nearest_name(folder: ShardFolder) -> None:
    with pytest.raises(UnknownName, match="bridge_orig"):
        folder_of({"bridge_orig": folder}, "bridge_original")


def test_only_the_cameras_that_are_asked_for_are_read(folder: ShardFolder) -> None:
    whole = folder.read_sample(ref(3)).images
    assert set(whole) == {"primary", "secondary"}
    assert folder.read_sample(ref(3), cameras=["secondary"]).images == {"secondary": whole["secondary"]}
    with pytest.raises(UnknownName, match=r"no camera 'wrist'(.|\n)*known: primary, secondary"):
        folder.read_sample(ref(3), cameras=["primary", "wrist"])


def without_columns(whole: Path, folder: Path) -> ShardFolder:
    """The folder as vlakit 0.1.0 wrote it."""
    shutil.copytree(whole, folder)
    for path in folder.glob("*.npy"):
        path.unlink()
    return ShardFolder.open(folder)


def test_shards_of_an_older_vlakit_get_their_columns_when_they_are_read(
    whole: Path, folder: ShardFolder, tmp_path: Path
) -> None:
    older = without_columns(whole, tmp_path / "older")
    assert repr(older.read_sample(ref(9), window=2, chunk=3)) == repr(folder.read_sample(ref(9), window=2, chunk=3))
    (made,) = (tmp_path / "older").glob("*.npy")
    assert made.read_bytes() == (whole / made.name).read_bytes()


def test_columns_of_another_tar_are_not_believed(whole: Path, folder: ShardFolder, tmp_path: Path) -> None:
    older = without_columns(whole, tmp_path / "older")
    (other,) = whole.glob("train-000000.*.npy")
    shutil.copy(other, tmp_path / "older" / other.name.replace("000000", "000001"))
    assert repr(older.read_sample(ref(9))) == repr(folder.read_sample(ref(9)))


def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    whole: Path, folder: ShardFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = without_columns(whole, tmp_path / "older")

    def refuse(path: Path, columns: np.ndarray) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(np, "save", refuse)
    assert repr(older.read_sample(ref(9))) == repr(folder.read_sample(ref(9)))
    assert not list((tmp_path / "older").glob("*.npy"))
