"""Two cameras, a history window and proprioception, from the Bridge sample's spec to a verdict in closed loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import complaint, report, says, train_here
from fake_suite import FakeEnvironment, FakeSuite

from vlakit.checkpoints.formats import LoadOptions
from vlakit.configs import FOLDERS
from vlakit.errors import CheckpointMismatch
from vlakit.evaluation.run import Request, evaluate
from vlakit.evaluation.suite import InitialState
from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation

MODEL = """
network: {kind: "toy_network:ToyNetwork", n_actions: 7}
weights: null
processor:
  kind: images
  image_size: 64
  channel_statistics: [half]
  cameras: [primary, secondary]
  window: 2
  proprio: 8
  chunk: 3
"""
STRATEGY = "defaults: [_finetune, _self_, override /model@_global_.model: toy]\nname: toy\ntrainable: ['*']\n"
WORDS = ("strategy=toy", "logger=none", "validate_every=2")
Capture = pytest.CaptureFixture[str]


class TwoCameras(FakeSuite):
    """The suite of dots seen by two cameras, with proprio of the size that Bridge has."""

    def environment(self) -> FakeEnvironment:
        return _Environment(self)


class _Environment(FakeEnvironment):
    def _observation(self) -> Observation:
        seen = super()._observation()
        proprio = np.full((1, 8), self.n_steps, np.float32)
        return replace(
            seen, images={"primary": seen.images["primary"], "secondary": 255 - seen.images["primary"]}, proprio=proprio
        )


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for group, text in (("model", MODEL), ("strategy", STRATEGY)):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "toy.yaml").write_text(text)
    monkeypatch.setenv(FOLDERS, str(tmp_path / "conf"))
    return tmp_path


@pytest.fixture
def trained(mine: Path) -> Path:
    train_here(mine, *WORDS, "steps=2")
    return mine / "runs" / "run"


def test_they_reach_the_network_from_the_shards_and_the_policy_acts_in_a_suite(
    trained: Path, mine: Path, capsys: Capture
) -> None:
    card = torch.load(trained / "last.ckpt", weights_only=True)["vlakit"]
    (frame, *_) = card["contract"]["frames"]
    assert {camera: len(window) for camera, window in frame["images"].items()} == {"primary": 2, "secondary": 2}
    assert np.shape(frame["proprio"]) == (2, 8)
    assert np.shape(frame["actions"]) == (3, 7)
    scores = report(capsys, "score", f"ckpt={trained}", "trusted=[toy_network]", "plots=1")["datasets"]["bridge_orig"]
    assert scores["scores"]["policy"]["l1"] > 0
    policy = TrainedPolicy.from_checkpoint(trained, options=LoadOptions(trusted=("toy_network",)))
    assert policy.window == 2
    suite = TwoCameras(dataset="bridge_orig", surroundings={}, limit=4)
    evaluated = evaluate(policy, suite, Request(episodes=4, slots=2, gate=False), mine / "out", name="toy")
    assert (evaluated.pooled.episodes, evaluated.failed) == (4, [])


def test_a_suite_without_the_second_camera_or_the_proprio_is_refused_once(trained: Path, mine: Path) -> None:
    policy = TrainedPolicy.from_checkpoint(trained, options=LoadOptions(trusted=("toy_network",)))
    suite = FakeSuite(dataset="bridge_orig", surroundings={}, limit=4)
    with pytest.raises(CheckpointMismatch, match=r"no camera 'secondary'; proprio of 0 numbers, .* takes 8") as caught:
        evaluate(policy, suite, Request(episodes=2, slots=2, gate=False), mine / "out", name="toy")
    assert caught.value.where == "toy; the suite's cameras: primary"
    assert not (mine / "out").exists()


class _CannotBegin(FakeEnvironment):
    def reset(self, state: InitialState) -> Observation:
        raise RuntimeError("the first scene is broken")


class Broken(TwoCameras):
    """Two cameras, and no world that begins."""

    def environment(self) -> FakeEnvironment:
        return _CannotBegin(self)


def test_a_world_that_cannot_begin_fails_its_episodes_and_not_the_evaluation(trained: Path, mine: Path) -> None:
    policy = TrainedPolicy.from_checkpoint(trained, options=LoadOptions(trusted=("toy_network",)))
    suite = Broken(dataset="bridge_orig", surroundings={}, limit=4)
    evaluated = evaluate(policy, suite, Request(episodes=2, slots=2, gate=False), mine / "out", name="toy")
    assert ["the first scene is broken" in str(record.error) for record in evaluated.failed] == [True, True]


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("model.processor.cameras=[primary,wrist]", ("wrist", "primary")),
        ("model.processor.proprio=7", ("8", "7")),
        ("model.processor.window=0", ("window=0 cannot be used", "from 1 to")),
    ],
)
def test_what_the_dataset_lacks_is_said_before_training(
    word: str, parts: tuple[str, ...], mine: Path, capsys: Capture
) -> None:
    root = [f"paths.runs={mine / 'runs'}", f"paths.data={mine / 'data'}", "batch_size=2", "steps=1"]
    says(complaint(capsys, "train", *WORDS, word, *root, f"hydra.run.dir={mine / 'runs' / 'bad'}"), *parts)
