"""A checkpoint made for other surroundings is refused; what it does not say is not held against it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_suite import FakeSuite
from omegaconf import OmegaConf
from tiny_runs import built, saved, trainer_of

from vlakit.cli.recording import Record
from vlakit.data.shards.convert import convert
from vlakit.data.specs.spec import load_spec
from vlakit.data.stream.datamodule import VLADataModule
from vlakit.errors import CheckpointMismatch
from vlakit.evaluation.demonstration_writer import write_demonstrations
from vlakit.evaluation.demonstrator import DemonstrationPlan, Demonstrator
from vlakit.evaluation.surroundings import check_surroundings, differences
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.full import Full

SUITE = FakeSuite()  # action delta_eef 7, control_hz 5
RIGHT: dict[str, Any] = {"action": "delta_eef 7", "control_hz": 5.0}


@pytest.mark.parametrize(
    "card",
    [
        {},
        RIGHT,
        {"action": "delta_eef 7", "cameras": 2},
        {"fake_dots": RIGHT},
        {"fake_dots": RIGHT, "others": {"control_hz": 10.0}},
    ],
)
def test_what_agrees_or_is_not_known_passes(card: dict[str, Any]) -> None:
    check_surroundings(card, SUITE, where="x.ckpt")


@pytest.mark.parametrize("by_dataset", [False, True])
def test_every_key_that_differs_is_named_with_both_values(by_dataset: bool) -> None:
    made_for = {"action": "joints 7", "control_hz": 10.0}
    card = {"fake_dots": made_for} if by_dataset else made_for
    with pytest.raises(CheckpointMismatch, match=r"action was joints 7, is delta_eef 7; control_hz was 10.0") as caught:
        check_surroundings(card, SUITE, where="x.ckpt")
    assert "strict=false" in caught.value.do
    assert differences(card, SUITE) == {"action": ("joints 7", "delta_eef 7"), "control_hz": (10.0, 5.0)}


@pytest.fixture
def trained_at_5_hz(tiny_processor: TokenProcessor, tmp_path: Path) -> dict[str, Any]:
    """The surroundings of a checkpoint trained for a step on demonstrations whose spec says 5 Hz."""
    demonstrator = Demonstrator(partial(FakeSuite, dataset="tabletop_target"), DemonstrationPlan(episodes=4))
    write_demonstrations(demonstrator, tmp_path / "rlds")
    spec = replace(load_spec("tabletop_target"), proprio=())  # the stand-in knows nothing of itself
    convert(tmp_path / "rlds", tmp_path / "tabletop_target", spec, val_fraction=0.2)
    data = VLADataModule(tiny_processor, {"tabletop_target": 1.0}, str(tmp_path), batch_size=4, seed=0)
    module = built(Full, data.processor)
    cfg = OmegaConf.create(
        {"name": "full", "ckpt_path": None, "paths": {"output": str(tmp_path / "run")}, "logger": {}}
    )
    trainer_of(1, Record(cfg, "full", None, data, None)).fit(module, data)
    return torch.load(saved(module, tmp_path / "x.ckpt"), weights_only=True)["vlakit"]["surroundings"]


def test_a_checkpoint_carries_the_rate_of_its_data_and_another_rate_is_refused(trained_at_5_hz: dict[str, Any]) -> None:
    assert trained_at_5_hz == {"tabletop_target": {"camera": "primary", "picture": [64, 64], "control_hz": 5}}
    slow, quick = (
        FakeSuite(dataset="tabletop_target", surroundings={"camera": "primary", "control_hz": rate})
        for rate in (5.0, 16.0)
    )
    check_surroundings(trained_at_5_hz, slow, where="x.ckpt")
    with pytest.raises(CheckpointMismatch, match=r"control_hz was 5\.0, is 16\.0") as caught:
        check_surroundings(trained_at_5_hz, quick, where="x.ckpt")
    assert "camera" not in str(caught.value)


def test_a_dataset_whose_spec_says_no_rate_carries_none(tiny_processor: TokenProcessor, bridge_shards: Path) -> None:
    data = VLADataModule(tiny_processor, {"bridge_orig": 1.0}, str(bridge_shards.parent), batch_size=4, seed=0)
    assert data.surroundings == {"bridge_orig": {"camera": "primary", "picture": [64, 64]}}
