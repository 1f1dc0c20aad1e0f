"""A training that ends in closed loop: its episodes lie beside the checkpoint, its success in the same record."""

import shutil
from pathlib import Path

import pytest
from commands import train_here

from vlakit.cli import configuration, suites
from vlakit.data.specs import conf_root
from vlakit.errors import ConfigError
from vlakit.evaluation.records import read_episodes
from vlakit.tracking.mlflow import runs

FAKE = "_target_: fake_suite.FakeSuite\nname: fake\ndataset: bridge_orig\nlimit: 4\n"
ASKED = ("steps=2", "validate_every=2", "evaluate.suite=fake", "evaluate.episodes=4", "evaluate.gate=false")


@pytest.fixture(autouse=True)
def _own_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(conf_root(), tmp_path / "conf"))
    (folder / "suite" / "fake.yaml").write_text(FAKE)
    monkeypatch.setattr(configuration, "conf_root", lambda: folder)
    monkeypatch.setattr(suites, "conf_root", lambda: folder)


@pytest.mark.slow
def test_success_is_returned_recorded_and_backed_by_episodes(tmp_path: Path) -> None:
    found = train_here(tmp_path, *ASKED)
    episodes = read_episodes(tmp_path / "runs" / "run" / "evaluation" / "fake")
    assert len(episodes) == 4
    assert found["eval/success"] == sum(episode.success for episode in episodes) / 4
    (recorded,) = runs(f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert recorded.metrics["eval/success"] == found["eval/success"]
    assert recorded.status == "FINISHED"


@pytest.mark.slow
def test_a_key_that_evaluate_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'episode' is no key of vlakit evaluate"):
        train_here(tmp_path, *ASKED, "logger=none", "+evaluate.episode=3")
