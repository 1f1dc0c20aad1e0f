"""Stage 1: patches are told what they hold, and the towers learn it."""

from functools import partial
from pathlib import Path

import pytest
import torch
from scene_folder import scene_batch, write_scenes
from tiny_recipe.muon import MuonAdamW
from tiny_recipe.scene_data import SceneData
from tiny_recipe.scenes import SceneBatch
from tiny_recipe.towers import PatchAnswers, Towers, patch_loss, patch_metrics, patch_targets
from tiny_runs import TINY, built, module_of, saved, trainer_of

from vlakit.checkpoints.formats import load, start_from
from vlakit.errors import ConfigError, LossNotFinite
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.optim import wsd


def scenes() -> SceneBatch:
    """One red cube (colour 0, shape 1) in patch 6, one hand in patch 15."""
    return scene_batch([[0, 1, 0.625, 0.3], [-1, -1, -1, -1]], [0.9, 0.8, 1.0])


def right_answers() -> PatchAnswers:
    presence, shape = torch.full((1, 16, 3), -20.0), torch.zeros(1, 16, 3, 2)
    presence[0, 6, 0], shape[0, 6, 0, 1] = 20, 40
    offset, gripper = torch.zeros(1, 16, 3, 2), torch.zeros(1, 16, 4)
    offset[0, 6, 0] = torch.tensor([0.5, 0.2])
    gripper[..., 0], gripper[0, 15] = -20, torch.tensor([20, 20, 0.6, 0.2])
    return PatchAnswers(presence, shape, offset, gripper)


def test_the_right_answers_cost_nothing_and_score_everything() -> None:
    said, told = right_answers(), patch_targets(scenes(), 16)
    assert patch_loss(said, told).item() == pytest.approx(0, abs=1e-5)
    means = {name: value.mean().item() for name, value in patch_metrics(said, told, 64).items()}
    assert means == pytest.approx(
        dict.fromkeys(("recall", "precision", "shape_accuracy", "gripper_recall", "gripper_open_accuracy"), 1.0)
        | {"center_px": 0.0, "gripper_px": 0.0},
        abs=1e-4,
    )


def test_a_distance_is_in_pixels_of_the_image() -> None:
    said = right_answers()
    said.offset[0, 6, 0, 0] += 0.25  # of a patch of 16 px
    assert patch_metrics(said, patch_targets(scenes(), 16), 64)["center_px"].item() == pytest.approx(4, abs=1e-4)


def test_a_scene_with_nothing_in_it_has_a_loss_without_nan() -> None:
    empty = scene_batch([[-1.0] * 4] * 2, [-1.0, -1, 0])
    assert torch.isfinite(patch_loss(right_answers(), patch_targets(empty, 16)))


def test_towers_and_heads_learn_and_nothing_else(tiny_processor: TokenProcessor) -> None:
    module = built(Towers, tiny_processor)
    names = [name for group in module.trained() for name in group["names"]]  # pyright: ignore[reportGeneralTypeIssues]
    assert {name.removeprefix("model.").split(".")[0] for name in names} == {"vision_backbone", "heads"}


def test_its_checkpoint_is_a_start_for_any_strategy(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    module = built(Towers, tiny_processor)
    file = saved(module, tmp_path / "towers.ckpt")
    model = start_from(file, TINY, tiny_processor)
    assert load(file).card.strategy == "towers"
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), module.model.parameters(), strict=True))


def test_more_names_than_places_are_refused(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    data = SceneData(tiny_processor, str(write_scenes(tmp_path / "s", 8)), batch_size=4, seed=0, val_fraction=0.2)
    module = module_of(Towers, tiny_processor, n_colours=3)
    with pytest.raises(ConfigError, match="4 names, n_colours is 3"):
        trainer_of(1).fit(module, data)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_scenes(
    tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    data = SceneData(tiny_processor, str(write_scenes(tmp_path / "s", 8)), batch_size=4, seed=0, val_fraction=0.2)
    module = built(Towers, tiny_processor)
    torch.nn.init.constant_(module.heads.out.bias, torch.nan)
    with pytest.raises(LossNotFinite, match="nan at step 0") as caught:
        trainer_of(1).fit(module, data)
    assert "scene " in caught.value.where


@pytest.mark.slow
def test_they_find_what_they_were_shown(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", 3000)
    data = SceneData(tiny_processor, str(folder), batch_size=64, seed=0, val_fraction=0.05)
    options = {"optimizer": partial(MuonAdamW, lr=4e-3), "scheduler": partial(wsd, warmup_steps=10)}
    module = built(Towers, tiny_processor, **options)
    trainer = trainer_of(150, limit_val_batches=1.0, precision="bf16-mixed")
    trainer.fit(module, data)
    (values,) = trainer.validate(module, data, verbose=False)
    print(values)
    assert values["val/recall"] > 0.5  # chance: 1 in 16
    assert values["val/center_px"] < 4  # the middle of the patch: 6.1
