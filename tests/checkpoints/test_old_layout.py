"""Checkpoints of 0.1.0 load: their card says model, camera and suite_contract, their golden frames one image each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import built, saved

from vlakit.checkpoints.card import CARD, Card
from vlakit.checkpoints.contract import ContractBroken, observation_of
from vlakit.checkpoints.file import read_checkpoint
from vlakit.files import ASSETS
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Observation, Sample
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora

NEW = ("network", "surroundings", "base")


def as_written_by_0_1_0(content: dict[str, Any], *, actions: bool = True) -> dict[str, Any]:
    """The same checkpoint in the old layout; its first versions kept only the ids of an answer."""
    card = content[CARD]
    processor = {key: value for key, value in card["processor"].items() if key not in ("kind", "window", "proprio")}
    processor["camera"] = processor.pop("cameras")[0]
    frames = [
        {
            "image": frame["images"]["primary"][-1],
            "instruction": frame["instruction"],
            "dataset": frame["dataset"],
            "ids": frame["ids"],
            **({"actions": frame["actions"]} if actions else {}),
        }
        for frame in card["contract"]["frames"]
    ]
    contract = {key: value for key, value in card["contract"].items() if key not in ("kind", "cameras", "window")}
    old = {
        **{key: value for key, value in card.items() if key not in NEW},
        "model": {key: value for key, value in card["network"].items() if key != "kind"},
        "processor": processor,
        "suite_contract": card["surroundings"],
        "contract": {**contract, "camera": "primary", "frames": frames},
    }
    return {**content, CARD: old}


@pytest.fixture
def observations() -> list[Observation]:
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    return [Observation.of(image, "lift the pot", "bridge_orig") for image in images]


@pytest.mark.parametrize("actions", [True, False], ids=["actions and ids", "ids alone"])
@pytest.mark.parametrize("kind", [Full, Lora], ids=["full", "lora"])
def test_the_old_layout_loads_and_acts_to_the_bit(
    kind: type[Full] | type[Lora],
    actions: bool,
    tiny_processor: TokenProcessor,
    samples: list[Sample],
    observations: list[Observation],
    tmp_path: Path,
) -> None:
    module = built(kind, tiny_processor, **({"rank": 2} if kind is Lora else {}))
    module.answer_golden(samples)
    module.surroundings, module.facts = {"bridge_orig": {"camera": "primary"}}, {"mlflow_run_id": "abc"}
    new = saved(module, tmp_path / "new.ckpt")
    old = tmp_path / "old.ckpt"
    torch.save(as_written_by_0_1_0(read_checkpoint(new), actions=actions), old)
    then, now = TrainedPolicy.from_checkpoint(old), TrainedPolicy.from_checkpoint(new)
    assert np.array_equal(then.act(observations), now.act(observations))
    for field in ("network", "strategy", "adapter", "statistics", "surroundings", "facts", "version"):
        assert getattr(then.card, field) == getattr(now.card, field), field
    assert then.processor.settings == now.processor.settings


@pytest.mark.parametrize("actions", [True, False], ids=["actions and ids", "ids alone"])
def test_a_contract_of_the_old_layout_still_breaks(
    actions: bool, tiny_processor: TokenProcessor, samples: list[Sample], tmp_path: Path
) -> None:
    module = built(Full, tiny_processor)
    module.answer_golden(samples)
    content = as_written_by_0_1_0(read_checkpoint(saved(module, tmp_path / "a.ckpt")), actions=actions)
    frame = content[CARD]["contract"]["frames"][1]
    if actions:
        frame["actions"][0][6] += 0.5
    else:
        frame["ids"][6] += 60 if frame["ids"][6] < 1344 else -60
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ContractBroken, match="1 of 3 golden frames otherwise"):
        TrainedPolicy.from_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("name", ["tiny", "tiny_grounded"])
def test_the_shipped_checkpoints_are_of_0_1_0_and_load(name: str) -> None:
    written = read_checkpoint(ASSETS / f"{name}.ckpt")[CARD]
    assert "model" in written
    card = Card.from_dict(written, where=name)
    assert card.network == {"kind": "openvla", **written["model"]}
    assert card.surroundings == (written.get("suite_contract") or {})


def test_the_shipped_model_answers_its_golden_frames_as_when_it_was_saved() -> None:
    policy = TrainedPolicy.from_checkpoint("tiny")
    assert policy.card.contract is not None
    frames = policy.card.contract["frames"]
    assert len(frames) == 8
    answers = policy.sample([observation_of(frame, policy.processor) for frame in frames], temperature=0)
    recorded = np.array([frame["ids"] for frame in frames])
    assert np.abs(answers.ids - recorded).max() <= 1
    assert (answers.ids == recorded).mean() > 0.9
