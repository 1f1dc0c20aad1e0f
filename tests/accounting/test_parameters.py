"""Who trains and who learns, on the real models without their memory."""

from typing import Any

import pytest
from tiny_runs import meta_lora, meta_vla

from vlakit.accounting.parameters import ModuleCount, count_parameters, explain, reached_names, unreached_adapters
from vlakit.models.openvla.vla import OpenVLA
from vlakit.schema import Batch

TOWERS = {"siglip_so400m": ["siglip"], "dinosiglip_so400m": ["dinov2", "siglip"]}


def everything(vision: str) -> OpenVLA:
    return meta_vla(vision).requires_grad_(True)


@pytest.mark.parametrize("vision", TOWERS)
def test_last_blocks_norms_and_poolings_are_all_that_no_gradient_reaches(vision: str, golden: dict[str, Any]) -> None:
    whole = explain(everything(vision))[-1]
    silent = sum(golden["unreached"]["parameters"][tower] for tower in TOWERS[vision])
    assert whole.trainable == whole.total == golden["parameters"][vision]["full"]
    assert whole.reachable == whole.trainable - silent


@pytest.mark.parametrize("vision", TOWERS)
def test_the_parts_add_up_to_the_model(vision: str) -> None:
    *parts, whole = explain(everything(vision))
    assert whole.module == "model"
    assert len({part.module for part in parts}) == len(parts)
    for field in ("total", "trainable", "reachable", "optimizer_bytes"):
        assert getattr(whole, field) == sum(getattr(part, field) for part in parts)


def test_parts_of_the_papers_model_have_the_sizes_of_its_architecture() -> None:
    parts = {part.module: part.total for part in explain(everything("siglip_so400m"))}
    assert parts["projector"] == 21_504_000
    assert parts["language_model.model.layers"] == 32 * 202_383_360
    assert parts["language_model.model.embed_tokens"] == parts["language_model.lm_head"] == 131_334_144
    assert parts["language_model.model.norm"] == 4096
    assert parts["vision_backbone.featurizer.attn_pool"] == 15_238_352
    assert parts["vision_backbone.featurizer.blocks"] == 411_466_608


def test_lora_counts_are_those_of_the_released_scripts_log(golden: dict[str, Any]) -> None:
    log = golden["upstream_lora_log"]
    assert count_parameters(meta_lora("dinosiglip_so400m", 32)) == (log["trainable"], log["all"])


def test_adapters_without_gradient_are_counted(golden: dict[str, Any]) -> None:
    expected = golden["unreached"]["adapters"]
    assert unreached_adapters(meta_lora("dinosiglip_so400m", 32)) == (expected["unreached"], expected["all"])


def test_counting_leaves_no_gradient_behind() -> None:
    model = everything("siglip_so400m")
    reached_names(model)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_names_reached_on_meta_are_those_reached_in_training(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    tiny_vla.language_model.lm_head.requires_grad_(False)
    tiny_vla(tiny_batch).loss.backward()
    reached = {name for name, p in tiny_vla.named_parameters() if p.grad is not None}
    assert reached_names(tiny_vla.to("meta")) == reached


def test_a_model_with_memory_is_refused(tiny_vla: OpenVLA) -> None:
    with pytest.raises(ValueError, match="meta device"):
        reached_names(tiny_vla)


def test_adam_keeps_two_float32_moments_of_what_is_reached() -> None:
    count = ModuleCount("projector", total=10, trainable=8, reachable=5)
    assert count.to_dict() == {
        "module": "projector", "total": 10, "trainable": 8, "reachable": 5, "optimizer_bytes": 40,
    }  # fmt: skip
