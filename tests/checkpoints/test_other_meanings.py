"""A file whose numbers mean something else than here is refused by name; what changes no meaning is read."""

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, LoraGAConfig, get_peft_model
from tiny_folders import logits_of, random_model, released_config, released_folder, rewrite
from tiny_runs import built, saved

from vlakit.checkpoints.adapter_files import ADAPTER_CONFIG, save_adapter
from vlakit.checkpoints.export import ExportOptions, export
from vlakit.checkpoints.formats import LoadOptions, load
from vlakit.errors import CheckpointMismatch
from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora

NUMBERS = LoraNumbers(4, 8, targets=("q_proj", "v_proj"))


@pytest.fixture
def base(tmp_path: Path, bridge_statistics: DatasetStatistics) -> Path:
    return released_folder(tmp_path / "base", bridge_statistics)


@pytest.fixture
def adapter(base: Path) -> Path:
    """An adapter on the base, both as files."""
    model = random_model(base)
    inject_lora(model, NUMBERS)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    folder = base.with_name("adapter")
    folder.mkdir()
    save_adapter(folder, model, NUMBERS, str(base))
    return folder


def refused(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointMismatch) as caught:
        load(path)
    assert [word for word in words if word not in str(caught.value)] == []
    assert caught.value.do


PLAIN = LoraConfig().to_dict()


@pytest.mark.parametrize(
    "change",
    [
        *({key: {"n": 4}} for key in PLAIN if key.endswith("_config") and key != "eva_config"),
        *({key: True} for key in PLAIN if key.startswith("use_")),
        *({"init_lora_weights": word} for word in ("lora_ga", "pissa_niter_4", "olora", "corda", "loftq", "mica")),
        *({"bias": word} for word in ("all", "lora_only")),
        {"a_key_of_tomorrow": "anything"},
        {"alora_invocation_tokens": [1]},
        {"layers_to_transform": [0]},
        {"modules_to_save": ["lm_head"]},
        {"exclude_modules": ["fc1"]},
        {"fan_in_fan_out": True},
        {"ensure_weight_tying": True},
    ],
    ids=str,
)
def test_a_key_of_an_adapters_configuration_that_is_not_known_to_be_harmless_is_refused_by_name(
    change: dict[str, Any], adapter: Path
) -> None:
    rewrite(adapter / ADAPTER_CONFIG, **change)
    refused(adapter, "not a plain LoRA adapter", *change)


def test_what_peft_writes_of_a_plain_adapter_is_read_whatever_harmless_keys_hold(adapter: Path) -> None:
    expected = logits_of(load(adapter).network.eval())
    written = json.loads(json.dumps({**PLAIN, "peft_type": "LORA"}))
    harmless = {"eva_config": {"rho": 2.0}, "revision": "main", "lora_dropout": 0.1, "init_lora_weights": "orthogonal"}
    harmless |= {"qalora_group_size": 32, "megatron_core": "other", "a_key_of_tomorrow": None, "loftq_config": {}}
    rewrite(adapter / ADAPTER_CONFIG, **{**written, **json.loads((adapter / ADAPTER_CONFIG).read_text()), **harmless})
    assert torch.equal(logits_of(load(adapter).network.eval()), expected)


def test_an_adapter_that_peft_began_with_lora_ga_is_refused(base: Path) -> None:
    """Its base was changed: read as a plain adapter it is off by .8."""
    model = random_model(base)
    for name, module in model.named_modules():
        if name.endswith(("q_proj", "v_proj")):
            module._peft_loraga_grad = torch.randn_like(cast(Any, module).weight)  # pyright: ignore
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig()
    )
    get_peft_model(cast(Any, model), config).save_pretrained(base.with_name("ga"), save_embedding_layers=False)
    refused(base.with_name("ga"), "init_lora_weights=lora_ga", "lora_ga_config")


def test_alpha_counts_as_it_is_written_and_a_rank_is_whole(adapter: Path) -> None:
    whole = logits_of(load(adapter).network.eval())
    rewrite(adapter / ADAPTER_CONFIG, lora_alpha=8.5)
    half = load(adapter)
    assert half.card.adapter is not None
    assert half.card.adapter["alpha"] == 8.5
    assert not torch.equal(logits_of(half.network.eval()), whole)
    for change in ({"r": 4.5}, {"lora_alpha": float("nan")}, {"lora_alpha": True}, {"lora_alpha": "8"}):
        rewrite(adapter / ADAPTER_CONFIG, **{"r": 4, "lora_alpha": 8, **change})
        refused(adapter, "not an adapter's configuration")


def test_no_number_of_a_models_configuration_is_cut_to_an_integer(base: Path) -> None:
    for change in ({"image_sizes": [64.5]}, {"n_action_bins": 255.9}, {"pad_to_multiple_of": 63.5}):
        (base / "config.json").write_text(json.dumps({**released_config(), **change}))
        refused(base, "config.json")


@pytest.mark.parametrize("part", ["action_head", "proprio_projector", "noisy_action_projector", "vision_backbone"])
@pytest.mark.parametrize("place", ["lora_adapter", "model.pt"])
def test_a_part_of_an_openvla_oft_folder_is_called_one_and_refused(
    part: str, place: str, base: Path, adapter: Path
) -> None:
    adapter.rename(base / "lora_adapter")
    torch.save({"module.fc1.weight": torch.zeros(4, 4)}, base / f"{part}--150000_checkpoint.pt")
    refused(base / place, "OpenVLA-OFT", f"{part}--150000_checkpoint.pt")


def test_a_checkpoint_without_golden_frames_warns_and_is_refused_where_strictness_is_asked_for(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for content in (None, {"frames": []}):
        if content is not None:
            (base / "contract.json").write_text(json.dumps(content))
        for strict in (None, False):
            with caplog.at_level(logging.WARNING):
                TrainedPolicy.from_checkpoint(base, strict=strict)
            assert "no contract" in caplog.text
            caplog.clear()
        with pytest.raises(CheckpointMismatch, match="no contract"):
            TrainedPolicy.from_checkpoint(base, strict=True)


def test_an_adapter_is_exported_only_with_a_base_that_is_there_and_fits(
    tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    saved(built(Full, tiny_processor), tmp_path / "base.ckpt")
    policy = load(saved(built(Lora, tiny_processor, rank=2), tmp_path / "lora.ckpt"))
    export(policy, tmp_path / "good", "adapter", ExportOptions(base=str(tmp_path / "base.ckpt")))
    other = built(Full, tiny_processor)
    torch.nn.init.normal_(next(other.model.parameters()))
    saved(other, tmp_path / "other.ckpt")
    for name, why in (("other.ckpt", "does not fit this base"), ("none.ckpt", "not a local path")):
        with pytest.raises(CheckpointMismatch, match=why):
            export(policy, tmp_path / "bad", "adapter", ExportOptions(base=str(tmp_path / name)))
        assert not (tmp_path / "bad").exists()


def test_an_exported_adapter_names_the_base_that_its_checkpoint_names(
    tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    start = saved(built(Full, tiny_processor), tmp_path / "base.ckpt")
    file = saved(built(Lora, tiny_processor, rank=2, weights=str(start), adapter_only=True), tmp_path / "small.ckpt")
    export(load(file), tmp_path / "out", "adapter", ExportOptions())
    assert json.loads((tmp_path / "out" / ADAPTER_CONFIG).read_text())["base_model_name_or_path"] == str(start)
    assert torch.equal(
        logits_of(load(tmp_path / "out", LoadOptions()).network.eval()), logits_of(load(file).network.eval())
    )
