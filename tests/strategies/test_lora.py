"""LoRA's counts on both 7B models, and its scale."""

from typing import Any

import pytest
from tiny_runs import built, meta_lora, module_of

from vlakit.accounting.parameters import count_parameters
from vlakit.checkpoints.card import CARD, Card
from vlakit.models.adapters import OPENVLA_TARGETS
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


def test_targets_are_every_layer_unless_some_are_named(tiny_processor: TokenProcessor) -> None:
    everything, few = (built(Lora, tiny_processor, rank=2, targets=targets) for targets in (None, ["q_proj"]))
    assert everything.adapter is not None
    assert "stem.0" in everything.adapter["targets"]
    assert few.adapter is not None
    assert few.adapter["targets"] == ["q_proj"]


def test_a_resumed_run_adapts_the_layers_that_its_checkpoint_names(tiny_processor: TokenProcessor) -> None:
    """The default was the original's list once, without the stem: such a run goes on with what it has."""
    old = built(Lora, tiny_processor, rank=2, targets=OPENVLA_TARGETS)
    checkpoint: dict[str, Any] = {"state_dict": old.state_dict()}
    old.on_save_checkpoint(checkpoint)
    resumed = module_of(Lora, tiny_processor, rank=2)
    resumed.check_resumed(Card.from_dict(checkpoint[CARD], where="old"), where="old")
    resumed.configure_model()
    resumed.load_state_dict(checkpoint["state_dict"])
    assert resumed.adapter == old.adapter
