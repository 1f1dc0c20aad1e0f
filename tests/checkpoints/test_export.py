"""An exported folder is the policy, bit for bit, and appears whole or not at all."""

import errno
import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_folders import logits_of, policy_of

from vlakit.checkpoints.export import ExportOptions, export
from vlakit.checkpoints.formats import Loaded, load
from vlakit.errors import CheckpointMismatch, ConfigError, DiskFull, UnknownName
from vlakit.models.adapters import LoraNumbers, inject_lora, merged_state_dict
from vlakit.models.openvla.vla import OpenVLA
from vlakit.policy import TrainedPolicy
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor

NUMBERS = LoraNumbers(4, 8)


@pytest.fixture
def policy(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> Loaded:
    return policy_of(tiny_vla, tiny_processor)


@pytest.fixture
def adapted(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> Loaded:
    inject_lora(tiny_vla, NUMBERS)
    for name, parameter in tiny_vla.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return policy_of(tiny_vla, tiny_processor, **NUMBERS.to_dict())


def test_a_whole_policy_reloads_to_equal_logits(policy: Loaded, tmp_path: Path) -> None:
    export(policy, tmp_path / "a", "hf", ExportOptions(shard_bytes=1_000_000))
    again = load(tmp_path / "a")
    assert torch.equal(logits_of(again.network.eval()), logits_of(policy.network))
    assert again.processor.settings == policy.processor.settings
    assert again.network.description == policy.network.description
    export(again, tmp_path / "b", "hf", ExportOptions(shard_bytes=1_000_000))
    assert {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir()} == {
        f.name: f.read_bytes() for f in (tmp_path / "b").iterdir()
    }


def test_an_adapted_policy_reloads_merged(adapted: Loaded, tmp_path: Path) -> None:
    expected = logits_of(adapted.network)
    export(adapted, tmp_path / "a", "hf", ExportOptions())
    again = TrainedPolicy.from_checkpoint(tmp_path / "a")
    assert again.card.adapter is None
    torch.testing.assert_close(logits_of(again.network), expected, atol=1e-5, rtol=1e-5)
    merged = merged_state_dict(adapted.network)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in again.network.state_dict().items())
    assert merged.keys() == again.network.state_dict().keys()


@pytest.mark.parametrize("layout", ["hf", "adapter"])
def test_exporting_leaves_the_policy_as_it_was(layout: str, adapted: Loaded, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in adapted.network.state_dict().items()}
    logits = logits_of(adapted.network)
    export(adapted, tmp_path / "a", layout, ExportOptions(dtype=torch.bfloat16))
    assert torch.equal(logits_of(adapted.network), logits)
    after = adapted.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_merging_twice_gives_the_same_and_changes_nothing(adapted: Loaded) -> None:
    before = logits_of(adapted.network)
    once = merged_state_dict(adapted.network)
    twice = merged_state_dict(adapted.network)
    assert all(torch.equal(tensor, twice[name]) for name, tensor in once.items())
    assert torch.equal(logits_of(adapted.network), before)
    base = adapted.network.state_dict()["projector.fc1.base_layer.weight"]
    assert not torch.equal(once["projector.fc1.weight"], base)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_dtype_is_that_of_every_tensor(dtype: torch.dtype, policy: Loaded, tmp_path: Path) -> None:
    export(policy, tmp_path / "a", "hf", ExportOptions(dtype=dtype))
    again = TrainedPolicy.from_checkpoint(tmp_path / "a").network.state_dict()
    assert all(torch.equal(t.to(dtype), again[name]) for name, t in policy.network.state_dict().items())


def test_a_folder_names_what_the_original_code_reads(policy: Loaded, tmp_path: Path) -> None:
    export(policy, tmp_path / "a", "hf", ExportOptions())
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["architectures"] == ["OpenVLAForActionPrediction"]
    assert "auto_map" not in config
    assert config["text_config"]["rope_theta"] == 10000.0
    assert config["text_config"]["rms_norm_eps"] == 1e-6
    assert list(config["norm_stats"]) == ["bridge_orig"]
    assert config["norm_stats"] == json.loads((tmp_path / "a" / "dataset_statistics.json").read_text())
    preprocessor = json.loads((tmp_path / "a" / "preprocessor_config.json").read_text())
    assert preprocessor["input_sizes"] == [[3, 64, 64]] * 2
    assert [params["mean"][0] for params in preprocessor["tvf_normalize_params"]] == [0.485, 0.5]
    assert json.loads((tmp_path / "a" / "contract.json").read_text())["frames"] == []


def test_tokenizer_files_go_along(policy: Loaded, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer" / "secret.txt").write_text("")
    settings = TokenSettings.from_dict({**policy.processor.description, "tokenizer_path": str(tmp_path / "tokenizer")})
    export(
        replace(policy, processor=TokenProcessor(settings, policy.processor.statistics)),
        tmp_path / "a",
        "hf",
        ExportOptions(),
    )
    assert (tmp_path / "a" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "a" / "secret.txt").exists()
    assert str(tmp_path) not in (tmp_path / "a" / "config.json").read_text()


def refused(error: type[Exception], policy: Loaded, folder: Path, layout: str = "hf", **options: Any) -> Any:
    """What an export that fails says; it must leave no trace beside the target either."""
    before = {path: path.lstat().st_mtime_ns for path in folder.parent.rglob("*")}
    with pytest.raises(error) as caught:
        export(policy, folder, layout, ExportOptions(**options))
    assert {path: path.lstat().st_mtime_ns for path in folder.parent.rglob("*")} == before
    return caught.value


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_what_is_there_already_is_untouched(kind: str, policy: Loaded, tmp_path: Path) -> None:
    target = tmp_path / "a"
    if kind == "folder":
        target.mkdir()
        (target / "precious").write_text("mine")
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    assert str(target) in refused(ConfigError, policy, target).where


def test_a_target_below_a_file_is_refused(policy: Loaded, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="cannot be written") as caught:
        export(policy, tmp_path / "file" / "a", "hf", ExportOptions())
    assert str(tmp_path / "file" / "a") in caught.value.where
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unknown_layout_names_the_known(policy: Loaded, tmp_path: Path) -> None:
    assert "adapter" in refused(UnknownName, policy, tmp_path / "a", "adaptr").do


def test_a_policy_without_adapter_exports_none(policy: Loaded, tmp_path: Path) -> None:
    assert "layout=hf" in refused(CheckpointMismatch, policy, tmp_path / "a", "adapter").do


def test_a_policy_that_does_not_know_its_names_is_refused(policy: Loaded, tmp_path: Path) -> None:
    policy.network.settings = {}
    refused(CheckpointMismatch, policy, tmp_path / "a")


@pytest.mark.parametrize("limit", [100, 20_000, 3_000_000], ids=str)
@pytest.mark.parametrize("layout", ["hf", "adapter"])
def test_a_full_disk_leaves_nothing_and_says_so(limit: int, layout: str, adapted: Loaded, tmp_path: Path) -> None:
    if layout == "adapter":
        limit = min(limit, 20_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        error = refused(DiskFull, adapted, tmp_path / "a", layout)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path / "a") in error.where
    assert "space" in error.do


def test_a_full_disk_at_the_last_file_leaves_nothing_either(
    policy: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def full(path: Path, *args: Any, **kwargs: Any) -> int:
        if path.name == "contract.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    refused(DiskFull, policy, tmp_path / "a")


def test_what_an_interrupted_export_left_is_replaced(policy: Loaded, tmp_path: Path) -> None:
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial" / "model-00009-of-00009.safetensors").write_text("old")
    export(policy, tmp_path / "a", "hf", ExportOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert not (tmp_path / "a" / "model-00009-of-00009.safetensors").exists()
