"""What a run notes of itself before it trains."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from tiny_runs import built, data_of, saved, trainer_of

from vlakit.checkpoints.card import CARD, Card
from vlakit.checkpoints.file import read_checkpoint
from vlakit.cli.recording import Record
from vlakit.cli.resuming import Resumed
from vlakit.data.stream.datamodule import VLADataModule
from vlakit.files import content_hash
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.base import PolicyModule
from vlakit.strategies.full import Full


def begun(module: PolicyModule, data: VLADataModule, output: Path, last: Path | None = None) -> dict[str, Any]:
    """The facts of a run that took one step."""
    paths = {"output": str(output)}
    cfg = OmegaConf.create({"name": "run", "logger": {}, "paths": paths})
    resumed = None
    if last is not None:
        resumed = Resumed(last, Card.from_dict(read_checkpoint(last)[CARD], where=str(last)), 1, {})
    record = Record(cfg, "run", None, data, resumed)
    trainer_of(1, record).fit(module, data)
    assert record.logger is None
    return module.facts


def test_a_run_notes_the_hash_of_its_start_and_one_that_resumes_the_first_starts(
    tiny_processor: TokenProcessor, bridge_shards: Path, tmp_path: Path
) -> None:
    data = data_of(bridge_shards, tiny_processor)
    start = saved(built(Full, tiny_processor), tmp_path / "last.ckpt")
    run = built(Full, data.processor, weights=str(tmp_path))  # a run's folder
    noted = content_hash(start)
    assert begun(run, data, tmp_path / "out")["weights_sha256"] == noted
    last = saved(run, tmp_path / "run.ckpt")
    saved(built(Full, tiny_processor, seed=1), start)
    assert content_hash(start) != noted
    data = data_of(bridge_shards, tiny_processor)
    again = built(Full, data.processor, weights=str(tmp_path))
    assert begun(again, data, tmp_path / "on", last)["weights_sha256"] == noted


def test_a_run_from_random_weights_has_no_hash_of_them_and_names_its_data(
    tiny_processor: TokenProcessor, bridge_shards: Path, tmp_path: Path
) -> None:
    data = data_of(bridge_shards, tiny_processor)
    module = built(Full, data.processor)
    facts = begun(module, data, tmp_path / "out")
    start = {"name": "random_init", "sha256": module.random_start}
    whole = {"weights_sha256": None, "start": start, "shards": data.hashes, "data": data.folders, "experiment": "run"}
    assert facts == whole
    assert module.surroundings == data.surroundings
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["name"] == "run"


def test_the_arms_of_a_table_start_from_weights_of_different_names_and_checksums(
    tiny_processor: TokenProcessor, bridge_shards: Path, tmp_path: Path
) -> None:
    """From a model without robot data, from random weights, from those of another seed, and the first once more."""
    starts: dict[str, dict[str, str]] = {}
    for arm, seed, weights in (
        ("scratch", 0, "tiny_grounded"),
        ("random", 0, None),
        ("other", 1, None),
        ("again", 0, None),
    ):
        data = data_of(bridge_shards, tiny_processor)
        module = built(Full, data.processor, seed=seed, weights=weights)
        starts[arm] = begun(module, data, tmp_path / arm)["start"]
        card = read_checkpoint(saved(module, tmp_path / f"{arm}.ckpt"))[CARD]
        assert card["start"] == starts[arm]
    assert [start["name"] for start in starts.values()] == ["tiny_grounded", *["random_init"] * 3]
    assert len({start["sha256"] for start in starts.values()}) == 3
    assert starts["again"] == starts["random"]
