"""Features leave the block before the last: no final norm, no prefix tokens."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vlakit.models.openvla.backbones import VISION
from vlakit.models.openvla.vision import patch_features
from vlakit.models.openvla.vla import OpenVLA
from vlakit.schema import Batch

TOWERS = VISION.build("tiny_dinosiglip").towers


def by_hand(tower: VisionTransformer, image: Tensor) -> Tensor:
    """All blocks but the last, then the patches alone."""
    hidden = tower._pos_embed(tower.patch_embed(image))
    hidden = tower.norm_pre(tower.patch_drop(hidden))
    for block in tower.blocks[:-1]:
        hidden = block(hidden)
    return hidden[:, tower.num_prefix_tokens :]


@pytest.mark.parametrize("tower", TOWERS, ids=["dinov2", "siglip"])
@torch.no_grad()
def test_features_are_those_of_a_loop_over_all_blocks_but_the_last(tower: VisionTransformer) -> None:
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(patch_features(tower, image), by_hand(tower, image))


def test_the_small_dinov2_has_prefix_tokens_to_strip() -> None:
    assert [tower.num_prefix_tokens for tower in TOWERS] == [5, 0]


@torch.no_grad()
def test_fused_features_are_dinov2_then_siglip_each_on_its_channels() -> None:
    backbone = VISION.build("tiny_dinosiglip")
    pixels = torch.randn(1, 6, 64, 64)
    features = backbone(pixels)
    assert features.shape == (1, backbone.n_patches, backbone.width) == (1, 16, 192)
    torch.testing.assert_close(features[..., :96], by_hand(backbone.featurizer, pixels[:, :3]))
    assert backbone.fused_featurizer is not None
    torch.testing.assert_close(features[..., 96:], by_hand(backbone.fused_featurizer, pixels[:, 3:]))


def test_last_block_norm_and_pooling_get_no_gradient_and_all_else_does(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    tiny_vla(tiny_batch).loss.backward()
    silent = {name for name, p in tiny_vla.vision_backbone.named_parameters() if p.grad is None}
    behind = (".blocks.2.", "featurizer.norm.", ".attn_pool.")
    assert silent == {n for n, _ in tiny_vla.vision_backbone.named_parameters() if any(part in n for part in behind)}
    assert not [n for n, p in tiny_vla.named_parameters() if p.grad is None and not n.startswith("vision_backbone.")]


def test_released_towers_have_256_patches_and_the_fused_width() -> None:
    with torch.device("meta"):
        backbone = VISION.build("dinosiglip_so400m")
    assert (backbone.n_patches, backbone.width, backbone.image_size) == (256, 1024 + 1152, 224)
    assert [len(tower.blocks) for tower in backbone.towers] == [24, 27]
