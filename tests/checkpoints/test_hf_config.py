"""A model follows from config.json alone, and nothing that config.json names is ever run."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_folders import logits_of, policy_of, released_config, released_folder, rewrite

from vlakit.checkpoints.export import ExportOptions, export
from vlakit.checkpoints.formats import load
from vlakit.checkpoints.hf_config import OWN_KEY, read_description
from vlakit.errors import CheckpointMismatch, StatisticsMissing
from vlakit.models.openvla.vla import OpenVLA, build_vla
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics, Observation

VARIANTS = {
    "single tower": released_config(),
    "fused": released_config(towers=2),
    "grouped queries": released_config(num_key_value_heads=2),
    "other image size": released_config(size=96),
    "other activation": released_config(act="quick_gelu"),
    "other rotary base": released_config(rope_theta=500.0),
    "stretched positions": released_config(rope_scaling={"rope_type": "linear", "factor": 2.0}),
    "other epsilon": released_config(rms_norm_eps=0.5),
}


def described(folder: Path, config: object) -> Any:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return read_description(folder)


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_variant_survives_export_and_reload_bit_for_bit(
    variant: str, tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    policy = load(released_folder(tmp_path / "a", bridge_statistics, VARIANTS[variant]))
    export(policy, tmp_path / "b", "hf", ExportOptions(shard_bytes=3_000_000))
    expected = logits_of(policy.network.eval())
    assert torch.equal(logits_of(TrainedPolicy.from_checkpoint(tmp_path / "b").network), expected)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    del config[OWN_KEY]  # what a reader that does not know vlakit sees
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits_of(TrainedPolicy.from_checkpoint(tmp_path / "b").network), expected)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("other") and "size" not in name])
def test_the_numbers_of_the_configuration_decide_the_outputs(
    variant: str, tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    plain = TrainedPolicy.from_checkpoint(released_folder(tmp_path / "a", bridge_statistics)).network
    other = TrainedPolicy.from_checkpoint(released_folder(tmp_path / "b", bridge_statistics, VARIANTS[variant])).network
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in plain.state_dict().items())
    assert not torch.equal(logits_of(plain), logits_of(other))


def test_the_rotary_base_that_transformers_5_writes_is_read_too(tmp_path: Path) -> None:
    config = released_config(rope_parameters={"rope_theta": 500.0, "rope_type": "default"})
    found = build_vla(described(tmp_path, config).model, "meta").language_model.config.to_dict()
    assert found["rope_parameters"]["rope_theta"] == 500.0


def test_grouped_query_heads_have_narrow_keys(tmp_path: Path) -> None:
    model = build_vla(described(tmp_path, VARIANTS["grouped queries"]).model, "meta")
    assert model.get_parameter("language_model.model.layers.0.self_attn.k_proj.weight").shape == (16, 32)


def test_what_the_converter_left_out_is_transformers_default(tmp_path: Path) -> None:
    config = build_vla(described(tmp_path, released_config()).model, "meta").language_model.config
    assert (config.rms_norm_eps, config.max_position_embeddings) == (1e-6, 2048)


def test_fused_is_guessed_from_the_backbones_name(tmp_path: Path) -> None:
    config = released_config(towers=2) | {"use_fused_vision_backbone": None}
    assert len(build_vla(described(tmp_path, config).model, "meta").vision_backbone.towers) == 2


def test_the_statistics_file_overrides_the_configuration(tmp_path: Path) -> None:
    assert described(tmp_path, released_config() | {"norm_stats": {"old": {}}}).statistics == {"old": {}}
    (tmp_path / "dataset_statistics.json").write_text('{"new": {}}')
    assert read_description(tmp_path).statistics == {"new": {}}


def test_a_rounded_mean_in_the_preprocessor_is_followed(tmp_path: Path) -> None:
    config = released_config(towers=2)
    config["timm_model_ids"] = ["test_vit", "vit_so400m_patch14_siglip_224"]
    assert described(tmp_path, config).processor.channel_statistics == ("imagenet", "half")
    means = {"tvf_normalize_params": [{"mean": [0.484375, 0.455078125, 0.40625]}, {"mean": [0.5, 0.5, 0.5]}]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(means))
    assert read_description(tmp_path).processor.channel_statistics == ("imagenet_hf_rounded", "half")


def test_the_bare_siglip_id_means_the_first_siglip(tmp_path: Path) -> None:
    config = released_config() | {"timm_model_ids": ["vit_so400m_patch14_siglip_224"]}
    assert described(tmp_path, config).model.vision_options["towers"] == ["vit_so400m_patch14_siglip_224.webli"]


def test_vicuna_means_its_own_prompt_there_and_back(
    tmp_path: Path, tiny_vla: OpenVLA, bridge_statistics: DatasetStatistics
) -> None:
    found = described(tmp_path / "in", released_config() | {"llm_backbone_id": "vicuna-v15-7b"})
    assert found.processor.prompt == "openvla_v01"
    processor = TokenProcessor(found.processor, {"bridge_orig": bridge_statistics})
    export(policy_of(tiny_vla, processor), tmp_path / "out", "hf", ExportOptions())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["llm_backbone_id"] == "vicuna-v15-7b"


BAD: dict[str, object] = {
    "not JSON": "{",
    "binary": "\x00\x01",
    "a list": [1],
    "empty": {},
    "no towers": {key: value for key, value in released_config().items() if key != "timm_model_ids"},
    "towers a number": released_config() | {"timm_model_ids": 3},
    "two towers, one size": released_config(towers=2) | {"image_sizes": [64]},
    "towers of two sizes": released_config(towers=2) | {"image_sizes": [64, 96]},
    "a size in words": released_config() | {"image_sizes": ["large"]},
    "fused with one tower": released_config() | {"use_fused_vision_backbone": True},
    "another language model": released_config() | {"text_config": {"model_type": "mistral"}},
    "text_config a list": released_config() | {"text_config": [1]},
    "bins in words": released_config() | {"n_action_bins": "many"},
    "own names a list": {OWN_KEY: []},
    "own names incomplete": {OWN_KEY: {"model": {"vision": "tiny_siglip"}, "processor": {}}},
    "unknown tower": released_config() | {"timm_model_ids": ["vit_none"]},
    "tower of a hub": released_config() | {"timm_model_ids": ["hf-hub:timm/vit_base_patch16_224"]},
    "tower of a folder": released_config() | {"timm_model_ids": ["local-dir:."]},
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_configuration_is_refused_with_its_file_and_a_remedy(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch) as caught:
        described(tmp_path, BAD[kind])
    assert str(tmp_path / "config.json") in caught.value.where
    assert caught.value.do
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [{"num_attention_heads": 3}, {"hidden_act": "none_such"}, {"vocab_size": -1}, {"vocab_size": 100}],
    ids=str,
)
def test_numbers_that_no_model_has_are_refused(
    text: dict[str, Any], tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    folder = released_folder(tmp_path / "a", bridge_statistics)
    rewrite(folder / "config.json", text_config=released_config(**text)["text_config"])
    with pytest.raises(CheckpointMismatch, match=r"config.json|needs") as caught:
        TrainedPolicy.from_checkpoint(folder)
    assert str(folder) in caught.value.where


def test_an_unknown_tower_is_named(tmp_path: Path) -> None:
    config = released_config() | {"timm_model_ids": ["vit_so400m_patch14_siglip_242"]}
    with pytest.raises(CheckpointMismatch, match="vit_so400m_patch14_siglip_242") as caught:
        described(tmp_path, config)
    assert "vit_so400m_patch14_siglip_224" in caught.value.do


@pytest.fixture
def trap(tmp_path: Path, bridge_statistics: DatasetStatistics, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that leaves a marker when it is imported, which Python would find."""
    folder = released_folder(tmp_path / "trap", bridge_statistics)
    code = f"from pathlib import Path\nPath({str(tmp_path / 'marker')!r}).touch()\ndef build(**_): ...\n"
    for name in ("configuration_prismatic", "modeling_prismatic", "processing_prismatic"):
        (folder / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_code_that_a_configuration_names_is_never_run(trap: Path, tmp_path: Path) -> None:
    auto = {name: f"modeling_prismatic.{name}" for name in ("AutoConfig", "AutoModelForVision2Seq", "AutoModel")}
    rewrite(trap / "config.json", auto_map=auto, trust_remote_code=True)
    rewrite_new = {"auto_map": {"AutoProcessor": "processing_prismatic.PrismaticProcessor"}}
    (trap / "preprocessor_config.json").write_text(json.dumps(rewrite_new))
    TrainedPolicy.from_checkpoint(trap)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("key", ["vision", "llm", "prompt", "resize", "tokenizer"])
def test_vlakits_own_names_reach_no_outside_code_either(key: str, trap: Path, tmp_path: Path) -> None:
    model: dict[str, Any] = {"vision": "tiny_siglip", "llm": "tiny_llama"}
    processor: dict[str, Any] = {"image_size": 64, "channel_statistics": ["half"], "tokenizer": "words"}
    (model if key in model else processor)[key] = "modeling_prismatic:build"
    rewrite(trap / "config.json", **{OWN_KEY: {"model": model, "processor": processor}})
    with pytest.raises(CheckpointMismatch, match="code outside vlakit") as caught:
        TrainedPolicy.from_checkpoint(trap)
    assert str(trap) in caught.value.where
    assert not (tmp_path / "marker").exists()


def test_absent_statistics_are_an_error_with_a_remedy(tmp_path: Path, bridge_statistics: DatasetStatistics) -> None:
    folder = released_folder(tmp_path / "a", bridge_statistics)
    (folder / "dataset_statistics.json").unlink()
    with pytest.raises(StatisticsMissing) as caught:
        TrainedPolicy.from_checkpoint(folder)
    assert str(folder) in caught.value.where
    assert "dataset_statistics.json" in caught.value.do


def test_several_datasets_demand_a_name(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, bridge_statistics: DatasetStatistics, tmp_path: Path
) -> None:
    both = TokenProcessor(tiny_processor.settings, {"bridge_orig": bridge_statistics, "kuka": bridge_statistics})
    export(policy_of(tiny_vla, both), tmp_path / "hf", "hf", ExportOptions())
    policy = TrainedPolicy.from_checkpoint(tmp_path / "hf")
    image = torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()
    with pytest.raises(StatisticsMissing, match="several") as caught:
        policy.act([Observation.of(image, "lift the pot")])
    assert "bridge_orig, kuka" in caught.value.where
    assert policy.act([Observation.of(image, "lift the pot", "kuka")]).shape == (1, 1, 7)
