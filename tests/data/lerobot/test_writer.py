"""A LeRobot dataset that vlakit wrote: lossless in its numbers, within the codec's error in its pictures.

It is never wrong in one of the ways that LeRobot takes without a word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import complaint, report, says
from data.array_cases import actions, encoded, pictures, robomimic

from vlakit.data.demonstration import Demonstration
from vlakit.data.lerobot.meta import WriteOptions
from vlakit.data.lerobot.writer import write_dataset
from vlakit.data.rlds.images import decode_image
from vlakit.data.source import open_source
from vlakit.errors import ConfigError, InvalidData

LENGTHS = (5, 1, 8)
CODEC_ERROR = {"av1": 12.0, "h264": 8.0, "jpeg": 0.0}  # mean grey levels of noisy pictures, 4:2:0
SIDE = 64


def demonstration(seed: int, n: int, tasks: Sequence[str] = ("lift", "drop")) -> Demonstration:
    """n steps of two cameras, whose task changes half way."""
    images = {
        name: [encoded(one) for one in pictures(n, seed + k, SIDE)] for k, name in enumerate(("primary", "wrist"))
    }
    texts = [tasks[0] if step < (n + 1) // 2 else tasks[1] for step in range(n)]
    return Demonstration(images, actions(n, seed), actions(n, seed + 9)[:, :3], texts, f"episode {seed}")


DEMONSTRATIONS = [
    demonstration(seed, n, ("drop", "lift") if seed else ("lift", "drop")) for seed, n in enumerate(LENGTHS)
]
OPTIONS = WriteOptions(fps=15, robot_type="toy")


@pytest.fixture(params=["av1", "h264", "jpeg", "small files", "v2.1"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, WriteOptions]:
    options = replace(OPTIONS, codec=request.param if request.param in CODEC_ERROR else "h264")
    if request.param == "small files":
        options = replace(options, data_mb=0.001, video_mb=0.001, chunk=2)
    if request.param == "v2.1":
        options = replace(options, version="v2.1")
    assert write_dataset(DEMONSTRATIONS, tmp_path / "out", options) == {"episodes": 3, "frames": 14, "tasks": 2}
    return tmp_path / "out", options


def test_what_is_written_is_read_again(written: tuple[Path, WriteOptions]) -> None:
    folder, options = written
    source = open_source(folder)
    for header, one in zip(source.headers("train"), DEMONSTRATIONS, strict=True):
        found = source.read(header, ["action", "observation/state", "images/primary", "images/wrist", "task"])
        assert np.array_equal(found["action"], one.action)
        assert np.array_equal(found["observation/state"], one.state)
        assert found["task"] == one.instructions
        for camera, images in one.images.items():
            mine = found[f"images/{camera}"]
            if options.codec == "jpeg":
                assert mine == images
                continue
            apart = [np.abs(a.astype(int) - decode_image(b)).mean() for a, b in zip(mine, images, strict=True)]
            assert max(apart) < CODEC_ERROR[options.codec], apart


def test_totals_rate_columns_and_bounds_are_those_of_the_table(written: tuple[Path, WriteOptions]) -> None:
    folder, options = written
    info = json.loads((folder / "meta/info.json").read_text())
    tables = [pq.ParquetFile(file).read() for file in sorted((folder / "data").rglob("*.parquet"))]
    rows = {
        name: np.concatenate([t[name].to_numpy() for t in tables]) for name in ("index", "timestamp", "frame_index")
    }
    assert (info["total_frames"], info["total_episodes"], info["total_tasks"]) == (14, 3, 2)
    assert np.array_equal(rows["index"], np.arange(14))
    assert np.allclose(rows["timestamp"], rows["frame_index"] / info["fps"], atol=1e-6)
    stored = {name for name, feature in info["features"].items() if feature["dtype"] != "video"}
    assert all(stored == {*table.column_names} for table in tables)
    assert info["splits"] == {"train": "0:3"}
    if options.version == "v3.0":
        episodes = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
        bounds = np.cumsum([0, *LENGTHS]).tolist()
        assert [(e["dataset_from_index"], e["dataset_to_index"]) for e in episodes] == list(pairwise(bounds))


def test_tasks_lie_in_order_of_their_number_under_the_index_that_pandas_looks_for(tmp_path: Path) -> None:
    write_dataset(DEMONSTRATIONS, tmp_path / "out", replace(OPTIONS, codec="jpeg"))
    table = pq.read_table(tmp_path / "out/meta/tasks.parquet")
    assert table["task_index"].to_pylist() == [0, 1]
    assert table["task"].to_pylist() == ["lift", "drop"]
    assert json.loads((table.schema.metadata or {})[b"pandas"])["index_columns"] == ["task"]


def test_statistics_are_those_of_the_rows_and_of_the_pictures(tmp_path: Path) -> None:
    write_dataset(DEMONSTRATIONS, tmp_path / "out", replace(OPTIONS, codec="jpeg"))
    found = json.loads((tmp_path / "out/meta/stats.json").read_text())
    rows = np.concatenate([one.action for one in DEMONSTRATIONS]).astype(np.float64)
    exact = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    exact |= {"q01": np.quantile(rows, 0.01, axis=0), "q99": np.quantile(rows, 0.99, axis=0), "count": [14]}
    for what, value in exact.items():
        np.testing.assert_allclose(found["action"][what], value, atol=1e-12)
    pixels = np.concatenate([decode_image(i)[None] for one in DEMONSTRATIONS for i in one.images["wrist"]]) / 255
    camera = found["observation.images.wrist"]
    np.testing.assert_allclose(np.ravel(camera["mean"]), pixels.mean((0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(np.ravel(camera["std"]), pixels.std((0, 1, 2)), atol=1e-9)
    assert np.shape(camera["max"]) == (3, 1, 1)
    assert {*found} == {*json.loads((tmp_path / "out/meta/info.json").read_text())["features"]}


def test_videos_have_no_frame_out_of_order_and_files_end_at_their_limit(tmp_path: Path) -> None:
    options = replace(OPTIONS, codec="h264", data_mb=0.001, video_mb=0.001, chunk=2)
    write_dataset(DEMONSTRATIONS, tmp_path / "out", options)
    videos = sorted((tmp_path / "out/videos/observation.images.wrist").rglob("*.mp4"))
    assert len(videos) > 1
    for file in videos:
        with av.open(str(file)) as container:
            stamps = [(p.pts, p.dts) for p in container.demux(video=0) if p.dts is not None]
        assert all(pts == dts for pts, dts in stamps)
        assert file.stat().st_mode & 0o044 == 0o044


def test_groot_finds_columns_videos_and_the_instruction(tmp_path: Path) -> None:
    options = replace(OPTIONS, codec="h264", version="v2.1", action_names=("x", "y", "z", "r", "p", "w", "gripper"))
    write_dataset(DEMONSTRATIONS, tmp_path / "out", options)
    modality = json.loads((tmp_path / "out/meta/modality.json").read_text())
    assert modality["action"]["gripper"] == {"start": 6, "end": 7}
    assert modality["video"]["wrist"] == {"original_key": "observation.images.wrist"}
    assert modality["annotation"] == {"human.task_description": {"original_key": "task_index"}}
    stats = [json.loads(line) for line in (tmp_path / "out/meta/episodes_stats.jsonl").read_text().splitlines()]
    assert [one["stats"]["action"]["count"] for one in stats] == [[n] for n in LENGTHS]


def test_what_cannot_be_one_dataset_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    other: list[tuple[Demonstration, Any, str]] = [
        (replace(DEMONSTRATIONS[0], state=np.zeros((5, 2), np.float32)), InvalidData, "other features than the first"),
        (
            replace(DEMONSTRATIONS[0], images={"primary": DEMONSTRATIONS[0].images["primary"]}),
            InvalidData,
            "other features",
        ),
        (replace(DEMONSTRATIONS[0], images={k: [b"no"] * 5 for k in ("primary", "wrist")}), Exception, "step 0"),
    ]
    for demonstration_, kind, part in other:
        with pytest.raises(kind) as caught:
            write_dataset([DEMONSTRATIONS[1], demonstration_], tmp_path / "out", OPTIONS)
        says(str(caught.value), part)
    with pytest.raises(InvalidData, match="no episode"):
        write_dataset([], tmp_path / "out", OPTIONS)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="there already"):
        write_dataset(DEMONSTRATIONS, tmp_path / "out", OPTIONS)


def test_shards_and_any_dataset_with_a_spec_are_exported(
    bridge_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("layout=lerobot", "codec=jpeg")
    found = report(capsys, "export", f"source={bridge_shards}", *words, "fps=5", f"out={tmp_path / 'a'}")
    assert found["episodes"] == 25
    assert open_source(tmp_path / "a").survey().n_steps == found["frames"]
    spec = tmp_path / "mine.yaml"
    spec.write_text(
        "images: {primary: agentview_image}\nlanguage: language_instruction\naction: [action]\ncontrol_hz: 20\n"
    )
    source = robomimic(tmp_path / "robomimic")
    found = report(capsys, "export", f"source={source}", f"dataset={spec}", *words, f"out={tmp_path / 'b'}")
    assert (found["episodes"], open_source(tmp_path / "b").survey().rate) == (3, 20)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["no value for 'source'"]),
        (["source=sample", "fps=5"], ["needs a spec", "dataset=NAME"]),
        (["source=sample", "dataset=toto", "fps=2.5"], ["not 2.5", "fps=..."]),
        (["source=sample", "dataset=toto", "codec=mp4"], ["av1, h264, jpeg"]),
    ],
)
def test_what_an_export_lacks_is_asked_for(
    words: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says(complaint(capsys, "export", "layout=lerobot", f"out={tmp_path / 'out'}", *words), *parts)
