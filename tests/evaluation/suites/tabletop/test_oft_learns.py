"""A tiny OpenVLA-OFT on the tabletop, from demonstrations to a verdict and out as a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import run, train_here

from vlakit.policy import TrainedPolicy

pytestmark = pytest.mark.sim


def test_it_trains_on_demonstrations_acts_in_closed_loop_and_is_exported(tmp_path: Path) -> None:
    recorded = tmp_path / "data" / "rlds" / "tabletop_target"
    assert run("demonstrate", ["suite=tabletop_target", "episodes=3", f"out={recorded}"]) == 0
    words = ["experiment=oft_tiny", "data=tabletop_target", "logger=none", "steps=3", "validate_every=3"]
    closed = ["evaluate.suite=tabletop_target", "evaluate.episodes=4", "evaluate.slots=2", "evaluate.gate=false"]
    metrics = train_here(tmp_path, *words, *closed)
    assert 0 <= metrics["eval/success"] <= 1
    trained = tmp_path / "runs" / "run"
    assert run("export", [f"ckpt={trained}", f"out={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out" / "action_head--latest_checkpoint.pt").is_file()
    assert TrainedPolicy.from_checkpoint(tmp_path / "out", strict=True).processor.settings.chunk == 8
