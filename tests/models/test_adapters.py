"""LoRA leaves the outputs as they were, and merges away again."""

import copy

import pytest
import torch

from vlakit.accounting.parameters import count_parameters
from vlakit.errors import PatternUnmatched
from vlakit.models.adapters import (
    ADAPTABLE,
    OPENVLA_TARGETS,
    LoraNumbers,
    bare_layers,
    every_layer,
    inject_lora,
    merged_state_dict,
)
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.schema import Batch


def adapted(model: OpenVLA, rank: int = 4, **numbers: object) -> OpenVLA:
    inject_lora(model, LoraNumbers.from_dict({"rank": rank, "alpha": 8, "targets": OPENVLA_TARGETS} | numbers))
    return model.eval()


def with_random_b(model: OpenVLA) -> OpenVLA:
    """As if trained: a fresh B is zero."""
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


@torch.no_grad()
def test_fresh_adapters_leave_the_outputs_bit_for_bit(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    before = tiny_vla.answers(tiny_batch).logits
    assert torch.equal(adapted(tiny_vla).answers(tiny_batch).logits, before)


def test_only_adapters_train(tiny_vla: OpenVLA) -> None:
    adapted(tiny_vla)
    assert all(p.requires_grad == (".lora_" in name) for name, p in tiny_vla.named_parameters())


def layers_of(model: OpenVLA) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, ADAPTABLE)}


def test_every_linear_and_convolutional_layer_is_adapted(tiny_vla: OpenVLA) -> None:
    layers = layers_of(tiny_vla)
    adapted(tiny_vla, targets=every_layer(tiny_vla))
    with_adapter = {n.removesuffix(".lora_B.default.weight") for n, _ in tiny_vla.named_parameters() if ".lora_B." in n}
    assert with_adapter == layers
    assert {"language_model.lm_head", "vision_backbone.featurizer.patch_embed.stem.0"} <= layers
    assert bare_layers(tiny_vla) == []


def test_a_layer_without_an_adapter_is_named(tiny_vla: OpenVLA) -> None:
    adapted(tiny_vla)
    stems = [f"vision_backbone.{tower}.patch_embed.stem.{i}" for tower in ("featurizer",) for i in (0, 3, 6)]
    assert [name for name in bare_layers(tiny_vla) if ".featurizer." in name] == stems


def test_merged_lora_moves_the_layers_that_full_fine_tuning_moves(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    """None is bit-equal to its start but those that the loss does not reach: full leaves these as they are, too."""
    layers, start = layers_of(tiny_vla), {k: v.clone() for k, v in tiny_vla.state_dict().items()}
    full = tiny_vla(tiny_batch).loss
    weights = {n: p for n, p in tiny_vla.named_parameters() if n.removesuffix(".weight") in layers}
    gradients = torch.autograd.grad(full, list(weights.values()), allow_unused=True)
    reached = {name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None}
    adapted(tiny_vla, targets=every_layer(tiny_vla)).train()
    optimizer = torch.optim.AdamW([p for p in tiny_vla.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # B starts at zero: A moves from the second step on
        optimizer.zero_grad()
        tiny_vla(tiny_batch).loss.backward()
        optimizer.step()
    moved = {name for name, tensor in merged_state_dict(tiny_vla).items() if not torch.equal(tensor, start[name])}
    assert moved == reached
    assert any(".stem.0." in name for name in moved)


def test_adapter_size_is_proportional_to_the_rank() -> None:
    sizes = {}
    for rank in (1, 8):
        model = build_vla(VLASettings("tiny_siglip", "tiny_llama"), device="meta")
        sizes[rank], _ = count_parameters(adapted(model, rank))
    assert sizes[8] == 8 * sizes[1]


@torch.no_grad()
def test_merged_weights_give_the_adapters_outputs(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    plain = copy.deepcopy(tiny_vla)
    untouched = tiny_vla.answers(tiny_batch).logits
    expected = with_random_b(adapted(tiny_vla)).answers(tiny_batch).logits
    assert (expected - untouched).abs().max() > 1e-2
    plain.load_state_dict(merged_state_dict(tiny_vla), strict=True)
    torch.testing.assert_close(plain.answers(tiny_batch).logits, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_scale_is_alpha_over_rank(tiny_vla: OpenVLA) -> None:
    before = tiny_vla.projector.fc1.weight.clone()
    state = with_random_b(adapted(tiny_vla, rank=4, alpha=2)).state_dict()
    a, b = (state[f"projector.fc1.lora_{x}.default.weight"] for x in "AB")
    torch.testing.assert_close(merged_state_dict(tiny_vla)["projector.fc1.weight"], before + 0.5 * b @ a)


def test_a_target_that_matches_no_layer_names_the_nearest(tiny_vla: OpenVLA) -> None:
    with pytest.raises(PatternUnmatched, match="'q_porj'") as caught:
        adapted(tiny_vla, targets=["q_porj"])
    assert "q_proj" in caught.value.do
    assert all(p.requires_grad for p in tiny_vla.parameters())


def test_numbers_survive_a_checkpoint() -> None:
    numbers = LoraNumbers(32, 16, 0.1, ("qkv", "fc1"))
    assert LoraNumbers.from_dict(numbers.to_dict()) == numbers
