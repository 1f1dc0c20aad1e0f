"""What a conversion refuses, what it notes, and what stays as it was: by kind of column, picture and instruction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rlds_cases import SPEC, STEPS, actions, episode, observed, picture, raw, write
from rlds_writer import dataset, floats, strings, tensor

from vlakit.cli.shards import main as shards_command
from vlakit.data.rlds.images import decode_image
from vlakit.data.shards.convert import convert
from vlakit.data.shards.frames import fit_image
from vlakit.data.shards.index import load_index
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.shards.verify import verify
from vlakit.errors import InvalidData, VlakitError
from vlakit.processing.images import encode_jpeg
from vlakit.processing.normalizer import distance, normalize, unnormalize

STATE = dataset(observed(state=tensor("float32", 8)))


def with_column(column: int, values: object, n: int = 6) -> np.ndarray:
    act = actions(n)
    act[:, column] = values
    return act


@pytest.mark.parametrize(
    ("column", "values", "mask", "op"),
    [
        (6, [0, 9, 200, 3, 4, 5], "", "divide:255"),
        (6, [0.0, 0, 0, 0, 0, 2.5], "", "divide:3"),
        (6, [0.0, 0, 0, 0, 0, -1.5], "", "divide:2"),
        (2, 2.5, "mask: [true, true, false, true, true, true, false]\n", "divide:3"),
        (6, 40000, "", "divide:40000"),
    ],
)
def test_a_column_that_tokens_would_clip_is_refused_with_the_op_that_mends_it(
    tmp_path: Path, column: int, values: object, mask: str, op: str
) -> None:
    episodes = [episode(1), episode(2, act=with_column(column, values))]
    folder, spec = write(tmp_path, episodes, spec=SPEC + mask)
    with pytest.raises(InvalidData, match=f"column {column} of the action reaches") as caught:
        convert(folder, tmp_path / "out", spec)
    assert "record 1" in caught.value.where
    assert f"ops: [{op}]" in caught.value.do
    assert not (tmp_path / "out" / "shardindex.json").exists()


def test_the_op_that_is_advised_mends_it(tmp_path: Path) -> None:
    spec = SPEC.replace(
        "[{take: action}]", "\n- {take: action, cols: [0, 6]}\n- {take: action, cols: [6, 7], ops: [OP]}"
    )
    folder, mended = write(
        tmp_path, [episode(1, act=with_column(6, [0, 255, 51, 0, 255, 0]))] * 2, spec=spec.replace("OP", '"divide:255"')
    )
    index = convert(folder, tmp_path / "out", mended, val_fraction=0.0)
    assert index.notes == ()
    sample = ShardFolder.open(tmp_path / "out").read_sample(SampleRef("toy", 0, 2))
    assert sample.actions[0, 6] == pytest.approx(0.2)


def test_masked_columns_and_those_within_the_range_are_no_matter(tmp_path: Path) -> None:
    act = with_column(6, [-1, 1, 0, 1, -1, 1.0005])
    act[:, 2] = [900, -3, 1e4, 0, 5, 6]
    folder, spec = write(tmp_path, [episode(1, act=act), episode(2)])
    index = convert(folder, tmp_path / "out", spec)
    assert index.notes == ()
    assert "notes" not in json.loads((tmp_path / "out" / "shardindex.json").read_text())


@pytest.mark.parametrize("step", [0, 5])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_proprio_that_is_not_finite_is_found_wherever_it_is(tmp_path: Path, step: int, value: float) -> None:
    states = [np.random.default_rng(seed).normal(size=(6, 8)) for seed in range(3)]
    states[2][step, 3] = value
    episodes = [episode(seed, state=floats(*state.ravel().tolist())) for seed, state in enumerate(states)]
    folder, spec = write(tmp_path, episodes, features=STATE, spec=SPEC + "proprio: [null, state]\n")
    with pytest.raises(InvalidData, match=f"proprio 'state' of step {step} is {value} in column 3") as caught:
        convert(folder, tmp_path / "out", spec)
    assert "record 2" in caught.value.where


def test_what_training_would_not_say_is_noted_printed_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    act = actions(200)
    act[:, 3] = 0
    act[7, 3] = 0.3  # 99.5 % of the steps are 0
    act[:, 6] *= 0.08  # a gripper in metres
    write(tmp_path, [episode(1, act=act)])
    words = [f"dataset={tmp_path / 'toy.yaml'}", f"source={tmp_path / 'toy'}", f"out={tmp_path / 'out'}"]
    shards_command(words)
    printed = capsys.readouterr().out
    kept = load_index(tmp_path / "out").notes
    assert len(kept) == 2
    assert all(f"note: {note}" in printed for note in kept)
    assert "column 3 of the action is 0 at its 1 % and its 99 % quantile and reaches 0 to 0.3" in kept[0]
    assert "column 6 of the action is not normalised and uses only 0 to 0.08" in kept[1]


@pytest.mark.parametrize(("column", "value"), [(6, 1.0), (6, 0.5), (2, 0.25)])
def test_a_column_that_never_changes_comes_back_as_it_was(tmp_path: Path, column: int, value: float) -> None:
    episodes = [episode(seed, act=with_column(column, value)) for seed in range(4)]
    folder, spec = write(tmp_path, episodes)
    convert(folder, tmp_path / "out", spec)
    shards = ShardFolder.open(tmp_path / "out")
    action = shards.read_sample(SampleRef("toy", 0, 0)).actions
    learnt = normalize(action, shards.statistics)
    assert learnt[0, column] == 0.0  # the original's token
    assert unnormalize(learnt, shards.statistics)[0, column] == np.float32(value)
    assert unnormalize(learnt + 0.7, shards.statistics)[0, column] == np.float32(value)
    closed = action.copy()
    closed[0, column] = 0
    assert distance(action, action, shards.statistics).max() == 0
    assert distance(closed, action, shards.statistics)[0, column] == np.float32(value)


@pytest.mark.parametrize("shape", [(32, 32, 3), (24, 40, 3), (32, 32, 1), (32, 32, 4), (32, 32)])
def test_raw_pixels_become_what_a_png_of_them_would(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8)
    features = dataset({**STEPS, "observation": {"featuresDict": {"features": {"image": tensor("uint8", *shape)}}}})
    folder, spec = write(tmp_path, [episode(1, image=raw(pixels)), episode(2, image=raw(pixels))], features=features)
    convert(folder, tmp_path / "out", spec, val_fraction=0.0)
    found = ShardFolder.open(tmp_path / "out").read_sample(SampleRef("toy", 0, 3)).images["primary"][0]
    colour = pixels[3].reshape(*shape[:2], -1)[..., :3]
    assert found == encode_jpeg(np.broadcast_to(colour, (*shape[:2], 3)))
    assert verify(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("dtype", "shape", "encode"), [("float32", (8, 8, 3), floats), ("uint8", (3, 8, 8), None), ("uint8", (64,), None)]
)
def test_values_that_are_no_picture_are_refused_in_words(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], encode: object
) -> None:
    values = np.zeros((6, *shape), np.uint8)
    stored = floats(*values.ravel().tolist()) if encode else raw(values)
    features = dataset({**STEPS, "observation": {"featuresDict": {"features": {"image": tensor(dtype, *shape)}}}})
    folder, spec = write(tmp_path, [episode(1, image=stored)] * 2, features=features)
    with pytest.raises(InvalidData, match=f"raw values of shape .* and type {dtype}") as caught:
        convert(folder, tmp_path / "out", spec)
    assert "record 0" in caught.value.where


def in_metadata(seed: int) -> dict[str, bytes]:
    fields = episode(seed)
    del fields["steps/language_instruction"]
    return {**fields, "episode_metadata/language_instruction": strings(b"lift\x1b[2J it")}


@pytest.mark.parametrize(
    "form", ["{take: episode_metadata/language_instruction}", "episode_metadata/language_instruction"]
)
def test_an_instruction_written_once_an_episode_is_that_of_every_step(tmp_path: Path, form: str) -> None:
    steps = {name: feature for name, feature in observed().items() if name != "language_instruction"}
    metadata = {"episode_metadata": {"featuresDict": {"features": {"language_instruction": {"text": {}}}}}}
    spec = SPEC.replace("language: language_instruction", f"language: {form}")
    folder, known = write(tmp_path, [in_metadata(s) for s in range(3)], features=dataset(steps, metadata), spec=spec)
    convert(folder, tmp_path / "out", known)
    assert ShardFolder.open(tmp_path / "out").instructions() == {"lift[2J it"}  # without its control character


def test_a_field_that_neither_steps_nor_metadata_have_is_refused_with_the_nearest(tmp_path: Path) -> None:
    folder, spec = write(tmp_path, [episode(1)], spec=SPEC.replace("language: language", "language: Language"))
    with pytest.raises(VlakitError, match="no 'Language_instruction'") as caught:
        convert(folder, tmp_path / "out", spec)
    assert "did you mean language_instruction" in caught.value.do


def test_rgba_one_step_and_ten_thousand_steps_stay_right(tmp_path: Path) -> None:
    rgba = [picture("PNG", "RGBA", side=8)]
    long = episode(1, act=actions(10_050), image=strings(*rgba * 10_050))
    folder, spec = write(tmp_path, [long, episode(2, n=1, image=strings(*rgba))])
    convert(folder, tmp_path / "out", spec, val_fraction=0.0)
    shards = ShardFolder.open(tmp_path / "out")
    last = shards.read_sample(SampleRef("toy", 0, 10_049))
    assert last.key.endswith("-10049")
    assert last.actions[0].tolist() == actions(10_050)[-1].tolist()
    assert last.images["primary"][0] == fit_image(rgba[0], None) == encode_jpeg(decode_image(rgba[0]))
    assert shards.index.counts()["train"]["frames"] == 10_051
