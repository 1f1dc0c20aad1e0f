"""What each strategy trains, to the last digit of the paper's Table 1, and what a glob may not do."""

from typing import Any

import pytest
import yaml
from places import FIXTURES
from tiny_runs import meta_vla, module_of

from vlakit.accounting.parameters import count_parameters
from vlakit.errors import PatternUnmatched
from vlakit.models.openvla.vla import OpenVLA
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.base import Finetune
from vlakit.strategies.frozen_vision import FrozenVision
from vlakit.strategies.full import Full
from vlakit.strategies.last_layer import LastLayer
from vlakit.strategies.pretrain import Pretrain
from vlakit.strategies.sandwich import Sandwich
from vlakit.strategies.trainable import select, train_only

STRATEGIES = {kind.name: kind for kind in (Full, LastLayer, FrozenVision, Sandwich)}
MODELS = ("siglip_so400m", "dinosiglip_so400m")


@pytest.mark.parametrize("vision", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_count_is_golden(vision: str, strategy: str, tiny_processor: TokenProcessor, golden: dict[str, Any]) -> None:
    model = meta_vla(vision)
    module_of(STRATEGIES[strategy], tiny_processor).prepare(model)
    assert count_parameters(model) == (golden["parameters"][vision][strategy], golden["parameters"][vision]["full"])


def test_golden_counts_are_those_of_the_papers_tables(golden: dict[str, Any]) -> None:
    tables = yaml.safe_load((FIXTURES / "paper_tables.yaml").read_text())["table1"]
    counts = golden["parameters"]
    assert counts["siglip_so400m"] == {name: row["train_params"] for name, row in tables["rows"].items()}
    assert counts["dinosiglip_so400m"] == tables["counts_fused_dinosiglip"]
    printed = {name: round(count / 1e6, 1) for name, count in counts["siglip_so400m"].items()}
    assert printed == counts["printed_millions"] == {n: row["train_params_m"] for n, row in tables["rows"].items()}


def test_pretraining_trains_everything(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> None:
    tiny_vla.requires_grad_(False)
    module_of(Pretrain, tiny_processor).prepare(tiny_vla)
    trainable, total = count_parameters(tiny_vla)
    assert trainable == total


def test_last_layer_spares_the_final_norm_and_all_earlier_layers(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    module_of(LastLayer, tiny_processor).prepare(tiny_vla)
    trains = {name for name, p in tiny_vla.named_parameters() if p.requires_grad}
    starts = ("language_model.model.layers.3.", "language_model.model.embed_tokens.", "language_model.lm_head.")
    assert trains == {name for name, _ in tiny_vla.named_parameters() if name.startswith(starts)}


def test_preparing_again_forgets_the_first_choice(tiny_vla: OpenVLA) -> None:
    train_only(tiny_vla, ["projector.*"])
    train_only(tiny_vla, ["language_model.lm_head.*"])
    assert [n for n, p in tiny_vla.named_parameters() if p.requires_grad] == ["language_model.lm_head.weight"]


def test_globs_of_the_configuration_replace_the_strategys_own(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    module_of(Finetune, tiny_processor, trainable=["projector.*.bias"]).prepare(tiny_vla)
    trains = {name for name, p in tiny_vla.named_parameters() if p.requires_grad}
    assert trains == {f"projector.fc{i}.bias" for i in (1, 2, 3)}


def test_a_glob_that_matches_nothing_names_the_nearest_parameters(tiny_vla: OpenVLA) -> None:
    with pytest.raises(PatternUnmatched, match=r"'projectr\.fc1\.weight'") as caught:
        train_only(tiny_vla, ["language_model.*", "projectr.fc1.weight"])
    assert "projector.fc1.weight" in caught.value.do
    assert all(parameter.requires_grad for parameter in tiny_vla.parameters())


def test_a_layer_past_the_last_matches_nothing(tiny_vla: OpenVLA) -> None:
    with pytest.raises(PatternUnmatched):
        train_only(tiny_vla, ["language_model.model.layers.4.*"])


def test_selection_is_the_union_of_the_globs() -> None:
    assert select(["a.*", "*.w"], ["a.w", "a.b", "c.w", "c.b"]) == {"a.w", "a.b", "c.w"}
