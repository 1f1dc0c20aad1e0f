"""Small models in the Hugging Face layout: their configuration as the original code writes it, weights at random."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlakit.checkpoints.card import Card
from vlakit.checkpoints.formats import Loaded
from vlakit.checkpoints.hf_config import read_description
from vlakit.checkpoints.weights import save_weights
from vlakit.data.shards.statistics import statistics_to_json
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics

NAMES = VLASettings("tiny_dinosiglip", "tiny_llama")


def released_config(towers: int = 1, size: int = 64, act: str | None = None, **text: Any) -> dict[str, Any]:
    """config.json with timm's smallest towers and a small Llama over the released vocabulary."""
    numbers = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {
        "model_type": "openvla",
        "auto_map": {"AutoConfig": "configuration_prismatic.OpenVLAConfig"},
        "vision_backbone_id": "dinosiglip-vit-so-224px" if towers == 2 else "siglip-vit-so400m",
        "llm_backbone_id": "llama2-7b-pure",
        "use_fused_vision_backbone": towers == 2,
        "timm_model_ids": ["test_vit", "test_vit2"][:towers],
        "timm_override_act_layers": [act] * towers,
        "image_sizes": [size] * towers,
        "image_resize_strategy": "resize-naive",
        "pad_token_id": 32000,
        "text_config": {"model_type": "llama", "vocab_size": 32064, **numbers, **text},
    }


def released_folder(folder: Path, statistics: DatasetStatistics, config: dict[str, Any] | None = None) -> Path:
    """A whole folder as it would be downloaded; the weights follow from the configuration and a fixed seed."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config or released_config()))
    (folder / "dataset_statistics.json").write_text(json.dumps(statistics_to_json({"bridge_orig": statistics})))
    save_weights(folder, random_model(folder).state_dict().items(), shard_bytes=10**9)
    return folder


def random_model(folder: Path) -> OpenVLA:
    torch.manual_seed(0)
    return build_vla(read_description(folder).model).eval()


@torch.no_grad()
def logits_of(model: OpenVLA) -> Tensor:
    """Logits of two rows of fixed noise: equal bits mean an equal model."""
    made = torch.Generator().manual_seed(1)
    size, towers = model.vision_backbone.image_size, len(model.vision_backbone.towers)
    pixels = torch.randn(2, 3 * towers, size, size, generator=made)
    ids = torch.randint(3, 1200, (2, 6), generator=made)
    return model.all_logits(pixels.to(next(model.parameters()).dtype), ids, torch.ones_like(ids))


def policy_of(
    model: OpenVLA, processor: TokenProcessor, contract: dict[str, Any] | None = None, **adapter: Any
) -> Loaded:
    """A policy over the tiny model and what a checkpoint would say of it."""
    statistics = statistics_to_json(processor.statistics)
    card = Card(model.description, processor.description, statistics, adapter=adapter or None, contract=contract)
    return Loaded(model.eval(), processor, card)


def rewrite(file: Path, **changes: Any) -> None:
    """Change some keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
