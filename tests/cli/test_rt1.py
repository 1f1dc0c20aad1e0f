"""RT-1 from the command line: trained, resumed to the bit, counted, scored, exported; with a sentence encoder too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import complaint, report, run, says, train_here
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from vlakit.checkpoints.formats import load
from vlakit.errors import PartMissing
from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation

Capture = pytest.CaptureFixture[str]
SMALL = ("model.network.encoder.depth=0.1", "model.network.transformer.layers=1", "model.processor.window=3")
WORDS = ("experiment=rt1_tiny", "data=bridge_sample", "evaluate.suite=null", "logger=none", "validate_every=2", *SMALL)


def state_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last.ckpt", weights_only=True)["state_dict"]


def observation(instruction: str = "lift the pot") -> Observation:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    return Observation({"primary": pictures}, instruction)


def test_it_trains_resumes_to_the_bit_and_is_a_policy_like_any_other(
    tmp_path: Path, bridge_shards: Path, capsys: Capture
) -> None:
    words = (*WORDS, f"data.root={bridge_shards.parent}")
    whole, half = tmp_path / "whole", tmp_path / "half"
    metrics = train_here(tmp_path, *words, "steps=4", f"paths.output={whole}")
    assert {"train/loss", "val/token_accuracy", "val/l1_position_m"} <= metrics.keys()
    train_here(tmp_path, *words, "steps=2", f"paths.output={half}")
    train_here(tmp_path, *words, "steps=4", f"ckpt_path={half}", f"paths.output={tmp_path / 'again'}")
    one, other = state_of(whole), state_of(tmp_path / "again")
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    policy = TrainedPolicy.from_checkpoint(whole, strict=True)
    counted = report(capsys, "explain", "model=rt1_tiny", *SMALL)
    assert counted["total"] == counted["reachable"] == sum(p.numel() for p in policy.network.parameters())
    scores = report(capsys, "score", f"ckpt={whole}", "max_frames=20", "plots=1")["datasets"]["bridge_orig"]["scores"]
    assert 0 <= scores["policy"]["token_accuracy"] <= 1
    exported = tmp_path / "exported"
    says(complaint(capsys, "export", f"ckpt={whole}", f"out={exported}"), "rt1", "layout=ckpt")
    assert run("export", [f"ckpt={whole}", f"out={exported}", "layout=ckpt"]) == 0
    actions = policy.act([observation()])
    assert actions.shape == (1, 1, 7)
    np.testing.assert_array_equal(TrainedPolicy.from_checkpoint(exported, strict=True).act([observation()]), actions)
    says(complaint(capsys, "score", f"ckpt={whole}", "constrain=false"), "rt1")


def test_a_run_of_the_published_size_is_planned_with_every_strategy(capsys: Capture) -> None:
    planned = report(capsys, "plan", "model=rt1_x", "strategy=full", "batch_size=8")
    assert planned["memory_bytes"]["weights"] == 2 * 36_681_632
    adapted = report(capsys, "explain", "model=rt1_tiny", "strategy=lora", "strategy.rank=4")
    assert 0 < adapted["trainable"] < adapted["total"]
    bare = {name.rpartition(".")[2] for name in adapted["layers_without_adapter"]}
    assert bare == {"conv_dw", "conv_stem", "position_emb"}  # by groups, padded by itself, a table: no adapter is right


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A folder as sentence encoders come in, its weights random."""
    from transformers import BertConfig, BertModel

    folder = tmp_path / "encoder"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "lift", "the", "pot", "put", "carrot", "on", "plate"]
    vocabulary = {word: i for i, word in enumerate(words)}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_local_sentence_encoder_speaks_and_stays_in_its_folder(
    encoder: Path, tmp_path: Path, bridge_shards: Path, capsys: Capture
) -> None:
    words: list[Any] = [*WORDS, f"data.root={bridge_shards.parent}", "steps=2", "model.processor.tokenizer=sentences"]
    train_here(tmp_path, *words, f"model.processor.tokenizer_path={encoder}")
    trained = tmp_path / "runs" / "run"
    assert [name for name in state_of(trained) if ".text." in name] == []
    policy = TrainedPolicy.from_checkpoint(trained, strict=True)
    network: Any = policy.network
    assert network.text.width == 24
    inputs = policy.observed([observation("Lift the pot"), observation("put the carrot on the plate")])
    assert inputs.text is not None
    assert inputs.text.ids.tolist()[0] == [2, 4, 5, 6, 3, 0, 0, 0]  # [CLS] lift the pot [SEP], then padding
    vectors = network.text(inputs.text)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)
    weights = next(encoder.glob("*.safetensors"))
    weights.rename(encoder / "elsewhere")
    with pytest.raises(PartMissing, match=r"model\.safetensors"):
        load(trained)
    (encoder / "elsewhere").rename(weights)
    (encoder / "tokenizer.json").unlink()
    with pytest.raises(PartMissing, match=r"no tokenizer\.json"):
        load(trained)
    says(complaint(capsys, "score", f"ckpt={trained}"), encoder, "tokenizer=words")


@pytest.mark.parametrize("name", ["saved_model.pb", "ckpt-424760.index"])
def test_a_checkpoint_of_tensorflow_is_refused_with_the_way_out(name: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / name).write_bytes(b"")
    for place in (tmp_path, tmp_path / name, tmp_path / name.removesuffix(".index")):
        says(complaint(capsys, "score", f"ckpt={place}"), "TensorFlow", "experiment=rt1_x")
