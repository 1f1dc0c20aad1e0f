"""Conversion: what is written, and that nothing which can happen to the process changes it."""

import io
import json
import tarfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from places import BRIDGE

from vlakit.data.rlds.reader import open_rlds, parse_episode, read_records
from vlakit.data.shards.convert import convert, ensure
from vlakit.data.shards.frames import episode_members, fit_image, parse_lowdim
from vlakit.data.shards.index import ShardIndex, load_index
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.shards.statistics import load_statistics
from vlakit.data.source import Source
from vlakit.data.specs.spec import DatasetSpec, Segment, load_spec
from vlakit.data.specs.standardize import standardize
from vlakit.errors import ActionNotFinite, ConfigError, CorruptRecord, FeatureMissing, InvalidData
from vlakit.files import locked
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


TOY = DatasetSpec(
    name="toy",
    images={"primary": "image"},
    language=Segment(take="text"),
    action=(Segment(take="action"),),
    proprio=("state",),
    drop_first_steps=1,
    mask=(True, True),
    absolute_action_mask=(False, True),
)


@dataclass(frozen=True)
class ListedHeader:
    """An episode of `Listed`."""

    number: int

    @property
    def key(self) -> int:
        return self.number

    @property
    def metadata(self) -> dict[str, str | int]:
        return {"source_record": self.number}


@dataclass(frozen=True)
class Listed:
    """A source that is no RLDS: episodes in memory, each of so many steps and with such a text."""

    episodes: tuple[tuple[int, str], ...]
    path: Path = Path("memory")
    splits: tuple[str, ...] = ("train",)

    def identity(self) -> dict[str, Any]:
        return {"name": "listed", "episodes": [list(episode) for episode in self.episodes]}

    def headers(self, split: str) -> Iterator[ListedHeader]:
        return map(ListedHeader, range(len(self.episodes)))

    def read(self, header: ListedHeader, fields: Collection[str]) -> dict[str, Any]:
        n_steps, text = self.episodes[header.number]
        image = io.BytesIO()
        Image.new("RGB", (8, 6), (header.number, 0, 0)).save(image, "JPEG")
        numbers = np.full((n_steps, 2), header.number, np.float32)
        steps = {"observation/image": [image.getvalue()] * n_steps, "text": [text] * n_steps}
        return {**steps, "action": numbers, "observation/state": numbers}

    def same(self, header: ListedHeader, other: ListedHeader) -> bool:
        return header == other


def test_a_conversion_knows_its_source_by_the_protocol_alone(tmp_path: Path) -> None:
    source: Source = Listed(((4, "push"), (3, "pull"), (5, "push")))
    index = convert(source, tmp_path, TOY, val_fraction=0.0, max_frames_per_shard=5)
    assert [[n_frames for _, n_frames in shard.episodes] for shard in index.shards] == [[3, 2], [4]]
    sample = ShardFolder.open(tmp_path).read_sample(SampleRef("toy", 1, 0))
    assert (sample.instruction, sample.actions.tolist()) == ("push", [[2, 2]])


def test_unlabelled_and_empty_episodes_are_counted_and_get_no_number(tmp_path: Path) -> None:
    source = Listed(((4, "push"), (4, " "), (1, "push"), (4, ""), (4, "pull")))  # of one step none is left
    index = convert(source, tmp_path, TOY, val_fraction=0.0)
    assert index.skipped == {"no instruction": 2, "no step": 1}
    assert index.shards[0].episodes == (("toy-train-000000", 3), ("toy-train-000001", 3))
    with pytest.raises(InvalidData, match=r"every train episode was skipped(.|\n)*no instruction: 1"):
        convert(Listed(((4, " "),)), tmp_path / "none", TOY, val_fraction=0.0)


def test_shards_keep_to_the_limit_of_bytes(tmp_path: Path) -> None:
    index = run(tmp_path, max_bytes_per_shard=300_000, max_frames_per_shard=2000)
    sizes = [shard.filesize for shard in index.shards if shard.split == "train"]
    assert len(sizes) == 5
    assert max(sizes) <= 300_000 + 10_240  # a tar ends with up to 20 blocks of zeros


def test_the_bytes_do_not_depend_on_the_number_of_workers(whole: Path, tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    run(tmp_path, workers=2, progress=lambda done, total: reported.append((done, total)))
    assert contents(tmp_path) == contents(whole)
    assert reported == [(7, 25), (14, 25), (21, 25), (24, 25), (25, 25)]


def test_ensure_converts_once_and_then_takes_what_is_there(tmp_path: Path) -> None:
    index = ensure(BRIDGE, tmp_path, SPEC, val_fraction=0.2)
    assert index.counts()["val"]["episodes"] == 5
    assert ensure(tmp_path / "gone", tmp_path, SPEC, val_fraction=0.5) == index


def test_ensure_waits_for_who_is_converting(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path):
            waiting = pool.submit(ensure, BRIDGE, tmp_path, SPEC)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
        assert waiting.result() == load_index(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 0},
        {"cameras": ("wrist",)},
        {"cameras": ()},
        {"val_fraction": 1.0},
        {"max_frames_per_shard": 0},
        {"image_size": 0},
    ],
)
def test_unusable_options_are_config_errors(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        run(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
