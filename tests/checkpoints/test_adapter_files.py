"""Adapters as files: those of this kit, of current peft and of old peft are one thing."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_folders import NAMES, logits_of, policy_of

from vlakit.checkpoints.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_adapter, save_adapter
from vlakit.checkpoints.export import ExportOptions, export
from vlakit.checkpoints.formats import LoadOptions, load
from vlakit.checkpoints.loaded import grown
from vlakit.errors import CheckpointMismatch
from vlakit.models.adapters import OPENVLA_TARGETS, LoraNumbers, inject_lora, merged_state_dict
from vlakit.models.openvla.vla import OpenVLA, build_vla
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Observation

NUMBERS = LoraNumbers(4, 8)


def trained(model: OpenVLA, numbers: LoraNumbers = NUMBERS) -> OpenVLA:
    inject_lora(model, numbers)
    return randomized(model)


def randomized(model: Any) -> Any:
    """Adapters that change the outputs: a fresh B is zero."""
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


@pytest.fixture
def base(tiny_vla: OpenVLA) -> OpenVLA:
    """The model without adapters, to load onto."""
    return copy.deepcopy(tiny_vla)


@pytest.fixture
def folder(tiny_vla: OpenVLA, base: OpenVLA, tmp_path: Path) -> Path:
    save_adapter(tmp_path, trained(tiny_vla), NUMBERS, None)
    return tmp_path


def rewrite_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config | changes))


def refused(model: OpenVLA, folder: Path, match: str) -> CheckpointMismatch:
    with pytest.raises(CheckpointMismatch, match=match) as caught:
        load_adapter(model, folder)
    assert str(folder) in caught.value.where
    assert caught.value.do
    return caught.value


def test_an_adapter_reloads_bit_for_bit(folder: Path, tiny_vla: OpenVLA, base: OpenVLA) -> None:
    plain = logits_of(base)
    assert load_adapter(base, folder) == LoraNumbers(4, 8, targets=tuple(sorted(OPENVLA_TARGETS)))
    assert torch.equal(logits_of(base), logits_of(tiny_vla))
    assert (logits_of(base) - plain).abs().max() > 1e-2


def test_current_pefts_adapter_loads(base: OpenVLA, tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(OPENVLA_TARGETS), init_lora_weights="gaussian")
    wrapped = randomized(get_peft_model(cast(Any, copy.deepcopy(base)), config))
    wrapped.save_pretrained(tmp_path, save_embedding_layers=False)
    expected = logits_of(wrapped.base_model.model)
    load_adapter(base, tmp_path)
    assert torch.equal(logits_of(base), expected)


def test_current_pefts_full_paths_load(base: OpenVLA, tmp_path: Path) -> None:
    """What all-linear expands to now: whole paths, without the head and the patch embedding."""
    paths = [n for n, m in base.language_model.model.named_modules() if isinstance(m, torch.nn.Linear)]
    targets = [f"language_model.model.{path}" for path in paths]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets)
    wrapped = randomized(get_peft_model(cast(Any, copy.deepcopy(base)), config))
    wrapped.save_pretrained(tmp_path)
    load_adapter(base, tmp_path)
    assert torch.equal(logits_of(base), logits_of(wrapped.base_model.model))


def test_our_adapter_loads_in_current_peft(folder: Path, tiny_vla: OpenVLA, base: OpenVLA) -> None:
    rewrite_config(folder, base_model_name_or_path="somewhere")
    wrapped = PeftModel.from_pretrained(cast(Any, base), str(folder)).eval()
    assert torch.equal(logits_of(wrapped.base_model.model), logits_of(tiny_vla))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("binary", [True, False], ids=["bin", "safetensors"])
def test_old_pefts_adapter_with_its_copy_of_the_head_loads(
    binary: bool, folder: Path, tiny_vla: OpenVLA, base: OpenVLA
) -> None:
    content = load_file(folder / ADAPTER_WEIGHTS[0])
    assert "base_model.model.projector.fc1.lora_A.weight" in content
    head = base.language_model.lm_head.weight.detach()
    content["base_model.model.language_model.lm_head.base_layer.weight"] = head.clone()
    content["base_model.model.language_model.model.embed_tokens.weight"] = (
        base.language_model.model.embed_tokens.weight.detach().bfloat16()
    )
    (folder / ADAPTER_WEIGHTS[0]).unlink()
    if binary:
        torch.save(content, folder / ADAPTER_WEIGHTS[1])
    else:
        save_file(content, folder / ADAPTER_WEIGHTS[0])
    rewrite_config(folder, init_lora_weights="gaussian", modules_to_save=None, rank_pattern={}, alpha_pattern={})
    embeddings = base.language_model.model.embed_tokens.weight.detach().clone()
    load_adapter(base, folder)
    assert torch.equal(logits_of(base), logits_of(tiny_vla))
    assert torch.equal(base.language_model.model.embed_tokens.weight, embeddings)


def test_a_copy_of_the_head_that_differs_means_another_base(folder: Path, base: OpenVLA) -> None:
    content = load_file(folder / ADAPTER_WEIGHTS[0])
    name = "base_model.model.language_model.lm_head.base_layer.weight"
    content[name] = base.language_model.lm_head.weight.detach() + 0.1
    save_file(content, folder / ADAPTER_WEIGHTS[0])
    assert name in refused(base, folder, "does not fit this base").what


def test_an_adapter_of_another_size_means_another_base(folder: Path) -> None:
    from vlakit.models.openvla.vla import VLASettings

    single = build_vla(VLASettings("tiny_siglip", "tiny_llama"))
    assert "lora" in refused(single, folder, "does not fit this base").what


def test_a_target_that_the_base_lacks_means_another_base(folder: Path, base: OpenVLA) -> None:
    rewrite_config(folder, target_modules=["fc1", "gate_up_proj"])
    assert "gate_up_proj" in refused(base, folder, "does not fit this base").what


def test_a_missing_tensor_is_named(folder: Path, base: OpenVLA) -> None:
    content = load_file(folder / ADAPTER_WEIGHTS[0])
    content.pop("base_model.model.projector.fc1.lora_A.weight")
    save_file(content, folder / ADAPTER_WEIGHTS[0])
    assert "projector.fc1.lora_A" in refused(base, folder, "1 adapter tensors are missing").what


def test_an_unknown_tensor_is_named(folder: Path, base: OpenVLA) -> None:
    content = load_file(folder / ADAPTER_WEIGHTS[0]) | {"base_model.model.action_head.weight": torch.zeros(2)}
    save_file(content, folder / ADAPTER_WEIGHTS[0])
    assert "action_head" in refused(base, folder, "does not fit").what


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"peft_type": "IA3"},
        {"alpha_pattern": {"fc1": 32}},
        {"rank_pattern": {"fc1": 2}},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa_niter_4"},
        {"layers_to_transform": [0]},
    ],
    ids=str,
)
def test_an_adapter_that_means_something_else_is_refused_by_name(
    change: dict[str, Any], folder: Path, base: OpenVLA
) -> None:
    rewrite_config(folder, **change)
    assert next(iter(change)) in refused(base, folder, "not a plain LoRA").what


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", "{}", '{"r": "x", "lora_alpha": 1, "target_modules": []}', '{"r": 1, "lora_alpha": 1}']
)
def test_a_garbled_configuration_is_named(text: str, folder: Path, base: OpenVLA) -> None:
    (folder / ADAPTER_CONFIG).write_text(text)
    refused(base, folder, "configuration")


def test_a_truncated_file_is_named(folder: Path, base: OpenVLA) -> None:
    file = folder / ADAPTER_WEIGHTS[0]
    file.write_bytes(file.read_bytes()[:-100])
    assert str(file) in refused(base, folder, "cannot be read").where
    file.unlink()
    refused(base, folder, "no adapter_model")
    torch.save([1, 2], folder / ADAPTER_WEIGHTS[1])
    refused(base, folder, "not a table of tensors")


def test_an_exported_adapter_is_small_and_answers_on_its_base(
    tiny_vla: OpenVLA, base: OpenVLA, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    export(policy_of(base, tiny_processor), tmp_path / "base", "hf", ExportOptions())
    numbers = LoraNumbers(1, 2)
    policy = policy_of(trained(tiny_vla, numbers), tiny_processor, **numbers.to_dict())
    export(policy, tmp_path / "adapter", "adapter", ExportOptions(base=str(tmp_path / "base")))
    small, whole = (
        sum(file.stat().st_size for file in (tmp_path / name).glob("*.safetensors")) for name in ("adapter", "base")
    )
    assert small < whole / 20
    again = TrainedPolicy.from_checkpoint(tmp_path / "adapter")
    assert torch.equal(logits_of(again.network), logits_of(policy.network))
    assert again.card.adapter is not None
    assert {"dataset_statistics.json", "contract.json"} <= {file.name for file in (tmp_path / "adapter").iterdir()}


def test_an_exported_adapter_sees_and_answers_as_its_run_did_whatever_its_base_did(
    base: OpenVLA, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    """Another crop, two cameras, chunks, another head: none of them has a tensor of its own."""
    export(policy_of(base, tiny_processor), tmp_path / "base", "hf", ExportOptions())
    settings = replace(tiny_processor.settings, center_crop=0.9, cameras=("primary", "wrist"), chunk=2)
    (statistics,) = tiny_processor.statistics.values()
    processor = TokenProcessor(settings, {"mine": statistics})
    description = {**base.description, "head": "parallel"}
    network = grown(base, tiny_processor, description, processor, where="test")
    policy = policy_of(trained(cast(OpenVLA, network)), processor, **NUMBERS.to_dict())
    export(policy, tmp_path / "adapter", "adapter", ExportOptions(base=str(tmp_path / "base")))
    again = TrainedPolicy.from_checkpoint(tmp_path / "adapter")
    assert again.network.description == network.description
    assert again.processor.description == processor.description
    picture = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    seen = [Observation({"primary": picture[None], "wrist": picture[None, ::-1]}, "lift it")]
    before = TrainedPolicy(network, processor, policy.card).act(seen)
    assert before.shape == (1, 2, 7)
    np.testing.assert_array_equal(again.act(seen), before)  # of the one dataset that it knows


def test_an_adapter_of_an_adapted_base_stands_on_the_merged_weights(
    tiny_vla: OpenVLA, base: OpenVLA, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    export(policy_of(base, tiny_processor), tmp_path / "base", "hf", ExportOptions())
    policy = policy_of(trained(tiny_vla), tiny_processor, **NUMBERS.to_dict())
    export(policy, tmp_path / "first", "adapter", ExportOptions(base=str(tmp_path / "base")))
    merged = build_vla(NAMES)
    merged.load_state_dict(merged_state_dict(tiny_vla))
    second = policy_of(trained(merged.eval()), tiny_processor, **NUMBERS.to_dict())
    export(second, tmp_path / "second", "adapter", ExportOptions())
    found = load(tmp_path / "second", LoadOptions(base=str(tmp_path / "first"))).network.eval()
    assert torch.equal(logits_of(found), logits_of(second.network))


def test_an_adapter_without_its_base_asks_for_it(folder: Path) -> None:
    for base in (None, "openvla/openvla-7b"):
        rewrite_config(folder, base_model_name_or_path=base)
        with pytest.raises(CheckpointMismatch, match="not a local path") as caught:
            load(folder)
        assert "base=DIR" in caught.value.do
        assert str(folder) in caught.value.where
