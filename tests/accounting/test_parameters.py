"""Who trains and who learns, on the real models without their memory."""

from typing import Any

import pytest
import torch
from tiny_runs import meta_lora, meta_vla, module_of
from torch.utils._python_dispatch import TorchDispatchMode

from vlakit.accounting.dry_step import LOSS, Workload, dry_step
from vlakit.accounting.memory import PRECISIONS, Setup, estimate
from vlakit.accounting.meta import prepared
from vlakit.accounting.parameters import ModuleCount, count_parameters, explain, reached_names, unreached_adapters
from vlakit.models.network import Network, Output
from vlakit.models.openvla.vla import OpenVLA
from vlakit.processing.processor import Processor
from vlakit.processing.settings import ProcessorSettings, TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch
from vlakit.strategies.lora import Lora

TOWERS = {"siglip_so400m": ["siglip"], "dinosiglip_so400m": ["dinov2", "siglip"]}


def everything(vision: str) -> OpenVLA:
    return meta_vla(vision).requires_grad_(True)


def blank(model: OpenVLA) -> Batch:
    """One row in the shapes that a 7B network of these towers sees."""
    towers = model.vision_backbone
    each = ("half",) * len(towers.towers)
    settings = TokenSettings(image_size=towers.image_size, channel_statistics=each, tokenizer="llama2")
    return TokenProcessor(settings).blank(1, device="meta")


def counted(model: OpenVLA) -> list[ModuleCount]:
    return explain(model, reached_names(model, blank(model)))


@pytest.mark.parametrize("vision", TOWERS)
def test_last_blocks_norms_and_poolings_are_all_that_no_gradient_reaches(vision: str, golden: dict[str, Any]) -> None:
    whole = counted(everything(vision))[-1]
    silent = sum(golden["unreached"]["parameters"][tower] for tower in TOWERS[vision])
    assert whole.trainable == whole.total == golden["parameters"][vision]["full"]
    assert whole.reachable == whole.trainable - silent


@pytest.mark.parametrize("vision", TOWERS)
def test_the_parts_add_up_to_the_model(vision: str) -> None:
    *parts, whole = counted(everything(vision))
    assert whole.module == "model"
    assert len({part.module for part in parts}) == len(parts)
    for field in ("total", "trainable", "reachable", "optimizer_bytes"):
        assert getattr(whole, field) == sum(getattr(part, field) for part in parts)


def test_parts_of_the_papers_model_have_the_sizes_of_its_architecture() -> None:
    parts = {part.module: part.total for part in counted(everything("siglip_so400m"))}
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
    model = meta_lora("dinosiglip_so400m", 32)
    silent = unreached_adapters(model, reached_names(model, blank(model)))
    assert silent == (expected["unreached"], expected["all"])


def test_counting_leaves_no_gradient_behind() -> None:
    model = everything("siglip_so400m")
    reached_names(model, blank(model))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_names_reached_on_meta_are_those_reached_in_training(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, tiny_batch: Batch
) -> None:
    tiny_vla.language_model.lm_head.requires_grad_(False)
    tiny_vla(tiny_batch).loss.backward()
    reached = {name for name, p in tiny_vla.named_parameters() if p.grad is not None}
    tiny_vla.zero_grad()
    assert reached_names(tiny_vla.to("meta"), tiny_processor.blank(1, device="meta")) == reached


def test_a_model_with_memory_is_refused(tiny_vla: OpenVLA) -> None:
    with pytest.raises(ValueError, match="meta device"):
        reached_names(tiny_vla, blank(tiny_vla))


def test_adam_keeps_two_float32_moments_of_what_is_reached() -> None:
    count = ModuleCount("projector", total=10, trainable=8, reachable=5)
    assert count.to_dict() == {
        "module": "projector", "total": 10, "trainable": 8, "reachable": 5, "optimizer_bytes": 40,
    }  # fmt: skip


class Regressor(Network):
    """Another family: pixels to actions, without text; `spare` trains and is never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, 2)
        self.head = torch.nn.Linear(8, 14)
        self.spare = torch.nn.Linear(5, 5)

    def forward(self, batch: Batch) -> Output:
        (frames,) = batch.pixels.values()
        predicted = self.head(self.stem(frames[:, -1]).relu().mean(dim=(2, 3))).view(batch.actions.shape)
        errors = (predicted - batch.normalized).abs()[batch.chunk_mask]
        return Output(loss=errors.mean(), row_losses=(predicted - batch.normalized).abs().mean(dim=(1, 2)).detach())


def test_another_network_is_counted_by_its_own_forward() -> None:
    processor = Processor(ProcessorSettings(image_size=16, channel_statistics=("half",), chunk=2))
    with torch.device("meta"):
        model = Regressor()
    sizes = {"stem": 3 * 8 * 9 + 8, "head": 8 * 14 + 14, "spare": 30}
    *parts, whole = explain(model, reached_names(model, processor.blank(1, device="meta")))
    assert {part.module: (part.total, part.reachable) for part in parts} == {
        name: (size, size * (name != "spare")) for name, size in sizes.items()
    }
    assert whole.total == whole.trainable == sum(sizes.values())
    step = dry_step(model, processor, PRECISIONS["32-true"], Workload())
    assert set(step.saved) == {*sizes, LOSS}
    assert step.saved_bytes(1)["stem"] >= 4 * 3 * 16 * 16  # its input, for the gradient of its weights
    memory = estimate(model, processor, Setup(PRECISIONS["32-true"]), Workload()).at(2)
    assert memory.weights == 4 * sum(sizes.values())
    assert memory.gradients == 4 * (sizes["stem"] + sizes["head"])


class Filled(TorchDispatchMode):
    """Notes the operators that fill a tensor at random."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators |= {str(func)} & {"aten.uniform_.default", "aten.normal_.default"}
        return func(*args, **(kwargs or {}))


def test_counting_fills_no_weights(tiny_processor: TokenProcessor) -> None:
    with Filled() as filled:
        model = prepared(module_of(Lora, tiny_processor, rank=4))
    assert filled.operators == set()
    assert all(parameter.is_meta for parameter in model.parameters())
