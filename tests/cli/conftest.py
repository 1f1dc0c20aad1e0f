"""Evaluations in a suite of dots, for the tests of passports."""

from pathlib import Path

import pytest
from commands import run
from fake_suite import statistics
from tiny_runs import built, saved

from vlakit.configs import FOLDERS
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.full import Full

Capture = pytest.CaptureFixture[str]
FAKE = "_target_: fake_suite.FakeSuite\nname: {name}\ndataset: {dataset}\nlimit: 4\n"


@pytest.fixture
def own_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites of dots, and runs and data in a folder of the test."""
    folder = tmp_path / "conf"
    (folder / "suite").mkdir(parents=True)
    for name, dataset in (("fake", "fake_dots"), ("fake_bridge", "bridge_orig")):
        (folder / "suite" / f"{name}.yaml").write_text(FAKE.format(name=name, dataset=dataset))
    monkeypatch.setenv(FOLDERS, str(folder))
    monkeypatch.setenv("VLAKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("VLAKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db")


@pytest.fixture
def expert(own_suites: None, tmp_path: Path, capsys: Capture) -> Path:
    """The evaluation of the expert, in a suite other than its file says."""
    out = tmp_path / "expert"
    assert run("evaluate", ["suite=fake", "policy=expert", "episodes=6", "suite.limit=8", f"out={out}"]) == 0
    capsys.readouterr()
    return out


@pytest.fixture
def evaluated(own_suites: None, tiny_processor: TokenProcessor, tmp_path: Path, capsys: Capture) -> Path:
    """A checkpoint of random weights, and its evaluation in the folder."""
    folder = tmp_path / "copied"
    folder.mkdir()
    saved(built(Full, tiny_processor.for_training({"fake_dots": statistics()}, None)), folder / "last.ckpt")
    assert run("evaluate", ["suite=fake", f"ckpt={folder}", "episodes=2", "slots=2", "gate=false"]) == 0
    capsys.readouterr()
    return folder
