"""A checkpoint rebuilds its policy bit for bit, and whatever else a file holds is refused by name."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import TINY, built, saved
from torch import Tensor, nn

from vlakit.checkpoints.card import CARD
from vlakit.checkpoints.file import network_state, read_checkpoint
from vlakit.checkpoints.formats import LoadOptions, load, start_from
from vlakit.errors import CheckpointMismatch
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora


@pytest.fixture
def checkpoint(tiny_processor: TokenProcessor, tmp_path: Path) -> Path:
    return saved(built(Full, tiny_processor), tmp_path / "last.ckpt")


def logits(model: nn.Module, batch: Batch) -> Tensor:
    assert isinstance(model, OpenVLA)
    return model.eval().answers(batch).logits


def trained_lora(processor: TokenProcessor) -> Lora:
    """Adapters that change the outputs: a fresh B is zero."""
    module = built(Lora, processor, rank=4)
    for name, parameter in module.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return module


@pytest.mark.parametrize("strategy", ["full", "lora"])
@torch.no_grad()
def test_a_reloaded_model_is_the_same_bit_for_bit(
    strategy: str, tiny_processor: TokenProcessor, tiny_batch: Batch, tmp_path: Path
) -> None:
    module = built(Full, tiny_processor) if strategy == "full" else trained_lora(tiny_processor)
    torch.manual_seed(99)
    model = load(saved(module, tmp_path / "a.ckpt")).network
    assert torch.equal(logits(model, tiny_batch), logits(module.model, tiny_batch))
    assert all(torch.equal(t, module.model.state_dict()[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("below", [".", "checkpoints"])
def test_a_runs_folder_means_its_last_checkpoint(tiny_processor: TokenProcessor, tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    saved(built(Full, tiny_processor), tmp_path / below / "last.ckpt")
    assert read_checkpoint(tmp_path)[CARD]["strategy"] == "full"


def test_a_path_without_a_file_names_its_neighbours(checkpoint: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="no checkpoint here") as caught:
        read_checkpoint(checkpoint.with_name("lst.ckpt"))
    assert "lst.ckpt" in caught.value.where
    assert str(checkpoint) in caught.value.do


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch) as caught:
        read_checkpoint(tmp_path / "no_such_run")
    assert "no_such_run" in caught.value.where


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused_by_name(checkpoint: Path, share: float) -> None:
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointMismatch) as caught:
        read_checkpoint(checkpoint)
    assert str(checkpoint) in caught.value.where


class Trap:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_pickled_code_is_refused_and_never_run(tmp_path: Path, write: str) -> None:
    file, mark = tmp_path / "trap.ckpt", tmp_path / "executed"
    content = {"state_dict": {}, CARD: Trap(mark)}
    if write == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointMismatch) as caught:
        read_checkpoint(file)
    assert str(file) in caught.value.where
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, I am a text\n",
        bytes(range(256)),
        b"\x80\x02",
        b"PK\x03\x04",
        b"]",
        b"(",
        b"0",
        b"\x80\x02U\xff",
        b"I9x\n.",
    ],
    ids=repr,
)
def test_any_other_bytes_are_refused_by_name(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "other.ckpt"
    file.write_bytes(data)
    with pytest.raises(CheckpointMismatch) as caught:
        read_checkpoint(file)
    assert str(file) in caught.value.where


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_refused_by_name(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "noise.ckpt"
    file.write_bytes(np.random.default_rng(seed).bytes(200))
    with pytest.raises(CheckpointMismatch):
        read_checkpoint(file)


@pytest.mark.parametrize("content", [{"state_dict": {}}, {CARD: {}}, [1, 2], torch.zeros(2)], ids=str)
def test_what_says_not_that_it_is_vlakits_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointMismatch, match="not a vlakit checkpoint") as caught:
        read_checkpoint(tmp_path / "other.ckpt")
    assert "other.ckpt" in caught.value.where


def test_tensors_of_another_model_are_named_with_the_file(checkpoint: Path) -> None:
    content = read_checkpoint(checkpoint)
    content[CARD]["network"]["vision"] = "tiny_siglip"
    torch.save(content, checkpoint)
    with pytest.raises(CheckpointMismatch, match="holds another model") as caught:
        load(checkpoint)
    assert str(checkpoint) in caught.value.where
    assert "projector.fc1" in caught.value.what
    assert "unexpected" in caught.value.what


def test_another_models_checkpoint_does_not_initialize(checkpoint: Path, tiny_processor: TokenProcessor) -> None:
    with pytest.raises(CheckpointMismatch, match="tiny_dinosiglip") as caught:
        start_from(checkpoint, TINY | {"vision": "tiny_siglip"}, tiny_processor)
    assert "tiny_siglip" in caught.value.what
    assert str(checkpoint) in caught.value.where


def fresh() -> OpenVLA:
    torch.manual_seed(99)
    return build_vla(VLASettings("tiny_dinosiglip", "tiny_llama")).eval()


@torch.no_grad()
def test_a_start_has_every_tensor_and_all_of_it_can_train(checkpoint: Path, tiny_processor: TokenProcessor) -> None:
    model = start_from(checkpoint, TINY, tiny_processor)
    state = network_state(read_checkpoint(checkpoint))
    assert model.description == TINY | {"vision_options": {}, "llm_options": {}}
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_initializing_from_lora_merges_its_adapters(
    tiny_processor: TokenProcessor, tiny_batch: Batch, tmp_path: Path
) -> None:
    module = trained_lora(tiny_processor)
    expected = logits(module.model, tiny_batch)
    model = start_from(saved(module, tmp_path / "lora.ckpt"), TINY, tiny_processor)
    assert set(model.state_dict()) == set(fresh().state_dict())
    torch.testing.assert_close(logits(model, tiny_batch), expected, atol=1e-5, rtol=1e-5)
    assert (logits(fresh(), tiny_batch) - expected).abs().max() > 1e-2


def test_a_card_that_names_code_is_refused_unless_trusted(checkpoint: Path, tmp_path: Path) -> None:
    content = read_checkpoint(checkpoint)
    mark = tmp_path / "executed"
    content[CARD]["network"] = {
        **TINY | {"vision": "subprocess:call", "llm_options": {}},
        "vision_options": {"args": ["touch", str(mark)]},
    }
    file = tmp_path / "trap.ckpt"
    torch.save(content, file)
    with pytest.raises(CheckpointMismatch, match="subprocess:call") as caught:
        load(file)
    assert caught.value.where == str(file)
    assert "trusted=[subprocess]" in caught.value.do
    assert not mark.exists()
    content[CARD]["network"] = TINY | {"vision": "vlakit.models.openvla.backbones:tiny_dinosiglip"}
    torch.save(content, file)
    with pytest.raises(CheckpointMismatch, match="backbones:tiny_dinosiglip"):
        load(file)
    load(file, LoadOptions(trusted=("vlakit.models.openvla.backbones:tiny_dinosiglip",)))
