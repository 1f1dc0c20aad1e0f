"""Diffusion Policy's own files: a pickle is refused unread, with the way out; a converted folder is a policy."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.diffusion_policy.cases import batch, policy, processor
from safetensors.torch import load_file, save_file

from vlakit.checkpoints.diffusion_policy import SETTINGS, _image_unet, tensors_of
from vlakit.errors import CheckpointMismatch
from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation

SCHEDULER: dict[str, Any] = {
    "_target_": "diffusers.schedulers.scheduling_ddim.DDIMScheduler",
    "num_train_timesteps": 10,
}
SCHEDULER["beta_schedule"] = "squaredcos_cap_v2"
UNET = {"down_dims": [16, 32], "diffusion_step_embed_dim": 16, "kernel_size": 5, "n_groups": 8}
LOWDIM = {
    "_target_": "diffusion_policy.policy.diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy",
    "model": {**UNET, "cond_predict_scale": True}, "obs_as_global_cond": True, "oa_step_convention": True,
    "horizon": 8, "n_obs_steps": 2, "n_action_steps": 4, "num_inference_steps": 4, "noise_scheduler": SCHEDULER,
}  # fmt: skip


class Bomb:
    """What a pickle may hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def converted(folder: Path, **change: Any) -> Path:
    """A folder as the recipe writes it: a low-dimensional U-Net of seven numbers and seven actions."""
    of = processor(cameras=[], language=None)
    state = {f"{name}": tensor for name, tensor in policy(of=of).state_dict().items() if name.startswith("model.")}
    for key in ("obs", "action"):
        scale = torch.linspace(0.5, 2, 7)
        state |= {f"normalizer.params_dict.{key}.scale": scale, f"normalizer.params_dict.{key}.offset": scale - 1}
    state |= {"_dummy_variable": torch.zeros(0), "mask_generator._dummy_variable": torch.zeros(0)}
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / SETTINGS).write_text(json.dumps({"task_name": "pusht", "policy": {**LOWDIM, **change}}))
    return folder


def test_a_converted_folder_is_a_policy_like_any_other(tmp_path: Path) -> None:
    loaded = TrainedPolicy.from_checkpoint(converted(tmp_path / "dp"))
    of = processor(cameras=[], language=None)
    given = batch(of)
    assert given.proprio is not None
    scale = torch.linspace(0.5, 2, 7)
    raw = ((given.proprio - (scale - 1)) / scale).numpy()
    answers = loaded.act([Observation({}, "", proprio=one) for one in raw])
    expected = policy(of=of).eval().predict(given).detach()
    np.testing.assert_allclose(answers, ((expected - (scale - 1)) / scale).numpy(), atol=1e-4)
    assert list(loaded.processor.statistics) == ["pusht"]


def test_actions_beyond_the_horizon_are_cut_as_the_original_cuts_them(tmp_path: Path) -> None:
    cut = TrainedPolicy.from_checkpoint(converted(tmp_path / "dp", n_action_steps=9))
    assert cut.act([Observation({}, "", proprio=np.zeros((2, 7), np.float32))]).shape == (1, 7, 7)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_what_batch_norm_counts_stays_a_whole_number(dtype: torch.dtype) -> None:
    name = "obs_encoder.obs_nets.camera.bn1.num_batches_tracked"
    ((kept, count),) = tensors_of([(name, torch.tensor(3, dtype=dtype)), ("_dummy_variable", torch.zeros(0))])
    assert kept.endswith("bn1.num_batches_tracked")
    assert (count.dtype, count.item()) == (torch.int64, 3)


def test_a_column_keeps_the_scale_it_was_fitted_with_however_narrow_it_is(tmp_path: Path) -> None:
    """The original stretches columns of 1e-4 and more, and those of its statistics from 1e-7 on."""
    folder = converted(tmp_path / "dp")
    tensors = load_file(folder / "model.safetensors")
    for key in ("obs", "action"):
        tensors[f"normalizer.params_dict.{key}.scale"][0] = 1e5
    save_file(tensors, folder / "model.safetensors")
    loaded = TrainedPolicy.from_checkpoint(folder)
    offset = np.linspace(0.5, 2, 7) - 1
    physical = loaded.processor.physical(np.full((1, 1, 7), 0.5, np.float32), [None])
    assert physical[0, 0, 0] == pytest.approx((0.5 - offset[0]) / 1e5)
    seen = loaded.processor.observe([Observation({}, "", proprio=np.full((2, 7), 2e-6, np.float32))]).proprio
    assert seen is not None
    np.testing.assert_allclose(seen[0, 0, 0], 0.2 + offset[0], rtol=1e-4)


@pytest.mark.parametrize("convention", [True, False])
def test_the_executed_part_follows_the_files_convention(tmp_path: Path, convention: bool) -> None:
    network: Any = TrainedPolicy.from_checkpoint(converted(tmp_path / "dp", oa_step_convention=convention)).network
    assert network.first == (1 if convention else 2)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"_target_": "diffusion_policy.policy.x.DiffusionUnetHybridImagePolicy"}, "DiffusionUnetHybridImagePolicy"),
        ({"pred_action_steps_only": True}, "pred_action_steps_only"),
        ({"noise_scheduler": {"num_train_timesteps": 10}}, "_target_"),
    ],
)
def test_another_policy_or_a_garbled_file_is_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    with pytest.raises(CheckpointMismatch, match=word):
        TrainedPolicy.from_checkpoint(converted(tmp_path / "dp", **change))


@pytest.mark.parametrize("name", ["checkpoints/latest.ckpt", "latest.pt", "latest.pth"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_released_pickle_is_refused_unread_with_the_recipe(
    name: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    states = {"model": {"w": torch.zeros(1)}, "ema_model": {"w": torch.zeros(1)}}
    content = {"cfg": Bomb(), "state_dicts": states, "pickles": {"epoch": pickle.dumps(1)}}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointMismatch, match="dill") as caught:
        TrainedPolicy.from_checkpoint(file)
    if file.parent != tmp_path:
        with pytest.raises(CheckpointMismatch, match="dill"):
            TrainedPolicy.from_checkpoint(tmp_path)
    assert "ema_model" in caught.value.do
    assert SETTINGS in caught.value.do
    assert not (tmp_path / "ran").exists()


IMAGES: dict[str, Any] = {
    "shape_meta": {"obs": {c: {"shape": [3, 84, 84], "type": "rgb"} for c in ("front", "side")}},
    "obs_encoder": {"rgb_model": {"name": "resnet18"}},
    **{"down_dims": [16, 32], "diffusion_step_embed_dim": 16, "kernel_size": 5, "n_groups": 8},
}


def test_what_the_image_policy_is_told_by_is_read_and_pictures_of_two_sizes_are_refused() -> None:
    assert _image_unet(IMAGES)[0]["condition"] == "global"
    assert _image_unet({**IMAGES, "obs_as_global_cond": False})[0]["condition"] == "inpaint"
    other = {"front": {"shape": [3, 84, 84], "type": "rgb"}, "side": {"shape": [3, 96, 96], "type": "rgb"}}
    with pytest.raises(CheckpointMismatch, match="pictures of 2 sizes"):
        _image_unet({**IMAGES, "shape_meta": {"obs": other}})
