"""Folders of scenes: what is checked, what an order promises, and that labels move with the pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scene_folder import write_scenes
from tiny_recipe.scene_data import SceneData, held_out
from tiny_recipe.scenes import SceneArrays, SceneAugmentation, SceneFolder, to_batch

from vlakit.errors import ConfigError, InvalidData
from vlakit.models.openvla.vla import OpenVLA
from vlakit.processing.tokens import TokenProcessor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "some", 40)


def data_of(folder: Path, processor: TokenProcessor, **options: object) -> SceneData:
    return SceneData(processor, str(folder), **{"batch_size": 6, "seed": 3, "val_fraction": 0.1, **options})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objects": np.zeros((39, 3, 4), np.float32)}, "shapes"),
        ({"images": np.zeros((40, 64, 32, 3), np.uint8)}, "shapes"),
        ({"gripper": np.zeros((40, 3))}, "float64"),
        ({"objects": np.full((40, 3, 4), 9, np.float32)}, "no name"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path, change: dict, said: str) -> None:
    folder = write_scenes(tmp_path / "scenes", 40)
    for name, array in change.items():
        np.save(folder / f"{name}.npy", array)
    with pytest.raises(InvalidData, match=said) as caught:
        SceneFolder.open(folder)
    assert caught.value.where == str(folder)


def test_a_folder_that_lacks_a_file_names_it(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", 2)
    (folder / "gripper.npy").unlink()
    with pytest.raises(InvalidData, match=r"gripper\.npy missing"):
        SceneFolder.open(folder)


def test_another_version_is_refused(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", 2)
    names = json.loads((folder / "names.json").read_text())
    (folder / "names.json").write_text(json.dumps({**names, "version": 2}))
    with pytest.raises(InvalidData, match="version 2"):
        SceneFolder.open(folder)


def test_a_batch_holds_what_the_processor_makes_of_each_image(folder: Path, tiny_processor: TokenProcessor) -> None:
    scenes = SceneFolder.open(folder)
    batch = to_batch(SceneArrays.read(scenes, np.arange(4)), tiny_processor)
    one_by_one = torch.stack([tiny_processor.pixels(np.array(image)) for image in scenes.images[:4]])
    assert torch.equal(batch.pixels["primary"][:, 0], one_by_one)


def test_labels_move_with_the_picture() -> None:
    images = np.zeros((50, 64, 64, 3), np.uint8)
    images[:, 30, 20] = 255
    objects = np.array([[[0, 0, 20.5 / 64, 30.5 / 64]]] * 50, np.float32)
    gripper = np.array([[20.5 / 64, 30.5 / 64, 1]] * 50, np.float32)
    arrays = SceneArrays(np.arange(50), images, objects, gripper)
    moved = SceneAugmentation(brightness=0, contrast=0)(arrays, np.random.default_rng(0))
    brightest = moved.images[..., 0].reshape(50, -1).argmax(1)
    seen = np.stack([brightest % 64, brightest // 64], 1) + 0.5
    np.testing.assert_allclose(moved.objects[:, 0, 2:] * 64, seen, atol=1e-4)
    np.testing.assert_allclose(moved.gripper[:, :2] * 64, seen, atol=1e-4)
    assert len(np.unique(seen, axis=0)) > 10


def test_what_leaves_the_picture_is_no_object(tiny_processor: TokenProcessor) -> None:
    images = np.zeros((1, 64, 64, 3), np.uint8)
    objects = np.array([[[2, 1, 1.01, 0.5], [3, 0, 0.5, 0.5]]], np.float32)
    gripper = np.array([[-0.2, 0.5, 1]], np.float32)
    batch = to_batch(SceneArrays(np.arange(1), images, objects, gripper), tiny_processor)
    assert batch.objects[0, :, 0].tolist() == [-1, 3]
    assert batch.gripper[0, 0] == -1


def test_the_same_seed_gives_the_same_batches_and_another_does_not(
    folder: Path, tiny_processor: TokenProcessor
) -> None:
    streams = [data_of(folder, tiny_processor, seed=seed).stream() for seed in (3, 3, 4)]
    first, second, other = ([next(stream).pixels["primary"] for _ in range(9)] for stream in streams)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_restored_stream_goes_on_where_it_was(folder: Path, tiny_processor: TokenProcessor) -> None:
    whole = data_of(folder, tiny_processor).stream()
    batches = [next(whole) for _ in range(12)]
    rest = data_of(folder, tiny_processor)
    rest.load_state_dict({"position": 6 * 7})
    assert torch.equal(next(rest.stream()).objects, batches[7].objects)


def test_an_epoch_shows_every_scene_once_and_none_that_is_held_out(
    folder: Path, tiny_processor: TokenProcessor
) -> None:
    data = data_of(folder, tiny_processor, augment=False)
    stream = data.stream()
    seen = torch.cat([next(stream).objects for _ in range(6)]).flatten(1).tolist()
    assert len(data.train_rows) == 36
    assert sorted(seen) == sorted(data.scenes.objects[data.train_rows].reshape(36, -1).tolist())


def test_kept_features_are_those_of_each_scene(folder: Path, tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> None:
    data = data_of(folder, tiny_processor, augment=False)
    features = tiny_vla.requires_grad_(False).features(data.batch(np.array([5, 2])))
    data.keep_features(tiny_vla, chunk=7)
    batch = data.batch(np.array([5, 2]))
    assert batch.features is not None
    torch.testing.assert_close(batch.features, features)
    assert not batch.pixels


def test_features_are_not_kept_of_towers_that_learn(
    folder: Path, tiny_vla: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    with pytest.raises(ConfigError, match="go stale"):
        data_of(folder, tiny_processor, augment=False).keep_features(tiny_vla)


def test_features_are_not_kept_of_pictures_that_change(
    folder: Path, tiny_vla: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    with pytest.raises(ConfigError, match="cannot be augmented"):
        data_of(folder, tiny_processor).keep_features(tiny_vla)


def test_no_scene_to_hold_out_is_an_error() -> None:
    with pytest.raises(ConfigError, match="held out"):
        held_out(40, 0.0)
