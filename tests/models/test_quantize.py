"""Weights in 8 and 4 bits: how near they are, that a file of them is the same policy, and what is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny_folders import policy_of
from torch import Tensor, nn
from toy_network import ToyNetwork

from vlakit.checkpoints.contract import ContractBroken, agreement, make_contract
from vlakit.checkpoints.export import ExportOptions, export
from vlakit.checkpoints.formats import QUANTIZED, Loaded, LoadOptions, load, start_from
from vlakit.errors import CheckpointMismatch, InvalidData, PartMissing, UnknownName
from vlakit.models import quantized_layers
from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.models.openvla.vla import OpenVLA
from vlakit.models.quantize import quantizable, quantize, weight_bytes
from vlakit.models.quantize import quantized_layers as layers_of
from vlakit.models.quantized_layers import SCHEMES, Int8Linear, check_kernel
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch, Sample

bitsandbytes = pytest.importorskip("bitsandbytes")
ERRORS = {"int8": 0.03, "int4": 0.12}  # relative, of one layer's output
BYTES = {"int8": 1, "int4": 0.5}  # of a weight, without absmax


@pytest.fixture(params=sorted(SCHEMES))
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


def linear(rows: int = 48, columns: int = 128, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(columns, rows, bias=bias)
    layer.weight.data[5] *= 300  # a loud row: with one scale for all of them the others would be lost
    return layer.requires_grad_(False)


def error(actual: Tensor, expected: Tensor) -> float:
    """Of each output on its own scale, so that the loud row does not drown the others."""
    norm = expected.norm(dim=0)
    return float(((actual - expected).norm(dim=0) / norm).mean())


@torch.no_grad()
def answers(loaded: Loaded, samples: list[Sample]) -> Tensor:
    batch = loaded.processor.collate([loaded.processor.encode(sample) for sample in samples])
    return loaded.network.eval().predict(batch)


def golden(network: OpenVLA, processor: TokenProcessor, samples: list[Sample]) -> Loaded:
    loaded = policy_of(network, processor)
    return replace(loaded, card=replace(loaded.card, contract=make_contract(network, processor, samples)))


@pytest.fixture
def exported(tiny_vla: OpenVLA, tiny_processor: TokenProcessor, samples: list[Sample], tmp_path: Path) -> Path:
    """A policy in floating point, with a contract."""
    export(golden(tiny_vla, tiny_processor, samples), tmp_path / "whole", "hf", ExportOptions())
    return tmp_path / "whole"


@pytest.mark.parametrize(("rows", "columns", "bias"), [(48, 128, True), (7, 5, False), (1, 33, True), (64, 10, True)])
def test_a_layer_answers_near_what_it_was_made_of(scheme: str, rows: int, columns: int, *, bias: bool) -> None:
    layer = nn.Linear(columns, rows, bias=bias) if columns != 128 else linear(rows, columns, bias=bias)
    packed = SCHEMES[scheme].of(layer.requires_grad_(False))
    shown = torch.randn(2, 3, columns)
    assert packed(shown).shape == (2, 3, rows)
    assert error(packed(shown).flatten(0, 1), layer(shown).flatten(0, 1)) < (0.12 if scheme == "int8" else 0.5)
    torch.testing.assert_close(packed(shown), F.linear(shown, packed.dequantized(), layer.bias), atol=0.05, rtol=0.06)


def test_a_loud_row_leaves_the_others_as_they_are(scheme: str) -> None:
    layer, shown = linear(), torch.randn(64, 128)
    assert error(SCHEMES[scheme].of(layer)(shown), layer(shown)) < ERRORS[scheme]


def test_a_loud_row_of_inputs_leaves_the_other_answers_as_they_are_to_the_bit(scheme: str) -> None:
    packed, shown = SCHEMES[scheme].of(linear()), torch.randn(4, 128)
    loud = torch.cat([shown, 1000 * shown[:1]])
    assert torch.equal(packed(loud)[:4], packed(shown)) if scheme == "int8" else True
    torch.testing.assert_close(packed(loud)[:4], packed(shown))


def test_rows_and_inputs_of_zeros_give_the_bias(scheme: str) -> None:
    layer = linear()
    layer.weight.data[9] = 0
    packed = SCHEMES[scheme].of(layer)
    assert torch.allclose(packed(torch.zeros(2, 128)), layer.bias.expand(2, -1))
    assert torch.allclose(packed(torch.randn(3, 128))[:, 9], layer.bias[9])


def test_scales_stay_exact_where_the_network_becomes_bfloat16(scheme: str) -> None:
    packed = SCHEMES[scheme].of(linear())
    packed(torch.randn(2, 128))
    half = copy.deepcopy(packed).to(torch.bfloat16)
    assert torch.equal(half.absmax, packed.absmax)
    assert half.bias.dtype == torch.bfloat16
    assert torch.equal(half.dequantized(), packed.dequantized())
    assert half(torch.randn(2, 128).bfloat16()).dtype == torch.bfloat16


def test_a_used_layer_stores_what_it_was_made_with(scheme: str) -> None:
    packed = SCHEMES[scheme].of(linear())
    before = {name: tensor.clone() for name, tensor in packed.state_dict().items()}
    shown = torch.randn(2, 128)
    expected = packed(shown)
    assert all(torch.equal(tensor, before[name]) for name, tensor in packed.state_dict().items())
    assert torch.equal(packed(shown), expected)
    assert torch.equal(copy.deepcopy(packed)(shown), expected)


def test_weights_that_are_not_finite_are_refused(scheme: str) -> None:
    layer = linear()
    layer.weight.data[3, 3] = float("inf")
    with pytest.raises(InvalidData, match="not finite"):
        SCHEMES[scheme].of(layer)


def test_towers_and_lm_head_stay_whole_unless_asked(tiny_vla: OpenVLA) -> None:
    usual, more = quantizable(tiny_vla), quantizable(tiny_vla, ("vision", "lm_head"))
    assert not any(path.startswith("vision_backbone") or path.endswith("lm_head") for path in usual)
    assert any(path.startswith("vision_backbone") for path in more)
    assert "language_model.lm_head" in more
    assert set(usual) < set(more)


def test_a_quantised_network_takes_the_bytes_of_its_bits(tiny_vla: OpenVLA, scheme: str) -> None:
    before = weight_bytes(tiny_vla)
    weights = sum(tiny_vla.get_submodule(path).weight.numel() for path in quantizable(tiny_vla))  # pyright: ignore
    said = quantize(tiny_vla, scheme)
    scales = sum(layer.absmax.nbytes for layer in layers_of(tiny_vla))
    assert said["float_bytes"] == 4 * weights
    assert before - weight_bytes(tiny_vla) == 4 * weights - BYTES[scheme] * weights - scales


def test_the_policy_says_what_became_smaller_and_how_near_it_is(exported: Path, scheme: str) -> None:
    policy = TrainedPolicy.from_checkpoint(exported, options=LoadOptions(quantize=scheme))
    report = policy.quantization
    assert report is not None
    assert report.weight_bytes_after == weight_bytes(policy.network) < report.weight_bytes_before
    assert report.weight_bytes_before == weight_bytes(TrainedPolicy.from_checkpoint(exported).network)
    assert report.golden["frames"] == 3
    assert 0 <= report.golden["token_agreement"] <= 1
    assert "golden frames" in str(report)


def test_an_unquantised_policy_agrees_with_its_contract(exported: Path) -> None:
    loaded = load(exported)
    assert loaded.card.contract is not None
    near = agreement(loaded.card.contract, loaded.network.eval(), loaded.processor)
    zero = pytest.approx(0, abs=1e-6)
    assert near == {"frames": 3, "l1": zero, "worst": zero, "token_agreement": 1.0}


@pytest.mark.parametrize("layout", ["hf", "ckpt"])
def test_a_stored_quantised_policy_is_the_same_to_the_bit(
    exported: Path, samples: list[Sample], tmp_path: Path, scheme: str, layout: str
) -> None:
    quantized = load(exported, LoadOptions(quantize=scheme))
    export(quantized, tmp_path / "small", layout, ExportOptions())
    again = load(tmp_path / "small")
    assert torch.equal(answers(again, samples), answers(quantized, samples))
    mine, its = again.network.state_dict(), quantized.network.state_dict()
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in its)
    policy = TrainedPolicy.from_checkpoint(tmp_path / "small", strict=True)  # its contract holds its own answers
    assert policy.quantization is not None
    assert policy.quantization.scheme == scheme


@pytest.mark.parametrize("layout", ["hf", "ckpt"])
def test_a_stored_quantised_policy_still_says_how_near_it_was(exported: Path, tmp_path: Path, layout: str) -> None:
    small = TrainedPolicy.from_checkpoint(exported, options=LoadOptions(quantize="int8"))
    export(Loaded(small.network, small.processor, small.card), tmp_path / "small", layout, ExportOptions())
    again = TrainedPolicy.from_checkpoint(tmp_path / "small")
    assert small.quantization is not None
    assert again.quantization is not None
    assert again.quantization.golden == small.quantization.golden != {}
    assert "3 golden frames" in str(again.quantization)


def test_a_folder_holds_plain_tensors_and_scales(exported: Path, tmp_path: Path, scheme: str) -> None:
    export(load(exported, LoadOptions(quantize=scheme)), tmp_path / "small", "hf", ExportOptions())
    stored = load_file(tmp_path / "small" / "model.safetensors")
    kinds = {tensor.dtype for tensor in stored.values()}
    assert kinds == {torch.float32, {"int8": torch.int8, "int4": torch.uint8}[scheme]}
    said = json.loads((tmp_path / "small" / QUANTIZED).read_text())
    assert all(f"{path}.absmax" in stored for path in said["layers"])


def test_quantising_while_loading_is_quantising_what_was_loaded(exported: Path, scheme: str) -> None:
    streamed, whole = load(exported, LoadOptions(quantize=scheme)), load(exported)
    assert streamed.card.quantized == quantize(whole.network, scheme)
    mine = streamed.network.state_dict()
    assert all(torch.equal(mine[name], tensor) for name, tensor in whole.network.state_dict().items())


def test_adapters_are_merged_before(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, tmp_path: Path, scheme: str
) -> None:
    numbers = LoraNumbers(4, 8)
    inject_lora(tiny_vla, numbers)
    for name, parameter in tiny_vla.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.02)
    adapted = policy_of(tiny_vla, tiny_processor, **numbers.to_dict())
    export(adapted, tmp_path / "adapted", "ckpt", ExportOptions())
    export(adapted, tmp_path / "merged", "hf", ExportOptions())
    mine = load(tmp_path / "adapted", LoadOptions(quantize=scheme))
    its = load(tmp_path / "merged", LoadOptions(quantize=scheme)).network.state_dict()
    assert mine.card.adapter is None
    assert mine.network.state_dict().keys() == its.keys()
    assert all(torch.equal(tensor, its[name]) for name, tensor in mine.network.state_dict().items())


def test_a_network_of_another_family_is_quantised_too(tiny_processor: TokenProcessor, scheme: str) -> None:
    toy = ToyNetwork(tiny_processor).requires_grad_(False)
    said = quantize(toy, scheme)
    assert said["layers"] == ["regressor"]
    assert isinstance(toy.regressor, SCHEMES[scheme])


def test_torchs_transformer_layer_does_not_take_the_stored_numbers_for_weights(
    tiny_processor: TokenProcessor, scheme: str
) -> None:
    class Other(ToyNetwork):
        def __init__(self) -> None:
            super().__init__(tiny_processor)
            self.block = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

    torch.manual_seed(0)
    network, shown = Other().eval().requires_grad_(False), torch.randn(2, 5, 64)
    expected = network.block(shown)
    assert "block.linear1" in quantize(network, scheme)["layers"]
    torch.testing.assert_close(network.block(shown), expected, atol=0.5, rtol=0.2)


def test_adapters_train_on_a_base_in_four_bits(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    quantize(tiny_vla, "int4", ("vision",))
    before = {name: tensor.clone() for name, tensor in tiny_vla.state_dict().items() if name.endswith("absmax")}
    inject_lora(tiny_vla, LoraNumbers(2, 2))
    tiny_vla.train()
    tiny_vla(tiny_batch).loss.backward()
    trained = {name: p for name, p in tiny_vla.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in trained)
    deep = [p.grad for name, p in trained.items() if ".lora_B." in name and "blocks.0.attn.qkv" in name]
    assert deep
    assert all(gradient is not None and float(gradient.norm()) > 0 for gradient in deep)
    named = {name.replace(".base_layer", ""): tensor for name, tensor in tiny_vla.state_dict().items()}
    assert all(torch.equal(tensor, named[name]) for name, tensor in before.items())


def test_eight_bits_do_not_train(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    quantize(tiny_vla, "int8")
    with pytest.raises(PartMissing, match="no gradients"):
        tiny_vla(tiny_batch)
    with torch.no_grad():
        tiny_vla(tiny_batch)


def test_quantising_twice_is_refused(exported: Path, tmp_path: Path, scheme: str) -> None:
    for layout in ("hf", "ckpt"):
        export(load(exported, LoadOptions(quantize=scheme)), tmp_path / layout, layout, ExportOptions())
        with pytest.raises(CheckpointMismatch, match=f"quantised already: {scheme}"):
            load(tmp_path / layout, LoadOptions(quantize="int8"))


def test_no_training_starts_from_quantised_weights(exported: Path, tmp_path: Path) -> None:
    small = load(exported, LoadOptions(quantize="int8"))
    export(small, tmp_path / "small", "hf", ExportOptions())
    with pytest.raises(CheckpointMismatch, match="quantised already"):
        start_from(tmp_path / "small", small.network.description, small.processor)


def test_quantised_weights_without_their_description_are_refused(exported: Path, tmp_path: Path) -> None:
    export(load(exported, LoadOptions(quantize="int8")), tmp_path / "small", "hf", ExportOptions())
    described = tmp_path / "small" / QUANTIZED
    said = json.loads(described.read_text())
    described.unlink()
    with pytest.raises(CheckpointMismatch, match=r"holds torch\.int8"):
        load(tmp_path / "small")
    for garbled in (
        {},
        {**said, "scheme": "os:system"},
        {**said, "layers": ["no.such"]},
        {**said, "layers": [7]},
        {**said, "float_bytes": "many"},
        {**said, "golden": {"l1": 0}},
    ):
        described.write_text(json.dumps(garbled))
        with pytest.raises(CheckpointMismatch, match="garbled"):
            load(tmp_path / "small")


def test_a_quantised_policy_must_still_be_one(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, samples: list[Sample], tmp_path: Path, scheme: str
) -> None:
    other = copy.deepcopy(tiny_vla)
    nn.init.normal_(other.language_model.lm_head.weight)  # pyright: ignore[reportArgumentType]
    contract = golden(tiny_vla, tiny_processor, samples).card.contract
    broken = policy_of(other, tiny_processor)
    export(replace(broken, card=replace(broken.card, contract=contract)), tmp_path / "odd", "ckpt", ExportOptions())
    options = LoadOptions(quantize=scheme)
    with pytest.raises(ContractBroken, match="it is another policy"):
        TrainedPolicy.from_checkpoint(tmp_path / "odd", options=options)
    policy = TrainedPolicy.from_checkpoint(tmp_path / "odd", options=options, strict=False)
    assert policy.quantization is not None
    assert policy.quantization.golden["l1"] > 0.2
    export(policy_of(tiny_vla, tiny_processor), tmp_path / "bare", "ckpt", ExportOptions())
    with pytest.raises(CheckpointMismatch, match="no contract"):
        TrainedPolicy.from_checkpoint(tmp_path / "bare", options=options, strict=True)


def test_numbers_of_another_kind_under_a_quantised_layers_name_are_refused(exported: Path, tmp_path: Path) -> None:
    export(load(exported, LoadOptions(quantize="int8")), tmp_path / "small", "ckpt", ExportOptions())
    file = tmp_path / "small" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    name = next(name for name, tensor in content["state_dict"].items() if tensor.dtype == torch.int8)
    content["state_dict"][name] = content["state_dict"][name].float()
    torch.save(content, file)
    with pytest.raises(CheckpointMismatch, match="1 quantised on one side"):
        load(tmp_path / "small")


def test_a_part_that_a_network_does_not_spare_is_refused(tiny_processor: TokenProcessor, tiny_vla: OpenVLA) -> None:
    toy = ToyNetwork(tiny_processor)
    with pytest.raises(PartMissing, match="spares as lm_head"):
        quantizable(toy, ("lm_head",))
    assert quantizable(tiny_vla, ("lm_head",))


def test_a_network_without_a_linear_layer_is_refused(tiny_processor: TokenProcessor) -> None:
    network = ToyNetwork(tiny_processor)
    network.regressor = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(PartMissing, match="no linear layer") as caught:
        quantize(network, "int8")
    assert "quantize=none" in str(caught.value.do)


def test_a_missing_kernel_is_a_refusal(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    with pytest.raises(PartMissing, match="mps"):
        check_kernel("int8", "mps")
    with pytest.raises(UnknownName, match="int3"):
        TrainedPolicy.from_checkpoint(exported, options=LoadOptions(quantize="int3"))
    monkeypatch.delitem(sys.modules, "bitsandbytes")
    monkeypatch.setattr(quantized_layers, "find_spec", lambda name: None)
    with pytest.raises(PartMissing, match=r"vlakit\[quant\]"):
        TrainedPolicy.from_checkpoint(exported, options=LoadOptions(quantize="int4"))
    TrainedPolicy.from_checkpoint(exported, options=LoadOptions(quantize="int8"))  # which needs none on a CPU


def test_batches_do_not_change_an_answer_in_eight_bits(exported: Path, samples: list[Sample]) -> None:
    small = load(exported, LoadOptions(quantize="int8"))
    layer = next(m for m in small.network.modules() if isinstance(m, Int8Linear))
    shown = torch.randn(5, layer.in_features)
    assert torch.equal(layer(shown)[2], layer(shown[2:3])[0])
    assert np.isfinite(answers(small, samples)).all()


PACKING = """
import torch
from pathlib import Path
from vlakit.models.quantized_layers import Int8Linear

def resident():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) >> 10

layers = [Int8Linear(4096, 4096, None) for _ in range(8)]
for layer in layers:
    layer.weight, layer.absmax = torch.ones(4096, 4096, dtype=torch.int8), torch.ones(4096)
before = resident()
for layer in layers:
    layer.pack()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what is resident is read from /proc")
def test_packed_weights_take_the_place_of_plain_ones() -> None:
    command = [sys.executable, "-c", PACKING]  # a heap of its own: another's holes would hide what is not returned
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 16, f"{grown} MB more after packing eight weights of 16 MB"
