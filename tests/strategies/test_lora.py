"""LoRA's counts on both 7B models, and its scale."""

from typing import Any

import pytest
from tiny_runs import built, meta_lora, module_of

from vlakit.accounting.parameters import count_parameters
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.lora import Lora

SLOW = pytest.mark.slow  # injecting into a 7B model takes 3 s


@pytest.mark.parametrize(
    ("vision", "rank"),
    [
        ("siglip_so400m", 32),
        ("dinosiglip_so400m", 32),
        pytest.param("siglip_so400m", 64, marks=SLOW),
        pytest.param("dinosiglip_so400m", 64, marks=SLOW),
        pytest.param("dinosiglip_so400m", 16, marks=SLOW),
        pytest.param("dinosiglip_so400m", 8, marks=SLOW),
    ],
)
def test_count_is_golden(vision: str, rank: int, golden: dict[str, Any]) -> None:
    trainable, total = count_parameters(meta_lora(vision, rank))
    counts = golden["parameters"][vision]
    assert (trainable, total) == (counts[f"lora_r{rank}"], counts["full"] + counts[f"lora_r{rank}"])


@pytest.mark.parametrize(("rank", "alpha"), [(8, 8), (16, 16), (32, 16), (64, 16)])
def test_alpha_is_the_rank_but_never_above_16(rank: int, alpha: int, tiny_processor: TokenProcessor) -> None:
    assert module_of(Lora, tiny_processor, rank=rank).numbers.alpha == alpha


def test_an_alpha_that_is_given_counts(tiny_processor: TokenProcessor) -> None:
    assert module_of(Lora, tiny_processor, rank=32, alpha=64).numbers.alpha == 64


def test_the_strategy_trains_its_adapters_alone(tiny_processor: TokenProcessor) -> None:
    module = built(Lora, tiny_processor, rank=2)
    assert all(p.requires_grad == (".lora_" in name) for name, p in module.model.named_parameters())
    assert module.adapter is not None
    assert module.adapter["rank"] == 2
