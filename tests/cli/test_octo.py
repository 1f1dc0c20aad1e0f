"""Octo from the command line: trained, scored, explained, planned, exported, evaluated like any policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import complaint, report, run, says, train_here

from vlakit.errors import PartMissing
from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation

Capture = pytest.CaptureFixture[str]
SMALL = (
    "model.network.width=32",
    "model.network.layers=1",
    "model.network.mlp=32",
    "model.network.stem=[32,32,32,32]",
    "model.network.stem_width=16",
    "model.network.text_width=16",
    "logger=none",
)


def observations(n: int) -> list[Observation]:
    pictures = np.random.default_rng(0).integers(0, 256, (n, 2, 64, 64, 3), dtype=np.uint8)
    return [Observation({"primary": one}, "lift the pot") for one in pictures]


def elements(checkpoint: Path) -> int:
    return sum(tensor.numel() for tensor in torch.load(checkpoint, weights_only=True)["state_dict"].values())


@pytest.mark.parametrize("head", ["diffusion", "discrete"])
def test_it_trains_acts_in_batches_and_leaves_as_a_checkpoint_that_answers_the_same(
    head: str, tmp_path: Path, capsys: Capture
) -> None:
    words = ["experiment=octo_tiny", f"model.network.head={head}", *SMALL]
    metrics = train_here(tmp_path, *words, "steps=2", "validate_every=2")
    assert {"train/loss", "val/loss", "val/l1", "val/l1_position_m"} <= metrics.keys()
    assert ("val/token_accuracy" in metrics) == (head == "discrete")
    trained = tmp_path / "runs" / "run"
    policy = TrainedPolicy.from_checkpoint(trained, strict=True)
    actions = policy.act(observations(3))
    assert actions.shape == (3, 4, 7)
    assert policy.card.strategy == "octo"
    counted = report(capsys, "explain", "model=octo_tiny", "strategy=octo", *words[1:-1])
    assert counted["total"] == counted["reachable"] == elements(trained / "last.ckpt")
    words = [f"ckpt={trained}", f"out={tmp_path / 'out'}"]
    says(complaint(capsys, "export", *words), "layout=hf", "layout=ckpt")
    assert run("export", [*words, "layout=ckpt"]) == 0
    again = TrainedPolicy.from_checkpoint(tmp_path / "out", strict=True)
    assert np.array_equal(again.act(observations(3)), actions)
    if head == "diffusion":
        with pytest.raises(PartMissing, match="Likelihood"):
            policy.sample(observations(1))


def test_a_run_is_planned_before_it_starts(capsys: Capture) -> None:
    planned = report(capsys, "plan", "model=octo_base", "strategy=octo", "batch_size=64", "precision=32-true")
    assert planned["memory_bytes"]["weights"] == pytest.approx(4 * 93e6, rel=0.03)
    assert planned["memory_bytes"]["optimizer"] == 2 * planned["memory_bytes"]["weights"]


def test_a_fine_tuned_head_leaves_the_trunk_of_the_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    train_here(tmp_path, "experiment=octo_tiny", *SMALL, "steps=1")
    base = tmp_path / "base"
    (tmp_path / "runs" / "run").rename(base)
    train_here(tmp_path, "experiment=octo_ft_head", *SMALL, "steps=2", f"model.weights={base}")
    before, after = (
        torch.load(place / "last.ckpt", weights_only=True)["state_dict"] for place in (base, tmp_path / "runs" / "run")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert {name for name in changed if not name.startswith("model.head.")} == set()


@pytest.mark.slow
@pytest.mark.sim
def test_in_closed_loop_it_is_compared_with_a_control(tmp_path: Path, capsys: Capture) -> None:
    train_here(tmp_path, "experiment=octo_tiny", *SMALL, "steps=1")
    suite: tuple[Any, ...] = ("suite=tabletop_target", "episodes=8", "slots=4")
    ckpt = f"ckpt={tmp_path / 'runs' / 'run'}"
    words = [ckpt, *suite, "gate=false", f"out={tmp_path / 'a'}"]
    # Bridge's statistics stand in for the tabletop's: what is tested is the way, not the success.
    assert report(capsys, "evaluate", *words, "dataset=bridge_orig")["episodes"] == 8
