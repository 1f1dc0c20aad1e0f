"""The recipe's configuration beside vlakit's: every stage composes, invents no key, and can be built."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig
from scene_folder import RECIPE, write_scenes
from tiny_recipe.captions import CaptionData
from tiny_recipe.grounding import Grounding
from tiny_recipe.muon import MuonAdamW
from tiny_recipe.scene_data import SceneData
from tiny_recipe.towers import Towers

from vlakit.cli.configuration import check_run, compose_config, to_plain
from vlakit.configs import FOLDERS
from vlakit.data.stream.datamodule import VLADataModule
from vlakit.processing.processor import build_processor
from vlakit.strategies.pretrain import Pretrain

STAGES = {
    "tiny_towers": (Towers, SceneData),
    "tiny_grounding": (Grounding, CaptionData),
    "tiny_questions": (Grounding, CaptionData),
    "tiny_pretrain": (Pretrain, VLADataModule),
}


def words(stage: str) -> list[str]:
    return [f"hydra.searchpath=[file://{RECIPE / 'conf'}]", f"experiment={stage}", "paths.output=here"]


def composed(stage: str, *more: str) -> DictConfig:
    return compose_config("train", [*words(stage), *more])


def test_these_are_all_its_experiments() -> None:
    assert {file.stem for file in (RECIPE / "conf" / "experiment").glob("*.yaml")} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_composes_under_its_own_name_and_invents_no_key(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDERS, str(RECIPE / "conf"))
    check_run("train", words(stage)[1:])
    cfg = composed(stage)
    assert (cfg.name, to_plain(cfg.model.network)["llm"]) == (stage, "tiny_llama")
    assert to_plain(cfg)["strategy"]["optimizer"]["_target_"] == f"{MuonAdamW.__module__}.MuonAdamW"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_built_by_its_target(stage: str) -> None:
    cfg = composed(stage)
    processor = build_processor(to_plain(cfg.model.processor))
    policy = instantiate(cfg.strategy, network=to_plain(cfg.model.network), processor=processor, _convert_="all")
    trains = [name for name, p in policy.built("meta").named_parameters() if p.requires_grad]
    assert type(policy) is STAGES[stage][0]
    assert trains


@pytest.mark.parametrize("stage", ["tiny_towers", "tiny_grounding", "tiny_questions"])
def test_its_data_are_the_folder_of_scenes_under_the_data_path(stage: str, tmp_path: Path) -> None:
    write_scenes(tmp_path / "tabletop_scenes", 60)
    cfg = composed(stage, f"paths.data={tmp_path}", "batch_size=4")
    data = instantiate(cfg.data, processor=build_processor(to_plain(cfg.model.processor)), _convert_="all")
    batch = data.batch(data.train_rows[:4], position=0)
    assert type(data) is STAGES[stage][1]
    assert (batch.text is None) == (stage == "tiny_towers")
    assert data.augmentation is None or stage == "tiny_towers"
