"""What trains at the released size, counted on the meta device: OpenVLA-OFT's own numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlakit.accounting.meta import Uninitialised
from vlakit.models.adapters import LoraNumbers, every_layer, inject_lora
from vlakit.models.openvla.trunk import Senses, Trunk
from vlakit.models.openvla.vla import VLASettings, build_vla


def adapted(size: int, senses: Senses) -> Trunk:
    settings = VLASettings(
        "dinosiglip_so400m", "llama2_7b", head="l1", head_options={"action_size": size}, film=senses.film
    )
    with torch.device("meta"), Uninitialised():
        network = build_vla(settings, "meta", senses=senses)
        inject_lora(network, LoraNumbers(32, 16, targets=every_layer(network)))
    return network


def millions(network: Trunk, part: str = "") -> float:
    counted = [p.numel() for name, p in network.named_parameters() if p.requires_grad and part in name]
    return round(sum(counted) / 1e6, 3)


@pytest.mark.parametrize(
    ("size", "senses", "total", "parts"),
    [
        (7, Senses(2, 8), 278.764, {"lora_": 110.828, "action_head": 151.118, "proprio_projector": 16.818}),
        (14, Senses(3, 14, film=True), 852.557, {"action_head": 268.644, "proprio_projector": 16.843}),
    ],
    ids=["LIBERO", "ALOHA with FiLM"],
)
def test_as_many_parameters_train_as_in_the_paper(
    size: int, senses: Senses, total: float, parts: dict[str, Any]
) -> None:
    network = adapted(size, senses)
    assert millions(network) == total
    assert {part: millions(network, part) for part in parts} == parts
    if senses.film:
        assert round(millions(network, ".scale.") + millions(network, ".shift."), 3) == 456.242


def test_the_patch_convolution_and_lm_head_have_adapters_and_the_additions_have_none() -> None:
    names = [name for name, _ in adapted(7, Senses(2, 8, film=True)).named_parameters() if ".lora_A." in name]
    for layer in ("featurizer.patch_embed.proj", "fused_featurizer.patch_embed.proj", "language_model.lm_head"):
        assert [name for name in names if f"{layer}.lora_A." in name], layer
    added = ("action_head", "proprio_projector", ".scale.", ".shift.")
    assert [name for name in names if any(part in name for part in added)] == []
