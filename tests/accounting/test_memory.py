"""The plan against what torch does: bytes that autograd, gradients and AdamW really hold, for a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vlakit.accounting.dry_step import LOSS, DryStep, Numerics, Workload, dry_step
from vlakit.accounting.memory import CARDS, PRECISIONS, Estimate, Setup, estimate, units_of
from vlakit.accounting.meta import Valueless
from vlakit.errors import ConfigError
from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.frozen_vision import FrozenVision
from vlakit.strategies.full import Full
from vlakit.strategies.last_layer import LastLayer
from vlakit.strategies.sandwich import Sandwich
from vlakit.strategies.trainable import train_only

STRATEGIES = {
    **{kind.name: partial(train_only, patterns=kind.trainable) for kind in (Full, LastLayer, FrozenVision, Sandwich)},
    "lora": partial(inject_lora, numbers=LoraNumbers(4, 4)),
}
FLOAT32 = PRECISIONS["32-true"]
PROCESSOR = TokenProcessor(TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words"))


def tiny(strategy: str, device: str) -> OpenVLA:
    torch.manual_seed(0)
    model = build_vla(VLASettings("tiny_dinosiglip", "tiny_llama"), device)
    STRATEGIES[strategy](model)
    return model


@cache
def dry(strategy: str, numerics: Numerics = FLOAT32, workload: Workload | None = None) -> DryStep:
    return dry_step(tiny(strategy, "meta"), PROCESSOR, numerics, workload or Workload())


@cache
def planned(strategy: str, setup: Setup | None = None, workload: Workload | None = None) -> Estimate:
    return estimate(tiny(strategy, "meta"), PROCESSOR, setup or Setup(FLOAT32), workload or Workload())


def really_saved(model: OpenVLA, batch_size: int) -> int:
    """Bytes of the storages that autograd keeps of a forward pass on the CPU, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    batch = Workload().batch(PROCESSOR, batch_size, "cpu")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss = model(batch).loss
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_saved_activations_are_those_that_torch_saves(strategy: str, batch_size: int) -> None:
    counted = sum(dry(strategy).saved_bytes(batch_size).values())
    assert counted == really_saved(tiny(strategy, "cpu"), batch_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_gradients_and_moments_are_exact(strategy: str, dtype: torch.dtype) -> None:
    model = tiny(strategy, "cpu").to(dtype)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model(Workload().batch(PROCESSOR, 1, "cpu")).loss.backward()
    optimizer.step()
    moments = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
    memory = planned(strategy, Setup(Numerics(dtype, dtype, autocast=False))).at(1)
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert memory.optimizer == sum(moment.nbytes for moment in moments)


@pytest.fixture
def cuda_autocast() -> Iterator[None]:
    """CUDA's autocast, which torch.autocast would refuse to switch on without CUDA."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)
    torch.clear_autocast_cache()


@pytest.mark.usefixtures("cuda_autocast")
def test_autocast_keeps_what_cudas_own_keeps() -> None:
    """Torch's fake CUDA tensors go through its own autocast; they need no GPU as long as nothing runs backward."""
    model, saved, n = tiny("full", "meta"), {}, 8
    with FakeTensorMode(allow_non_fake_inputs=True), Valueless():  # fused attention as on a GPU
        for module in model.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    module._parameters[name] = torch.nn.Parameter(torch.empty(p.shape, device="cuda"))
        own = {p.untyped_storage()._cdata for p in model.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _patches = model.projector(model.vision_backbone(torch.empty(n, 6, 64, 64, device="cuda")))
        real = sum(storage.nbytes() for key, storage in saved.items() if key not in own)
    counted = dry("full", PRECISIONS["bf16-mixed"]).saved_bytes(n)
    assert counted["vision_backbone"] + counted["projector"] == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("strategy", ["last_layer", "frozen_vision"])
def test_what_is_frozen_before_the_first_trainable_part_keeps_nothing(strategy: str) -> None:
    saved = dry(strategy).saved_bytes(1)
    assert saved["vision_backbone"] == 0
    assert (saved["projector"] == 0) == (strategy == "last_layer")
    assert saved["language_model"] > 0
    assert set(saved) == {"vision_backbone", "projector", "language_model", LOSS}


def test_attention_keeps_no_square_of_the_length() -> None:
    short, long, longer = (
        dry("full", workload=Workload(prompt_tokens=n)).saved_bytes(1)["language_model"] for n in (100, 200, 300)
    )
    assert longer - long == long - short


def test_checkpointing_keeps_less_and_computes_more() -> None:
    kept, again = dry("lora"), dry("lora", workload=Workload(checkpointing=True))
    assert again.saved_bytes(8)["language_model"] < kept.saved_bytes(8)["language_model"] / 3
    assert again.saved_bytes(8)["vision_backbone"] == kept.saved_bytes(8)["vision_backbone"]
    assert again.flops > 1.1 * kept.flops
    assert again.reached == kept.reached


def test_logits_at_every_position_cost_float32_times_the_vocabulary() -> None:
    answer, every = dry("full"), dry("full", workload=Workload(all_logits=True))
    more = every.saved_bytes(1)[LOSS] - answer.saved_bytes(1)[LOSS]
    assert more == pytest.approx(
        4 * 1536 * (16 + 32 - 1 - 8), rel=0.15
    )  # patches and ids, less the last and the answer


def test_flops_of_full_training_are_six_a_weight_and_token() -> None:
    model = tiny("full", "meta")
    layers = sum(p.numel() for p in model.language_model.model.layers.parameters())
    tokens = 16 + 32
    assert dry("full").flops > 6 * layers * tokens
    assert dry("frozen_vision").flops < dry("full").flops


def test_the_peak_lies_between_what_is_kept_and_the_sum_of_all() -> None:
    counted = planned("full")
    for batch_size in (1, 64):
        memory = counted.at(batch_size)
        kept = sum(memory.activations.values())
        assert memory.peak >= memory.weights + memory.optimizer + max(memory.gradients, kept)
        assert memory.total == memory.peak + memory.overhead
    assert counted.at(64).peak_in == "backward"


def test_an_optimizer_that_is_not_fused_makes_tensors_of_its_own() -> None:
    """The square roots of the second moments, all at once: without them no peak lies in the optimizer."""
    fused, plain = (planned("full", replace(Setup(FLOAT32), fused=fused)).at(1) for fused in (True, False))
    assert plain.peak_in == "optimizer"
    assert plain.peak == plain.weights + plain.optimizer + plain.gradients + plain.optimizer // 2
    assert fused.weights + fused.optimizer + fused.gradients <= fused.peak < plain.peak


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    counted = planned("lora")
    for card in (2 * 10**9, CARDS[24]):
        largest = counted.largest_batch(card)
        assert counted.at(largest).total <= card < counted.at(largest + 1).total
    assert counted.largest_batch(1) == 0


def test_sharding_divides_what_rests_and_gathers_units() -> None:
    whole, halved = planned("full").at(4), planned("full", Setup.of("32-true", 2)).at(4)
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(halved, part) == pytest.approx(getattr(whole, part) / 2, abs=1)
    assert halved.activations == whole.activations
    assert halved.unsharded > 0 == whole.unsharded


def test_mixed_precision_keeps_float32_weights_and_smaller_activations() -> None:
    plain, mixed = planned("full").at(16), planned("full", Setup.of("bf16-mixed")).at(16)
    assert mixed.weights == plain.weights == 2 * planned("full", Setup.of("bf16-true")).at(16).weights
    assert sum(mixed.activations.values()) < sum(plain.activations.values())


def test_a_frozen_tower_may_rest_in_half_precision() -> None:
    setup = Setup(Numerics(torch.float32, torch.bfloat16, autocast=True), half_frozen_vision=True)
    vision = sum(p.numel() for p in tiny("full", "meta").vision_backbone.parameters())
    less = planned("frozen_vision", replace(setup, half_frozen_vision=False)).weights
    assert less - planned("frozen_vision", setup).weights == 2 * vision


@pytest.mark.parametrize(
    ("words", "where"), [({"precision": "bf16"}, "precision"), ({"precision": "32-true", "gpus": 0}, "sharding")]
)
def test_an_unknown_precision_and_no_gpu_are_refused(words: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Setup.of(**words)
    assert caught.value.where == where


def test_a_model_with_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="meta device"):
        dry_step(tiny("full", "cpu"), PROCESSOR, FLOAT32, Workload())


def test_units_are_layers_projector_and_root() -> None:
    units = set(units_of(name for name, _ in tiny("lora", "meta").named_parameters()).values())
    layers = {f"language_model.model.layers.{i}" for i in range(4)}
    assert {"root", "projector", *layers} <= units
    assert len(units) == 2 + 4 + 2 * 3
