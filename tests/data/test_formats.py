"""People's own data: each format is recognised by its names, read as it lies, and converted like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commands import report, run, says, train_here
from data.array_cases import LENGTHS, SPEC, actions, aloha, encoded, numbered, pictures, replay_buffer, robomimic

from vlakit.cli.own_data import with_own_data
from vlakit.data.formats import formats
from vlakit.data.rlds.images import decode_image
from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.source import open_source
from vlakit.data.specs.spec import DatasetSpec, load_spec
from vlakit.errors import CorruptRecord, FeatureMissing, InvalidData, VlakitError

Made = Callable[[Path], Path]
LEROBOT = Path(__file__).parents[1] / "fixtures/lerobot/v3_video"
CASES: dict[str, tuple[Made, str, str, str]] = {  # format, writer, camera key, proprio key, instruction
    "robomimic": (robomimic, "agentview_image", "robot0_eef_pos", "lift the cube"),
    "aloha": (aloha, "images/cam_high", "qpos", "open the jar"),
    "aloha_raw": (lambda folder: aloha(folder, compressed=False), "images/cam_high", "qpos", "open the jar"),
    "zarr": (replay_buffer, "img", "state", "push the T"),
    "csv": (numbered, "front", "state", "fold it"),
    "json": (lambda folder: numbered(folder, "json"), "front", "state", "fold it"),
}


def spec(tmp_path: Path, camera: str, proprio: str) -> DatasetSpec:
    file = tmp_path / "mine.yaml"
    file.write_text(SPEC % (camera, proprio), encoding="utf-8")
    return load_spec(file)


@pytest.mark.parametrize("case", CASES)
def test_a_dataset_becomes_shards_with_its_own_actions_pictures_and_words(case: str, tmp_path: Path) -> None:
    made, camera, proprio, instruction = CASES[case]
    source = made(tmp_path / "source")
    index = convert(source, tmp_path / "shards", spec(tmp_path, camera, proprio), val_fraction=0.0)
    assert [n for shard in index.shards for _, n in shard.episodes] == list(LENGTHS)
    folder, first = ShardFolder.open(tmp_path / "shards"), 0
    for seed, n in enumerate(LENGTHS):
        for step in range(n):
            sample = folder.read_sample(SampleRef("mine", 0, first + step))
            assert np.array_equal(sample.actions[0], actions(n, seed)[step])
            picture = decode_image(sample.images["primary"][0]).astype(int)
            assert np.abs(picture - pictures(n, seed)[step]).mean() < 8
            assert sample.instruction == instruction
            assert sample.proprio is not None
        first += n


@pytest.mark.parametrize("case", CASES)
def test_a_survey_says_what_there_is_and_an_episode_is_the_same_as_itself_alone(case: str, tmp_path: Path) -> None:
    made, camera, proprio, instruction = CASES[case]
    source = open_source(made(tmp_path / "source"))
    survey = source.survey()
    assert (survey.n_episodes, survey.n_steps, list(survey.instructions)) == (3, sum(LENGTHS), [instruction])
    assert camera in survey.cameras
    assert {f"observation/{proprio}", f"observation/{camera}", "action"} <= {*survey.fields}
    headers = list(source.headers("train"))
    assert len({header.key for header in headers}) == 3
    assert source.same(headers[0], headers[0])
    assert not source.same(headers[0], headers[1])


def test_encoded_pictures_go_on_unchanged(tmp_path: Path) -> None:
    for made, path in ((aloha, "observation/images/cam_high"), (numbered, "observation/front")):
        source = open_source(made(tmp_path / made.__name__))
        header = next(iter(source.headers("train")))
        assert source.read(header, [path])[path] == [encoded(one) for one in pictures(LENGTHS[0])]


def test_rates_that_a_format_states_are_taken(tmp_path: Path) -> None:
    assert open_source(robomimic(tmp_path / "a")).survey().rate == 20
    assert open_source(numbered(tmp_path / "b", "json")).survey().rate == 12
    assert open_source(aloha(tmp_path / "c")).survey().rate is None


def test_masks_of_robomimic_are_the_splits_and_names_are_in_order_of_their_number(tmp_path: Path) -> None:
    source = open_source(robomimic(tmp_path / "source", masks=True))
    assert {split: [str(h).rpartition("/")[2] for h in source.headers(split)] for split in source.splits} == {
        "train": ["demo_0", "demo_10"],
        "val": ["demo_1"],
    }


def test_one_file_is_a_source_too(tmp_path: Path) -> None:
    file = next(aloha(tmp_path / "source").glob("*_1.hdf5"))
    assert open_source(file).survey().n_steps == LENGTHS[1]


def _break(tmp_path: Path, what: str) -> Path:
    if what == "no instruction":
        return robomimic(tmp_path / "source", told=None)
    if what == "no picture":
        folder = numbered(tmp_path / "source")
        (folder / "take_1/front/2.jpg").unlink()
        return folder
    if what == "fractions as pictures":
        folder = replay_buffer(tmp_path / "source")
        import zarr

        zarr.open_group(str(folder / "pusht.zarr"), mode="r+")["data/img"][:] = 0.5  # type: ignore[index]
        return folder
    if what == "unfinished buffer":
        folder = replay_buffer(tmp_path / "source")
        import zarr

        zarr.open_group(str(folder / "pusht.zarr"), mode="r+")["meta/episode_ends"][-1] = 3  # type: ignore[index]
        return folder
    folder = aloha(tmp_path / "source")
    file = folder / "episode_1.hdf5"
    if what == "cut file":
        file.write_bytes(file.read_bytes()[:900])
    if what == "no action":
        with h5py.File(file, "r+") as opened:
            del opened["action"]
    return folder


@pytest.mark.parametrize(
    ("what", "kind", "parts"),
    [
        ("no instruction", FeatureMissing, ["language_instruction", "instruction.txt", "demo_0"]),
        ("no picture", InvalidData, ["4 pictures of 'front' and 5 rows", "take_1"]),
        ("fractions as pictures", InvalidData, ["0.5", "store them as uint8", "data/img"]),
        ("unfinished buffer", InvalidData, ["episode_ends", "18"]),
        ("cut file", CorruptRecord, ["episode_1.hdf5", "cannot be read"]),
        ("no action", InvalidData, ["episode_1.hdf5", "observations"]),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    what: str, kind: type[VlakitError], parts: list[str], tmp_path: Path
) -> None:
    camera, proprio = {"no instruction": CASES["robomimic"], "no picture": CASES["csv"]}.get(what, CASES["aloha"])[1:3]
    camera, proprio = ("img", "state") if what in ("fractions as pictures", "unfinished buffer") else (camera, proprio)
    source = _break(tmp_path, what)
    with pytest.raises(kind) as caught:
        convert(source, tmp_path / "shards", spec(tmp_path, camera, proprio))
    says(str(caught.value), *parts)


def test_a_spec_that_names_another_field_or_no_camera_hears_what_there_is(tmp_path: Path) -> None:
    source = robomimic(tmp_path / "source")
    with pytest.raises(FeatureMissing) as caught:
        convert(source, tmp_path / "a", spec(tmp_path, "agentvew_image", "robot0_eef_pos"))
    says(str(caught.value), "did you mean observation/agentview_image?")
    with h5py.File(source / "low_dim.hdf5", "r+") as file:
        for demo in file["data"].values():  # type: ignore[union-attr]
            demo["obs/wrist"] = demo["obs/agentview_image"][()]
    (tmp_path / "mine.yaml").write_text("images: {}\nlanguage: language_instruction\naction: [action]\n")
    with pytest.raises(VlakitError) as caught:
        convert(source, tmp_path / "b", load_spec(tmp_path / "mine.yaml"))
    says(str(caught.value), "chooses no camera, the dataset has 2", "agentview_image", "wrist", "images: {primary:")


def test_a_folder_of_no_format_or_of_several_is_refused_with_all_marks(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, what in (("empty", "no dataset of a known format"), ("both", "hdf5, zarr")):
        if folder == "both":
            robomimic(tmp_path / "both")
            shutil.copytree(replay_buffer(tmp_path / "zarr") / "pusht.zarr", tmp_path / "both/pusht.zarr")
        with pytest.raises(InvalidData) as caught:
            open_source(tmp_path / folder)
        marks: list[Any] = [module.MARK for module in formats().values()]
        says(str(caught.value), what, *marks)


@pytest.mark.parametrize("case", ["robomimic", "csv"])
def test_a_look_needs_no_spec(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, camera, _, instruction = CASES[case]
    folder = made(tmp_path / "source")
    found = report(capsys, "data", "init", folder)
    assert (found["n_episodes"], found["instructions"]) == (3, [instruction])
    assert run("data", ["init", folder]) == 0
    says(capsys.readouterr().out, f"3 episodes, {sum(LENGTHS)} steps", f"camera {camera}", "action")


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, "lerobot"])
def test_a_robot_of_ones_own_is_trained_on_in_one_command(case: str, tmp_path: Path) -> None:
    made, camera, proprio, _ = CASES.get(case, (lambda _: LEROBOT, "images/exterior", "state", ""))
    text = SPEC % (camera, proprio) + f"mask: {str([True] * 7).lower()}\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    source = made(tmp_path / "source")
    words = with_own_data([f"dataset={tmp_path / 'mine.yaml'}", f"source={source}", "steps=1", "logger=none"])
    assert train_here(tmp_path, *words).keys() >= {"train/loss"}
    assert ShardFolder.open(tmp_path / "data/mine").episodes("train")
