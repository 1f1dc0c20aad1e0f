"""Conversion: what is written, and that nothing which can happen to the process changes it."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from places import BRIDGE

from vlakit.data.rlds.reader import open_rlds, parse_episode, read_records
from vlakit.data.shards import convert as module
from vlakit.data.shards.convert import convert
from vlakit.data.shards.frames import episode_members, fit_image, parse_lowdim
from vlakit.data.shards.index import ShardIndex, load_index
from vlakit.data.shards.statistics import load_statistics
from vlakit.data.specs.spec import load_spec
from vlakit.data.specs.standardize import standardize
from vlakit.errors import ActionNotFinite, ConfigError, CorruptRecord, FeatureMissing
from vlakit.schema import Trajectory

SPEC = load_spec("bridge_orig")


def run(out: Path, **changes: object) -> ShardIndex:
    options = {"max_frames_per_shard": 60, **changes}
    return convert(BRIDGE, out, SPEC, **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


def trajectory(n_steps: int = 3, **changes: object) -> Trajectory:
    image = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 10, 10)).save(image, "PNG")
    action = np.arange(n_steps * 7, dtype=np.float32).reshape(n_steps, 7)
    plain = Trajectory("toy.v1", action, ["push"] * n_steps, {"primary": [image.getvalue()] * n_steps})
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_index_counts_what_was_written(whole: Path) -> None:
    index = load_index(whole)
    assert index.counts()["train"] == {"shards": 4, "episodes": 24, "frames": 192}
    assert index.counts()["val"] == {"shards": 1, "episodes": 1, "frames": 8}
    content = json.loads((whole / "shardindex.json").read_text())
    assert (content["__kind__"], content["wids_version"]) == ("wids-shard-index-v1", 1)
    assert not (whole / ".conversion").exists()


def test_webdataset_reads_whole_samples(whole: Path) -> None:
    samples = list(webdataset.WebDataset(str(whole / "val-000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"bridge_orig-val-000000-{step:04d}" for step in range(8)]
    assert all({"primary.jpg", "lowdim.npz", "json"} <= set(sample) for sample in samples)


def test_frames_are_the_source_bytes_and_physical_actions(whole: Path) -> None:
    source = open_rlds(BRIDGE)
    with tarfile.open(whole / "train-000000.tar") as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    meta = json.loads(members["bridge_orig-train-000000-0003.json"])
    payload = dict(enumerate(data for _, data in read_records(source.splits["train"][0])))[meta["source_record"]]
    expected = standardize(parse_episode(payload, source.features).steps, SPEC)
    assert members["bridge_orig-train-000000-0003.primary.jpg"] == expected.images["primary"][3]
    lowdim = parse_lowdim(members["bridge_orig-train-000000-0003.lowdim.npz"])
    assert np.array_equal(lowdim["action"], expected.action[3])
    assert np.array_equal(lowdim["proprio.EEF_state"], expected.proprio["EEF_state"][3])


def test_no_episode_is_split_over_two_shards(whole: Path) -> None:
    names = [name for shard in load_index(whole).shards for name, _ in shard.episodes]
    assert len(names) == len(set(names)) == 25
    assert all(shard.nsamples <= 60 for shard in load_index(whole).shards)


def test_statistics_are_over_all_distinct_episodes(whole: Path) -> None:
    source = open_rlds(BRIDGE)
    payloads = (payload for _, payload in read_records(source.splits["train"][0]))
    actions = np.concatenate([standardize(parse_episode(p, source.features).steps, SPEC).action for p in payloads])
    found = load_statistics(whole / "statistics.json")["bridge_orig"]
    assert (found.num_transitions, found.num_trajectories) == (200, 25)
    np.testing.assert_allclose(found.q01, np.quantile(actions.astype(np.float64), 0.01, axis=0), rtol=1e-12)
    assert found.proprio is not None
    assert found.proprio["mean"].shape == (8,)


def test_conversion_is_reproducible_byte_for_byte(whole: Path, tmp_path: Path) -> None:
    run(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_asked_size_is_made_and_fitting_jpegs_stay(tmp_path: Path) -> None:
    index = run(tmp_path, image_size=32, val_fraction=0.0)
    with tarfile.open(tmp_path / index.shards[0].url) as tar:
        image = Image.open(io.BytesIO(tar.extractfile(tar.next()).read()))  # type: ignore[arg-type,union-attr]
    assert (image.size, image.format) == ((32, 32), "JPEG")
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    assert fit_image(stream.getvalue(), 32) == stream.getvalue()


def test_png_becomes_jpeg_and_keys_hold_no_dot() -> None:
    members = dict(episode_members(trajectory(), "toy_v1-train-000000", ("primary",), None, "here"))
    assert list(members)[:3] == [
        f"toy_v1-train-000000-0000.{ending}" for ending in ("primary.jpg", "lowdim.npz", "json")
    ]
    assert Image.open(io.BytesIO(members["toy_v1-train-000000-0000.primary.jpg"])).size == (8, 6)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"images": {"wrist": [b""] * 3}}, FeatureMissing),
        ({"images": {"primary": [b"\xff\xd8 no"] * 3}}, CorruptRecord),
        ({"action": np.full((3, 7), np.nan, np.float32)}, ActionNotFinite),
    ],
)
def test_unusable_episode_says_where_it_lies(changes: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match="record 7"):
        episode_members(trajectory(**changes), "e", ("primary",), None, "file, record 7")


def test_unlabelled_and_empty_episodes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(1000))

    def some_unusable(*args: object, **kwargs: object) -> Trajectory:
        made = standardize(*args, **kwargs)  # type: ignore[arg-type]
        number = next(numbers)
        if number % 5 == 0:
            return replace(made, instructions=[" "] * len(made))
        return made if number % 5 != 1 else replace(made, action=made.action[:0], instructions=[])

    monkeypatch.setattr(module, "standardize", some_unusable)
    index = run(tmp_path, val_fraction=0.0)
    assert index.skipped == {"no instruction": 5, "no step": 5}
    assert index.counts()["train"]["episodes"] == 15


@pytest.mark.parametrize(
    "changes",
    [{"cameras": ("wrist",)}, {"cameras": ()}, {"val_fraction": 1.0}, {"max_frames_per_shard": 0}, {"image_size": 0}],
)
def test_unusable_options_are_config_errors(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        run(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
