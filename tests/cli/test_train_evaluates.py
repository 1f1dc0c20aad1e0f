"""A training that ends in closed loop: its episodes lie beside the checkpoint, its success in the same record."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import train_here

from vlakit.cli.evaluate import check_units
from vlakit.configs import FOLDERS
from vlakit.errors import ConfigError, StatisticsMissing
from vlakit.evaluation.records import read_episodes
from vlakit.processing.tokens import TokenProcessor
from vlakit.tracking.mlflow import client, runs

FAKE = "_target_: fake_suite.FakeSuite\nname: fake\ndataset: bridge_orig\nlimit: 4\n"
ASKED = ("steps=2", "validate_every=2", "evaluate.suite=fake", "evaluate.episodes=4", "evaluate.gate=false")


@pytest.fixture(autouse=True)
def _own_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf"
    (folder / "suite").mkdir(parents=True)
    (folder / "suite" / "fake.yaml").write_text(FAKE)
    monkeypatch.setenv(FOLDERS, str(folder))


@pytest.mark.slow
def test_success_is_returned_recorded_and_backed_by_episodes(tmp_path: Path) -> None:
    pytest.importorskip("av")
    found = train_here(tmp_path, *ASKED, "evaluate.videos=1")
    episodes = read_episodes(tmp_path / "runs" / "run" / "evaluation" / "fake")
    assert len(episodes) == 4
    assert found["eval/success"] == sum(episode.success for episode in episodes) / 4
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    (recorded,) = runs(uri)
    assert recorded.metrics["eval/success"] == found["eval/success"]
    assert recorded.status == "FINISHED"
    store = client(uri)
    filed = [Path(file.path).name for file in store.list_artifacts(recorded.run_id, "evaluation/fake")]
    assert {"episodes.jsonl", "evaluation.json", "contact_sheet.png"} < set(filed)
    assert sum(name.endswith(".mp4") for name in filed) == 1


@pytest.mark.slow
def test_a_key_that_evaluate_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'episode' is no key of vlakit evaluate"):
        train_here(tmp_path, *ASKED, "logger=none", "+evaluate.episode=3")


def test_a_suite_whose_units_the_data_lack_is_refused_with_a_key_that_training_has(
    tiny_processor: TokenProcessor,
) -> None:
    suite: Any = SimpleNamespace(name="tabletop_target", dataset="tabletop_target")
    with pytest.raises(StatisticsMissing) as caught:
        check_units(suite, tiny_processor)
    assert "evaluate.suite=null" in caught.value.do
