"""config.json of the Hugging Face OpenVLA layout, both ways. Code that it names (`auto_map`) is never loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

import timm

from vlakit.errors import CheckpointMismatch, VlakitError, nearest
from vlakit.models.network import refuse_code
from vlakit.models.openvla.vla import VLASettings
from vlakit.processing.settings import TokenSettings

OWN_KEY = "vlakit"  # what no field of the layout can say: registered names of small models, action chunks
STATISTICS_FILE = "dataset_statistics.json"
_LLAMA_NUMBERS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta",
    "rope_scaling", "rope_parameters", "attention_bias", "mlp_bias",
)  # fmt: skip
# Towers whose timm weights were trained with half/half statistics rather than ImageNet's.
_HALF = ("siglip",)
_LLAMA2 = {"llm_backbone_id": "llama2-7b-pure", "hf_llm_id": "meta-llama/Llama-2-7b-hf"}
_VICUNA = {"llm_backbone_id": "vicuna-v15-7b", "hf_llm_id": "lmsys/vicuna-7b-v1.5"}
_RELEASED = {
    "siglip_so400m": {
        "vision_backbone_id": "siglip-vit-so400m",
        "arch_specifier": "no-align+gelu-mlp",
        "timm_model_ids": ["vit_so400m_patch14_siglip_224"],
    },
    "dinosiglip_so400m": {
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        "arch_specifier": "no-align+fused-gelu-mlp",
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
    },
}


@dataclass(frozen=True)
class HfDescription:
    """What config.json and its neighbours say: names, processor, statistics (plain JSON, None when absent)."""

    model: VLASettings
    processor: TokenSettings
    statistics: dict[str, Any] | None


def read_description(folder: Path) -> HfDescription:
    """The model and processor of a folder in the Hugging Face layout. Raises CheckpointMismatch.

    dataset_statistics.json overrides the config's norm_stats, which fine-tuned folders leave stale (openvla issue 87).
    """
    config = read_table(folder / "config.json")
    try:
        ours = OWN_KEY in config
        model, processor = _own(config, folder) if ours else (_model(config, folder), _processor(config, folder))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointMismatch(
            f"config.json lacks or garbles {error}",
            where=str(folder / "config.json"),
            do="pass a folder of an OpenVLA model, or take the config.json that came with its weights",
        ) from error
    statistics_file = folder / STATISTICS_FILE
    statistics = read_table(statistics_file) if statistics_file.is_file() else config.get("norm_stats")
    if (folder / "tokenizer.json").is_file() and processor.tokenizer == "llama2":
        processor = TokenSettings.from_dict({**processor.to_dict(), "tokenizer_path": str(folder)})
    return HfDescription(model, processor, statistics or None)


def _own(config: Mapping[str, Any], folder: Path) -> tuple[VLASettings, TokenSettings]:
    """Names as vlakit wrote them; code outside vlakit is refused, as in any checkpoint."""
    names = config[OWN_KEY]
    for table in (names["model"], names["processor"]):
        refuse_code(table, where=f"{folder / 'config.json'}, {OWN_KEY}")
    try:
        return VLASettings.from_dict(names["model"]), TokenSettings.from_dict(names["processor"])
    except VlakitError as error:
        raise CheckpointMismatch(error.what, where=f"{folder / 'config.json'}, {OWN_KEY}", do=error.do) from error


def _model(config: Mapping[str, Any], folder: Path) -> VLASettings:
    where = str(folder / "config.json")
    text = config.get("text_config") or {}
    if text.get("model_type", "llama") != "llama":
        raise CheckpointMismatch(
            f"the language model is {text['model_type']!r}", where=where, do="vlakit reads OpenVLA models on Llama"
        )
    towers, sizes = [str(tower) for tower in config["timm_model_ids"]], [index(size) for size in config["image_sizes"]]
    fused = config.get("use_fused_vision_backbone")
    if fused is None:
        fused = str(config["vision_backbone_id"]).startswith(("dinosiglip", "dinoclip"))
    if len(towers) != 1 + bool(fused) or len(sizes) != len(towers) or len(set(sizes)) != 1:
        raise CheckpointMismatch(
            f"{len(towers)} towers and image sizes {sizes} do not go with use_fused_vision_backbone={fused}",
            where=where,
            do="mend config.json, or take the one that the weights came with",
        )
    unknown = [tower for tower in towers if not timm.is_model(tower)]
    if unknown:
        raise CheckpointMismatch(
            f"timm has no model {unknown[0]!r}; nothing is fetched from elsewhere",
            where=f"{where}, timm_model_ids",
            do=nearest(unknown[0], [one for names in _RELEASED.values() for one in names["timm_model_ids"]]),
        )
    options = {
        "towers": [_pinned(tower) for tower in towers],
        "image_sizes": sizes,
        "act_layers": list(config.get("timm_override_act_layers") or [None] * len(towers)),
    }
    # The converter wrote a default LlamaConfig, so its defaults, not Llama-2's, are what the model runs with.
    numbers = {name: text[name] for name in _LLAMA_NUMBERS if text.get(name) is not None}
    if "rope_parameters" in numbers:
        numbers = {name: value for name, value in numbers.items() if name not in ("rope_theta", "rope_scaling")}
    return VLASettings("timm", "llama", options, {"pad_token_id": config.get("pad_token_id", 32000), **numbers})


def _pinned(tower: str) -> str:
    """The bare SigLIP id means SigLIP 2 in timm >= 1.0; its shape is the same, its name is spelt out all the same."""
    return f"{tower}.webli" if tower == "vit_so400m_patch14_siglip_224" else tower


def _processor(config: Mapping[str, Any], folder: Path) -> TokenSettings:
    towers = config["timm_model_ids"]
    preprocessor = folder / "preprocessor_config.json"
    rounded = preprocessor.is_file() and _rounded(read_table(preprocessor))
    imagenet = "imagenet_hf_rounded" if rounded else "imagenet"
    vocab_size = (config.get("text_config") or {}).get("vocab_size", 32064)
    padding_id = index(vocab_size) - index(
        config.get("pad_to_multiple_of", 64)
    )  # not len(tokenizer), which is one more
    return TokenSettings(
        image_size=index(config["image_sizes"][0]),
        channel_statistics=tuple("half" if any(h in tower for h in _HALF) else imagenet for tower in towers),
        tokenizer="llama2",
        prompt="openvla_v01" if "vicuna" in str(config.get("llm_backbone_id", "")) else "openvla",
        resize=config.get("image_resize_strategy", "resize-naive"),
        n_bins=index(config.get("n_action_bins", 256)),
        padding_id=None if padding_id == 32000 else padding_id,
    )


def _rounded(preprocessor: Mapping[str, Any]) -> bool:
    """True when the stored ImageNet mean went through bfloat16, as the released checkpoint's did."""
    means = [params.get("mean") for params in preprocessor.get("tvf_normalize_params", [])] or preprocessor.get(
        "means", []
    )
    return any(mean and abs(mean[0] - 0.484375) < 1e-6 for mean in means)


def read_table(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; raises CheckpointMismatch."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointMismatch(
            f"no {file.name}", where=str(file.parent), do="pass the folder of a whole checkpoint"
        ) from error
    except ValueError as error:
        raise CheckpointMismatch(f"{file.name} is not JSON: {error}", where=str(file), do="copy it again") from error
    if not isinstance(content, dict):
        raise CheckpointMismatch(f"{file.name} is not a table", where=str(file), do="copy it again")
    return content


def write_config(
    folder: Path, model: VLASettings, processor: TokenSettings, llama: Mapping[str, Any], statistics: Mapping[str, Any]
) -> None:
    """config.json, preprocessor_config.json, dataset_statistics.json; `llama` is the model's LlamaConfig as a dict."""
    vision = _vision_fields(model, processor)
    numbers = {name: llama[name] for name in _LLAMA_NUMBERS if llama.get(name) is not None}
    rope = dict(numbers.pop("rope_parameters", {}))  # transformers 5; the original code reads the two older fields
    numbers |= {"rope_theta": rope.pop("rope_theta", 10000.0)}
    numbers |= {"rope_scaling": rope} if rope.get("rope_type", "default") != "default" else {}
    config = {
        "model_type": "openvla",
        "architectures": ["OpenVLAForActionPrediction"],
        **vision,
        "image_resize_strategy": processor.resize,
        **(_VICUNA if processor.prompt == "openvla_v01" else _LLAMA2),
        "llm_max_length": 2048,
        "pad_token_id": llama.get("pad_token_id"),
        "pad_to_multiple_of": 64,
        "n_action_bins": processor.n_bins,
        "output_projector_states": False,
        "text_config": {"model_type": "llama", **numbers},
        "norm_stats": statistics,
        OWN_KEY: {"model": model.to_dict(), "processor": {**processor.to_dict(), "tokenizer_path": None}},
    }
    _write(folder / "config.json", config)
    _write(folder / STATISTICS_FILE, statistics)
    _write(folder / "preprocessor_config.json", _preprocessor(processor))


def _vision_fields(model: VLASettings, processor: TokenSettings) -> dict[str, Any]:
    if model.vision == "timm":
        fields: dict[str, Any] = {"timm_model_ids": model.vision_options["towers"], "vision_backbone_id": "timm"}
    else:
        fields = dict(
            _RELEASED.get(model.vision, {"timm_model_ids": [model.vision], "vision_backbone_id": model.vision})
        )
    n_towers = len(processor.channel_statistics)
    return {
        **fields,
        "use_fused_vision_backbone": n_towers > 1,
        "image_sizes": [processor.image_size] * n_towers,
        "timm_override_act_layers": model.vision_options.get("act_layers", [None] * n_towers),
    }


def _preprocessor(processor: TokenSettings) -> dict[str, Any]:
    from vlakit.processing.images import CHANNEL_STATISTICS

    pairs = [CHANNEL_STATISTICS[name] for name in processor.channel_statistics]
    size = [3, processor.image_size, processor.image_size]
    return {
        "processor_class": "PrismaticProcessor",
        "image_processor_type": "PrismaticImageProcessor",
        "image_resize_strategy": processor.resize,
        "input_sizes": [size] * len(pairs),
        "interpolations": ["bicubic"] * len(pairs),
        "means": [list(mean) for mean, _ in pairs],
        "stds": [list(std) for _, std in pairs],
        "use_fused_vision_backbone": len(pairs) > 1,
        "tvf_normalize_params": [{"mean": list(mean), "std": list(std), "inplace": False} for mean, std in pairs],
    }


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
