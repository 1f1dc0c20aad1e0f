"""Shards and checkpoints that cannot be used end training and evaluation in one error; no checkpoint is left behind."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from commands import complaint, says, train_here

from vlakit.checkpoints.card import CARD
from vlakit.cli.errors import readable_errors
from vlakit.data.shards.statistics import statistics_to_json
from vlakit.models.openvla.vla import VLASettings, build_vla
from vlakit.processing.settings import TokenSettings
from vlakit.schema import DatasetStatistics


@pytest.mark.parametrize("content", ["absent", "empty", "unfinished", "garbled"])
@pytest.mark.parametrize("verb", ["train", "score"])
def test_a_folder_that_holds_no_shards(
    verb: str, content: str, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shards" / "bridge_orig"
    if content != "absent":
        folder.mkdir(parents=True)
    if content == "unfinished":
        (folder / ".conversion").mkdir()
    if content == "garbled":
        (folder / "shardindex.json").write_text('{"shardlist": 3}')
    if verb == "train":
        said = training_fails(capsys, tmp_path, f"data.root={folder.parent}", "~data.sources")
    else:
        said = complaint(capsys, "score", f"ckpt={checkpoint}", f"data={folder}", f"out={tmp_path / 'plots'}")
    says(said, folder, "the same command again" if content == "unfinished" else "convert")
    assert not (tmp_path / "plots").exists()


def training_fails(capsys: pytest.CaptureFixture[str], folder: Path, *words: object) -> str:
    """What a training that fails says; it leaves neither a checkpoint nor a run in the store."""
    before = set(folder.rglob("*.ckpt"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end, readable_errors():
        train_here(folder, "logger=none", "steps=2", *words)
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert "Traceback" not in said
    assert said.count("\n  in:    ") <= said.count("\n  do:    ") == 1, said  # an unknown name is itself the place
    assert set(folder.rglob("*.ckpt")) == before
    return said


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, bridge_statistics: DatasetStatistics) -> Path:
    """A checkpoint file as a run of the tiny model on another dataset leaves it."""
    names = VLASettings("tiny_dinosiglip", "tiny_llama")
    card = {
        **{"version": "0", "strategy": "full", "model": asdict(names), "adapter": None},
        "statistics": statistics_to_json({"other_robot": bridge_statistics}),
        "processor": TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words").to_dict(),
    }
    state = {f"model.{name}": value for name, value in build_vla(names).state_dict().items()}
    file = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    torch.save({"state_dict": state, CARD: card}, file)
    return file


def test_statistics_missing_for_the_dataset(
    checkpoint: Path, bridge_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, "score", f"ckpt={checkpoint}", f"data={bridge_shards}", f"out={tmp_path / 'plots'}")
    says(said, "no statistics of 'bridge_orig'", bridge_shards)
    copy = Path(shutil.copytree(bridge_shards, tmp_path / "data" / "bridge_orig"))
    (copy / "statistics.json").write_text("{}")
    said = training_fails(capsys, tmp_path, f"data.root={copy.parent}")
    says(said, "StatisticsMissing", "'bridge_orig'", copy / "statistics.json", "convert the dataset again")


def test_an_unknown_backbone(tmp_path: Path, bridge_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = f"data.root={bridge_shards.parent}"
    for key in ("vision", "llm"):
        said = training_fails(capsys, tmp_path, root, f"model.network.{key}=tiny_lama")
        says(said, "'tiny_lama'", "did you mean tiny_")


def test_a_split_without_frames(
    tmp_path: Path, bridge_shards: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bridge_shards, tmp_path / "data" / "bridge_orig"))
    index = json.loads((copy / "shardindex.json").read_text())
    index["shardlist"] = [entry for entry in index["shardlist"] if entry["split"] == "train"]
    (copy / "shardindex.json").write_text(json.dumps(index))
    said = training_fails(capsys, tmp_path, f"data.root={copy.parent}")
    says(said, "no val frames", copy, "val_fraction")


def test_a_shard_that_was_damaged_after_conversion(
    tmp_path: Path, bridge_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bridge_shards, tmp_path / "data" / "bridge_orig"))
    shard = next(copy.glob("train-*.tar"))
    shard.write_bytes(shard.read_bytes()[:3000])
    says(training_fails(capsys, tmp_path, f"data.root={copy.parent}"), shard)


def test_a_checkpoint_of_another_model(
    checkpoint: Path, bridge_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"data.root={bridge_shards.parent}"
    said = training_fails(capsys, tmp_path, root, f"model.weights={checkpoint}", "model.network.vision=tiny_siglip")
    says(said, "CheckpointMismatch", "tiny_dinosiglip + tiny_llama", "tiny_siglip + tiny_llama", checkpoint)
    said = training_fails(capsys, tmp_path, root, f"ckpt_path={checkpoint}", "experiment=lora_r32")
    says(said, "CheckpointMismatch", "strategy is full", checkpoint, "model.weights=")
    said = training_fails(capsys, tmp_path, root, f"ckpt_path={checkpoint}", "experiment=full")
    says(said, "CheckpointMismatch", "weights alone", checkpoint, "model.weights=")


@pytest.mark.parametrize("kind", ["absent", "text", "cut off", "of another program"])
def test_a_file_that_is_no_checkpoint(
    kind: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.ckpt"
    if kind == "text":
        file.write_text("weights")
    if kind == "cut off":
        file.write_bytes(checkpoint.read_bytes()[:5000])
    if kind == "of another program":
        torch.save({"state_dict": {}}, file)
    says(complaint(capsys, "score", f"ckpt={file}"), "CheckpointMismatch", file)
