"""OpenVLA-OFT from the command line: trained by every strategy, scored, exported and explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import report, run, train_here

from vlakit.checkpoints.formats import load
from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation

WORDS = (
    "experiment=oft_tiny",
    "logger=none",
    "model.processor.cameras=[primary,secondary]",
    "model.processor.proprio=8",
)
Capture = pytest.CaptureFixture[str]


def observation() -> Observation:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64, 3), dtype=np.uint8)
    return Observation(
        {"primary": pictures[0], "secondary": pictures[1]}, "lift the pot", None, np.zeros((1, 8), np.float32)
    )


@pytest.mark.parametrize("head", ["discrete", "parallel", "l1", "diffusion"])
def test_a_head_trains_acts_scores_and_leaves_as_a_folder_that_answers_the_same(
    head: str, tmp_path: Path, capsys: Capture
) -> None:
    options = "{train_steps: 5, steps: 2}" if head == "diffusion" else "{}"
    film = "true" if head in ("l1", "discrete") else "false"
    words = (f"model.network.head={head}", f"++model.network.head_options={options}", f"model.network.film={film}")
    train_here(tmp_path, *WORDS, *words, "model.processor.chunk=2", "steps=3", "validate_every=3", "strategy.rank=2")
    trained = tmp_path / "runs" / "run"
    policy = TrainedPolicy.from_checkpoint(trained, strict=True)
    adapted = {name for name, _ in policy.network.named_parameters() if ".lora_A." in name}
    assert {"language_model.lm_head.lora_A.default.weight"} <= adapted
    assert any("patch_embed.proj.lora_A" in name for name in adapted)
    assert not any(name.startswith(("action_head.", "proprio_projector.")) for name in adapted)
    actions = policy.act([observation()])
    assert actions.shape == (1, 2, 7)
    scores = report(capsys, "score", f"ckpt={trained}")["datasets"]["bridge_orig"]["scores"]
    assert scores["policy"]["l1"] > 0
    assert run("export", [f"ckpt={trained}", f"out={tmp_path / 'out'}"]) == 0
    again = TrainedPolicy.from_checkpoint(tmp_path / "out", strict=True)
    np.testing.assert_allclose(
        again.act([observation()]), actions, atol=2e-2 if head in ("discrete", "parallel") else 1e-4
    )
    assert load(tmp_path / "out").card.adapter is None


@pytest.mark.parametrize("strategy", ["full", "last_layer", "frozen_vision", "sandwich", "lora"])
def test_with_every_strategy_head_and_proprioception_train_whole(strategy: str, capsys: Capture) -> None:
    model = ("model=tiny_oft", "model.network.film=true", "model.processor.proprio=8")
    modules = report(capsys, "explain", f"strategy={strategy}", *model)["modules"]
    rows = {row["module"]: row for row in modules}
    for part in ("action_head", "proprio_projector"):
        assert rows[part]["trainable"] == rows[part]["total"] > 0
    assert rows["vision_backbone.featurizer.blocks"]["trainable"] > 0


def test_a_loss_falls_in_a_few_steps_of_the_head_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = train_here(tmp_path / "a", *WORDS, "steps=1", "validate_every=1")
    later = train_here(tmp_path / "b", *WORDS, "steps=12", "validate_every=12")
    assert later["val/l1"] < first["val/l1"]


@pytest.mark.parametrize("model", ["tiny_oft", "tiny_diffusion"])
def test_a_run_of_chunks_is_planned(model: str, capsys: Capture) -> None:
    assert run("plan", [f"model={model}", "strategy=lora", "batch_size=2"]) == 0
    assert "GB" in capsys.readouterr().out
