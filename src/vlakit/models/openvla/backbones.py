"""The composable registry: one decorated function a tower set or language model. A checkpoint stores these names."""

from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from vlakit.errors import UnknownName, nearest
from vlakit.models.openvla.stem import ConvStem
from vlakit.models.openvla.vision import VisionBackbone
from vlakit.registry import Registry

VISION: Registry[VisionBackbone] = Registry("vision backbone")
LANGUAGE: Registry[LlamaForCausalLM] = Registry("language model")


@VISION.register("siglip_so400m")
def siglip_so400m() -> VisionBackbone:
    """SigLIP so400m/14 at 224 px, pooling head included: the tower of the paper's Table 1 model."""
    return VisionBackbone([_siglip()])


@VISION.register("dinosiglip_so400m")
def dinosiglip_so400m() -> VisionBackbone:
    """DINOv2 L/14 with registers, then SigLIP so400m/14, both at 224 px: the released model's towers."""
    return VisionBackbone([_timm("vit_large_patch14_reg4_dinov2.lvd142m"), _siglip()])


def _siglip() -> VisionTransformer:
    return _timm("vit_so400m_patch14_siglip_224.webli")  # without its tag the id means SigLIP 2 since timm 1.0


def _timm(name: str, image_size: int = 224, act_layer: str | None = None) -> VisionTransformer:
    options: dict[str, Any] = _drawing() | ({} if act_layer is None else {"act_layer": act_layer})
    return cast(VisionTransformer, timm.create_model(name, num_classes=0, img_size=image_size, **options))


def _drawing() -> dict[str, Any]:
    """timm's option not to draw weights where they are only described: there it takes longer than all the rest."""
    probe = nn.Module()
    probe.register_parameter("weight", nn.Parameter(torch.empty(0)))  # as accelerate's init_empty_weights sees it
    return {"weight_init": "skip"} if probe.get_parameter("weight").is_meta else {}


@VISION.register("timm")
def timm_towers(towers: Sequence[str], image_sizes: Sequence[int], act_layers: Sequence[str | None]) -> VisionBackbone:
    """Any towers of timm by their ids, as a Hugging Face OpenVLA config names them.

    Ids that would fetch code or weights from elsewhere (`hf-hub:...`) are refused.
    """
    for tower in towers:
        if not timm.is_model(tower):
            raise UnknownName(
                f"timm has no model {tower!r}",
                where="config.json, timm_model_ids",
                do=nearest(tower, timm.list_models()),
            )
    pairs = zip(towers, image_sizes, act_layers, strict=True)
    return VisionBackbone([_timm(tower, size, act_layer) for tower, size, act_layer in pairs])


@VISION.register("tiny_siglip")
def tiny_siglip() -> VisionBackbone:
    """SigLIP's shape in small: no class token, pooling head, a convolutional stem to 16 patches of a 64 px image."""
    return VisionBackbone([_tiny_siglip()])


@VISION.register("tiny_dinosiglip")
def tiny_dinosiglip() -> VisionBackbone:
    """Both towers in small; the DINOv2 one keeps its class token, four registers and LayerScale."""
    dinov2 = _tiny_vit(class_token=True, reg_tokens=4, no_embed_class=True, init_values=1.0)
    return VisionBackbone([dinov2, _tiny_siglip()])


def _tiny_siglip() -> VisionTransformer:
    return _tiny_vit(class_token=False, global_pool="map")


def _tiny_vit(**kwargs: object) -> VisionTransformer:
    size = {"img_size": 64, "patch_size": 16, "embed_dim": 96, "depth": 3, "num_heads": 3, "num_classes": 0}
    return VisionTransformer(**{**size, "embed_layer": ConvStem, **_drawing(), **kwargs})  # pyright: ignore[reportArgumentType]  one dict for both towers


@LANGUAGE.register("llama2_7b")
def llama2_7b(rms_norm_eps: float = 1e-6, max_position_embeddings: int = 2048) -> LlamaForCausalLM:
    """Llama-2 7B with 64 padding rows; the defaults are the released checkpoint's, Llama-2's own are 1e-5 and 4096."""
    return llama(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=max_position_embeddings,
        rms_norm_eps=rms_norm_eps,
        pad_token_id=32000,
    )


@LANGUAGE.register("llama")
def llama(**numbers: Any) -> LlamaForCausalLM:
    """A Llama of any size from the numbers of its configuration; what is not given is transformers' default."""
    return LlamaForCausalLM(LlamaConfig(**{"tie_word_embeddings": False, **numbers}))


@LANGUAGE.register("tiny_llama")
def tiny_llama() -> LlamaForCausalLM:
    """Four Llama layers of width 128 over the word list that ships with vlakit."""
    return llama(
        vocab_size=1536,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        pad_token_id=1472,
    )
