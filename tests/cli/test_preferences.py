"""collect, pairs, train, evaluate by the ordinary commands, on a suite without a simulator, and what they refuse."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import complaint, report, says, train_here
from omegaconf import OmegaConf
from preference_cases import KIND, policy
from tiny_runs import saved

from vlakit.cli.configuration import compose_config
from vlakit.cli.targets import check_keys
from vlakit.configs import FOLDERS
from vlakit.strategies.base import Finetune
from vlakit.strategies.optim import constant

TRUSTED = "trusted=[preference_cases]"
MODEL = """
network: {kind: "preference_cases:Dice"}
weights: null
processor: {kind: tokens, image_size: 16, channel_statistics: [half], tokenizer: words, n_bins: 16}
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the dice, and the suite rightward in a folder of configurations of one's own."""
    (tmp_path / "conf" / "suite").mkdir(parents=True)
    (tmp_path / "conf" / "suite" / "rightward.yaml").write_text(
        "_target_: preference_cases.Rightward\nname: rightward\n"
    )
    (tmp_path / "conf" / "model").mkdir()
    (tmp_path / "conf" / "model" / "dice.yaml").write_text(MODEL)
    monkeypatch.setenv(FOLDERS, str(tmp_path / "conf"))
    module = Finetune(KIND, policy().processor, partial(torch.optim.Adam, lr=0.1), constant)
    torch.manual_seed(0)
    module.configure_model()
    module.surroundings = {"fake_dots": {"action": "delta_eef 7", "control_hz": 5.0}}
    return saved(module, tmp_path / "start.ckpt")


def collect(start: Path, *words: str) -> list[str]:
    few = ["starts=12", "rollouts_per_start=4", "slots=4", "strict=false"]
    return [f"ckpt={start}", "suite=rightward", TRUSTED, f"out={start.parent}/rollouts", *few, *words]


def pairs(start: Path, *words: str) -> list[str]:
    return [f"rollouts={start.parent}/rollouts", TRUSTED, f"out={start.parent}/pairs", "strict=false", *words]


def train(start: Path, *words: str) -> list[str]:
    model = ["model=dice", f"model.weights={start}"]
    quiet = ["logger=none", f"paths.output={start.parent}/run", "steps=30", "validate_every=10", "lr.dpo=0.02"]
    choice = ["suite@callbacks.choice.suite=rightward", "callbacks.choice.starts=12", "callbacks.choice.drawn=6"]
    return [*model, *quiet, *choice, f"data.pairs={start.parent}/pairs", *words]


def test_the_commands_lead_from_a_policy_to_a_better_one(start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: dict[str, Any] = report(capsys, "collect", *collect(start))
    tally = said["tasks"]["all"]
    assert (tally["starts"], tally["episodes"], tally["errors"]) == (12, 48, 0)
    assert 0 < tally["mixed"] < 13
    made = report(capsys, "pairs", *pairs(start, "held_out=0.2"))
    assert made["counts"]["yield"] == tally["mixed"] / 12
    assert made["replay_error"] < 1e-5
    trained = train_here(start.parent, *train(start, "experiment=dpo_sft", "strategy.micro_batch=8"))
    assert {"rollout/success_greedy", "val/loss", "rewards/margins", "drift/kl_rollout"} <= set(trained)
    asked = ["suite=rightward", "episodes=12", "slots=4", "gate=false", "strict=false", TRUSTED]
    rates = [
        report(capsys, "evaluate", f"ckpt={ckpt}", *asked, f"out={start.parent}/{name}")["success"]
        for name, ckpt in (("before", start), ("after", start.parent / "run"))
    ]
    assert rates[1] > rates[0]
    says(complaint(capsys, "pairs", *pairs(start)), "is there already", "out=DIR")


def test_what_is_missing_or_wrong_is_said_in_words(start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says(complaint(capsys, "collect", f"ckpt={start}"), "no suite was named", "suite=NAME")
    says(complaint(capsys, "collect", *collect(start, "temperature=0")), "temperature", "above 0")
    says(complaint(capsys, "pairs", f"rollouts={start.parent}"), "no rollouts here", "vlakit collect")
    says(complaint(capsys, "pairs", *pairs(start, "pairing=two")), "pairing=two", "one, all, cap")
    says(complaint(capsys, "train", "experiment=dpo"), "no pairs are named", "data.pairs=DIR")
    says(complaint(capsys, "train", "experiment=dpo", f"data.pairs={start.parent}"), "no pairs here", "vlakit pairs")
    says(complaint(capsys, "train", "experiment=dpo", "strategy.beta=0"), "strategy.beta=0", "above 0")


@pytest.mark.parametrize("experiment", ["dpo", "kto", "dpo_iterated", "more_sft"])
def test_what_a_passport_says_of_such_a_run_is_read_again(experiment: str) -> None:
    cfg = compose_config("train", [f"experiment={experiment}", "paths.output=here"])
    check_keys(OmegaConf.to_container(cfg, resolve=False), "passport")
