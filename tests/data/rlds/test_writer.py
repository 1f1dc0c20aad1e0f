"""What is written is what TFDS writes, what the reader reads, and nothing at all after an error."""

import json
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import BRIDGE, FIXTURES

from vlakit.data.rlds.example import index_example
from vlakit.data.rlds.features import Features, Leaf
from vlakit.data.rlds.reader import Episode, open_rlds, parse_episode, read_records
from vlakit.data.rlds.spec import Feature
from vlakit.data.rlds.writer import RldsWriter, encode_episode
from vlakit.data.shards.convert import convert
from vlakit.data.specs.spec import DatasetSpec, Segment
from vlakit.errors import ConfigError, DiskFull, FeatureMissing, InvalidData, VlakitError

ODD = FIXTURES / "odd_rlds" / "1.0.0"
_, RECORD = next(read_records(open_rlds(ODD).splits["train"][0]))
IMAGE = parse_episode(RECORD, open_rlds(ODD).features).steps["observation/wrist_image"][0]
SPEC = DatasetSpec("toy", {"primary": "image"}, Segment("language_instruction"), (Segment("action"),))


def episode(n_steps: int = 3, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    steps = [
        {
            "observation": {"image": IMAGE, "state": rng.normal(size=4)},
            "action": rng.normal(size=7).astype(np.float32),
            "language_instruction": "push the cube",
            "is_last": index == n_steps - 1,
            "reward": 0.0,
        }
        for index in range(n_steps)
    ]
    return {"steps": steps, "episode_metadata": {"initial_state": "eval-1", "seed": -seed}}


def write_all(folder: Path, *episodes: dict[str, Any], **options: Any) -> Path:
    with RldsWriter(folder, "toy", **options) as writer:
        for each in episodes:
            writer.write(each)
    return writer.path


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return tree


def again(parsed: Episode, leaves: list[Leaf]) -> dict[str, Any]:
    kept = {leaf.key for leaf in leaves}
    steps = {path: values for path, values in parsed.steps.items() if f"steps/{path}" in kept}
    metadata = {path: value for path, value in parsed.metadata.items() if path in kept}
    each = [nested({path: values[step] for path, values in steps.items()}) for step in range(parsed.n_steps)]
    return {"steps": each, **nested(metadata)}


def writable(features: Features) -> Features:
    def plain(leaf: Leaf) -> bool:
        known_shape = leaf.kind == "image" or None not in leaf.shape
        return leaf.kind != "encoded" and not leaf.ragged and known_shape and leaf.dtype != "bfloat16"

    steps = {path: leaf for path, leaf in features.steps.items() if plain(leaf)}
    return Features(steps, {path: leaf for path, leaf in features.metadata.items() if plain(leaf) and not leaf.levels})


@pytest.mark.parametrize(("folder", "n_leaves"), [(ODD, 27), (BRIDGE, 20)], ids=["odd", "bridge"])
def test_every_list_has_the_bytes_that_tfds_wrote(folder: Path, n_leaves: int) -> None:
    source = open_rlds(folder)
    features = writable(source.features)
    leaves = [*features.steps.values(), *features.metadata.values()]
    assert len(leaves) == n_leaves
    for _, payload in (record for files in source.splits.values() for record in read_records(files[0])):
        theirs = index_example(payload)
        ours = index_example(encode_episode(again(parse_episode(payload, source.features), leaves), features))
        for name, (kind, data, start, stop) in ours.items():
            assert (kind, data[start:stop]) == (theirs[name].kind, theirs[name].data[slice(*theirs[name][2:])]), name


def test_a_rewritten_folder_says_what_tfds_said(tmp_path: Path) -> None:
    source = open_rlds(BRIDGE)
    with RldsWriter(tmp_path / "copy", source.name, features=json.loads((BRIDGE / "features.json").read_text())) as out:
        leaves = [*source.features.steps.values(), *source.features.metadata.values()]
        for split, files in source.splits.items():
            for _, payload in read_records(files[0]):
                out.write(again(parse_episode(payload, source.features), leaves), split)
    for name in ("features.json", "dataset_info.json"):
        theirs, ours = (json.loads((folder / name).read_text()) for folder in (BRIDGE, out.path))
        for key in ("citation", "description", "moduleName", "releaseNotes"):
            theirs.pop(key, None), ours.pop(key, None)
        assert ours == theirs
    assert [file.name for file in open_rlds(out.path).splits["val"]] == [source.splits["val"][0].name]
    assert [file.stat().st_size for file in sorted(out.path.glob("*tfrecord*"))] == [3475142, 3475142]


def test_an_inferred_episode_comes_back_as_it_was(tmp_path: Path) -> None:
    write_all(tmp_path / "toy", episode(4, 3))
    folder = open_rlds(tmp_path / "toy")
    ((_, payload),) = read_records(folder.splits["train"][0])
    found, steps = parse_episode(payload, folder.features), episode(4, 3)["steps"]
    assert np.array_equal(found.steps["action"], [step["action"] for step in steps])
    assert np.array_equal(
        found.steps["observation/state"], np.float32([step["observation"]["state"] for step in steps])
    )
    assert found.steps["observation/image"] == [IMAGE] * 4
    assert found.steps["is_last"].tolist() == [False] * 3 + [True]
    assert found.metadata == {"episode_metadata/initial_state": b"eval-1", "episode_metadata/seed": -3}
    assert (folder.features.steps["observation/image"].kind, folder.name) == ("image", "toy")


def test_shards_are_made_from_what_was_written(tmp_path: Path) -> None:
    with RldsWriter(tmp_path / "toy", "toy") as writer:
        for seed in range(3):
            writer.write(episode(5, seed), "val" if seed == 2 else "train")
    index = convert(tmp_path / "toy", tmp_path / "shards", replace(SPEC, mask=(True,) * 7))
    assert [index.counts()[split]["frames"] for split in ("train", "val")] == [10, 5]


def test_files_stay_below_the_limit_and_keep_the_order(tmp_path: Path) -> None:
    size = next(write_all(tmp_path / "one", episode()).glob("*tfrecord*")).stat().st_size
    path = write_all(tmp_path / "toy", *(episode(3, seed) for seed in range(5)), shard_bytes=2 * size + 20)
    folder = open_rlds(tmp_path / "toy")
    files = folder.splits["train"]
    assert [file.name for file in files] == [f"toy-train.tfrecord-0000{part}-of-00003" for part in range(3)]
    info = json.loads((path / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["2", "2", "1"]
    payloads = [payload for file in files for _, payload in read_records(file)]
    numbers = [parse_episode(payload, folder.features).metadata["episode_metadata/seed"] for payload in payloads]
    assert numbers == [0, -1, -2, -3, -4]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"action": np.zeros(6)}, InvalidData, r"float64 of shape \(6,\)|varies"),
        ({"action": "left"}, InvalidData, "float32"),
        ({"is_last": 2}, InvalidData, "bool"),
        ({"language_instruction": 3}, InvalidData, "int"),
        ({"observation": {"state": np.zeros(4)}}, FeatureMissing, "observation/image"),
        ({"observation": {"state": np.zeros(4), "image": b"BM123"}}, InvalidData, "no encoded image"),
        ({"colour": 1}, InvalidData, "colour"),
    ],
)
def test_a_value_that_does_not_fit_is_named_and_nothing_is_left(
    tmp_path: Path, change: dict[str, Any], kind: type[VlakitError], message: str
) -> None:
    wrong = episode()
    wrong["steps"] = [{**step, **change} for step in wrong["steps"]]
    with pytest.raises(kind, match=message):
        write_all(tmp_path / "toy", episode(), wrong)
    assert list(tmp_path.iterdir()) == []


def test_small_integers_that_do_not_fit_raise(tmp_path: Path) -> None:
    spec = {"steps": {"pixel": Feature("uint8")}}
    steps = [{"steps": [{"pixel": value}]} for value in (255, 256)]
    with pytest.raises(InvalidData, match="reaches 256"):
        write_all(tmp_path / "toy", *steps, features=spec)


def test_a_version_is_written_once_and_by_one_writer(tmp_path: Path) -> None:
    with RldsWriter(tmp_path / "toy", "toy") as writer:
        writer.write(episode())
        with pytest.raises(ConfigError, match="writing this folder"), RldsWriter(tmp_path / "toy", "toy"):
            pass
    kept = writer.path / "features.json"
    before = kept.stat().st_mtime_ns
    with pytest.raises(ConfigError, match="there already"), RldsWriter(tmp_path / "toy", "toy"):
        pass
    assert kept.stat().st_mtime_ns == before


def test_a_folder_without_an_episode_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no episode"), RldsWriter(tmp_path / "toy", "toy"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / "toy" / ".1.0.0.partial"
    left.mkdir(parents=True)
    (left / "toy-train.tfrecord.00007").write_bytes(b"half")
    path = write_all(tmp_path / "toy", episode())
    assert len(list(path.iterdir())) == 3
    assert list((tmp_path / "toy").iterdir()) == [path]


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(DiskFull):
            write_all(tmp_path / "toy", *(episode(20, seed) for seed in range(20)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_three_thousand_steps_a_second(tmp_path: Path) -> None:
    episodes = [episode(60, seed) for seed in range(10)]
    start = time.perf_counter()
    write_all(tmp_path / "toy", *episodes)
    assert 600 / (time.perf_counter() - start) > 3000
