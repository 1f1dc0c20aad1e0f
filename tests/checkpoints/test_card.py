"""A checkpoint rebuilds its policy bit for bit, and whatever else a file holds is refused by name."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import TINY, built, saved

from vlakit.checkpoints.card import CARD, load_model, model_state, read_checkpoint
from vlakit.checkpoints.formats import start_from
from vlakit.errors import CheckpointMismatch
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora


@pytest.fixture
def checkpoint(tiny_processor: TokenProcessor, tmp_path: Path) -> Path:
    return saved(built(Full, tiny_processor), tmp_path / "last.ckpt")


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
    model = load_model(read_checkpoint(saved(module, tmp_path / "a.ckpt")), where="a.ckpt")
    assert torch.equal(model.eval()(tiny_batch).logits, module.model.eval()(tiny_batch).logits)
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
    content[CARD]["model"]["vision"] = "tiny_siglip"
    with pytest.raises(CheckpointMismatch, match="holds another model") as caught:
        load_model(content, where=str(checkpoint))
    assert str(checkpoint) in caught.value.where
    assert "projector.fc1" in caught.value.what
    assert "unexpected" in caught.value.what


def test_another_models_checkpoint_does_not_initialize(checkpoint: Path) -> None:
    names = VLASettings("tiny_siglip", "tiny_llama")
    with pytest.raises(CheckpointMismatch, match="tiny_dinosiglip") as caught:
        start_from(checkpoint, names)
    assert "tiny_siglip" in caught.value.what
    assert str(checkpoint) in caught.value.where


def fresh() -> OpenVLA:
    torch.manual_seed(99)
    return build_vla(VLASettings(**TINY)).eval()


@torch.no_grad()
def test_a_start_has_every_tensor_and_all_of_it_can_train(checkpoint: Path) -> None:
    model, names = start_from(checkpoint, VLASettings(**TINY))
    state = model_state(read_checkpoint(checkpoint))
    assert names == VLASettings(**TINY)
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_initializing_from_lora_merges_its_adapters(
    tiny_processor: TokenProcessor, tiny_batch: Batch, tmp_path: Path
) -> None:
    module = trained_lora(tiny_processor)
    expected = module.model.eval()(tiny_batch).logits
    model, _ = start_from(saved(module, tmp_path / "lora.ckpt"), VLASettings(**TINY))
    model.eval()
    assert set(model.state_dict()) == set(fresh().state_dict())
    torch.testing.assert_close(model(tiny_batch).logits, expected, atol=1e-5, rtol=1e-5)
    assert (fresh()(tiny_batch).logits - expected).abs().max() > 1e-2


def test_a_card_that_names_code_is_refused_unless_trusted(checkpoint: Path, tmp_path: Path) -> None:
    content = read_checkpoint(checkpoint)
    mark = tmp_path / "executed"
    content[CARD]["model"] = {
        **{"vision": "subprocess:call", "llm": "tiny_llama", "llm_options": {}},
        "vision_options": {"args": ["touch", str(mark)]},
    }
    file = tmp_path / "trap.ckpt"
    torch.save(content, file)
    with pytest.raises(CheckpointMismatch, match="subprocess:call") as caught:
        load_model(read_checkpoint(file), where=str(file))
    assert "trusted=[subprocess:call]" in caught.value.do
    assert not mark.exists()
    content[CARD]["model"] = {"vision": "vlakit.models.openvla.backbones:tiny_dinosiglip", "llm": "tiny_llama"}
    load_model(content, where="", trusted=("vlakit.models.openvla.backbones:tiny_dinosiglip",))
