"""examples/outside_policy, copied away under another name: what vlakit never heard of is a policy like any other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import complaint, report, says, train_here
from places import ROOT

from vlakit.configs import FOLDERS

Capture = pytest.CaptureFixture[str]
MODULE = "a_net_of_mine"


def copied(folder: Path) -> Path:
    """The example under another module's name."""
    place = Path(shutil.copytree(ROOT / "examples" / "outside_policy", folder / "mine"))
    (place / "cnn_policy.py").rename(place / f"{MODULE}.py")
    for file in place.rglob("*.yaml"):
        file.write_text(file.read_text().replace("cnn_policy", MODULE))
    return place


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = copied(tmp_path)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv(FOLDERS, str(place / "conf"))
    return place


def elements(checkpoint: Path) -> int:
    return sum(tensor.numel() for tensor in torch.load(checkpoint, weights_only=True)["state_dict"].values())


def test_it_trains_says_what_it_is_and_is_counted_to_the_digit(mine: Path, capsys: Capture) -> None:
    metrics = train_here(mine, "strategy=cnn", "steps=2", "validate_every=2", "logger=none")
    assert {"train/loss", "val/l1", "val/l1_position_m"} <= metrics.keys()
    assert "val/token_accuracy" not in metrics
    last = mine / "runs" / "run" / "last.ckpt"
    card = torch.load(last, weights_only=True)["vlakit"]
    assert (card["network"]["kind"], card["processor"]["kind"], card["strategy"]) == (
        f"{MODULE}:CnnPolicy",
        "images",
        "cnn",
    )
    assert card["contract"]["frames"]
    counted = report(capsys, "explain", "strategy=cnn")
    assert counted["total"] == counted["reachable"] == elements(last)
    says(complaint(capsys, "score", f"ckpt={last}"), f"{MODULE}:CnnPolicy", f"trusted=[{MODULE}]")
    scored = report(capsys, "score", f"ckpt={last}", f"trusted=[{MODULE}]", "plots=1")
    scores = scored["datasets"]["bridge_orig"]["scores"]["policy"]
    assert scores["token_accuracy"] is None
    assert scores["l1"] > 0


def test_what_it_cannot_do_is_refused_in_words(mine: Path, capsys: Capture) -> None:
    train_here(mine, "strategy=cnn", "steps=1", "logger=none")
    last = mine / "runs" / "run" / "last.ckpt"
    words = [f"ckpt={last}", f"trusted=[{MODULE}]", f"out={mine / 'hf'}"]
    says(complaint(capsys, "export", *words), "layout=hf", "layout=ckpt")
    says(complaint(capsys, "score", *words, "constrain=false"), "constrain")
    assert report(capsys, "export", *words, "layout=ckpt")["layout"] == "ckpt"


def test_one_that_needs_numbers_to_be_built_trains_too(mine: Path) -> None:
    file = mine / f"{MODULE}.py"
    file.write_text(
        file.read_text().replace("self.body = ", "layers[0].weight[0, 0, 0, 0].item()\n        self.body = ")
    )
    assert "train/loss" in train_here(mine, "strategy=cnn", "steps=1", "logger=none")


@pytest.mark.slow
@pytest.mark.sim
def test_from_another_folder_with_an_installed_vlakit(tmp_path: Path) -> None:
    """The commands of the README; installed: the package and conf/ as the wheel lays them, before any checkout."""
    site, place, run = tmp_path / "site", copied(tmp_path), tmp_path / "run"
    shutil.copytree(ROOT / "src" / "vlakit", site / "vlakit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", site / "vlakit" / "conf")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(site), str(place)]),
        "VLAKIT_RUNS": str(tmp_path / "runs"),
        "VLAKIT_DATA": str(tmp_path / "data"),
    }

    def vlakit(*words: object) -> str:
        command = [sys.executable, "-m", "vlakit", *map(str, words)]
        return subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True, text=True).stdout

    suite = "suite=tabletop_target"
    vlakit("demonstrate", suite, "episodes=5")
    vlakit("train", "--config-dir", "conf", "strategy=cnn", "data=tabletop_target", "steps=20", f"hydra.run.dir={run}")
    vlakit("evaluate", f"ckpt={run}", f"trusted=[{MODULE}]", suite, "episodes=10", f"out={tmp_path / 'a'}")
    vlakit("evaluate", "policy=random", suite, "episodes=10", f"out={tmp_path / 'b'}")
    explained = json.loads(vlakit("explain", "--config-dir", "conf", "strategy=cnn", "format=json"))
    assert explained["total"] == elements(run / "last.ckpt")
    compared = json.loads(vlakit("compare", f"runs=[{tmp_path / 'a'},{tmp_path / 'b'}]", "format=json"))
    assert json.dumps(compared).count('"n": 10') + json.dumps(compared).count('"episodes": 10') > 0
